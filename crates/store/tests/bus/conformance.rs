//! What every Bus does. [`suite!`] makes the tests of one implementation: it takes a value that
//! implements [`Make`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use firelane_store::bus::{BusError, MAX_MESSAGE_BYTES, QUEUE, Request, Requests, SharedBus};
use tokio::task::JoinSet;

/// Longer than any machine that works needs; a test that waits for it fails.
const PLENTY: Duration = Duration::from_secs(30);
/// For requests that are to time out.
const SOON: Duration = Duration::from_millis(100);

/// The Bus as an asker and as a server hold it: for a Bus between processes, two connections.
pub(crate) struct Ends {
    pub(crate) asker: SharedBus,
    pub(crate) server: SharedBus,
}

/// Makes Buses of one kind, without servers.
#[async_trait]
pub(crate) trait Make: Sync {
    async fn make(&self) -> Ends;
}

macro_rules! suite {
    ($make:expr) => {
        $crate::conformance::tests!(
            $make;
            an_answer_comes_back
            an_empty_payload_and_the_largest_are_carried
            each_request_goes_to_exactly_one_server
            subjects_do_not_mix
            nobody_listens
            a_server_that_left_does_not_listen
            a_request_without_an_answer_times_out
            a_payload_over_the_cap_is_refused
            an_answer_over_the_cap_is_refused_and_the_asker_gets_an_error
            a_dropped_request_is_an_error
            a_server_that_goes_leaves_the_others
            requests_that_a_gone_server_had_not_taken_end
            many_requests_at_once_get_their_own_answers
            one_asker_is_served_in_order
            a_slow_server_slows_its_askers_and_loses_nothing
            an_asker_that_left_does_not_stop_its_server
            a_next_that_is_dropped_loses_nothing
            bad_subjects_are_refused
            a_closed_bus_carries_nothing
        );
    };
}
macro_rules! tests {
    ($make:expr; $($name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::conformance::$name(&$make).await;
        }
    )* };
}
pub(crate) use {suite, tests};

async fn ask(bus: &SharedBus, subject: &str, payload: impl Into<Bytes>) -> Result<Bytes, BusError> {
    bus.request(subject, payload.into(), PLENTY).await
}

/// Asks in a task of its own.
fn asking(bus: &SharedBus, subject: &'static str, payload: impl Into<Bytes>) -> Asking {
    let (bus, payload) = (Arc::clone(bus), payload.into());
    tokio::spawn(async move { ask(&bus, subject, payload).await })
}
type Asking = tokio::task::JoinHandle<Result<Bytes, BusError>>;

async fn next(requests: &mut Box<dyn Requests>) -> Request {
    tokio::time::timeout(PLENTY, requests.next())
        .await
        .expect("a request comes")
        .expect("the bus is open")
}

/// Answers what comes with the same bytes, for ever.
fn echo(mut requests: Box<dyn Requests>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let payload = request.payload().clone();
            request.answer(payload).await.unwrap();
        }
    })
}

fn number(bytes: &Bytes) -> u32 {
    u32::from_be_bytes(bytes[..].try_into().unwrap())
}

pub(crate) async fn an_answer_comes_back(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a.b").await.unwrap();
    let asked = asking(&bus.asker, "a.b", "question");
    let request = next(&mut server).await;
    assert_eq!(
        (request.subject(), &request.payload()[..]),
        ("a.b", &b"question"[..])
    );
    request.answer("answer".into()).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), "answer");
}

pub(crate) async fn an_empty_payload_and_the_largest_are_carried(make: &dyn Make) {
    let bus = make.make().await;
    let echo = echo(bus.server.serve("a").await.unwrap());
    for size in [0, 1, MAX_MESSAGE_BYTES] {
        let payload = Bytes::from(vec![7; size]);
        assert_eq!(
            ask(&bus.asker, "a", payload.clone()).await.unwrap(),
            payload
        );
    }
    echo.abort();
}

