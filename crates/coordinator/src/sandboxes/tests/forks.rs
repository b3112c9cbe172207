//! Forks, of which each fails alone.

use std::sync::Arc;

use firelane_model::id::SandboxId;
use firelane_model::sandbox::Reason;
use firelane_wire::bus::{Caller, ForkSandbox, SandboxChange};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Forks, SandboxState};

use super::{Service, bounded, of};

impl Service {
    pub(super) async fn fork(
        &self,
        caller: &Caller,
        id: SandboxId,
        count: u32,
    ) -> Result<Forks, Problem> {
        let caller = caller.clone();
        let call = ForkSandbox { caller, id, count };
        Arc::clone(&self.coordinator).fork_sandbox(call).await
    }
}

#[tokio::test]
async fn a_fork_that_fails_leaves_the_others() {
    let service = Service::start().await;
    let own = bounded("t", 4);
    let parent = service
        .create(&own, r#"{"labels":{"a":"b"}}"#)
        .await
        .unwrap();
    service.host.has().failing_fork = Some(1);
    let forks = service.fork(&own, parent.id, 5).await.unwrap().forks;
    let codes: Vec<_> = forks
        .iter()
        .map(|fork| fork.problem.as_ref().map(|problem| problem.code))
        .collect();
    let over = Some(Code::RateLimited);
    assert_eq!(codes, [None, Some(Code::StorageFull), None, over, over]);
    for fork in [&forks[0], &forks[2]] {
        let fork = fork.sandbox.as_ref().unwrap();
        assert_eq!(
            (fork.state, fork.parent),
            (SandboxState::Running, Some(parent.id))
        );
        assert_eq!(
            (&fork.expires_at, &fork.labels),
            (&parent.expires_at, &parent.labels)
        );
    }
    // The one that failed counts no more.
    assert_eq!(
        service.fork(&own, parent.id, 1).await.unwrap().forks[0]
            .problem
            .as_ref()
            .map(|problem| problem.code),
        None
    );
    let failed = service.list("t", &[], true).await;
    let mut reasons = Vec::new();
    for id in failed {
        reasons.extend(service.get("t", id).await.unwrap().reason);
    }
    assert_eq!(reasons, [Reason::Failed]);
    assert_eq!(service.audited().await, 5, "a sandbox and four forks");
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_forked_leaves_no_forks() {
    let service = Service::start().await;
    let own = bounded("t", 3);
    let parent = service.create(&own, "{}").await.unwrap();
    service.host.has().refuses = Some(Problem::new(Code::Conflict, "it is being saved"));
    assert_eq!(
        service.fork(&own, parent.id, 2).await.unwrap_err().code,
        Code::Conflict
    );
    assert_eq!(service.list("t", &[], false).await, [parent.id]);
    service.host.has().refuses = None;
    for count in [0, 101] {
        assert_eq!(
            service.fork(&own, parent.id, count).await.unwrap_err().code,
            Code::Invalid
        );
    }
    assert!(
        service
            .fork(&own, parent.id, 2)
            .await
            .unwrap()
            .forks
            .iter()
            .all(|fork| fork.problem.is_none())
    );
    service
        .change(&of("t"), parent.id, SandboxChange::Destroy)
        .await
        .unwrap();
    let gone = service.fork(&own, parent.id, 1).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
}
