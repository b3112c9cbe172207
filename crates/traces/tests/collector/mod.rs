//! A collector on a port of its own, which does as it is told.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use firelane_traces::Endpoint;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long anything may take. A test that comes to this fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// What a collector answers that never answers.
const NEVER: u16 = 0;

/// What came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    pub(crate) spans: Vec<Span>,
    pub(crate) resource: Option<Resource>,
    /// Every body, as it came.
    pub(crate) bytes: Vec<u8>,
    /// Requests, also those that were not taken.
    pub(crate) requests: usize,
}

struct Shared {
    got: Mutex<Got>,
    /// Status of its answers.
    answers: AtomicU16,
    came: Notify,
}

/// The collector; it ends when it is dropped.
pub(crate) struct Collector {
    shared: Arc<Shared>,
    pub(crate) endpoint: Endpoint,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// One that takes everything.
    pub(crate) async fn start() -> Collector {
        let shared = Arc::new(Shared {
            got: Mutex::default(),
            answers: AtomicU16::new(200),
            came: Notify::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it has one");
        let router = Router::new().route("/v1/traces", post(take));
        let router = router.with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        let endpoint = format!("http://{address}").parse();
        Collector {
            shared,
            endpoint: endpoint.expect("it is a URL"),
            task,
        }
    }

    /// Takes nothing any more, and says so.
    pub(crate) fn refuse(&self) {
        self.shared.answers.store(400, Ordering::SeqCst);
    }

    /// Takes everything again.
    #[allow(dead_code, reason = "not all tests that share this need it")]
    pub(crate) fn take(&self) {
        self.shared.answers.store(200, Ordering::SeqCst);
    }

    /// Answers nothing any more.
    #[allow(dead_code, reason = "not all tests that share this need it")]
    pub(crate) fn hang(&self) {
        self.shared.answers.store(NEVER, Ordering::SeqCst);
    }

    /// What came, as soon as it is as it should be.
    pub(crate) async fn until(&self, enough: impl Fn(&Got) -> bool) -> Got {
        let waiting = async {
            loop {
                let came = self.shared.came.notified();
                let got = self.shared.got.lock().expect("nobody panicked").clone();
                if enough(&got) {
                    return got;
                }
                came.await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("enough comes")
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let answer = shared.answers.load(Ordering::SeqCst);
    {
        let mut got = shared.got.lock().expect("nobody panicked");
        got.requests += 1;
        if answer == 200 {
            let request = ExportTraceServiceRequest::decode(&body[..]).expect("it is of OTLP");
            got.bytes.extend_from_slice(&body);
            for of_resource in request.resource_spans {
                got.resource = of_resource.resource;
                for of_scope in of_resource.scope_spans {
                    got.spans.extend(of_scope.spans);
                }
            }
        }
    }
    shared.came.notify_one();
    if answer == NEVER {
        std::future::pending::<()>().await;
    }
    StatusCode::from_u16(answer).expect("it is a status")
}

/// The value of an attribute, as text.
pub(crate) fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}
