//! Typed calls.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use firelane_store::bus::{Calls, LocalBus, MAX_MESSAGE_BYTES, Server, SharedBus};
use firelane_wire::bus::{Call, decode};
use firelane_wire::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reverse {
    text: String,
}

impl Call for Reverse {
    const NAME: &'static str = "text.reverse";
    type Answer = String;
}

const FOUR: NonZeroUsize = NonZeroUsize::new(4).unwrap();

fn reverse(text: &str) -> Reverse {
    Reverse { text: text.into() }
}

async fn handle(call: Reverse) -> Result<String, Problem> {
    match call.text.as_str() {
        "" => Err(Problem::new(Code::Invalid, "there is nothing")),
        "large" => Ok("x".repeat(MAX_MESSAGE_BYTES)),
        "panic" => panic!("as the test asks"),
        "late panic" => {
            tokio::task::yield_now().await;
            panic!("as the test asks");
        }
        text => Ok(text.chars().rev().collect()),
    }
}

async fn served() -> (SharedBus, Server, Calls) {
    let bus: SharedBus = Arc::new(LocalBus::new());
    let mut server = Server::new(Arc::clone(&bus), "test");
    server.on(handle).await.unwrap();
    let calls = Calls::of(Arc::clone(&bus), "test");
    (bus, server, calls)
}

#[tokio::test]
async fn answers_and_problems_come_back() {
    let (_bus, _server, calls) = served().await;
    assert_eq!(calls.ask(&reverse("abc")).await.unwrap(), "cba");
    let problem = calls.ask(&reverse("")).await.unwrap_err();
    assert_eq!(problem.code, Code::Invalid);
}

#[tokio::test]
async fn a_service_is_asked_by_its_own_name() {
    let (bus, server, calls) = served().await;
    let problem = Calls::of(bus, "other").ask(&reverse("ab")).await;
    assert_eq!(problem.unwrap_err().code, Code::Unavailable);
    drop(server);
    // The tasks of a server that is dropped end at their next step.
    loop {
        match calls.ask(&reverse("ab")).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(problem) => break assert_eq!(problem.code, Code::Unavailable),
        }
    }
}

#[tokio::test]
async fn what_is_no_such_call_is_refused_and_the_server_goes_on() {
    let (bus, _server, calls) = served().await;
    for payload in [
        &b""[..],
        b"\xc1",
        b"not messagepack",
        &[0xdf, 255, 255, 255, 255],
    ] {
        let answer = bus.request(
            "test.text.reverse",
            payload.into(),
            std::time::Duration::from_secs(30),
        );
        let answer: Result<String, Problem> = decode(&answer.await.unwrap()).unwrap();
        assert_eq!(answer.unwrap_err().code, Code::Internal, "{payload:?}");
    }
    calls.ask(&reverse("abc")).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_told() {
    let (_bus, _server, calls) = served().await;
    let problem = calls.ask(&reverse("large")).await.unwrap_err();
    assert_eq!(problem.code, Code::TooLarge);
    assert!(problem.to_string().contains("at most"), "{problem}");
}

#[tokio::test]
async fn a_call_that_is_too_large_is_told() {
    let (_bus, _server, calls) = served().await;
    let large = reverse(&"x".repeat(MAX_MESSAGE_BYTES));
    let problem = calls.ask(&large).await.unwrap_err();
    assert_eq!(problem.code, Code::TooLarge);
}

#[tokio::test]
async fn an_answer_of_another_type_is_told() {
    let bus: SharedBus = Arc::new(LocalBus::new());
    let mut server = bus.serve("test.text.reverse").await.unwrap();
    let calls = Calls::of(Arc::clone(&bus), "test");
    let asked = tokio::spawn(async move { calls.ask(&reverse("abc")).await });
    let request = server.next().await.unwrap();
    request.answer("what is this".into()).await.unwrap();
    let problem = asked.await.unwrap().unwrap_err();
    assert_eq!(problem.code, Code::Internal);
}

#[tokio::test]
async fn a_handler_that_panics_is_told_and_leaves_the_others_alone() {
    let (_bus, _server, calls) = served().await;
    // At once, or after it has waited: then it is another task's.
    for text in ["panic", "late panic"] {
        let problem = calls.ask(&reverse(text)).await.unwrap_err();
        assert_eq!(problem.code, Code::Unavailable);
        assert!(problem.to_string().contains("no answer"), "{problem}");
        calls.ask(&reverse("abc")).await.unwrap();
    }
}

#[tokio::test]
async fn calls_over_the_bound_wait_and_are_answered() {
    let bus: SharedBus = Arc::new(LocalBus::new());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handle = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        move |call: Reverse| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                begun.add_permits(1);
                go.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(call.text)
            }
        }
    };
    let mut server = Server::new(Arc::clone(&bus), "test").at_once(FOUR);
    server.on(handle).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let calls = Calls::of(Arc::clone(&bus), "test");
        asked.spawn(async move { calls.ask(&reverse("x")).await });
    }
    // All four are busy before the first may end.
    begun.acquire_many(4).await.unwrap().forget();
    go.add_permits(20);
    while let Some(answer) = asked.join_next().await {
        answer.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
}
