//! One sandbox from its creation to its end, and whose it is.

use std::sync::Arc;

use firelane_model::sandbox::Reason;
use firelane_wire::bus::{LookUsage, SandboxChange, SandboxSeen, SubmitRun};
use firelane_wire::network::NetworkSeen;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{IdleThen, SandboxPatch, SandboxState};
use firelane_wire::usage::UsageQuery;

use super::{Service, bounded, eventually, of};

#[tokio::test]
async fn a_sandbox_is_made_changed_and_destroyed() {
    let service = Service::start().await;
    let own = of("t");
    let request = r#"{"template":"python","ttl_s":60,"labels":{"of":"a test"}}"#;
    let made = service.create(&own, request).await.unwrap();
    assert_eq!(made.state, SandboxState::Running);
    assert_eq!(
        (made.host.as_deref(), made.template.as_str()),
        (Some("h1"), "python")
    );
    assert_eq!(service.find("t", made.id).await.unwrap(), "h1");
    assert_eq!(
        service.list("t", &[("of", "a test")], false).await,
        [made.id]
    );
    assert!(
        service
            .list("t", &[("of", "nothing")], false)
            .await
            .is_empty()
    );

    let paused = service
        .change(&own, made.id, SandboxChange::Pause)
        .await
        .unwrap();
    assert_eq!(paused.state, SandboxState::Paused);
    let patch = r#"{"ttl_s":600000,"idle":{"after_s":5,"then":"pause"},"labels":{"is":"changed"}}"#;
    let patch: SandboxPatch = serde_json::from_str(patch).unwrap();
    let patched = service
        .change(&own, made.id, SandboxChange::Patch(patch))
        .await
        .unwrap();
    assert!(patched.expires_at > made.expires_at);
    assert_eq!(patched.idle.map(|idle| idle.then), Some(IdleThen::Pause));
    assert_eq!(patched.labels.keys().collect::<Vec<_>>(), ["is"]);
    // Labels alone are no matter of the host.
    service.host.has().refuses = Some(Problem::new(Code::Internal, "not now"));
    let patch = SandboxPatch {
        labels: Some([].into()),
        ..SandboxPatch::default()
    };
    let patched = service
        .change(&own, made.id, SandboxChange::Patch(patch))
        .await
        .unwrap();
    assert!(patched.labels.is_empty() && patched.idle.is_some());
    let refused = service.change(&own, made.id, SandboxChange::Destroy).await;
    assert_eq!(refused.unwrap_err().cause, "not now");
    service.host.has().refuses = None;

    let ended = service
        .change(&own, made.id, SandboxChange::Destroy)
        .await
        .unwrap();
    assert_eq!(
        (ended.state, ended.reason),
        (SandboxState::Destroyed, Some(Reason::Asked))
    );
    let again = service
        .change(&own, made.id, SandboxChange::Destroy)
        .await
        .unwrap();
    assert_eq!(again, ended);
    for change in [
        SandboxChange::Pause,
        SandboxChange::Resume,
        SandboxChange::Patch(SandboxPatch::default()),
    ] {
        let gone = service.change(&own, made.id, change).await.unwrap_err();
        assert_eq!(gone.code, Code::NotFound);
        assert!(gone.cause.ends_with("is gone: it was asked for"), "{gone}");
    }
    assert!(service.list("t", &[], false).await.is_empty());
    assert_eq!(service.list("t", &[], true).await, [made.id]);
    assert_eq!(service.audited().await, 2, "its creation and its end");
}

#[tokio::test]
async fn what_a_host_tells_is_on_record() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    service.host.becomes(made.id, SandboxState::Paused, None);
    service.wait_for("t", made.id, SandboxState::Paused).await;
    service
        .host
        .becomes(made.id, SandboxState::Destroyed, Some(Reason::TtlOver));
    let ended = service
        .wait_for("t", made.id, SandboxState::Destroyed)
        .await;
    assert_eq!(ended.reason, Some(Reason::TtlOver));
    let gone = service.find("t", made.id).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    assert!(gone.cause.ends_with("is gone: its time was over"), "{gone}");
}

#[tokio::test]
async fn an_older_word_of_a_host_changes_nothing() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    service.host.becomes(made.id, SandboxState::Paused, None);
    service.wait_for("t", made.id, SandboxState::Paused).await;
    let live = service.coordinator.live_sandbox("t", made.id).unwrap();
    let late = |revision, state, cpu_us| SandboxSeen {
        state,
        reason: None,
        revision,
        cpu_us,
        network: None,
    };
    let observe = async |seen| {
        service
            .coordinator
            .observe(&live, seen, None, None)
            .await
            .unwrap()
    };
    assert_eq!(
        observe(late(1, SandboxState::Running, 7)).await.state,
        "paused"
    );
    let ended = service
        .change(&of("t"), made.id, SandboxChange::Destroy)
        .await
        .unwrap();
    // Not even a newer one brings back what is gone, nor is it charged.
    let record = observe(late(99, SandboxState::Running, 1000)).await;
    assert_eq!(
        (record.state.as_str(), record.live, record.cpu_us),
        ("destroyed", false, 7)
    );
    let lost = service
        .coordinator
        .end_sandbox(&live, Reason::HostRestarted)
        .await
        .unwrap();
    assert_eq!(lost, record);
    assert_eq!(service.get("t", made.id).await.unwrap(), ended);
}

