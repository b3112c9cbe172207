//! What EC2 does and moto does not: one machine for one token, machines that take time to start and
//! to be seen, groups that cannot go while they are used, limits of size and alphabet. And what goes
//! wrong: calls that are refused, answers that are lost, cut or senseless.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Largest user-data before base64.
const MOST_USER_DATA: usize = 16 << 10;
/// How often a new machine is told of as pending.
const PENDING: u32 = 2;
/// Which address is told to who asks for the own one.
const OPERATOR: &str = "198.51.100.99";
/// Names the action of a service that speaks JSON.
const TARGET: &str = "x-amz-target";

/// One call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// For example `RunInstances`.
    pub action: String,
    /// Of the signature.
    pub region: String,
    /// All others.
    pub params: BTreeMap<String, String>,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this status and code, and does nothing.
    Refused(u16, &'static str),
    /// It never arrives: the connection is cut before.
    Cut,
    /// It is done, and the connection is cut before the answer.
    Lost,
    /// It never arrives, and the connection stays open.
    Unheard,
    /// It is done, and the answer never comes.
    Unanswered,
    /// It is done, and the answer is a page of HTML with status 200.
    Senseless,
    /// It is done, and the answer has no ids.
    NoIds,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    /// The next calls of an action that go wrong.
    faults: Vec<(String, Fault)>,
    /// The call with this number, from 0, goes wrong.
    nth: Option<(usize, Fault)>,
    /// What was answered to the request with a token, and the request.
    tokens: HashMap<String, (BTreeMap<String, String>, Bytes)>,
    /// Machines that were given back.
    ended: HashSet<String>,
    /// How often machines are still told of as pending.
    pending: HashMap<String, u32>,
    /// New machines that nobody is told of at the first look.
    hidden: Vec<String>,
    hides: bool,
    processors: f64,
}

struct Shared {
    upstream: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    state: Mutex<State>,
}

