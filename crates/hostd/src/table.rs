//! The microVMs that there are, each with the user and the connection that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firelane_host_proto::message::{Code, Refusal};
use firelane_sys::cgroup::Cgroups;
use firelane_sys::process::ProcessId;

use crate::config::{MEMORY_PER_USER, MICROVMS_PER_USER};
use crate::refuse::{refuse, refuse_with};

/// A microVM.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// The user that started it.
    pub(crate) uid: u32,
    /// The connection that it was started over.
    pub(crate) lease: u64,
    /// Its kind of VMM.
    pub(crate) vmm: &'static str,
    /// Its guest's, in MiB.
    memory_mib: u32,
    life: Mutex<Life>,
    changed: Condvar,
}

/// Where it is in its life.
#[derive(Clone, Debug)]
pub(crate) enum Life {
    Starting,
    Running(Running),
    Ended(Ended),
}

/// What runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) vmm: ProcessId,
    pub(crate) user: Option<u32>,
    pub(crate) cgroups: Cgroups,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Exit code or signal of its process.
    pub(crate) status: String,
    /// What could not be removed, and why.
    pub(crate) left: Option<String>,
}

impl Entry {
    pub(crate) fn life(&self) -> Life {
        self.lock().clone()
    }

    pub(crate) fn set(&self, life: Life) {
        *self.lock() = life;
        self.changed.notify_all();
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&self, timeout: Duration) -> Option<Ended> {
        let deadline = Instant::now() + timeout;
        let mut life = self.lock();
        loop {
            if let Life::Ended(ended) = &*life {
                return Some(ended.clone());
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(life, left);
            life = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A microVM that shall be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) id: &'a str,
    pub(crate) uid: u32,
    pub(crate) lease: u64,
    pub(crate) vmm: &'static str,
    pub(crate) memory_mib: u32,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// MicroVMs of all users.
    pub(crate) microvms: u32,
    /// Of one user, if that is bounded.
    pub(crate) microvms_per_user: Option<u32>,
    /// Memory of all guests of one user, in MiB, if that is bounded.
    pub(crate) memory_mib_per_user: Option<u32>,
}

impl Most {
    /// Refuses what would be too much for its user. What has ended uses nothing.
    fn allow<'a>(
        &self,
        wanted: &Wanted<'_>,
        entries: impl Iterator<Item = &'a Arc<Entry>>,
    ) -> Result<(), Refusal> {
        let lives = |entry: &Arc<Entry>| !matches!(entry.life(), Life::Ended(_));
        let own = entries.filter(|entry| entry.uid == wanted.uid && lives(entry));
        let (count, mib) = own.fold((0_u64, 0_u64), |(count, mib), entry| {
            (count + 1, mib + u64::from(entry.memory_mib))
        });
        let checks = [
            (
                "microVMs",
                count,
                1,
                self.microvms_per_user,
                MICROVMS_PER_USER,
            ),
            (
                "MiB of memory",
                mib,
                u64::from(wanted.memory_mib),
                self.memory_mib_per_user,
                MEMORY_PER_USER,
            ),
        ];
        for (what, used, more, most, option) in checks {
            let Some(most) = most else { continue };
            if used + more > u64::from(most) {
                let cause = format!(
                    "its user has {used} {what}, and would have {}, of {most} at most",
                    used + more
                );
                let remedy =
                    format!("end one, or have root start firelane-hostd with a larger {option}");
                return Err(refuse_with(Code::OutOfBounds, cause, remedy));
            }
        }
        Ok(())
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Table {
    most: Most,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

impl Table {
    pub(crate) fn new(most: Most) -> Table {
        Table {
            most,
            entries: Mutex::default(),
        }
    }

    /// Takes the id for a microVM that is being started.
    pub(crate) fn reserve(&self, wanted: Wanted<'_>) -> Result<Arc<Entry>, Refusal> {
        let Wanted {
            id,
            uid,
            lease,
            vmm,
            memory_mib,
        } = wanted;
        let mut entries = self.lock();
        if entries.contains_key(id) {
            let remedy = "take another id: each microVM has one of its own";
            return Err(refuse_with(
                Code::IdTaken,
                format!("there is a microVM {id} already"),
                remedy,
            ));
        }
        if entries.len() >= usize::try_from(self.most.microvms).unwrap_or(usize::MAX) {
            let remedy = "end one, or have root start firelane-hostd with a larger --microvms";
            let cause = format!("there are {} microVMs already", entries.len());
            return Err(refuse_with(Code::Busy, cause, remedy));
        }
        self.most.allow(&wanted, entries.values())?;
        let entry = Arc::new(Entry {
            id: id.into(),
            uid,
            lease,
            vmm,
            memory_mib,
            life: Mutex::new(Life::Starting),
            changed: Condvar::new(),
        });
        entries.insert(id.into(), Arc::clone(&entry));
        Ok(entry)
    }

    /// The microVM, if it is this user's; root's are all.
    pub(crate) fn find(&self, id: &str, uid: u32) -> Result<Option<Arc<Entry>>, Refusal> {
        match self.lock().get(id) {
            Some(entry) if uid != 0 && entry.uid != uid => Err(refuse(
                Code::NotYours,
                format!("microVM {id} is another user's"),
            )),
            found => Ok(found.cloned()),
        }
    }

    /// Forgets a microVM, unless its id was given to another meanwhile.
    pub(crate) fn forget(&self, entry: &Arc<Entry>) {
        let mut entries = self.lock();
        if entries
            .get(&entry.id)
            .is_some_and(|found| Arc::ptr_eq(found, entry))
        {
            entries.remove(&entry.id);
        }
    }

    /// Those of which this holds.
    pub(crate) fn those(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let entries = self.lock();
        let wanted = entries.values().filter(|entry| wanted(entry));
        wanted.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(microvms: u32) -> Table {
        Table::new(Most {
            microvms,
            microvms_per_user: None,
            memory_mib_per_user: None,
        })
    }

    fn wanted(id: &str, uid: u32, lease: u64) -> Wanted<'_> {
        Wanted {
            id,
            uid,
            lease,
            vmm: "qemu",
            memory_mib: 64,
        }
    }

    fn ended() -> Life {
        let (status, left) = ("signal 9".to_owned(), None);
        Life::Ended(Ended { status, left })
    }

    #[test]
    fn a_user_has_its_bounds_and_no_other_users() {
        let check = |microvms_per_user, memory_mib_per_user, option: &str| {
            let table = Table::new(Most {
                microvms: 9,
                microvms_per_user,
                memory_mib_per_user,
            });
            table.reserve(wanted("a", 7, 1)).unwrap();
            let second = table.reserve(wanted("b", 7, 1)).unwrap();
            let refused = table.reserve(wanted("c", 7, 2)).unwrap_err();
            assert_eq!(refused.code, Code::OutOfBounds, "{refused}");
            assert!(
                refused.remedy.unwrap().contains(option),
                "{}",
                refused.cause
            );
            table.reserve(wanted("c", 8, 3)).unwrap();
            // What has ended uses nothing, also before it was asked how.
            second.set(ended());
            table.reserve(wanted("d", 7, 1)).unwrap();
        };
        check(Some(2), None, MICROVMS_PER_USER);
        check(None, Some(128), MEMORY_PER_USER);
        check(Some(9), Some(191), MEMORY_PER_USER);
    }

    #[test]
    fn an_id_is_one_microvms_and_one_users() {
        let table = table(2);
        let first = table.reserve(wanted("a", 7, 1)).unwrap();
        assert_eq!(
            table.reserve(wanted("a", 7, 1)).unwrap_err().code,
            Code::IdTaken
        );
        assert_eq!(table.find("a", 8).unwrap_err().code, Code::NotYours);
        assert!(table.find("a", 7).unwrap().is_some());
        assert!(table.find("a", 0).unwrap().is_some());
        assert!(table.find("b", 8).unwrap().is_none());
        table.reserve(wanted("b", 8, 2)).unwrap();
        assert_eq!(
            table.reserve(wanted("c", 8, 2)).unwrap_err().code,
            Code::Busy
        );
        assert_eq!(table.those(|entry| entry.lease == 1).len(), 1);
        table.forget(&first);
        let second = table.reserve(wanted("a", 9, 3)).unwrap();
        // What was forgotten already takes nobody else's away.
        table.forget(&first);
        assert!(table.find("a", 9).unwrap().is_some());
        table.forget(&second);
        assert!(table.find("a", 9).unwrap().is_none());
    }

    #[test]
    fn whoever_waits_for_an_end_is_told_how_it_was() {
        let table = table(1);
        let entry = table.reserve(wanted("a", 0, 0)).unwrap();
        assert!(entry.ended(Duration::ZERO).is_none());
        let waiting = Arc::clone(&entry);
        let waiter = std::thread::spawn(move || waiting.ended(Duration::from_secs(60)));
        entry.set(ended());
        assert_eq!(waiter.join().unwrap().unwrap().status, "signal 9");
    }
}
