//! Threads that wait for something to do.
//!
//! To start one is slow under emulation: a stack to map, a process to copy. Those that have done their work
//! are kept for the next, also in a snapshot, and so is what they read into.

#![expect(unsafe_code, reason = "the C library's own function is a stub in musl")]

use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firelane_guest_proto::frame::MAX_DATA_BYTES;

use crate::console;

/// Most that wait; one with more before it ends.
const MAX_IDLE: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

/// Size of the buffer that each thread has, in bytes: a data frame.
const BUFFER_BYTES: usize = MAX_DATA_BYTES;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer: to get a fresh one, cleared, costs more than to read into it. It goes back when it
/// is dropped.
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// Takes it; whoever takes it twice gets another.
    pub(crate) fn take() -> Buffer {
        let mut bytes = BUFFER.take();
        bytes.resize(BUFFER_BYTES, 0);
        Buffer(bytes)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.0));
    }
}

/// The threads.
#[derive(Clone, Default)]
pub(crate) struct Workers {
    idle: Arc<Mutex<Vec<Sender<Work>>>>,
}

impl Workers {
    /// Has a thread do this: one that waits, else a new one.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut work: Work = Box::new(work);
        while let Some(waiting) = self.take() {
            match waiting.send(work) {
                Ok(()) => return Ok(()),
                Err(unsent) => work = unsent.0,
            }
        }
        let workers = self.clone();
        let new = std::thread::Builder::new().name("worker".into());
        new.spawn(move || workers.serve(work)).map(drop)
    }

    /// Does this, and then what comes.
    fn serve(&self, first: Work) {
        if let Err(error) = be_patient() {
            console::log(&format!("a worker is not patient: {error}"));
        }
        first();
        let (sender, inbox) = channel::<Work>();
        loop {
            {
                let mut idle = self.lock();
                if idle.len() >= MAX_IDLE {
                    return;
                }
                idle.push(sender.clone());
            }
            let Ok(work) = inbox.recv() else { return };
            work();
        }
    }

    fn take(&self) -> Option<Sender<Work>> {
        self.lock().pop()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sender<Work>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes this thread let others finish their turn before it takes its own, so that a program which
/// writes in small pieces is not interrupted at each of them. Children are as usual.
fn be_patient() -> io::Result<()> {
    let policy = libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK;
    // SAFETY: an all-zero parameter is the only valid one for this policy, and it lives across the
    // call.
    let result = unsafe {
        let parameter: libc::sched_param = std::mem::zeroed();
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::thread::ThreadId;

    use super::*;

    fn tell(workers: &Workers) -> std::sync::mpsc::Receiver<ThreadId> {
        let (done, told) = sync_channel(1);
        let tell = move || done.send(std::thread::current().id()).unwrap();
        workers.run(tell).unwrap();
        told
    }

    #[test]
    fn a_thread_that_is_done_does_the_next_thing_too() {
        let workers = Workers::default();
        let first = tell(&workers).recv().unwrap();
        while workers.lock().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(tell(&workers).recv().unwrap(), first);
    }

    #[test]
    fn nobody_waits_for_who_is_busy() {
        let workers = Workers::default();
        let (go, gate) = channel::<()>();
        workers.run(move || gate.recv().unwrap()).unwrap();
        tell(&workers).recv().unwrap();
        go.send(()).unwrap();
    }

    #[test]
    fn only_so_many_are_kept() {
        let workers = Workers::default();
        let gates: Vec<_> = (0..MAX_IDLE + 3)
            .map(|_| {
                let (go, gate) = channel::<()>();
                workers.run(move || gate.recv().unwrap()).unwrap();
                go
            })
            .collect();
        let ended = Arc::downgrade(&workers.idle);
        for go in gates {
            go.send(()).unwrap();
        }
        // Those that wait, and this one: the others have let go of the list.
        while ended.strong_count() > MAX_IDLE + 1 {
            std::thread::yield_now();
        }
        assert_eq!(workers.lock().len(), MAX_IDLE);
    }
}
