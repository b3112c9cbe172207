//! The one layer that calls again.
//!
//! A call that failed for a reason that [may pass](crate::Class::may_pass) is repeated, after a
//! wait that doubles and is drawn at random up to that bound, or for as long as the provider asked
//! for. All calls of a provider take tokens of one bucket. A **create** is never repeated blindly:
//! it is looked for by its marker first, and where that is impossible, or its answer was lost and
//! nothing can be found out, it ends as failed with [`Effect::Unknown`].

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use firelane_model::bucket::{Rate, TokenBucket};
use firelane_model::lane::{Label, LaneId};
use firelane_model::time::Moment;
use tokio::time::Instant;

use crate::error::{Class, CloudError, Effect};
use crate::machine::{Handle, Machine, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept};

/// How often and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Calls in all, the first included.
    pub calls: u32,
    /// Bound of the wait before the second call; that of each later one is twice as long.
    pub first: Duration,
    /// Longest bound. A provider may ask for longer waits, up to [`Policy::longest_asked`].
    pub most: Duration,
    /// What a provider may ask for. If it wants more, the call has failed.
    pub longest_asked: Duration,
    /// Calls of all kinds.
    pub rate: Rate,
    /// Calls at once after a rest.
    pub burst: NonZeroU32,
}

impl Default for Policy {
    /// Six calls over half a minute on the average; four calls a second, twenty at once. Lower than
    /// what any provider allows one account.
    fn default() -> Self {
        const FOUR: NonZeroU32 = NonZeroU32::new(4).expect("not zero");
        const TWENTY: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
        Self {
            calls: 6,
            first: Duration::from_secs(1),
            most: Duration::from_secs(30),
            longest_asked: Duration::from_secs(120),
            rate: Rate::per_second(FOUR),
            burst: TWENTY,
        }
    }
}

/// A provider whose calls are repeated.
pub struct Retrying<P> {
    inner: P,
    policy: Policy,
    origin: Instant,
    bucket: Mutex<TokenBucket>,
    dice: Mutex<fastrand::Rng>,
}

impl<P: Provider> Retrying<P> {
    /// Around this one.
    pub fn new(inner: P, policy: Policy) -> Self {
        Self::with_dice(inner, policy, fastrand::Rng::new())
    }

    /// The same with a generator of the caller's, so that a history can be repeated.
    pub fn with_dice(inner: P, policy: Policy, dice: fastrand::Rng) -> Self {
        let bucket = TokenBucket::new(policy.rate, policy.burst, Moment::ORIGIN);
        Self {
            inner,
            policy,
            origin: Instant::now(),
            bucket: Mutex::new(bucket),
            dice: Mutex::new(dice),
        }
    }

    /// Until a token is there.
    async fn admitted(&self) {
        loop {
            let now = Moment::after_origin(self.origin.elapsed());
            let taken = self
                .bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(now);
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// How long until the next call; none if there is to be none.
    fn wait(&self, error: &CloudError, calls: u32) -> Option<Duration> {
        if !error.class.may_pass() || calls >= self.policy.calls {
            return None;
        }
        let bound = self
            .policy
            .first
            .saturating_mul(1 << (calls - 1).min(20))
            .min(self.policy.most);
        let drawn = bound.mul_f64(
            self.dice
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .f64(),
        );
        match error.retry_after {
            Some(asked) if asked > self.policy.longest_asked => None,
            // Not all at the same moment.
            Some(asked) => Some(asked + drawn.min(self.policy.first)),
            None => Some(drawn),
        }
    }

    /// A call that does no harm if it is made twice.
    async fn again<'a, T, F>(&'a self, call: impl Fn(&'a P) -> F) -> Result<T, CloudError>
    where
        F: Future<Output = Result<T, CloudError>> + Send + 'a,
    {
        let mut calls = 0;
        loop {
            self.admitted().await;
            calls += 1;
            let error = match call(&self.inner).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(wait) = self.wait(&error, calls) else {
                return Err(error);
            };
            tracing::info!(%error, class = %error.class, ?wait, "called again after a wait");
            tokio::time::sleep(wait).await;
        }
    }

    /// The machine of a lane, if there is one that is not about to go.
    async fn made(&self, spec: &Spec) -> Result<Option<Machine>, CloudError> {
        let which = Which::Lane(spec.lane);
        let machines = self.again(|inner| inner.list(&which)).await?;
        Ok(machines.into_iter().find(|machine| !machine.is_going()))
    }

    /// After an answer that was lost: whether the machine is there. A provider may tell of what it
    /// made only some time later, so it is asked until the waits of a call are used up.
    async fn settled(&self, spec: &Spec) -> Result<Option<Machine>, CloudError> {
        let mut wait = self.policy.first;
        for _ in 1..self.policy.calls {
            if let Some(machine) = self.made(spec).await? {
                return Ok(Some(machine));
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(self.policy.most);
        }
        self.made(spec).await
    }
}

#[async_trait]
impl<P: Provider> Provider for Retrying<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn handle_of(&self, label: &Label, lane: Option<LaneId>, region: &str) -> Option<Handle> {
        self.inner.handle_of(label, lane, region)
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        self.again(P::default_region).await
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        self.again(P::default_instance_type).await
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        self.again(|inner| inner.preflight(spec)).await
    }

    async fn quote(&self, spec: &Spec) -> Result<Option<Quote>, CloudError> {
        self.again(|inner| inner.quote(spec)).await
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        self.again(|inner| inner.plan(spec)).await
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let lists = self.capabilities().lists;
        if lists && let Some(machine) = self.made(spec).await? {
            return Ok(machine);
        }
        let mut calls = 0;
        loop {
            self.admitted().await;
            calls += 1;
            let error = match self.inner.create(spec).await {
                Ok(machine) => return Ok(machine),
                Err(error) => error,
            };
            // A conflict may be with what an answer that was lost has made.
            if error.effect == Effect::Unknown || error.class == Class::Conflict {
                if !lists {
                    return Err(error);
                }
                match self.settled(spec).await {
                    Ok(Some(machine)) => return Ok(machine),
                    Ok(None) => {}
                    Err(lost) => {
                        tracing::warn!(%lost, "what became of a create is not known");
                        return Err(error.with_unknown_effect());
                    }
                }
            }
            let Some(wait) = self.wait(&error, calls) else {
                return Err(error);
            };
            tracing::info!(%error, class = %error.class, ?wait, "created again after a wait");
            tokio::time::sleep(wait).await;
        }
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        self.again(|inner| inner.get(handle)).await
    }

    async fn let_in(&self, handle: &Handle, spec: &Spec) -> Result<(), CloudError> {
        self.again(|inner| inner.let_in(handle, spec)).await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        self.again(|inner| inner.list(which)).await
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        match self.again(|inner| inner.delete(handle)).await {
            Err(error) if error.class == Class::NotFound => Ok(()),
            ended => ended,
        }
    }

    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        self.again(|inner| inner.sweep(which)).await
    }

    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError> {
        self.again(|inner| inner.console_log(handle)).await
    }
}
