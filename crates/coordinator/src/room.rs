//! Room in the queue: taken before a run is put on disk, so that one that finds none leaves nothing.
//!
//! ```text
//!   take ─▶ coming (to disk) ─▶ waiting ─▶ given out, cancelled, expired: free again
//!               └─ dropped: free again
//! ```
//!
//! The queue itself bounds the number of runs; what they bring along is bounded here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firelane_wire::content::Content;
use firelane_wire::run::RunRequest;

use crate::entry::Entry;
use crate::service::State;

/// Bytes of requests that wait in memory: a full queue of small runs has a tenth of it, and a machine
/// that runs microVMs has it to spare.
const MAX_BYTES: usize = 128 << 20;
/// Bytes of one tenant's requests that wait: one with large requests leaves room for others.
const MAX_TENANT_BYTES: usize = MAX_BYTES / 2;

/// Why there is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// Too many wait.
    #[error(transparent)]
    Count(#[from] firelane_model::queue::Refused),
    /// What waits is too large.
    #[error("{bytes} bytes of requests wait, at most {MAX_BYTES} may")]
    Bytes {
        /// How much waits.
        bytes: usize,
    },
    /// What this tenant has waiting is too large.
    #[error("{bytes} bytes of this tenant's requests wait, at most {MAX_TENANT_BYTES} may")]
    TenantBytes {
        /// How much waits.
        bytes: usize,
    },
}

/// What is taken.
#[derive(Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    all: Count,
    tenants: HashMap<String, Count>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    /// Runs that do not wait yet.
    coming: usize,
    /// Bytes of those and of what waits.
    bytes: usize,
}

/// Room for one run. Dropped, it is free again.
pub(crate) struct Held {
    room: Room,
    tenant: String,
    bytes: usize,
    coming: bool,
}

/// A run in the queue, and the room that it takes there.
pub(crate) struct Waiting {
    pub(crate) entry: Arc<Entry>,
    pub(crate) held: Held,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room, whether there is some or not: for what was let in before.
    pub(crate) fn take(&self, tenant: &str, bytes: usize) -> Held {
        let change = |count: &mut Count| {
            count.coming += 1;
            count.bytes += bytes;
        };
        let mut taken = self.lock();
        change(&mut taken.all);
        change(taken.tenants.entry(tenant.into()).or_default());
        Held {
            room: self.clone(),
            tenant: tenant.into(),
            bytes,
            coming: true,
        }
    }
}

impl State {
    /// Room for a run of so many bytes, if there is some.
    pub(crate) fn room_for(&self, tenant: &String, bytes: usize) -> Result<Held, Full> {
        let (all, own) = {
            let taken = self.room.lock();
            let own = taken.tenants.get(tenant).copied();
            (taken.all, own.unwrap_or_default())
        };
        self.queue.room(tenant, all.coming, own.coming)?;
        if own.bytes + bytes > MAX_TENANT_BYTES {
            return Err(Full::TenantBytes { bytes: own.bytes });
        }
        if all.bytes + bytes > MAX_BYTES {
            return Err(Full::Bytes { bytes: all.bytes });
        }
        Ok(self.room.take(tenant, bytes))
    }
}

impl Held {
    /// Its run waits from now on: the queue counts it.
    pub(crate) fn arrive(&mut self) {
        if std::mem::take(&mut self.coming) {
            let mut taken = self.room.lock();
            taken.all.coming -= 1;
            if let Some(own) = taken.tenants.get_mut(&self.tenant) {
                own.coming -= 1;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.arrive();
        let mut taken = self.room.lock();
        taken.all.bytes -= self.bytes;
        if let Some(own) = taken.tenants.get_mut(&self.tenant) {
            own.bytes -= self.bytes;
            if *own == Count::default() {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}

/// How much memory a request takes while it waits, about.
pub(crate) fn size(request: &RunRequest) -> usize {
    let content = |content: &Content| match content {
        Content::Nothing => 0,
        Content::Text(text) => text.len(),
        Content::Base64 { base64 } => base64.len(),
    };
    let words = request.args.iter().chain(&request.fetch).map(String::len);
    let pairs = request.env.iter().chain(&request.labels);
    let pairs = pairs.map(|(name, value)| name.len() + value.len());
    let files = request.files.iter();
    let files = files.map(|file| file.path.len() + content(&file.content));
    content(&request.code)
        + content(&request.stdin)
        + words.chain(pairs).chain(files).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_free_again_when_what_took_it_is_gone() {
        let room = Room::default();
        let mut one = room.take("t", 10);
        let two = room.take("t", 5);
        one.arrive();
        let own = |room: &Room| {
            room.lock()
                .tenants
                .get("t")
                .map(|own| (own.coming, own.bytes))
        };
        assert_eq!(own(&room), Some((1, 15)));
        drop(two);
        assert_eq!(own(&room), Some((0, 10)));
        drop(one);
        assert_eq!(own(&room), None);
        let taken = room.lock();
        assert!(taken.all == Count::default() && taken.tenants.is_empty());
    }
}
