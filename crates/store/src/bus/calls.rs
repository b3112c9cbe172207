//! Typed calls over the Bus: see [`firelane_wire::bus`] for what they are and how they are written.

use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use firelane_wire::bus::{Call, decode, encode};
use firelane_wire::problem::{Code, Problem};
use tokio::task::{JoinSet, consume_budget};

use super::{BusError, MAX_MESSAGE_BYTES, Request, Requests, SharedBus};

/// How long an ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls of one kind that a server answers at once; the next one waits in the queue of its subject.
/// A call that waits for something to happen (a read of a log, up to 20 s) takes a place while it
/// waits, and there is one for each caller that waits for a run: so this is above the connections that
/// a gateway has. Kinds have their places apart: however many read, a cancel is answered.
pub const AT_ONCE: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// Calls one service, by the first words of its subjects.
#[derive(Clone)]
pub struct Calls {
    bus: SharedBus,
    prefix: Arc<str>,
}

impl Calls {
    /// Calls of the service whose subjects begin with `prefix`.
    #[must_use]
    pub fn of(bus: SharedBus, prefix: &str) -> Calls {
        Calls {
            bus,
            prefix: prefix.into(),
        }
    }

    /// Asks, and waits for an ordinary time.
    ///
    /// # Errors
    /// The service's own [`Problem`], or one that says that it does not answer.
    pub async fn ask<C: Call>(&self, call: &C) -> Result<C::Answer, Problem> {
        self.ask_for(call, Duration::ZERO).await
    }

    /// Asks something whose answer may take `longer` than is ordinary.
    ///
    /// # Errors
    /// The service's own [`Problem`], or one that says that it does not answer.
    pub async fn ask_for<C: Call>(&self, call: &C, longer: Duration) -> Result<C::Answer, Problem> {
        let subject = subject::<C>(&self.prefix);
        let payload = Bytes::from(encode(call)?);
        let limit = CALL_TIMEOUT + longer;
        match self.bus.request(&subject, payload, limit).await {
            Ok(answer) => decode::<Result<C::Answer, Problem>>(&answer)?,
            Err(error) => Err(problem(&error)),
        }
    }
}

fn subject<C: Call>(prefix: &str) -> String {
    format!("{prefix}.{}", C::NAME)
}

fn problem(error: &BusError) -> Problem {
    let code = match error {
        BusError::NobodyListens { .. }
        | BusError::TimedOut { .. }
        | BusError::Unanswered { .. }
        | BusError::Closed => Code::Unavailable,
        BusError::TooLarge { .. } => Code::TooLarge,
        BusError::BadSubject { .. } => Code::Internal,
    };
    Problem::new(code, error.to_string())
}

/// Serves many kinds of call with one thing that many share: a list of
/// `Call => |shared, call| answer;`. What fails is given by `?`.
#[macro_export]
macro_rules! serve_calls {
    ($server:ident, $shared:expr; $($call:ty => |$this:ident, $value:ident| $answer:expr;)*) => {$({
        let shared = ::std::sync::Arc::clone($shared);
        let answer = move |$value: $call| {
            let $this = ::std::sync::Arc::clone(&shared);
            async move { $answer }
        };
        $server.on(answer).await?;
    })*};
}

/// Serves calls. Dropped, it serves no more, and what was being answered is dropped too.
pub struct Server {
    bus: SharedBus,
    prefix: String,
    at_once: NonZeroUsize,
    tasks: JoinSet<()>,
}

impl Server {
    /// A server of calls whose subjects begin with `prefix`; of none yet.
    #[must_use]
    pub fn new(bus: SharedBus, prefix: &str) -> Server {
        Server {
            bus,
            prefix: prefix.into(),
            at_once: AT_ONCE,
            tasks: JoinSet::new(),
        }
    }

    /// Answers at most so many calls of each kind at once, from the next [`Server::on`] on, instead
    /// of [`AT_ONCE`].
    #[must_use]
    pub fn at_once(mut self, at_once: NonZeroUsize) -> Server {
        self.at_once = at_once;
        self
    }

