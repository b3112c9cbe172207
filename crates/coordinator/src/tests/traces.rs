//! Whose trace a run belongs to.

use std::sync::Arc;

use firelane_wire::bus::{Caller, GetRun, SubmitRun};

use super::{cancel, open};

#[tokio::test]
async fn a_run_keeps_its_trace_over_a_restart_and_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, db) = open(folder.path()).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut runs = Vec::new();
    for traceparent in [Some(format!("00-{trace}-00f067aa0ba902b7-01")), None] {
        let call = SubmitRun {
            caller: Caller {
                tenant: "t".into(),
                key: None,
                weight: 1,
                concurrency: None,
                cpu_us_per_day: None,
            },
            request: serde_json::from_str(r#"{"lang":"python","code":"1"}"#).unwrap(),
            durable: true,
            idempotency_key: None,
            traceparent: traceparent.map(|text| text.parse().unwrap()),
        };
        runs.push(Arc::clone(&coordinator).submit(call).await.unwrap().id);
    }
    let expected = [trace.to_owned(), format!("{:032x}", runs[1].bits())];
    coordinator.settle().await;
    db.close().await;

    let (coordinator, _) = open(folder.path()).await;
    coordinator.revive().await.unwrap();
    for (id, expected) in runs.iter().zip(&expected) {
        let get = GetRun {
            tenant: "t".into(),
            id: *id,
        };
        let run = Arc::clone(&coordinator).get(get).await.unwrap();
        assert_eq!(run.trace_id.as_ref(), Some(expected));
        // It waits since it was asked for, not since the restart.
        let entry = coordinator.state().runs.get(id).map(Arc::clone).unwrap();
        assert_eq!(entry.submitted, entry.created.into());
        cancel(&coordinator, *id);
    }
    coordinator.settle().await;
    for (id, expected) in runs.iter().zip(&expected) {
        let run = coordinator.recorded("t", *id).await.unwrap();
        assert_eq!(run.trace_id.as_ref(), Some(expected));
    }
}
