//! The microVMs that there are, each with the user and the connection that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firelane_host_proto::message::{Code, Refusal};
use firelane_sys::cgroup::Cgroups;
use firelane_sys::process::ProcessId;

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

/// All of them.
#[derive(Debug)]
pub(crate) struct Table {
    most: usize,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
}

impl Table {
    pub(crate) fn new(most: u32) -> Table {
        Table {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            entries: Mutex::default(),
        }
    }

    /// Takes the id for a microVM that is being started.
    pub(crate) fn reserve(
        &self,
        id: &str,
        uid: u32,
        lease: u64,
        vmm: &'static str,
    ) -> Result<Arc<Entry>, Refusal> {
        let mut entries = self.lock();
        if entries.contains_key(id) {
            let remedy = "take another id: each microVM has one of its own";
            return Err(refuse_with(
                Code::IdTaken,
                format!("there is a microVM {id} already"),
                remedy,
            ));
        }
        if entries.len() >= self.most {
            let remedy = "end one, or have root start firelane-hostd with a larger --microvms";
            let cause = format!("there are {} microVMs already", entries.len());
            return Err(refuse_with(Code::Busy, cause, remedy));
        }
        let entry = Arc::new(Entry {
            id: id.into(),
            uid,
            lease,
            vmm,
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

    #[test]
    fn an_id_is_one_microvms_and_one_users() {
        let table = Table::new(2);
        let first = table.reserve("a", 7, 1, "qemu").unwrap();
        assert_eq!(
            table.reserve("a", 7, 1, "qemu").unwrap_err().code,
            Code::IdTaken
        );
        assert_eq!(table.find("a", 8).unwrap_err().code, Code::NotYours);
        assert!(table.find("a", 7).unwrap().is_some());
        assert!(table.find("a", 0).unwrap().is_some());
        assert!(table.find("b", 8).unwrap().is_none());
        table.reserve("b", 8, 2, "qemu").unwrap();
        assert_eq!(
            table.reserve("c", 8, 2, "qemu").unwrap_err().code,
            Code::Busy
        );
        assert_eq!(table.those(|entry| entry.lease == 1).len(), 1);
        table.forget(&first);
        let second = table.reserve("a", 9, 3, "qemu").unwrap();
        // What was forgotten already takes nobody else's away.
        table.forget(&first);
        assert!(table.find("a", 9).unwrap().is_some());
        table.forget(&second);
        assert!(table.find("a", 9).unwrap().is_none());
    }

    #[test]
    fn whoever_waits_for_an_end_is_told_how_it_was() {
        let table = Table::new(1);
        let entry = table.reserve("a", 0, 0, "qemu").unwrap();
        assert!(entry.ended(Duration::ZERO).is_none());
        let waiting = Arc::clone(&entry);
        let waiter = std::thread::spawn(move || waiting.ended(Duration::from_secs(60)));
        let (status, left) = ("signal 9".to_owned(), None);
        entry.set(Life::Ended(Ended { status, left }));
        assert_eq!(waiter.join().unwrap().unwrap().status, "signal 9");
    }
}
