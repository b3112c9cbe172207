//! Answers for requests that are repeated, and what is removed when it is old.

use std::sync::Arc;

use firelane_wire::bus::{KeptAnswer, ReserveAnswer, Reserved, SandboxChange, SettleAnswer};
use firelane_wire::problem::{Code, Problem};

use super::{Service, of};

/// Time enough for everything to be too old.
const YEAR_MS: i64 = 366 * 86_400_000;

impl Service {
    async fn reserve(&self, key: &str, fingerprint: u8) -> Reserved {
        let call = ReserveAnswer {
            tenant: "t".into(),
            key: key.into(),
            fingerprint: [fingerprint; 32],
        };
        let reserved = Arc::clone(&self.coordinator).reserve_answer(call).await;
        reserved.unwrap()
    }

    async fn settle(&self, reservation: i64, answer: Option<KeptAnswer>) -> Result<(), Problem> {
        let call = SettleAnswer {
            reservation,
            answer,
        };
        Arc::clone(&self.coordinator).settle_answer(call).await
    }
}

fn new(reserved: Reserved) -> i64 {
    match reserved {
        Reserved::New(reservation) => reservation,
        known => panic!("{known:?}"),
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_also_after_a_restart() {
    let service = Service::start().await;
    let answer = KeptAnswer {
        status: 201,
        headers: vec![("location".into(), "/v1/sandboxes/1".into())],
        body: b"\0\xff".to_vec(),
    };
    let first = new(service.reserve("k", 1).await);
    assert_eq!(service.reserve("k", 1).await, Reserved::InProgress);
    assert_eq!(service.reserve("k", 2).await, Reserved::Other);
    service.settle(first, Some(answer.clone())).await.unwrap();
    let twice = service.settle(first, Some(answer.clone())).await;
    assert_eq!(twice.unwrap_err().code, Code::Conflict);
    let given_back = new(service.reserve("other", 1).await);
    service.settle(given_back, None).await.unwrap();
    assert_ne!(new(service.reserve("other", 2).await), given_back);

    // Nobody carries out what was under way.
    let service = Service::on(service.kill().await).await;
    assert_eq!(service.reserve("k", 1).await, Reserved::Done(answer));
    new(service.reserve("other", 1).await);
    let now = crate::records::now().as_millisecond();
    service
        .coordinator
        .prune_once(now + 86_400_000 + 1000)
        .await
        .unwrap();
    new(service.reserve("k", 2).await);
}

#[tokio::test]
async fn sandboxes_that_are_long_gone_are_removed_and_no_others() {
    let service = Service::start().await;
    let own = of("t");
    let gone = service.create(&own, "{}").await.unwrap();
    let there = service.create(&own, "{}").await.unwrap();
    service
        .change(&own, gone.id, SandboxChange::Destroy)
        .await
        .unwrap();
    let now = crate::records::now().as_millisecond();
    service.coordinator.prune_once(now).await.unwrap();
    assert_eq!(service.list("t", &[], true).await, [there.id, gone.id]);
    service.coordinator.prune_once(now + YEAR_MS).await.unwrap();
    assert_eq!(service.list("t", &[], true).await, [there.id]);
}
