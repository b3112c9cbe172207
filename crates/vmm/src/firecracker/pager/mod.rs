//! Hands a restored guest its memory page by page, as it is missed.
//!
//! ```text
//!   start ── socket in the VMM's folder ── load ── the VMM connects: regions, userfaultfd ── serving ── end
//! ```
//!
//! Each microVM has a thread of its own for that: a fault waits for no other guest's pages to be read and checked, and
//! what one VMM does with its descriptor disturbs nobody else. The VMM is not trusted: what it says is checked, and a
//! VMM that says or does what none does is ended. So is one whose pages cannot be read or do not verify, because a guest
//! that waits for a page waits for ever. The thread ends with its VMM and with its owner.

mod handover;
mod layout;
mod serve;
mod source;
mod working_set;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use firelane_sys::userfault::PutError;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::driver::{Refusal, SnapshotFiles};
use crate::hosted::Killer;
use handover::receive;
pub use layout::LayoutError;
use serve::{End, Server};
use source::Source;
use working_set::WorkingSet;

/// Stack of a pager's thread in bytes: it reads into buffers on the heap.
const STACK_BYTES: usize = 256 << 10;
/// The socket's name in the VMM's folder.
pub(super) const SOCKET: &str = "mem.sock";

/// Why a guest cannot be given its memory any more. Its VMM was ended for it.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The VMM was to connect, or to say more.
    #[error("the VMM did not hand over the guest's memory in time")]
    Silent,
    /// The VMM says that it has loaded the snapshot, and has not handed over the memory.
    #[error("the VMM has loaded the snapshot without handing over the guest's memory")]
    Without,
    /// Another process connected.
    #[error("another process connected in the VMM's place")]
    Stranger,
    /// It is no JSON, or of another form.
    #[error("what the VMM says of the guest's memory is malformed")]
    Malformed(#[source] serde_json::Error),
    /// It goes on and on.
    #[error("what the VMM says of the guest's memory is too long")]
    TooLong,
    /// There is no descriptor with it.
    #[error("the VMM has passed no descriptor")]
    NoDescriptor,
    /// The descriptor is something else.
    #[error("the VMM has passed a descriptor that is of no use")]
    Descriptor(#[source] io::Error),
    /// The regions are not the machine's memory.
    #[error("what the VMM says of the guest's memory is not this machine")]
    Layout(#[from] LayoutError),
    /// A fault in no region.
    #[error("the VMM misses a page at {address:#x}, which is not the guest's memory")]
    Outside {
        /// Where.
        address: u64,
    },
    /// An event that Firecracker does not ask for.
    #[error("the VMM has asked for events of kind {0:#x}")]
    Unasked(u8),
    /// More faults wait than a VMM has threads, or there were more than it can have pages to miss.
    #[error("the VMM misses pages without end")]
    Flood,
    /// The kernel has no more events.
    #[error("the descriptor tells nothing any more")]
    Deaf,
    /// The snapshot's memory cannot be read, or does not verify.
    #[error("the snapshot's memory cannot be handed out at byte {offset}")]
    Snapshot {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The kernel does not put a page.
    #[error("cannot put a page into the guest's memory")]
    Put(#[from] PutError),
    /// A step on the host failed.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A fault of ours.
    #[error("whoever hands out the guest's memory has failed")]
    Panicked,
}

impl PagerError {
    fn step(step: &'static str) -> impl FnOnce(io::Error) -> PagerError {
        move |source| PagerError::Step { step, source }
    }

    /// Whether the snapshot is what is wrong.
    fn blames_snapshot(&self) -> bool {
        matches!(self, PagerError::Snapshot { .. })
    }
}

/// What the thread and its owner both know.
struct Shared {
    /// The microVM's.
    id: String,
    paused: AtomicBool,
    failure: OnceLock<Arc<PagerError>>,
}

impl Shared {
    fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }
}

/// The memory of one microVM.
pub(super) struct Pager {
    stop: Arc<OwnedFd>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    handover: Option<oneshot::Receiver<()>>,
}

/// Whose memory it is.
pub(super) struct Owner<'a> {
    /// The microVM.
    pub(super) id: &'a str,
    /// Its VMM, and how that is ended.
    pub(super) vmm: Killer,
    /// The user that this is, if it is another than ours.
    pub(super) user: Option<u32>,
    /// The folder of its sockets.
    pub(super) folder: &'a Path,
    /// A folder on the same file system that nobody but us gets into, if the VMM is another user's and we cannot give
    /// the socket to that.
    pub(super) closed: Option<&'a Path>,
    pub(super) memory_bytes: u64,
}

impl Pager {
    /// Listens for the VMM, which is to hand over its guest's memory before `deadline`.
    pub(super) fn start(
        owner: &Owner<'_>,
        files: &SnapshotFiles,
        deadline: Instant,
    ) -> io::Result<Pager> {
        let socket = owner.folder.join(SOCKET);
        let listener = listen(owner, &socket)?;
        let (source, set) = (Source::open(files)?, WorkingSet::of(&files.memory)?);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let shared = Arc::new(Shared {
            id: owner.id.to_owned(),
            paused: AtomicBool::new(false),
            failure: OnceLock::new(),
        });
        let (handed_over, handover) = oneshot::channel();
        let ends = EndsVmm {
            vmm: owner.vmm.clone(),
            shared: Arc::clone(&shared),
            armed: true,
        };
        let served_for = Arc::clone(&shared);
        let (vmm, memory_bytes, stopped) =
            (owner.vmm.vmm().pid, owner.memory_bytes, Arc::clone(&stop));
        let work = move || {
            let (mut ends, stop) = (ends, stopped.as_fd());
            let handed = receive(&listener, stop, vmm, memory_bytes, deadline);
            // Nobody else connects.
            drop(listener);
            let mut server = None;
            let served = handed.and_then(|handed| {
                let Some(handed) = handed else {
                    return Ok(End::Stopped);
                };
                // Whether anybody waits for it is their business.
                let _ = handed_over.send(());
                server
                    .insert(Server::new(handed, source, set, &served_for))
                    .serve(stop)
            });
            // While its descriptor is open: with that gone, pages that are missed would be zero.
            let ended_well = ends.end(served);
            if let Some(mut server) = server
                && ended_well
            {
                server.finish();
            }
        };
        let thread = thread::Builder::new()
            .name("pager".into())
            .stack_size(STACK_BYTES)
            .spawn(work)?;
        Ok(Pager {
            stop,
            shared,
            thread: Some(thread),
            handover: Some(handover),
        })
    }

    /// Waits until the VMM, which says that it has loaded the snapshot, has handed over the memory.
    ///
    /// # Errors
    /// The pager's failure; [`PagerError::Without`] if nothing comes.
    pub(super) async fn handed_over(&mut self, limit: Duration) -> Result<(), Arc<PagerError>> {
        let handed_over = match self.handover.take() {
            Some(handover) => timeout(limit, handover).await,
            None => return Ok(()),
        };
        match handed_over {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.failure().unwrap_or(Arc::new(PagerError::Without))),
        }
    }

    /// Why it has ended the VMM, if it has.
    pub(super) fn failure(&self) -> Option<Arc<PagerError>> {
        self.shared.failure.get().cloned()
    }

    /// What is wrong with the snapshot, if that is why it has ended the VMM.
    pub(super) fn snapshot_fault(&self) -> Option<Arc<PagerError>> {
        self.failure().filter(|failure| failure.blames_snapshot())
    }

    /// A guest that is paused misses nothing.
    pub(super) fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::Relaxed);
    }

    /// Waits until the thread has ended, which it is told to.
    pub(super) async fn end(mut self) {
        self.stop();
        let Some(thread) = self.thread.take() else {
            return;
        };
        // It may be writing down the working set.
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::warn!("a thread that hands out a guest's memory did not end well");
        }
    }

    fn stop(&self) {
        if let Err(errno) = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()) {
            tracing::warn!(%errno, "cannot end whoever hands out a guest's memory");
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Listens where the VMM connects as its own user, in a folder that is closed to all others.
fn listen(owner: &Owner<'_>, socket: &Path) -> io::Result<UnixListener> {
    let Some(closed) = owner.closed else {
        let listener = UnixListener::bind(socket)?;
        lchown(socket, owner.user, owner.user)?;
        return Ok(listener);
    };
    // Opened to all where the VMM can put nothing else in its place.
    let aside = closed.join(SOCKET);
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o666))?;
    fs::rename(&aside, socket)?;
    Ok(listener)
}

/// Ends the VMM if its memory is not handed out any more, whatever the reason.
struct EndsVmm {
    vmm: Killer,
    shared: Arc<Shared>,
    /// The thread has not come to its end.
    armed: bool,
}

impl EndsVmm {
    /// Ends the VMM, unless its owner does. Whether nothing went wrong.
    fn end(&mut self, served: Result<End, PagerError>) -> bool {
        self.armed = false;
        match served {
            Ok(End::Stopped) => true,
            // Most likely it is about to end; one that only acts so would wait for its pages.
            Ok(End::HungUp) => {
                tell(self.vmm.kill_if_it_stays());
                true
            }
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn fail(&self, error: PagerError) {
        // On record before the VMM ends: whoever sees that asks why.
        let _ = self.shared.failure.set(Arc::new(error));
        tell(self.vmm.kill());
    }
}

fn tell(killed: io::Result<()>) {
    if let Err(error) = killed {
        tracing::warn!(%error, "cannot end a VMM whose memory is not handed out any more");
    }
}

impl Drop for EndsVmm {
    fn drop(&mut self) {
        if self.armed {
            self.fail(PagerError::Panicked);
        }
    }
}
