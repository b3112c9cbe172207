//! The line in the log for each run.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::service::Service;

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_run_has_one_line_without_its_code_and_output() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || writer.clone())
        .finish();
    // Of the whole process: other tests write to it too, with other templates.
    tracing::subscriber::set_global_default(log).expect("nobody else does this");
    let service = Service::start(1, 10).await;
    let body = json!({"lang": "python", "code": "secret-code", "template": "log"});
    let (_, run) = service.post("/v1/runs", "", body).await;
    let body = json!({"lang": "node", "code": "break", "template": "log"});
    service.post("/v1/runs", "", body).await;

    let text = String::from_utf8(lines.0.lock().expect("nobody panicked").clone());
    let text = text.expect("it is text");
    assert!(!text.contains("secret-code"), "{text}");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let over: Vec<Value> = lines
        .filter(|line: &Value| line["target"] == "firelane::run" && line["template"] == "log")
        .collect();
    assert_eq!(over.len(), 2, "{text}");
    let expected = json!({"run": run["id"], "tenant": "local", "lang": "python", "state": "done",
        "exit_code": 3, "origin": "pool", "ready_ms": 5.0, "exec_ms": 25.0});
    for (field, value) in expected.as_object().expect("it has fields") {
        assert_eq!(&over[0][field], value, "{field}");
    }
    for field in ["queue_ms", "total_ms"] {
        assert!(over[0][field].is_number(), "{field}");
    }
    let broken = ["state", "code", "exit_code"].map(|field| over[1][field].clone());
    assert_eq!(broken, [json!("failed"), json!("internal"), Value::Null]);
}