/// The proxy. It ends with its value.
pub struct Ec2 {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Ec2 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ec2 {
    /// In front of moto.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(upstream: SocketAddr) -> Ec2 {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            upstream,
            client: Client::builder(TokioExecutor::new()).build_http(),
            state: Mutex::new(State {
                processors: 64.0,
                ..State::default()
            }),
        });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ec2 {
            address,
            shared,
            task,
        }
    }

    /// Its address, for `FIRELANE_AWS_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next call of an action goes wrong; called again, the one after it too.
    pub fn fail(&self, action: &str, fault: Fault) {
        self.state().faults.push((action.to_owned(), fault));
    }

    /// The call with this number, from 0, of those to come goes wrong.
    pub fn fail_nth(&self, number: usize, fault: Fault) {
        let mut state = self.state();
        let number = state.calls.len() + number;
        state.nth = Some((number, fault));
    }

    /// Nothing goes wrong any more. Whether everything that was to go wrong has.
    pub fn mend(&self) -> bool {
        let mut state = self.state();
        let reached = state
            .nth
            .is_none_or(|(number, _)| number < state.calls.len());
        let done = reached && state.faults.is_empty();
        state.nth = None;
        state.faults.clear();
        done
    }

    /// From now on the first look at a new machine finds nothing.
    pub fn hide_new(&self) {
        self.state().hides = true;
    }

    /// How many processors the account may run.
    pub fn limit(&self, processors: f64) {
        self.state().processors = processors;
    }

    /// The calls since the last time.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                // An error cuts the connection, which is what some faults are.
                async move { shared.answer(request).await }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        if head.method == Method::GET {
            return Ok(response(200, format!("{OPERATOR}\n")));
        }
        let call = read(&head.headers, &body);
        let fault = self.noted(&call);
        match fault {
            Some(Fault::Refused(status, code)) if head.headers.contains_key(TARGET) => {
                return Ok(response(status, json!({ "__type": code }).to_string()));
            }
            Some(Fault::Refused(status, code)) => return Ok(refusal(status, code)),
            Some(Fault::Cut) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Unheard) => pending().await,
            _ => {}
        }
        if let Some(refused) = self.refused(&head, &call).await {
            return Ok(refused);
        }
        let replayed = self.replayed(&call);
        let (status, answer) = match replayed {
            Some(Ok(answer)) => (StatusCode::OK, answer),
            Some(Err(refused)) => return Ok(refused),
            None if head.headers.contains_key(TARGET) => (StatusCode::OK, self.told(&call)),
            None => self.forward(&head, body).await,
        };
        let answer = self.seen(&call, status, answer);
        match fault {
            Some(Fault::Lost) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Unanswered) => pending().await,
            Some(Fault::Senseless) => Ok(response(200, "<html><body>Welcome</body></html>")),
            Some(Fault::NoIds) => {
                let text = String::from_utf8_lossy(&answer);
                Ok(response(status.as_u16(), without_ids(&text)))
            }
            _ => Ok(response(status.as_u16(), answer)),
        }
    }

    /// Whether this call goes wrong.
    fn noted(&self, call: &Call) -> Option<Fault> {
        let mut state = self.state();
        let number = state.calls.len();
        state.calls.push(call.clone());
        if let Some((_, fault)) = state.nth.filter(|(nth, _)| *nth == number) {
            return Some(fault);
        }
        let due = state
            .faults
            .iter()
            .position(|(action, _)| *action == call.action)?;
        Some(state.faults.remove(due).1)
    }

    /// What EC2 refuses, and moto does not.
    async fn refused(
        &self,
        head: &hyper::http::request::Parts,
        call: &Call,
    ) -> Option<Response<Full<Bytes>>> {
        let param = |name: &str| call.params.get(name).map(String::as_str);
        match call.action.as_str() {
            "RunInstances" => {
                let raw = STANDARD.decode(param("UserData").unwrap_or_default()).ok();
                let fits = raw.is_some_and(|raw| raw.len() <= MOST_USER_DATA);
                (!fits).then(|| refusal(400, "InvalidParameterValue"))
            }
            "DescribeInstances" => {
                let id = param("InstanceId.1")?;
                let mut state = self.state();
                let hidden = state.hidden.iter().position(|hidden| hidden == id)?;
                state.hidden.remove(hidden);
                Some(refusal(400, "InvalidInstanceID.NotFound"))
            }
            "CreateSecurityGroup" => {
                let text = param("GroupDescription").unwrap_or_default();
                (!text.is_ascii() || text.is_empty()).then(|| refusal(400, "InvalidParameterValue"))
            }
            "DeleteSecurityGroup" => {
                let group = param("GroupId").unwrap_or_default();
                let body = format!(
                    "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=instance.group-id&Filter.1.Value.1={group}\
                     &Filter.2.Name=instance-state-name&Filter.2.Value.1=pending&Filter.2.Value.2=running&Filter.2.Value.3=shutting-down"
                );
                let (_, answer) = self.forward(head, body.into()).await;
                let used = String::from_utf8_lossy(&answer).contains("<instanceId>");
                used.then(|| refusal(400, "DependencyViolation"))
            }
            _ => None,
        }
    }

    /// Prices and quotas, in the form of the documentation; moto has neither.
    fn told(&self, call: &Call) -> Bytes {
        let answer = if call.action == "GetServiceQuota" {
            json!({ "Quota": { "QuotaCode": "L-1216C47A", "Value": self.state().processors } })
        } else {
            let price = json!({ "unit": "Hrs", "pricePerUnit": { "USD": "0.4321000000" } });
            let offer = json!({ "A.B": { "priceDimensions": { "A.B.C": price } } });
            let product = json!({ "terms": { "OnDemand": offer } }).to_string();
            json!({ "FormatVersion": "aws_v1", "PriceList": [product] })
        };
        answer.to_string().into()
    }

    /// What was answered before to the same token.
    fn replayed(&self, call: &Call) -> Option<Result<Bytes, Response<Full<Bytes>>>> {
        let token = call.params.get("ClientToken")?;
        let state = self.state();
        let (params, answer) = state.tokens.get(token)?;
        let made = between(
            &String::from_utf8_lossy(answer),
            "<instanceId>",
            "</instanceId>",
        );
        Some(if made.iter().any(|id| state.ended.contains(id)) {
            Err(refusal(400, "IdempotentInstanceTerminated"))
        } else if *params == call.params {
            Ok(answer.clone())
        } else {
            Err(refusal(400, "IdempotentParameterMismatch"))
        })
    }

    async fn forward(
        &self,
        head: &hyper::http::request::Parts,
        body: Bytes,
    ) -> (StatusCode, Bytes) {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = head.method.clone();
        let uri = format!("http://{}/", self.upstream).parse();
        *request.uri_mut() = uri.expect("an address is part of a URL");
        let headers = head.headers.iter();
        for (name, value) in headers.filter(|(name, _)| *name != HOST && *name != "content-length")
        {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let response = self.client.request(request).await.expect("moto answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("moto answers");
        (status, body.to_bytes())
    }

    /// The answer as EC2 would give it, where machines take their time.
    fn seen(&self, call: &Call, status: StatusCode, answer: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let ids = between(&text, "<instanceId>", "</instanceId>");
        let mut state = self.state();
        if call.action == "RunInstances" && status.is_success() {
            for id in &ids {
                state.pending.entry(id.clone()).or_insert(PENDING);
                if state.hides && !state.tokens.contains_key(&call.params["ClientToken"]) {
                    state.hidden.push(id.clone());
                }
            }
            if let Some(token) = call.params.get("ClientToken") {
                let kept = (call.params.clone(), answer.clone());
                state.tokens.entry(token.clone()).or_insert(kept);
            }
        }
        if call.action == "TerminateInstances" && status.is_success() {
            state.ended.extend(ids.iter().cloned());
        }
        let [id] = &ids[..] else { return answer };
        if call.action != "DescribeInstances" {
            return answer;
        }
        match state.pending.get_mut(id) {
            Some(left) if *left > 0 => {
                *left -= 1;
                let named = text.replace("<name>running</name>", "<name>pending</name>");
                named
                    .replace("<ipAddress>", "<later>")
                    .replace("</ipAddress>", "</later>")
                    .into()
            }
            _ => answer,
        }
    }
}

/// Action, region and parameters.
fn read(headers: &hyper::HeaderMap, body: &[u8]) -> Call {
    let mut params: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    let signed = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    // Credential=KEY/DATE/REGION/SERVICE/aws4_request
    let region = signed.and_then(|signed| signed.split('/').nth(2));
    let target = headers.get(TARGET).and_then(|value| value.to_str().ok());
    if let Some((_, action)) = target.and_then(|target| target.split_once('.')) {
        params = BTreeMap::from([("Action".to_owned(), action.to_owned())]);
    }
    Call {
        action: params.remove("Action").unwrap_or_default(),
        region: region.expect("requests are signed").to_owned(),
        params,
    }
}

fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    let pieces = text.split(start).skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once(end)?.0.to_owned()))
        .collect()
}

/// Empties what ends in `Id`, as it would be if EC2 forgot it.
fn without_ids(text: &str) -> String {
    [
        "instanceId",
        "groupId",
        "imageId",
        "vpcId",
        "securityGroupRuleId",
        "Arn",
        "regionName",
        "instanceType",
    ]
    .iter()
    .fold(text.to_owned(), |text, name| {
        let (start, end) = (format!("<{name}>"), format!("</{name}>"));
        between(&text, &start, &end)
            .iter()
            .fold(text.clone(), |text, id| {
                text.replace(&format!("{start}{id}{end}"), &format!("{start}{end}"))
            })
    })
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    response(
        status,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
             <Message>as a test wants it</Message></Error></Errors><RequestID>0</RequestID></Response>"
        ),
    )
}

fn response(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}
