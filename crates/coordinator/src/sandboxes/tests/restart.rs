//! What a service that was killed finds when it is there again.

use std::sync::Arc;

use firelane_model::sandbox::Reason;
use firelane_store::bus::{LocalBus, SharedBus};
use firelane_wire::bus::SandboxChange;
use firelane_wire::problem::Code;
use firelane_wire::sandbox::SandboxState;

use super::host::Host;
use super::{Service, bounded, of};
use crate::sandboxes::watch::SILENCE;

#[tokio::test]
async fn a_sandbox_that_its_host_does_not_know_any_more_was_lost() {
    let service = Service::start().await;
    let lost = service.create(&of("t"), "{}").await.unwrap();
    let ended = service.create(&of("t"), "{}").await.unwrap();
    service
        .change(&of("t"), ended.id, SandboxChange::Destroy)
        .await
        .unwrap();
    let files = service.kill().await;

    let service = Service::on(files).await;
    let found = service
        .wait_for("t", lost.id, SandboxState::Destroyed)
        .await;
    assert_eq!(found.reason, Some(Reason::HostRestarted));
    let gone = service.find("t", lost.id).await.unwrap_err();
    assert!(
        gone.cause.ends_with("is gone: the service was restarted"),
        "{gone}"
    );
    assert_eq!(
        service.get("t", ended.id).await.unwrap().reason,
        Some(Reason::Asked)
    );
}

#[tokio::test]
async fn a_sandbox_that_its_host_still_has_goes_on_and_counts() {
    let mut service = Service::start().await;
    let own = bounded("t", 1);
    let made = service.create(&own, "{}").await.unwrap();
    let bus: SharedBus = Arc::new(LocalBus::new());
    let host = service.host.meet(&bus).await;
    let files = service.kill().await;
    host.becomes(made.id, SandboxState::Paused, None);

    let service = Service::without_host(files, bus, host).await;
    service.host.report(&service.bus).await;
    service.wait_for("t", made.id, SandboxState::Paused).await;
    assert_eq!(
        service.create(&own, "{}").await.unwrap_err().code,
        Code::RateLimited
    );
    service
        .change(&own, made.id, SandboxChange::Destroy)
        .await
        .unwrap();
    service.create(&own, "{}").await.unwrap();
}

#[tokio::test]
async fn a_host_whose_service_was_restarted_has_lost_its_sandboxes() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    service.host.forget();
    let found = service
        .wait_for("t", made.id, SandboxState::Destroyed)
        .await;
    assert_eq!(found.reason, Some(Reason::HostRestarted));
}

#[tokio::test]
async fn who_asks_a_host_that_was_restarted_learns_it() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    service.host.forget();
    let gone = service
        .change(&of("t"), made.id, SandboxChange::Pause)
        .await
        .unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    assert!(gone.cause.ends_with("the service was restarted"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stays_silent_has_lost_its_sandboxes() {
    let mut service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    let since = tokio::time::Instant::now();
    service.host.fall_silent();
    let live = service.coordinator.live_sandbox("t", made.id).unwrap();
    // Its task is the only other one that has it. The clock leaps while the disk is waited for, so only
    // real time ends this.
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while Arc::strong_count(&live) > 1 {
        assert!(std::time::Instant::now() < limit, "it is still followed");
        tokio::time::sleep(SILENCE / 60).await;
    }
    assert!(since.elapsed() >= SILENCE);
    let found = service.get("t", made.id).await.unwrap();
    assert_eq!(
        (found.state, found.reason),
        (SandboxState::Destroyed, Some(Reason::HostRestarted))
    );
}

#[tokio::test]
async fn a_host_that_never_comes_back_is_waited_for() {
    let service = Service::start().await;
    let made = service.create(&of("t"), "{}").await.unwrap();
    let files = service.kill().await;
    let bus: SharedBus = Arc::new(LocalBus::new());
    let elsewhere: SharedBus = Arc::new(LocalBus::new());
    let host = Host::start(&elsewhere, "h1").await;
    let service = Service::without_host(files, bus, host).await;
    // Nothing is known yet, and nothing is told of it.
    assert_eq!(service.find("t", made.id).await.unwrap(), "h1");
    assert_eq!(
        service.get("t", made.id).await.unwrap().state,
        SandboxState::Running
    );
    let refused = service.create(&of("t"), "{}").await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    let refused = service
        .change(&of("t"), made.id, SandboxChange::Destroy)
        .await;
    assert_eq!(refused.unwrap_err().code, Code::Unavailable);
}
