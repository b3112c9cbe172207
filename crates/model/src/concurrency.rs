//! How much a key may have going at once.

use std::collections::BTreeMap;

/// As many are going as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bound} are going, which is the most")]
pub struct AtBound {
    /// How many may be going.
    pub bound: u32,
}

/// Stands for one that is going. It is not copied and not made elsewhere: what entered once leaves
/// once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what entered has to leave"]
pub struct Pass<K>(K);

/// Counts what is going for each key. Keys with nothing going take no room.
#[derive(Clone, Debug, Default)]
pub struct Concurrency<K> {
    going: BTreeMap<K, u32>,
}

impl<K: Clone + Ord> Concurrency<K> {
    /// Nothing is going.
    pub fn new() -> Self {
        let going = BTreeMap::new();
        Self { going }
    }

    /// One more for this key, if fewer than `bound` are going.
    pub fn enter(&mut self, key: K, bound: u32) -> Result<Pass<K>, AtBound> {
        if self.going(&key) >= bound {
            return Err(AtBound { bound });
        }
        *self.going.entry(key.clone()).or_insert(0) += 1;
        Ok(Pass(key))
    }

    /// One has ended.
    pub fn leave(&mut self, pass: Pass<K>) {
        let Pass(key) = pass;
        if let Some(going) = self.going.get_mut(&key) {
            *going -= 1;
            if *going == 0 {
                self.going.remove(&key);
            }
        }
    }

    /// How many are going for this key.
    pub fn going(&self, key: &K) -> u32 {
        self.going.get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_bound() {
        let mut concurrency = Concurrency::new();
        let first = concurrency.enter("a", 2).unwrap();
        let second = concurrency.enter("a", 2).unwrap();
        assert_eq!(concurrency.enter("a", 2), Err(AtBound { bound: 2 }));
        assert_eq!(concurrency.enter("b", 0), Err(AtBound { bound: 0 }));
        let other = concurrency.enter("b", 1).unwrap();
        concurrency.leave(first);
        let third = concurrency.enter("a", 2).unwrap();
        for pass in [second, third, other] {
            concurrency.leave(pass);
        }
        assert_eq!(concurrency.going(&"a"), 0);
        assert!(concurrency.going.is_empty());
    }

    #[test]
    fn a_bound_that_was_lowered_holds_for_what_comes() {
        let mut concurrency = Concurrency::new();
        let passes: Vec<_> = (0..5).map(|_| concurrency.enter((), 5).unwrap()).collect();
        assert_eq!(concurrency.enter((), 1), Err(AtBound { bound: 1 }));
        for pass in passes {
            concurrency.leave(pass);
        }
        assert!(concurrency.enter((), 1).is_ok());
    }
}
