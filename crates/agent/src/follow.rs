//! From a program that was started to its outcome.

use std::time::Duration;

use async_trait::async_trait;
use firelane_guest_proto::message::Outcome;
use firelane_vmm::driver::{Death, MicroVm};
use firelane_vmm::session::{Event, Exec, SessionError};
use tokio::time::{Instant, timeout_at};

/// What the guest gets on top of the time limit to report it, before the host ends it.
const GRACE: Duration = Duration::from_secs(45);
/// How long the end of a microVM may take to be seen after its session broke.
const END_SEEN: Duration = Duration::from_millis(300);

/// Takes what a program writes, as it comes.
#[async_trait]
pub trait Sink: Send {
    /// Why it cannot take more.
    type Error: Send;

    /// Bytes of stdout, or of the terminal.
    async fn stdout(&mut self, bytes: Vec<u8>) -> Result<(), Self::Error>;

    /// Bytes of stderr.
    async fn stderr(&mut self, bytes: Vec<u8>) -> Result<(), Self::Error>;
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum FollowError<E> {
    /// The microVM ended.
    #[error("the microVM ended during the run")]
    Died(#[source] Death),
    /// The guest refused the program, or the session broke.
    #[error(transparent)]
    Session(SessionError),
    /// The guest did not keep the time limit.
    #[error("the guest did not keep the time limit of {0:?}")]
    Overdue(Duration),
    /// The guest was told the limit; one that does not keep it is not the guest that we put there.
    #[error("the guest sent more output than its limit of {0} bytes")]
    TooMuch(u64),
    /// What the program wrote could not be passed on.
    #[error("cannot pass on what the program wrote")]
    Sink(E),
}

/// What the guest was told to keep the program to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time from its start to its end, if that is bounded.
    pub time: Option<Duration>,
    /// Bytes of stdout, and of stderr.
    pub output: u64,
}

/// Passes on what the program writes until it ends. The guest keeps the bounds; should it not, the
/// host does. Time in which nobody takes the output does not count against the guest.
///
/// # Errors
/// [`FollowError`].
pub async fn follow<S: Sink>(
    vm: &mut dyn MicroVm,
    mut exec: Exec,
    bounds: Bounds,
    sink: &mut S,
) -> Result<Outcome, FollowError<S::Error>> {
    let mut deadline = bounds.time.map(|time| Instant::now() + time + GRACE);
    let (mut stdout, mut stderr) = (0, 0);
    loop {
        let event = tokio::select! {
            event = exec.next() => event,
            death = vm.died() => return Err(FollowError::Died(death)),
            () = passed(deadline) => {
                return Err(FollowError::Overdue(bounds.time.unwrap_or_default()));
            }
        };
        let before = Instant::now();
        match event {
            Ok(Event::Started) => {}
            Ok(Event::Stdout(bytes)) => {
                count(&mut stdout, &bytes, bounds.output)?;
                sink.stdout(bytes).await.map_err(FollowError::Sink)?;
            }
            Ok(Event::Stderr(bytes)) => {
                count(&mut stderr, &bytes, bounds.output)?;
                sink.stderr(bytes).await.map_err(FollowError::Sink)?;
            }
            Ok(Event::Ended(outcome)) => return Ok(outcome),
            Err(error) => return Err(because_it_ended(vm, error).await),
        }
        deadline = deadline.map(|deadline| deadline + before.elapsed());
    }
}

fn count<E>(sum: &mut u64, bytes: &[u8], limit: u64) -> Result<(), FollowError<E>> {
    *sum = sum.saturating_add(bytes.len() as u64);
    if *sum > limit {
        return Err(FollowError::TooMuch(limit));
    }
    Ok(())
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// When a session breaks because its microVM ends, the microVM's end is the better answer.
async fn because_it_ended<E>(vm: &mut dyn MicroVm, error: SessionError) -> FollowError<E> {
    if matches!(error, SessionError::Refused(_)) {
        return FollowError::Session(error);
    }
    match timeout_at(Instant::now() + END_SEEN, vm.died()).await {
        Ok(death) => FollowError::Died(death),
        Err(_) => FollowError::Session(error),
    }
}
