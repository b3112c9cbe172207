//! A disk that is full: what cannot be kept is refused, and everything else goes on.

use std::fs;

use axum::http::StatusCode;
use serde_json::json;

use crate::child;
use crate::service::{Service, Setup};

/// In a namespace with a small file system of its own.
#[test]
fn meets_a_full_disk() {
    let Some(folder) = child::role("disk") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let ballast = folder.join("ballast");
        fs::write(&ballast, vec![0; 1 << 20]).expect("there is room");
        let setup = Setup {
            slots: 0,
            queue: 1000,
            queue_per_tenant: 1000,
            folder: Some(folder.clone()),
            ..Setup::default()
        };
        let service = Service::with(setup).await;
        let code = "#".repeat(100_000);
        let run = json!({"lang": "python", "code": code});
        let mut kept = 0;
        let problem = loop {
            let (status, answer) = service.post("/v1/runs", "respond-async", run.clone()).await;
            match status {
                StatusCode::ACCEPTED => kept += 1,
                _ => break answer,
            }
        };
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!("storage_full"), &json!(507)),
            "{problem}"
        );
        assert!(kept > 3);
        let queue: serde_json::Value =
            serde_json::from_str(&service.get("/v1/queue").await).expect("JSON");
        assert_eq!(queue["queued"], kept, "what was refused is not there");
        // Who waits needs no record: a run is carried out all the same.
        service.report(8, Vec::new()).await;
        let (status, _) = service
            .post("/v1/runs", "", json!({"lang": "python", "code": "1"}))
            .await;
        assert_eq!(status, StatusCode::OK);
        // With space again, it goes on as it was.
        fs::remove_file(&ballast).expect("it is ours");
        let (status, answer) = service
            .post(
                "/v1/runs",
                "respond-async",
                json!({"lang": "python", "code": "1"}),
            )
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        println!("went on");
    });
}

#[test]
fn a_full_disk_refuses_what_must_be_kept_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = child::command("disk::meets_a_full_disk", "disk", folder.path());
    let mut command = std::process::Command::new("unshare");
    let mount = r#"mount -t tmpfs -o size=4m none "$0" && exec "$@""#;
    command.args(["-m", "sh", "-c", mount]).arg(folder.path());
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIP(no unshare: {error}): a full disk");
            return;
        }
    };
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        eprintln!("SKIP(no mount namespaces): a full disk");
        return;
    }
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && out.contains("went on"),
        "{output:?}"
    );
}
