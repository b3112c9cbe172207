//! Who asks, and whether they may.
//!
//! ```text
//!   Authorization: Bearer key-<32 hex>.<64 hex>
//!                         └── id ────┘ └ secret: 256 random bits
//! ```
//!
//! The BLAKE3 of the secret is what is stored: of 256 random bits, nothing slower is needed. A key
//! that does not exist costs the same work as a wrong secret, and gets the same answer.
//!
//! A browser that logged in sends the cookie of a session instead, see [`session`].

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use firelane_model::bucket::{Rate, TokenBucket};
use firelane_model::id::KeyId;
use firelane_model::time::Moment;
use firelane_wire::bus::{Caller, FindKey, KeyFound};
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use subtle::ConstantTimeEq;

use crate::Gateway;
use crate::dashboard::session;
use crate::failure::Failure;
use crate::listen::Peer;

/// Hex characters of a secret.
const SECRET_DIGITS: usize = 64;
/// Tenant of who asks without a key, where that is allowed.
const LOCAL_TENANT: &str = "local";
/// Most keys whose rate is remembered; those that were have some left are forgotten, and begin again
/// with a full bucket.
const MAX_BUCKETS: usize = 10_000;

/// Who asks, after all checks.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) caller: Caller,
    /// For the audit.
    pub(crate) actor: String,
    scopes: Vec<Scope>,
}

impl Who {
    /// Refuses who lacks the scope. An admin has every scope.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Failure> {
        if self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin) {
            return Ok(());
        }
        let problem = Problem::new(
            Code::Forbidden,
            format!("the key lacks the scope '{scope}'"),
        );
        Err(problem
            .with_remedy(format!(
                "make one that has it: firelane key create --scopes {scope}"
            ))
            .into())
    }
}

/// How fast each key asks.
#[derive(Default)]
pub(crate) struct Rates {
    buckets: Mutex<HashMap<KeyId, TokenBucket>>,
}

impl Rates {
    /// Takes one request of this key's allowance, or says when there is one.
    fn take(&self, found: &KeyFound, now: Moment) -> Result<(), Duration> {
        let Some(rate) = found.key.limits.rate else {
            return Ok(());
        };
        let burst = found.key.limits.burst.and_then(NonZeroU32::new);
        let burst = burst.unwrap_or(rate.requests);
        let rate = Rate {
            count: rate.requests,
            per: Duration::from_secs(rate.per_seconds.get().into()),
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&found.key.id) {
            buckets.retain(|_, bucket| bucket.tokens(now) == 0);
        }
        let bucket = buckets
            .entry(found.key.id)
            .or_insert_with(|| TokenBucket::new(rate, burst, now));
        bucket.set_limits(rate, burst, now);
        bucket.take(now)
    }
}

impl FromRequestParts<Arc<Gateway>> for Who {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Who, Failure> {
        // A request is counted once, however often it is asked whose it is.
        if let Some(who) = parts.extensions.get::<Who>() {
            return Ok(who.clone());
        }
        let found = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => find(value.to_str().unwrap_or_default(), gateway).await?,
            None => match without_key(parts.extensions.get(), gateway) {
                Ok(who) => return Ok(who),
                Err(refused) => match session::key(parts, gateway) {
                    Some(id) => of_session(id, gateway).await?,
                    None => return Err(refused),
                },
            },
        };
        if let Err(wait) = gateway.rates.take(&found, gateway.now()) {
            let problem = Problem::new(Code::RateLimited, "this key has made too many requests");
            return Err(problem.retry_after(wait).into());
        }
        Ok(Who {
            actor: found.key.id.to_string(),
            scopes: found.key.scopes.into_iter().collect(),
            caller: Caller {
                tenant: found.key.tenant,
                key: Some(found.key.id),
                weight: found.key.weight,
                concurrency: found.key.limits.concurrency,
                cpu_us_per_day: found
                    .key
                    .limits
                    .cpu_seconds_per_day
                    .map(|seconds| seconds.saturating_mul(1_000_000)),
            },
        })
    }
}

/// The owner of the service, over its Unix socket, needs no key; nor does anybody where keys are off.
fn without_key(peer: Option<&Peer>, gateway: &Gateway) -> Result<Who, Failure> {
    let actor = match peer {
        Some(Peer::Local { uid }) if *uid == gateway.config.owner || *uid == 0 => {
            format!("uid {uid}")
        }
        _ if !gateway.config.keys => "anybody".into(),
        _ => return Err(unauthenticated()),
    };
    Ok(Who {
        caller: Caller {
            tenant: LOCAL_TENANT.into(),
            key: None,
            weight: 1,
            concurrency: None,
            cpu_us_per_day: None,
        },
        actor,
        scopes: Scope::ALL.to_vec(),
    })
}

async fn find(header: &str, gateway: &Gateway) -> Result<KeyFound, Failure> {
    let (id, secret) = split(header).ok_or_else(unauthenticated)?;
    let found = gateway.coordinator.ask(&FindKey { id }).await?;
    // The same work, whether there is such a key or not.
    let expected = found.as_ref().map_or([0; 32], |found| found.secret_hash);
    let same = bool::from(blake3::hash(secret.as_bytes()).as_bytes().ct_eq(&expected));
    match found {
        Some(found) if same && found.key.revoked_at.is_none() => Ok(found),
        _ => Err(unauthenticated()),
    }
}

/// The key of this token.
pub(crate) async fn by_token(token: &str, gateway: &Gateway) -> Result<KeyFound, Failure> {
    find(&format!("Bearer {token}"), gateway).await
}

/// The key of a session. Once it is revoked, its sessions are over.
async fn of_session(id: KeyId, gateway: &Gateway) -> Result<KeyFound, Failure> {
    match gateway.coordinator.ask(&FindKey { id }).await? {
        Some(found) if found.key.revoked_at.is_none() => Ok(found),
        _ => {
            gateway.sessions.end_of(id);
            Err(unauthenticated())
        }
    }
}

fn split(header: &str) -> Option<(KeyId, &str)> {
    let (scheme, token) = header.split_once(' ')?;
    let (id, secret) = token.trim().split_once('.')?;
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = scheme.eq_ignore_ascii_case("bearer")
        && secret.len() == SECRET_DIGITS
        && secret.bytes().all(hex);
    well_formed.then_some((id.parse().ok()?, secret))
}

fn unauthenticated() -> Failure {
    Problem::new(
        Code::Unauthenticated,
        "there is no valid API key in the request",
    )
    .with_remedy("send Authorization: Bearer TOKEN; make one with: firelane key create")
    .into()
}

/// Time since the gateway began, for what is counted by time.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::after_origin(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_form() {
        let id = "key-00000000000000000000000000000001";
        let secret = "ab".repeat(32);
        let check = |header: &str, expected: bool| {
            assert_eq!(split(header).is_some(), expected, "{header}");
        };
        check(&format!("Bearer {id}.{secret}"), true);
        check(&format!("bearer  {id}.{secret} "), true);
        check(&format!("Basic {id}.{secret}"), false);
        check(&format!("Bearer {id}.{}", &secret[1..]), false);
        check(&format!("Bearer {id}.{}", secret.to_uppercase()), false);
        check(&format!("Bearer {secret}"), false);
        check(&format!("{id}.{secret}"), false);
        check("", false);
    }
}
