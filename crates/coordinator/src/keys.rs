//! API keys: made, found, revoked; and what each has used today.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use firelane_model::budget::DailyBudget;
use firelane_model::id::KeyId;
use firelane_store::db::{AuditEntry, Db, DbError, Key as KeyRecord, MAX_PAGE, PageOf};
use firelane_wire::bus::{Caller, KeyFound, MakeKey, RevokeKey};
use firelane_wire::key::{Key, KeyLimits, KeyMade, NewKey};
use firelane_wire::problem::{Code, Problem};
use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entry::Entry;
use crate::records::{self, Used, json, problem, time, today};
use crate::service::Coordinator;

/// Longest name of a key or tenant, in bytes.
const MAX_NAME: usize = 100;
/// Highest weight of a key.
const MAX_WEIGHT: u32 = 1000;

/// All keys, and what was used today.
#[derive(Default)]
pub(crate) struct Keys {
    all: HashMap<KeyId, Known>,
    used: HashMap<KeyId, DailyBudget>,
}

struct Known {
    key: Key,
    secret_hash: [u8; 32],
}

impl Keys {
    /// As the database has them.
    pub(crate) async fn load(db: &Db) -> Result<Keys, DbError> {
        let mut keys = Keys::default();
        let mut page = PageOf::first(MAX_PAGE);
        loop {
            let found = db.read(move |rx| rx.keys(None, page)).await?;
            for record in &found.items {
                match shown(record) {
                    Some(key) => {
                        let secret_hash = record.secret_hash;
                        keys.all.insert(key.id, Known { key, secret_hash });
                    }
                    None => tracing::error!(key = record.id, "the record of a key cannot be read"),
                }
            }
            page.after = found.next;
            if found.next.is_none() {
                break;
            }
        }
        let day = today();
        for used in db.read(move |rx| rx.usage_of_day(day)).await? {
            if let Ok(key) = used.key_id.parse() {
                keys.charge(key, day, used.usage.cpu_us);
            }
        }
        Ok(keys)
    }

    /// Counts what a key used against its budget of that day.
    pub(crate) fn charge(&mut self, key: KeyId, day: i64, cpu_us: u64) {
        let cpu = Duration::from_micros(cpu_us);
        let day = u64::try_from(day).unwrap_or(0);
        self.used.entry(key).or_default().charge(cpu, day);
    }

    /// Refuses who has used up the day's budget.
    pub(crate) fn admit(&self, caller: &Caller) -> Result<(), Problem> {
        let (Some(key), Some(limit_us)) = (caller.key, caller.cpu_us_per_day) else {
            return Ok(());
        };
        let used = self.used.get(&key).copied().unwrap_or_default();
        let day = u64::try_from(today()).unwrap_or(0);
        let limit = Duration::from_micros(limit_us);
        used.admit(limit, day).map_err(|exhausted| {
            let cause = format!(
                "this key has used {:?} of {limit:?} of today",
                exhausted.used
            );
            let midnight = exhausted.renewed_on.saturating_mul(86_400);
            let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
            let wait = Duration::from_secs(midnight.saturating_sub(now));
            Problem::new(Code::BudgetSpent, cause).retry_after(wait)
        })
    }
}

impl Coordinator {
    /// Counts what a run used against its key's budget.
    pub(crate) fn charge(&self, entry: &Entry, used: &Used) {
        if let Some(key) = entry.caller.key {
            let cpu_us = used.usage.cpu_us;
            self.state().keys.charge(key, used.day, cpu_us);
        }
    }

    /// A key by its name.
    pub(crate) fn find_key(&self, id: KeyId) -> Option<KeyFound> {
        let state = self.state();
        let known = state.keys.all.get(&id)?;
        Some(KeyFound {
            key: known.key.clone(),
            secret_hash: known.secret_hash,
        })
    }

    /// All keys, oldest first.
    pub(crate) fn list_keys(&self) -> Vec<Key> {
        let state = self.state();
        let mut keys: Vec<Key> = state
            .keys
            .all
            .values()
            .map(|known| known.key.clone())
            .collect();
        keys.sort_by_key(|key| key.id);
        keys
    }

