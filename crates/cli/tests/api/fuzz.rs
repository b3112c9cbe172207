//! Requests that a fuzzer makes of the API's description, by schemathesis (<https://schemathesis.io>).

use std::process::Command;

use firelane_gateway::listen::{self, Listener};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Service;

/// What is looked for in each answer. The checks of keys are left out: this service has none.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,negative_data_rejection";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs schemathesis: cargo xtask check has it"]
async fn the_api_is_what_its_description_says() {
    let program = std::env::var_os("FIRELANE_SCHEMATHESIS");
    let program = program.expect("FIRELANE_SCHEMATHESIS names the program");
    let service = Service::start(4, 100).await;
    service.let_go.send_replace(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one");
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let router = service.gateway.router();
    let serving = listen::serve(Listener::Plain(listener), router, stop.clone(), tasks);
    tokio::spawn(serving);
    let fuzzing = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.args(["run", &format!("http://{address}/openapi.json")]);
        command.args(["--checks", CHECKS]);
        // The same requests each time; a WebSocket is none of them.
        command.args([
            "--seed",
            "1",
            "--max-examples",
            "20",
            "--exclude-operation-id",
            "run_ws",
        ]);
        command.args(["--request-timeout", "20", "--generation-database", "none"]);
        command.status()
    });
    let status = fuzzing
        .await
        .expect("it does not panic")
        .expect("it can be run");
    stop.cancel();
    assert!(status.success(), "schemathesis: {status}");
}
