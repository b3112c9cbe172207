//! Snapshots: taken, begun from, gone back to, removed, and found again.

use std::sync::Arc;

use firelane_model::id::{SandboxId, SnapshotId};
use firelane_wire::bus::{
    Caller, GetSnapshot, ListSnapshots, RemoveSnapshot, SandboxChange, SnapshotHere, TakeSnapshot,
};
use firelane_wire::page::PageQuery;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::snapshot::Snapshot;

use super::{Service, eventually, of};

impl Service {
    pub(super) async fn save(
        &self,
        caller: &Caller,
        sandbox: SandboxId,
    ) -> Result<Snapshot, Problem> {
        let caller = caller.clone();
        let call = TakeSnapshot { caller, sandbox };
        Arc::clone(&self.coordinator).take_snapshot(call).await
    }

    async fn remove(&self, caller: &Caller, id: SnapshotId) -> Result<(), Problem> {
        let caller = caller.clone();
        let call = RemoveSnapshot { caller, id };
        Arc::clone(&self.coordinator).remove_snapshot(call).await
    }

    async fn snapshot(&self, tenant: &str, id: SnapshotId) -> Result<Snapshot, Problem> {
        let tenant = tenant.into();
        let call = GetSnapshot { tenant, id };
        Arc::clone(&self.coordinator).get_snapshot(call).await
    }

    async fn snapshots(&self, tenant: &str, sandbox: Option<SandboxId>) -> Vec<SnapshotId> {
        let call = ListSnapshots {
            tenant: tenant.into(),
            sandbox,
            page: PageQuery::default(),
        };
        let page = Arc::clone(&self.coordinator).list_snapshots(call).await;
        page.unwrap()
            .items
            .iter()
            .map(|snapshot| snapshot.id)
            .collect()
    }
}

#[tokio::test]
async fn a_sandbox_begins_from_a_snapshot_and_goes_back_to_one() {
    let service = Service::start().await;
    let own = of("t");
    let first = service.create(&own, "{}").await.unwrap();
    let one = service.save(&own, first.id).await.unwrap();
    assert_eq!(
        (one.sandbox, one.parent, one.size_bytes),
        (first.id, None, 4096)
    );
    assert_eq!(service.snapshot("t", one.id).await.unwrap(), one);

    let request = format!(r#"{{"template":"other","snapshot":"{}"}}"#, one.id);
    let second = service.create(&own, &request).await.unwrap();
    assert_eq!(
        (second.snapshot, second.template.as_str()),
        (Some(one.id), "python")
    );
    assert_eq!(service.host.has().made, ["default", "python"]);
    let two = service.save(&own, second.id).await.unwrap();
    assert_eq!(two.parent, Some(one.id));
    assert_eq!(service.snapshots("t", None).await, [two.id, one.id]);
    assert_eq!(service.snapshots("t", Some(first.id)).await, [one.id]);

    // Back to its own, and to the one that it began from.
    for snapshot in [two.id, one.id] {
        service
            .change(&own, second.id, SandboxChange::RollBack(snapshot))
            .await
            .unwrap();
        let next = service.save(&own, second.id).await.unwrap();
        assert_eq!(next.parent, Some(snapshot));
    }
    let wrong = service
        .change(&own, first.id, SandboxChange::RollBack(two.id))
        .await;
    assert_eq!(wrong.unwrap_err().code, Code::Invalid);
    // A fork of a fork comes from the first one too.
    let fork = service
        .fork(&own, first.id, 1)
        .await
        .unwrap()
        .forks
        .remove(0);
    let fork = service
        .fork(&own, fork.sandbox.unwrap().id, 1)
        .await
        .unwrap()
        .forks
        .remove(0);
    let fork = fork.sandbox.unwrap();
    service
        .change(&own, fork.id, SandboxChange::RollBack(one.id))
        .await
        .unwrap();
    let of_fork = service.save(&own, fork.id).await.unwrap();
    let wrong = service
        .change(&own, first.id, SandboxChange::RollBack(of_fork.id))
        .await;
    assert_eq!(wrong.unwrap_err().code, Code::Invalid);
}

#[tokio::test]
async fn a_snapshot_is_its_tenants() {
    let service = Service::start().await;
    let sandbox = service.create(&of("t"), "{}").await.unwrap();
    let theirs = service.create(&of("other"), "{}").await.unwrap();
    let one = service.save(&of("t"), sandbox.id).await.unwrap();
    let other = of("other");
    let request = format!(r#"{{"snapshot":"{}"}}"#, one.id);
    for answer in [
        service.snapshot("other", one.id).await.unwrap_err(),
        service.remove(&other, one.id).await.unwrap_err(),
        service.create(&other, &request).await.unwrap_err(),
        service
            .change(&other, theirs.id, SandboxChange::RollBack(one.id))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(answer, Problem::not_found("snapshot", one.id));
    }
    assert!(service.snapshots("other", None).await.is_empty());
    assert_eq!(service.list("other", &[], true).await, [theirs.id]);
}

#[tokio::test]
async fn a_snapshot_that_its_host_does_not_remove_stays() {
    let service = Service::start().await;
    let own = of("t");
    let sandbox = service.create(&own, "{}").await.unwrap();
    let one = service.save(&own, sandbox.id).await.unwrap();
    service.host.has().refuses = Some(Problem::new(Code::Unavailable, "not now"));
    assert_eq!(
        service.remove(&own, one.id).await.unwrap_err().cause,
        "not now"
    );
    assert_eq!(
        service.save(&own, sandbox.id).await.unwrap_err().cause,
        "not now"
    );
    assert_eq!(service.snapshots("t", None).await, [one.id]);
    service.host.has().refuses = None;
    service.remove(&own, one.id).await.unwrap();
    assert!(service.host.has().snapshots.is_empty());
    assert_eq!(
        service.remove(&own, one.id).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(service.audited().await, 3, "sandbox, snapshot, and its end");
}

#[tokio::test]
async fn a_host_that_comes_back_has_what_is_on_record() {
    let mut service = Service::start().await;
    let own = of("t");
    let sandbox = service.create(&own, "{}").await.unwrap();
    let kept = service.save(&own, sandbox.id).await.unwrap();
    let without_files = service.save(&own, sandbox.id).await.unwrap();
    let without_record = SnapshotId::from_bits(9);
    {
        let mut has = service.host.has();
        has.snapshots.remove(&without_files.id);
        let here = SnapshotHere {
            id: without_record,
            tenant: "t".into(),
            template: "python".into(),
            size_bytes: 1,
        };
        has.snapshots.insert(without_record, here);
    }
    let bus: firelane_store::bus::SharedBus = Arc::new(firelane_store::bus::LocalBus::new());
    let host = service.host.meet(&bus).await;
    let files = service.kill().await;

    let service = Service::without_host(files, bus, host).await;
    assert_eq!(
        service.snapshots("t", None).await.len(),
        2,
        "nothing is known of the host yet"
    );
    service.host.report(&service.bus).await;
    eventually(async || {
        let dropped = !service.host.has().snapshots.contains_key(&without_record);
        let removed = service.snapshots("t", None).await == [kept.id];
        (dropped && removed).then_some(())
    })
    .await;
    assert!(service.host.has().snapshots.contains_key(&kept.id));
}
