//! A bounded number of connections, and a smaller one for each user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    all: u32,
    taken: Mutex<HashMap<u32, u32>>,
}

/// One that is taken; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    pub(crate) fn new(all: u32) -> Arc<Places> {
        Arc::new(Places {
            all,
            taken: Mutex::default(),
        })
    }

    /// Takes one for this user, if there is one left for it.
    pub(crate) fn take(self: &Arc<Places>, uid: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let total: u32 = taken.values().sum();
        let own = taken.entry(uid).or_default();
        if total >= self.all || *own >= self.all.div_ceil(2) {
            return None;
        }
        *own += 1;
        Some(Place {
            places: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_has_more_than_half_and_all_are_bounded() {
        let places = Places::new(4);
        let first = [places.take(1), places.take(1)];
        assert!(first.iter().all(Option::is_some));
        assert!(places.take(1).is_none());
        let second = [places.take(2), places.take(2)];
        assert!(second.iter().all(Option::is_some));
        assert!(places.take(3).is_none());
        drop(first);
        assert!(places.take(3).is_some());
    }
}
