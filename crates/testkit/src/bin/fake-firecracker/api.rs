//! The API's socket: HTTP, one request at a time, ten connections.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::process::exit;
use std::rc::Rc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use crate::faults::{Fault, Instead, Point};
use crate::vm::{Refused, Vm};

/// Connections at once; one more is answered 503, unasked.
const MAX_CONNECTIONS: usize = 10;
const TOO_MANY: &[u8] = b"HTTP/1.1 503 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Length: 44\r\n\r\n{\"error\": \"Too many open connections: 10 \"}\n\n";

/// Serves until the process ends.
pub(super) async fn serve(listener: UnixListener, fault: Fault) -> io::Result<()> {
    let vm = Rc::new(RefCell::new(Vm::new(fault.clone())));
    let open = Rc::new(Cell::new(0));
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                let (mut stream, _) = listener.accept().await?;
                if open.get() >= MAX_CONNECTIONS {
                    // Whether it is read is the client's business.
                    let _ = stream.write_all(TOO_MANY).await;
                    continue;
                }
                open.set(open.get() + 1);
                let (vm, open, fault) = (Rc::clone(&vm), Rc::clone(&open), fault.clone());
                tokio::task::spawn_local(async move {
                    connection(stream, vm, fault).await;
                    open.set(open.get() - 1);
                });
            }
        })
        .await
}

async fn connection(stream: UnixStream, vm: Rc<RefCell<Vm>>, fault: Fault) {
    let (raw, stream) = match second(&stream) {
        Ok(raw) => (raw, stream),
        Err(error) => return eprintln!("fake-firecracker: {error}"),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (vm, fault, raw) = (Rc::clone(&vm), fault.clone(), &raw);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await;
            let body = body.map(http_body_util::Collected::to_bytes);
            let known = point(&parts.method, parts.uri.path());
            let Some(point) = known.filter(|point| !fault.is_unknown(*point)) else {
                let fault = format!(
                    "Invalid request method and/or path: {} {}.",
                    parts.method,
                    parts.uri.path()
                );
                return Ok::<_, Infallible>(refusal(&fault));
            };
            if let Some(instead) = fault.instead(point) {
                return Ok(answer_instead(raw, instead).await);
            }
            let answered = answer(&vm, point, parts.uri.path(), &body.unwrap_or_default());
            Ok(match answered {
                Ok(()) => empty(StatusCode::NO_CONTENT),
                Err(Refused { fault, ends }) => {
                    if ends {
                        // It answers, and then it ends.
                        tokio::task::spawn_local(async {
                            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                            exit(1);
                        });
                    }
                    refusal(&fault)
                }
            })
        }
    });
    // A client that hangs up is no fault.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Another handle of the connection, to write to past HTTP.
fn second(stream: &UnixStream) -> io::Result<std::os::unix::net::UnixStream> {
    use std::os::fd::AsFd;
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

async fn answer_instead(
    raw: &std::os::unix::net::UnixStream,
    instead: Instead,
) -> Response<Full<Bytes>> {
    use std::io::Write;
    let mut raw = raw;
    match instead {
        Instead::Nothing => std::future::pending().await,
        Instead::Mute | Instead::Wrong | Instead::Beyond | Instead::Outside => {
            return empty(StatusCode::BAD_REQUEST);
        }
        Instead::Garbage => {
            let _ = raw.write_all(b"\x00\xffthis is not HTTP\r\n\r\n");
        }
        Instead::Half => {
            let _ = raw.write_all(b"HTTP/1.1 204 \r\nServer: Fire");
        }
    }
    let _ = raw.shutdown(std::net::Shutdown::Both);
    std::future::pending().await
}

fn point(method: &Method, path: &str) -> Option<Point> {
    Some(match (method.as_str(), path) {
        ("PUT", "/machine-config") => Point::Machine,
        ("PUT", "/boot-source") => Point::Kernel,
        ("PUT", "/vsock") => Point::Vsock,
        ("PUT", "/entropy") => Point::Entropy,
        ("PUT", "/serial") => Point::Serial,
        ("PUT", "/actions") => Point::Action,
        ("PATCH", "/vm") => Point::State,
        ("PUT", "/snapshot/create") => Point::Create,
        ("PUT", "/snapshot/load") => Point::Load,
        ("PUT", path) if path.starts_with("/drives/") => Point::Disk,
        _ => return None,
    })
}

fn answer(vm: &Rc<RefCell<Vm>>, point: Point, path: &str, body: &[u8]) -> Result<(), Refused> {
    let mut vm = vm.borrow_mut();
    match point {
        Point::Machine => vm.machine(&parse(body)?),
        Point::Kernel => vm.boot_source(&parse(body)?),
        Point::Vsock => vm.vsock(parse(body)?),
        Point::Action => vm.action(&parse(body)?),
        Point::State => vm.state(&parse(body)?),
        Point::Create => vm.create(&parse(body)?),
        Point::Load => vm.load(&parse(body)?),
        Point::Disk => {
            let drive: crate::vm::Drive = parse(body)?;
            if path.strip_prefix("/drives/") != Some(drive.drive_id.as_str()) {
                let fault = "The id from the path does not match the id from the body!";
                return Err(fault.to_owned().into());
            }
            vm.drive(drive)
        }
        Point::Entropy | Point::Serial => {
            let _: serde_json::Value = parse(body)?;
            vm.device()
        }
        Point::Start | Point::Memory | Point::Connect => Ok(()),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let fault =
            format!("An error occurred when deserializing the json body of a request: {error}.");
        fault.into()
    })
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn refusal(fault: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "fault_message": fault }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
