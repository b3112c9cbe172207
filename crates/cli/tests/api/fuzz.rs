//! Requests that a fuzzer makes of the API's description: schemathesis (<https://schemathesis.io>).

use std::path::Path;
use std::process::Command;

use firelane_agent::service::REPORT_INTERVAL;
use firelane_gateway::listen::{self, Listener};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::Service;

/// Slots of the host.
const SLOTS: u32 = 4;
/// What is looked for in each answer. That all wrong data is refused is left out: an object may also be
/// written as the array of its fields, which the description does not say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";
/// What is not asked for: a WebSocket is no request, a watch has no end, the fuzzer makes no archives
/// and would revoke its own key.
const LEFT_OUT: &str = "^(run_ws|exec_ws|folder_watch|archive_put|key_revoke)$";
/// Seconds that it may take.
const LIMIT: &str = "60";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs schemathesis: cargo xtask check brings it"]
async fn the_api_is_what_its_description_says() {
    let program = std::env::var_os("FIRELANE_SCHEMATHESIS");
    let program = program.expect("FIRELANE_SCHEMATHESIS names the program");
    let service = Service::start_with(SLOTS, 100, true).await;
    service.let_go.send_replace(true);
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let router = service.gateway.router();
    let serving = listen::serve(Listener::Plain(listener), router, stop.clone(), tasks);
    tokio::spawn(serving);
    let key = service.key().await;
    let mut fuzzing = tokio::task::spawn_blocking(move || {
        // The fuzzer leaves notes in the folder that it runs in.
        let folder = tempfile::tempdir().expect("there is room");
        let url = format!("http://{address}/openapi.json");
        command(Path::new(&program), &url, &key)
            .current_dir(folder.path())
            .status()
    });
    let mut beat = tokio::time::interval(REPORT_INTERVAL);
    let ended = loop {
        tokio::select! {
            ended = &mut fuzzing => break ended,
            _ = beat.tick() => service.report(SLOTS, Vec::new()).await,
        }
    };
    stop.cancel();
    let status = ended.expect("it does not panic").expect("it can be run");
    assert!(status.success(), "schemathesis: {status}");
}

fn command(program: &Path, url: &str, key: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["run", url, "--checks", CHECKS]);
    command.args(["--header", &format!("Authorization: Bearer {key}")]);
    command.args(["--exclude-operation-id-regex", LEFT_OUT]);
    // The same requests each time.
    command.args(["--seed", "1", "--max-examples", "20"]);
    command.args(["--max-time", LIMIT, "--request-timeout", "20"]);
    command.args(["--generation-database", "none", "--no-color"]);
    command
}