#[tokio::test]
async fn what_is_counted_in_a_network_is_on_record_and_never_goes_back() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    assert_eq!(made.network, None);
    let live = service.coordinator.live_sandbox("t", made.id).unwrap();
    for (told, on_record) in [(2, 2), (1, 2), (3, 3)] {
        let network = NetworkSeen {
            counts: [("flows".into(), told)].into(),
            ..NetworkSeen::default()
        };
        let seen = SandboxSeen {
            state: SandboxState::Running,
            reason: None,
            revision: 1,
            cpu_us: 0,
            network: Some(network),
        };
        let observed = service.coordinator.observe(&live, seen, None, None);
        observed.await.unwrap();
        let shown = service.get("t", made.id).await.unwrap();
        assert_eq!(shown.network.unwrap().counts["flows"], on_record);
    }
}

#[tokio::test]
async fn what_a_host_refuses_to_make_is_gone_and_counts_no_more() {
    let service = Service::start().await;
    let one = bounded("t", 1);
    service.host.has().refuses = Some(Problem::new(Code::Invalid, "there is no template x"));
    let refused = service.create(&one, "{}").await.unwrap_err();
    assert_eq!(refused.cause, "there is no template x");
    let failed = service.list("t", &[], true).await;
    let failed = service.get("t", failed[0]).await.unwrap();
    assert_eq!(
        (failed.state, failed.reason),
        (SandboxState::Destroyed, Some(Reason::Failed))
    );
    service.host.has().refuses = None;
    let made = service.create(&one, "{}").await.unwrap();
    let over = service.create(&one, "{}").await.unwrap_err();
    assert_eq!(over.code, Code::RateLimited);
    // Runs and sandboxes of a key count together.
    let run = SubmitRun {
        caller: one.clone(),
        request: serde_json::from_str(r#"{"lang":"python","code":"1"}"#).unwrap(),
        durable: false,
        idempotency_key: None,
        traceparent: None,
    };
    let over = Arc::clone(&service.coordinator).submit(run).await;
    assert_eq!(over.unwrap_err().code, Code::RateLimited);
    service
        .change(&one, made.id, SandboxChange::Destroy)
        .await
        .unwrap();
    service.create(&one, "{}").await.unwrap();
}

#[tokio::test]
async fn processor_time_is_counted_and_a_budget_ends() {
    let service = Service::start().await;
    let mut own = bounded("t", 9);
    own.cpu_us_per_day = Some(1_000_000);
    let made = service.create(&own, "{}").await.unwrap();
    service.host.uses(made.id, 400_000);
    service.host.uses(made.id, 1_000_000);
    let call = LookUsage {
        tenant: "t".into(),
        query: UsageQuery::default(),
    };
    eventually(async || {
        let usage = Arc::clone(&service.coordinator)
            .usage(call.clone())
            .await
            .unwrap();
        usage
            .days
            .iter()
            .any(|day| day.cpu_seconds == 1.0 && day.runs == 0)
            .then_some(())
    })
    .await;
    let spent = eventually(async || service.create(&own, "{}").await.err()).await;
    assert_eq!(spent.code, Code::BudgetSpent);
    // Told again it is not counted again.
    service.host.becomes(made.id, SandboxState::Paused, None);
    service.wait_for("t", made.id, SandboxState::Paused).await;
    let usage = Arc::clone(&service.coordinator).usage(call).await.unwrap();
    assert_eq!(usage.days[0].cpu_seconds, 1.0);
}

#[tokio::test]
async fn what_belongs_to_another_tenant_is_not_there() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    let (other, id) = (of("other"), made.id);
    let mut answers = vec![
        service.get("other", id).await.unwrap_err(),
        service.find("other", id).await.unwrap_err(),
        service.fork(&other, id, 1).await.unwrap_err(),
        service.save(&other, id).await.unwrap_err(),
    ];
    for change in [
        SandboxChange::Destroy,
        SandboxChange::Pause,
        SandboxChange::Patch(SandboxPatch::default()),
    ] {
        answers.push(service.change(&other, id, change).await.unwrap_err());
    }
    for answer in answers {
        assert_eq!(answer, Problem::not_found("sandbox", id));
    }
    assert!(service.list("other", &[], true).await.is_empty());
    assert_eq!(
        service.get("t", id).await.unwrap().state,
        SandboxState::Running
    );
}

#[tokio::test]
async fn nothing_is_made_without_a_host_or_on_the_way_down() {
    let service = Service::start().await;
    service.coordinator.stop.cancel();
    let refused = service.create(&of("t"), "{}").await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    assert!(service.list("t", &[], true).await.is_empty());
}

#[tokio::test]
async fn what_may_have_been_made_all_the_same_is_destroyed() {
    let service = Service::start().await;
    service.host.has().loses_answers = true;
    let lost = service.create(&of("t"), "{}").await.unwrap_err();
    assert_eq!(lost.code, Code::Unavailable);
    let id = service.list("t", &[], true).await[0];
    let failed = service.get("t", id).await.unwrap();
    assert_eq!(failed.reason, Some(Reason::Failed));
    eventually(async || (service.host.state(id) == SandboxState::Destroyed).then_some(())).await;
}
