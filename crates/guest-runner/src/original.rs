//! Port 5000: one request, one response, as often as the client likes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use firelane_guest_proto::frame::Channel;
use firelane_guest_proto::message::{
    EXIT_NO_INTERPRETER, ExecSpec, Limits, Program, Refused, RefusedCode,
};
use firelane_guest_proto::original::{
    Decoder, EXIT_REFUSED, MAX_OUTPUT_BYTES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES,
    MAX_TRACE_ID_BYTES, Request, Response, encode,
};
use firelane_guest_proto::{Lang, MAX_CODE_BYTES};

use crate::Guest;
use crate::exec::{self, Sink, SourceFile, refused};

/// Longest time limit, in seconds.
const MAX_TIMEOUT_S: f64 = 86_400.0;

/// Serves a connection until the client closes it or stops making sense.
pub(crate) fn serve(guest: &Arc<Guest>, mut stream: UnixStream) -> io::Result<()> {
    let mut decoder = Decoder::new(MAX_REQUEST_BYTES);
    let mut buffer = [0u8; 16 << 10];
    loop {
        match decoder.next_message::<Request>() {
            Ok(Some(request)) => {
                let response = answer(guest, request);
                let bytes = encode(&response, MAX_RESPONSE_BYTES).map_err(io::Error::other)?;
                stream.write_all(&bytes)?;
            }
            Ok(None) => match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => decoder.push(&buffer[..count]),
            },
            Err(error) => {
                // Framing is lost: say why, then close.
                let response = refusal(String::new(), EXIT_REFUSED, error.to_string());
                let bytes = encode(&response, MAX_RESPONSE_BYTES).map_err(io::Error::other)?;
                return stream.write_all(&bytes);
            }
        }
    }
}

fn answer(guest: &Arc<Guest>, request: Request) -> Response {
    let trace_id = request.trace_id.clone();
    match run(guest, request) {
        Ok(response) => response,
        Err(Refused {
            code: RefusedCode::NoInterpreter,
            message,
        }) => refusal(trace_id, EXIT_NO_INTERPRETER, message),
        Err(Refused { message, .. }) => refusal(trace_id, EXIT_REFUSED, message),
    }
}

fn run(guest: &Arc<Guest>, request: Request) -> Result<Response, Refused> {
    let trace_id = request.trace_id.clone();
    let spec = check(request)?;
    let (remote, local) = exec::control()
        .map_err(|error| refused(RefusedCode::Exhausted, format!("cannot start: {error}")))?;
    remote.send(exec::Command::StdinEnd);
    let mut collected = Collected::default();
    let ended = exec::run(guest, &spec, SourceFile::Stays, &local, &mut collected)?;
    Ok(Response {
        trace_id,
        stdout: String::from_utf8_lossy(&collected.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&collected.stderr).into_owned(),
        exit_code: ended.outcome.exit_code(),
    })
}

fn check(request: Request) -> Result<ExecSpec, Refused> {
    let invalid = |message: String| refused(RefusedCode::Invalid, message);
    if request.trace_id.len() > MAX_TRACE_ID_BYTES || request.trace_id.contains('\0') {
        return Err(invalid(format!(
            "trace_id is over {MAX_TRACE_ID_BYTES} bytes, or has a NUL"
        )));
    }
    let lang: Lang = request
        .lang
        .parse()
        .map_err(|error: firelane_guest_proto::lang::UnknownLang| invalid(error.to_string()))?;
    if request.code.is_empty() || request.code.len() > MAX_CODE_BYTES {
        return Err(invalid(format!(
            "code is empty or over {MAX_CODE_BYTES} bytes"
        )));
    }
    if !(request.timeout > 0.0 && request.timeout <= MAX_TIMEOUT_S) {
        return Err(invalid(format!(
            "timeout is not between 0 and {MAX_TIMEOUT_S} seconds"
        )));
    }
    Ok(ExecSpec {
        trace_id: request.trace_id,
        program: Program::Code {
            lang,
            source: request.code.into_bytes(),
            args: Vec::new(),
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits {
            timeout_ms: std::time::Duration::from_secs_f64(request.timeout)
                .as_millis()
                .max(1)
                .try_into()
                .unwrap_or(u64::MAX),
            output_bytes: MAX_OUTPUT_BYTES,
            ..Limits::default()
        },
        pty: None,
    })
}

fn refusal(trace_id: String, exit_code: i32, message: String) -> Response {
    Response {
        trace_id,
        stdout: String::new(),
        stderr: message,
        exit_code,
    }
}

/// Keeps what the program writes; the exec's own limit bounds it.
#[derive(Default)]
struct Collected {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Sink for Collected {
    fn started(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        match channel {
            Channel::Stderr => self.stderr.extend_from_slice(bytes),
            _ => self.stdout.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn stdin_taken(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn initial_window(&self) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_field_by_field() {
        let good = Request {
            trace_id: "t".into(),
            lang: "python".into(),
            code: "1".into(),
            timeout: 0.5,
        };
        assert_eq!(check(good.clone()).unwrap().limits.timeout_ms, 500);
        let refused = |request: Request, expected: &str| {
            let error = check(request).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        };
        refused(
            Request {
                lang: "cobol".into(),
                ..good.clone()
            },
            "'cobol'",
        );
        refused(
            Request {
                code: String::new(),
                ..good.clone()
            },
            "code is empty",
        );
        refused(
            Request {
                timeout: 0.0,
                ..good.clone()
            },
            "timeout",
        );
        refused(
            Request {
                timeout: f64::NAN,
                ..good.clone()
            },
            "timeout",
        );
        refused(
            Request {
                timeout: 1e300,
                ..good
            },
            "timeout",
        );
    }
}
