//! Typed calls over the Bus: see [`firelane_wire::bus`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firelane_wire::bus::{Call, decode, encode};
use firelane_wire::problem::{Code, Problem};
use tokio::task::JoinSet;

use super::{Bus, BusError, Request};

/// How long an ordinary call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls one service, by the first words of its subjects.
#[derive(Clone)]
pub struct Calls {
    bus: Arc<dyn Bus>,
    prefix: Arc<str>,
}

impl Calls {
    /// Calls of the service whose subjects begin with `prefix`.
    #[must_use]
    pub fn of(bus: Arc<dyn Bus>, prefix: &str) -> Calls {
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
        let subject = format!("{}.{}", self.prefix, C::NAME);
        let payload = Bytes::from(encode(call)?);
        let limit = CALL_TIMEOUT + longer;
        match self.bus.request(&subject, payload, limit).await {
            Ok(answer) => decode::<Result<C::Answer, Problem>>(&answer)?,
            Err(error) => Err(problem(&error)),
        }
    }
}

fn problem(error: &BusError) -> Problem {
    let code = match error {
        BusError::NobodyServes(_) | BusError::TimedOut { .. } => Code::Unavailable,
        BusError::TooLarge { .. } => Code::TooLarge,
        BusError::BadSubject(_) => Code::Internal,
    };
    Problem::new(code, error.to_string())
}

/// Serves calls. Dropped, it serves no more, and what was being answered is dropped too.
pub struct Server {
    bus: Arc<dyn Bus>,
    prefix: String,
    tasks: JoinSet<()>,
}

impl Server {
    /// A server of calls whose subjects begin with `prefix`; of none yet.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, prefix: &str) -> Server {
        Server {
            bus,
            prefix: prefix.into(),
            tasks: JoinSet::new(),
        }
    }

    /// Serves one kind of call: each by a task of its own, so that one that waits holds up nobody.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn on<C, F, Fut>(&mut self, answer: F) -> Result<(), BusError>
    where
        C: Call,
        F: Fn(C) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<C::Answer, Problem>> + Send + 'static,
    {
        let subject = format!("{}.{}", self.prefix, C::NAME);
        let mut requests = self.bus.serve(&subject).await?;
        self.tasks.spawn(async move {
            let mut answering = JoinSet::new();
            loop {
                tokio::select! {
                    request = requests.next() => match request {
                        Some(request) => {
                            let answer = answer.clone();
                            answering.spawn(respond(request, answer));
                        }
                        None => break,
                    },
                    Some(_) = answering.join_next() => {}
                }
            }
        });
        Ok(())
    }
}

async fn respond<C, F, Fut>(request: Request, answer: F)
where
    C: Call,
    F: Fn(C) -> Fut,
    Fut: Future<Output = Result<C::Answer, Problem>>,
{
    let answered = match decode::<C>(&request.payload) {
        Ok(call) => answer(call).await,
        Err(error) => Err(Problem::from(error)),
    };
    let bytes = encode(&answered).or_else(|error| {
        let failed: Result<C::Answer, Problem> = Err(error.into());
        encode(&failed)
    });
    match bytes.map(|bytes| request.answer(bytes.into())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(call = C::NAME, %error, "an answer was not sent"),
        Err(error) => tracing::warn!(call = C::NAME, %error, "an answer cannot be written"),
    }
}