pub(crate) async fn each_request_goes_to_exactly_one_server(make: &dyn Make) {
    const REQUESTS: u32 = 300;
    let bus = make.make().await;
    let seen = Arc::new(std::sync::Mutex::new(BTreeMap::<u32, u32>::new()));
    let mut servers = JoinSet::new();
    for _ in 0..3 {
        let mut requests = bus.server.serve("a").await.unwrap();
        let seen = Arc::clone(&seen);
        servers.spawn(async move {
            while let Some(request) = requests.next().await {
                *seen
                    .lock()
                    .unwrap()
                    .entry(number(request.payload()))
                    .or_default() += 1;
                request.answer(Bytes::new()).await.unwrap();
            }
        });
    }
    let mut askers = JoinSet::new();
    for i in 0..REQUESTS {
        let asker = Arc::clone(&bus.asker);
        askers.spawn(async move { ask(&asker, "a", i.to_be_bytes().to_vec()).await });
    }
    while let Some(answer) = askers.join_next().await {
        answer.unwrap().unwrap();
    }
    let expected: BTreeMap<_, _> = (0..REQUESTS).map(|i| (i, 1)).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
}

pub(crate) async fn subjects_do_not_mix(make: &dyn Make) {
    let bus = make.make().await;
    let mut one = bus.server.serve("a.one").await.unwrap();
    let mut two = bus.server.serve("a.two").await.unwrap();
    let (to_one, to_two) = (
        asking(&bus.asker, "a.one", "1"),
        asking(&bus.asker, "a.two", "2"),
    );
    let (of_one, of_two) = (next(&mut one).await, next(&mut two).await);
    assert_eq!(
        (&of_one.payload()[..], &of_two.payload()[..]),
        (&b"1"[..], &b"2"[..])
    );
    of_two.answer("to two".into()).await.unwrap();
    of_one.answer("to one".into()).await.unwrap();
    assert_eq!(to_one.await.unwrap().unwrap(), "to one");
    assert_eq!(to_two.await.unwrap().unwrap(), "to two");
    let refused = ask(&bus.asker, "a", "to nobody").await.unwrap_err();
    assert!(
        matches!(refused, BusError::NobodyListens { .. }),
        "{refused}"
    );
}

pub(crate) async fn nobody_listens(make: &dyn Make) {
    let bus = make.make().await;
    let error = ask(&bus.asker, "nobody.here", "x").await.unwrap_err();
    let subject = "nobody.here".to_owned();
    assert_eq!(error, BusError::NobodyListens { subject });
    assert!(error.nothing_was_done());
}