    /// Serves one kind of call: each that waits by a task of its own, so that it holds up nobody. A
    /// handler that panics leaves its asker without an answer, and the others alone.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn on<C, F, Fut>(&mut self, answer: F) -> Result<(), BusError>
    where
        C: Call,
        F: Fn(C) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<C::Answer, Problem>> + Send + 'static,
    {
        let requests = self.bus.serve(&subject::<C>(&self.prefix)).await?;
        self.tasks.spawn(serve(requests, self.at_once, answer));
        Ok(())
    }
}

/// Answers until the Bus is closed; then lets end what was begun.
async fn serve<C, F, Fut>(mut requests: Box<dyn Requests>, at_once: NonZeroUsize, answer: F)
where
    C: Call,
    F: Fn(C) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<C::Answer, Problem>> + Send + 'static,
{
    let mut answering = JoinSet::new();
    loop {
        let request = tokio::select! {
            biased;
            Some(ended) = answering.join_next() => {
                if ended.is_err() {
                    tell_panic::<C>();
                }
                continue;
            }
            request = requests.next(), if answering.len() < at_once.get() => request,
        };
        let Some(request) = request else { break };
        if let Some(waits) = begin::<C>(respond(request, answer.clone())) {
            answering.spawn(waits);
        }
        consume_budget().await;
    }
    drop(requests);
    while let Some(ended) = answering.join_next().await {
        if ended.is_err() {
            tell_panic::<C>();
        }
    }
}

/// Answers, if that can be done without waiting; else gives what waits. Most calls have their answer at
/// once, and a task for each would cost more than the answer.
fn begin<C: Call>(
    responding: impl Future<Output = ()>,
) -> Option<Pin<Box<impl Future<Output = ()>>>> {
    let mut responding = Box::pin(responding);
    // Nobody needs to wake it before its task begins, which polls it again.
    let mut nobody = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| responding.as_mut().poll(&mut nobody)));
    match polled {
        Ok(Poll::Ready(())) => None,
        Ok(Poll::Pending) => Some(responding),
        Err(_) => {
            tell_panic::<C>();
            None
        }
    }
}

fn tell_panic<C: Call>() {
    // What it said is on stderr already.
    tracing::error!(call = C::NAME, "a handler of calls ended without an answer");
}

async fn respond<C, F, Fut>(request: Request, answer: F)
where
    C: Call,
    F: Fn(C) -> Fut,
    Fut: Future<Output = Result<C::Answer, Problem>>,
{
    let answered = match decode::<C>(request.payload()) {
        Ok(call) => answer(call).await,
        Err(error) => {
            tracing::warn!(call = C::NAME, %error, "a call is not understood");
            Err(Problem::from(error))
        }
    };
    let bytes = match encode(&answered) {
        Ok(bytes) if bytes.len() > MAX_MESSAGE_BYTES => refusal::<C>(too_large(bytes.len())),
        Ok(bytes) => Some(bytes),
        Err(error) => refusal::<C>(error.into()),
    };
    let Some(bytes) = bytes else { return };
    if let Err(error) = request.answer(bytes.into()).await {
        tracing::warn!(call = C::NAME, %error, "an answer was not sent");
    }
}

fn too_large(bytes: usize) -> Problem {
    let cause = format!("the answer has {bytes} bytes, at most {MAX_MESSAGE_BYTES} are carried");
    Problem::new(Code::TooLarge, cause).with_remedy("ask for less at once")
}

/// The bytes of an answer that says why there is none.
fn refusal<C: Call>(problem: Problem) -> Option<Vec<u8>> {
    tracing::error!(call = C::NAME, %problem, "a call was carried out and cannot be answered");
    let refused: Result<C::Answer, Problem> = Err(problem);
    // An asker that gets nothing learns that it got nothing.
    encode(&refused).ok()
}
