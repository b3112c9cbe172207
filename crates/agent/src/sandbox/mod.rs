//! Sandboxes of this host: microVMs that stay for more than one program.
//!
//! ```text
//!                    orders                     actions
//!   calls ── Here ───────────▶ owner's task ──────────────▶ the microVM
//!     ▲                            │
//!     └── seen: state, reason ─────┘
//! ```
//!
//! One task owns each sandbox and is the only one that touches its microVM. It feeds the state machine of
//! [`firelane_model::sandbox`], carries out what that says, and tells what came of it. Programs and
//! files go through the sandbox's session, which is lent by the owner: who has it keeps the sandbox
//! from being idle.
//!
//! | File | Holds |
//! | --- | --- |
//! | `here.rs` | what everybody knows of a sandbox, and how its owner is asked |
//! | `owner.rs` | the task that owns it |
//! | `act.rs` | what the owner does to the microVM |
//! | `keep.rs` | snapshots that are kept on this host's disk |
//! | `calls.rs` | what is asked over the Bus of sandboxes and snapshots |
//! | `execs.rs`, `program.rs` | programs: the calls, and one program from its start to its end |
//! | `files.rs`, `pipes.rs` | files: what fits a message, and what does not |

mod act;
mod calls;
mod execs;
mod files;
mod here;
mod keep;
mod owner;
mod pipes;
mod program;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firelane_image::signing::Signing;
use firelane_model::id::SandboxId;
use firelane_wire::bus::SandboxRef;
use firelane_wire::problem::{Code, Problem};
use tokio::sync::Semaphore;

use here::Here;
use keep::Keep;
use pipes::Pipes;

/// MicroVMs that are made at once for sandboxes: each takes a processor for a while.
const MADE_AT_ONCE: usize = 2;

/// The sandboxes of this host.
pub(crate) struct Sandboxes {
    all: Mutex<HashMap<SandboxId, Arc<Here>>>,
    most: u32,
    keep: Keep,
    pipes: Pipes,
    making: Semaphore,
}

impl Sandboxes {
    /// None yet; at most so many at once, whose snapshots are kept in this folder and sealed with the store's key.
    pub(crate) fn new(most: u32, folder: PathBuf, signing: Signing) -> Sandboxes {
        Sandboxes {
            all: Mutex::default(),
            most,
            keep: Keep::new(folder, signing),
            pipes: Pipes::default(),
            making: Semaphore::new(MADE_AT_ONCE),
        }
    }

    /// Makes the folder of snapshots, and removes what an earlier service left half done there.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        self.keep.sweep()
    }

    /// How many are not gone.
    pub(crate) fn going(&self) -> usize {
        self.lock().values().filter(|here| !here.is_gone()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Here>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox that is meant, if it is of that tenant.
    fn find(&self, wanted: &SandboxRef) -> Result<Arc<Here>, Problem> {
        let here = self.lock().get(&wanted.id).map(Arc::clone);
        here.filter(|here| here.tenant == wanted.tenant)
            .ok_or_else(|| Problem::not_found("sandbox", wanted.id))
    }

    /// Takes a place for a new one.
    fn enter(&self, here: &Arc<Here>) -> Result<(), Problem> {
        let mut all = self.lock();
        if all.contains_key(&here.id) {
            let cause = format!("{} is here already", here.id);
            return Err(Problem::new(Code::Conflict, cause));
        }
        let going = all.values().filter(|here| !here.is_gone()).count();
        if going >= self.most as usize {
            let cause = format!("this host has {going} sandboxes, which is the most");
            return Err(Problem::new(Code::Unavailable, cause).with_remedy(
                "destroy one that is not needed, or let serve have more: --sandboxes",
            ));
        }
        all.insert(here.id, Arc::clone(here));
        Ok(())
    }

    fn forget(&self, id: SandboxId) {
        self.lock().remove(&id);
    }
}
