//! Changes that wait to be told: in order, coalesced, bounded.

use std::collections::{HashMap, VecDeque};

use firelane_guest_proto::files::Change;

/// Changes that wait at most: a host that takes none of them learns that there were more.
const MAX_PENDING: usize = 4096;
/// Bytes of an encoded change besides its paths, at most.
const CHANGE_BYTES: usize = 8;

#[derive(Default)]
pub(super) struct Pending {
    changes: VecDeque<Change>,
    /// Paths whose last change is that they are new, or modified: another modification says nothing.
    touched: HashMap<Vec<u8>, Touched>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Touched {
    Created,
    Modified,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn push(&mut self, change: Change) {
        let known = match &change {
            Change::Created(path) => {
                let before = self.touched.insert(path.clone(), Touched::Created);
                before == Some(Touched::Created)
            }
            Change::Modified(path) => {
                let known = self.touched.contains_key(path);
                if !known {
                    self.touched.insert(path.clone(), Touched::Modified);
                }
                known
            }
            Change::Deleted(path) => {
                self.touched.remove(path);
                false
            }
            Change::Moved { .. } | Change::Overflow | Change::Gone => {
                self.touched.clear();
                false
            }
        };
        let last = change == Change::Gone;
        if known {
            return;
        }
        if self.changes.len() < MAX_PENDING || last {
            self.changes.push_back(change);
        } else {
            self.overflow();
        }
    }

    /// Something cannot be told: said once, after what could.
    pub(super) fn overflow(&mut self) {
        self.touched.clear();
        if self.changes.back() != Some(&Change::Overflow) {
            self.changes.push_back(Change::Overflow);
        }
    }

    /// The first changes, at least one if there is one, and more while `room` bytes hold them.
    pub(super) fn take(&mut self, room: usize) -> Vec<Change> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(change) = self.changes.front() {
            bytes += size(change);
            if bytes > room && !taken.is_empty() {
                break;
            }
            taken.extend(self.changes.pop_front());
        }
        // What was told is told again when it changes again.
        self.touched.clear();
        taken
    }
}

fn size(change: &Change) -> usize {
    CHANGE_BYTES
        + match change {
            Change::Created(path) | Change::Modified(path) | Change::Deleted(path) => path.len(),
            Change::Moved { from, to } => from.len() + to.len(),
            Change::Overflow | Change::Gone => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> Vec<u8> {
        number.to_string().into_bytes()
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_the_loss_is_told_once() {
        let mut pending = Pending::default();
        for number in 0..3 * MAX_PENDING {
            pending.push(Change::Created(path(number)));
        }
        pending.push(Change::Gone);
        let told = pending.take(usize::MAX);
        assert_eq!(told.len(), MAX_PENDING + 2);
        assert_eq!(told[MAX_PENDING..], [Change::Overflow, Change::Gone]);
    }

    #[test]
    fn modifications_that_say_nothing_new_are_left_out() {
        let mut pending = Pending::default();
        let (a, b) = (path(1), path(2));
        for _ in 0..5 {
            pending.push(Change::Modified(a.clone()));
            pending.push(Change::Modified(b.clone()));
        }
        pending.push(Change::Deleted(a.clone()));
        pending.push(Change::Created(a.clone()));
        pending.push(Change::Modified(a.clone()));
        let expected = [
            Change::Modified(a.clone()),
            Change::Modified(b),
            Change::Deleted(a.clone()),
            Change::Created(a.clone()),
        ];
        assert_eq!(pending.take(usize::MAX), expected);
        pending.push(Change::Modified(a.clone()));
        assert_eq!(pending.take(usize::MAX), [Change::Modified(a)]);
    }

    #[test]
    fn a_batch_keeps_to_its_room() {
        let mut pending = Pending::default();
        for number in 0..100 {
            pending.push(Change::Created(path(number)));
        }
        let batch = pending.take(100);
        assert!((1..=100 / CHANGE_BYTES).contains(&batch.len()));
        assert_eq!(pending.take(0).len(), 1);
    }
}