pub(crate) async fn a_server_that_left_does_not_listen(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asked = asking(&bus.asker, "a", "x");
    next(&mut server).await.answer("y".into()).await.unwrap();
    asked.await.unwrap().unwrap();
    drop(server);
    // A Bus between processes learns of it a moment later, and until then loses what is asked.
    loop {
        match bus.asker.request("a", "x".into(), SOON).await {
            Err(BusError::NobodyListens { .. }) => break,
            Err(BusError::TimedOut { .. } | BusError::Unanswered { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let echo = echo(bus.server.serve("a").await.unwrap());
    assert_eq!(ask(&bus.asker, "a", "again").await.unwrap(), "again");
    echo.abort();
}

pub(crate) async fn a_request_without_an_answer_times_out(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let asked = tokio::spawn(async move { asker.request("a", "x".into(), SOON).await });
    let held = next(&mut server).await;
    let error = asked.await.unwrap().unwrap_err();
    let (subject, timeout) = ("a".to_owned(), SOON);
    assert_eq!(error, BusError::TimedOut { subject, timeout });
    assert!(!error.nothing_was_done());
    drop(held);
}

pub(crate) async fn a_payload_over_the_cap_is_refused(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let bytes = MAX_MESSAGE_BYTES + 1;
    let error = ask(&bus.asker, "a", vec![0; bytes]).await.unwrap_err();
    let subject = "a".to_owned();
    assert_eq!(error, BusError::TooLarge { subject, bytes });
    // The first that the server gets is the one after it.
    let asked = asking(&bus.asker, "a", "small");
    let request = next(&mut server).await;
    assert_eq!(request.payload(), "small");
    request.answer(Bytes::new()).await.unwrap();
    asked.await.unwrap().unwrap();
}

pub(crate) async fn an_answer_over_the_cap_is_refused_and_the_asker_gets_an_error(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let asked = tokio::spawn(async move { asker.request("a", "x".into(), SOON * 5).await });
    let bytes = MAX_MESSAGE_BYTES + 1;
    let refused = next(&mut server).await.answer(vec![0; bytes].into()).await;
    let subject = "a".to_owned();
    assert_eq!(refused.unwrap_err(), BusError::TooLarge { subject, bytes });
    no_answer(asked.await.unwrap());
}

pub(crate) async fn a_dropped_request_is_an_error(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let asked = tokio::spawn(async move { asker.request("a", "x".into(), SOON * 5).await });
    drop(next(&mut server).await);
    no_answer(asked.await.unwrap());
}

fn no_answer(result: Result<Bytes, BusError>) {
    let error = result.unwrap_err();
    assert!(
        matches!(
            error,
            BusError::TimedOut { .. } | BusError::Unanswered { .. }
        ),
        "{error:?}"
    );
    assert!(!error.nothing_was_done());
}

pub(crate) async fn a_server_that_goes_leaves_the_others(make: &dyn Make) {
    let bus = make.make().await;
    let goes = bus.server.serve("a").await.unwrap();
    let stays = echo(bus.server.serve("a").await.unwrap());
    drop(goes);
    // A Bus between processes may still send to the one that went, until it learns of it.
    let answered = loop {
        match bus.asker.request("a", "x".into(), SOON).await {
            Err(BusError::TimedOut { .. } | BusError::Unanswered { .. }) => {}
            other => break other,
        }
    };
    assert_eq!(answered.unwrap(), "x");
    for i in 0..100_u32 {
        let payload = Bytes::copy_from_slice(&i.to_be_bytes());
        assert_eq!(
            ask(&bus.asker, "a", payload.clone()).await.unwrap(),
            payload
        );
    }
    stays.abort();
}

pub(crate) async fn requests_that_a_gone_server_had_not_taken_end(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..5 {
        let asker = Arc::clone(&bus.asker);
        asked.spawn(async move { asker.request("a", "x".into(), SOON * 5).await });
    }
    let taken = next(&mut server).await;
    drop(server);
    // What it had taken, it may still answer.
    taken.answer("y".into()).await.unwrap();
    let mut answers = 0;
    while let Some(result) = asked.join_next().await {
        match result.unwrap() {
            Ok(answer) => {
                assert_eq!(answer, "y");
                answers += 1;
            }
            Err(BusError::NobodyListens { .. }) => {}
            error => no_answer(error),
        }
    }
    assert_eq!(answers, 1);
}

pub(crate) async fn many_requests_at_once_get_their_own_answers(make: &dyn Make) {
    let many = u32::try_from(QUEUE).unwrap() * 3;
    let bus = make.make().await;
    let servers = [
        echo(bus.server.serve("a").await.unwrap()),
        echo(bus.server.serve("a").await.unwrap()),
    ];
    let mut asked = JoinSet::new();
    for i in 0..many {
        let asker = Arc::clone(&bus.asker);
        asked.spawn(async move { (i, ask(&asker, "a", i.to_be_bytes().to_vec()).await) });
    }
    let mut answers = 0;
    while let Some(result) = asked.join_next().await {
        let (i, answer) = result.unwrap();
        assert_eq!(number(&answer.unwrap()), i);
        answers += 1;
    }
    assert_eq!(answers, many);
    servers.iter().for_each(tokio::task::JoinHandle::abort);
}

pub(crate) async fn one_asker_is_served_in_order(make: &dyn Make) {
    const REQUESTS: u32 = 200;
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let asked = tokio::spawn(async move {
        for i in 0..REQUESTS {
            ask(&asker, "a", i.to_be_bytes().to_vec()).await.unwrap();
        }
    });
    for i in 0..REQUESTS {
        let request = next(&mut server).await;
        assert_eq!(number(request.payload()), i);
        request.answer(Bytes::new()).await.unwrap();
    }
    asked.await.unwrap();
}

pub(crate) async fn a_slow_server_slows_its_askers_and_loses_nothing(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    // More than its queue holds, none of them taken before all have been asked.
    let many = QUEUE + 50;
    let mut asked = JoinSet::new();
    for _ in 0..many {
        let asker = Arc::clone(&bus.asker);
        asked.spawn(async move { ask(&asker, "a", "x").await });
    }
    let asker = Arc::clone(&bus.asker);
    let hasty = tokio::spawn(async move { asker.request("a", "hasty".into(), SOON).await });
    let error = hasty.await.unwrap().unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "{error}");
    let mut served = 0;
    while served < many {
        let request = next(&mut server).await;
        // The hasty one, if it came: its asker has left.
        if request.payload() == "x" {
            served += 1;
        }
        request.answer("y".into()).await.unwrap();
    }
    while let Some(answer) = asked.join_next().await {
        assert_eq!(answer.unwrap().unwrap(), "y");
    }
}

pub(crate) async fn an_asker_that_left_does_not_stop_its_server(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asked = asking(&bus.asker, "a", "leaves");
    let request = next(&mut server).await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    request.answer("to nobody".into()).await.unwrap();
    let asked = asking(&bus.asker, "a", "stays");
    let request = next(&mut server).await;
    assert_eq!(request.payload(), "stays");
    request.answer("y".into()).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap(), "y");
}

pub(crate) async fn a_next_that_is_dropped_loses_nothing(make: &dyn Make) {
    const REQUESTS: u32 = 100;
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let asked = tokio::spawn(async move {
        for i in 0..REQUESTS {
            ask(&asker, "a", i.to_be_bytes().to_vec()).await.unwrap();
        }
    });
    for i in 0..REQUESTS {
        let request = loop {
            // Each look is given up at once if there is nothing yet.
            let look = tokio::time::timeout(Duration::ZERO, server.next()).await;
            match look {
                Ok(request) => break request.expect("the bus is open"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(number(request.payload()), i);
        request.answer(Bytes::new()).await.unwrap();
    }
    asked.await.unwrap();
}

pub(crate) async fn bad_subjects_are_refused(make: &dyn Make) {
    let bus = make.make().await;
    for subject in ["", "a..b", "a b", "a.*", ">", "a.\r\nPUB"] {
        let asked = ask(&bus.asker, subject, "x").await.unwrap_err();
        assert!(matches!(asked, BusError::BadSubject { .. }), "{asked}");
        let served = bus.server.serve(subject).await.err().unwrap();
        assert!(matches!(served, BusError::BadSubject { .. }), "{served}");
    }
}

pub(crate) async fn a_closed_bus_carries_nothing(make: &dyn Make) {
    let bus = make.make().await;
    let mut server = bus.server.serve("a").await.unwrap();
    let asker = Arc::clone(&bus.asker);
    let waiting = tokio::spawn(async move { asker.request("a", "x".into(), SOON * 5).await });
    let taken = next(&mut server).await;
    bus.server.close().await;
    bus.asker.close().await;
    assert!(server.next().await.is_none());
    drop(taken);
    waiting.await.unwrap().unwrap_err();
    let asked = ask(&bus.asker, "a", "x").await.unwrap_err();
    assert_eq!(asked, BusError::Closed);
    let served = bus.server.serve("a").await.err().unwrap();
    assert_eq!(served, BusError::Closed);
}