    /// Makes a key. Its secret is in the answer and nowhere else.
    pub(crate) async fn make_key(self: Arc<Self>, call: MakeKey) -> Result<KeyMade, Problem> {
        let MakeKey { actor, key: new } = call;
        check(&new)?;
        let now = records::now();
        let key = Key {
            id: KeyId::from_bits(Uuid::now_v7().as_u128()),
            tenant: new.tenant.unwrap_or_else(|| new.name.clone()),
            name: new.name,
            scopes: new.scopes,
            weight: new.weight.unwrap_or(1),
            limits: new.limits,
            created_at: now.to_string(),
            revoked_at: None,
        };
        let secret = secret()?;
        let secret_hash = blake3::hash(secret.as_bytes()).into();
        let record = record(&key, secret_hash, now);
        let audit = audit(now, actor, "key.create", key.id, json(&key));
        let inserted = self.db.write(move |tx| {
            tx.insert_key(&record)?;
            tx.append_audit(&audit)
        });
        inserted.await.map_err(|error| problem(&error))?;
        let token = format!("{}.{secret}", key.id);
        let known = Known {
            key: key.clone(),
            secret_hash,
        };
        self.state().keys.all.insert(key.id, known);
        Ok(KeyMade { key, token })
    }

    /// Ends a key; one that was ended before stays so.
    pub(crate) async fn revoke_key(self: Arc<Self>, call: RevokeKey) -> Result<Key, Problem> {
        let RevokeKey { actor, id } = call;
        if self.find_key(id).is_none() {
            return Err(Problem::not_found("key", id));
        }
        let now = records::now();
        let audit = audit(now, actor, "key.revoke", id, "{}".into());
        let (name, at) = (id.to_string(), now.as_millisecond());
        let revoked = self.db.write(move |tx| {
            let first = tx.key(&name)?.is_some_and(|key| key.revoked_at.is_none());
            if first {
                tx.revoke_key(&name, at)?;
                tx.append_audit(&audit)?;
            }
            Ok(first)
        });
        let revoked = revoked.await.map_err(|error| problem(&error))?;
        let mut state = self.state();
        let known = state.keys.all.get_mut(&id);
        let known = known.ok_or_else(|| Problem::not_found("key", id))?;
        if revoked {
            known.key.revoked_at = Some(now.to_string());
        }
        Ok(known.key.clone())
    }
}

/// What a key allows, as the record keeps it beside its scopes.
#[derive(Serialize, Deserialize)]
struct Allowed {
    weight: u32,
    limits: KeyLimits,
}

fn record(key: &Key, secret_hash: [u8; 32], now: Timestamp) -> KeyRecord {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.name()).collect();
    KeyRecord {
        id: key.id.to_string(),
        tenant: key.tenant.clone(),
        name: key.name.clone(),
        scopes: scopes.join(","),
        limits: json(&Allowed {
            weight: key.weight,
            limits: key.limits.clone(),
        }),
        secret_hash,
        created: now.as_millisecond(),
        revoked_at: None,
        last_used: None,
    }
}

/// A record as callers see it; nothing, if it is damaged or of another version.
fn shown(record: &KeyRecord) -> Option<Key> {
    let scopes: Result<_, _> = record.scopes.split(',').map(str::parse).collect();
    let Allowed { weight, limits } = serde_json::from_str(&record.limits).ok()?;
    Some(Key {
        id: record.id.parse().ok()?,
        name: record.name.clone(),
        tenant: record.tenant.clone(),
        scopes: scopes.ok()?,
        weight,
        limits,
        created_at: time(record.created)?,
        // One whose time cannot be read is revoked all the same.
        revoked_at: record.revoked_at.map(|at| time(at).unwrap_or_default()),
    })
}

fn audit(now: Timestamp, actor: String, action: &str, id: KeyId, detail: String) -> AuditEntry {
    AuditEntry {
        at: now.as_millisecond(),
        actor,
        action: action.into(),
        subject: id.to_string(),
        detail,
    }
}

fn check(new: &NewKey) -> Result<(), Problem> {
    let invalid = |cause: &str| Err(Problem::new(Code::Invalid, cause));
    let plain = |name: &str| {
        !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
    };
    if !plain(&new.name) || !new.tenant.as_deref().is_none_or(plain) {
        return invalid("a key's name and tenant are 1 to 100 bytes without control characters");
    }
    if new.scopes.is_empty() {
        return invalid("a key without a scope allows nothing");
    }
    if new
        .weight
        .is_some_and(|weight| weight == 0 || weight > MAX_WEIGHT)
    {
        return invalid("a weight is from 1 to 1000");
    }
    let limits = &new.limits;
    if limits.burst == Some(0)
        || limits.concurrency == Some(0)
        || limits.cpu_seconds_per_day == Some(0)
    {
        return invalid("a limit of 0 allows nothing; leave it out for none");
    }
    Ok(())
}

/// 256 random bits in hex.
fn secret() -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    // Up to 256 bytes come at once, or not at all: getrandom(2).
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Problem::new(Code::Internal, format!("no random numbers: {errno}")))?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}
