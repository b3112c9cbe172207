//! The guest-runner: PID 1 inside every microVM.
//!
//! It makes the guest usable, then runs what the host asks for and reports how it ended:
//!
//! ```text
//!   boot        mounts, modules, overlay root, loopback, cgroups
//!   transport   connections from the host: vsock, or the link over a virtio-serial port
//!     ├── port 5000  original   one request, one response
//!     └── port 5001  session    many execs, streams, files
//!           ├── exec   one program: spawn, pump its bytes, kill its tree, tell the outcome
//!           └── files  put and get, confined
//!   detached    programs that outlive their session, and what they wrote
//!   warm        before a template's snapshot: zygotes, interpreters that wait for a program
//!   renewal     before a live snapshot: programs stand still; after a restore: entropy, time and
//!               names of this clone's own
//!   seccomp     what programs may ask of the kernel
//!   workers     threads that wait for something to do
//!   reaper      the main thread: collects every child, ours and orphans
//! ```
//!
//! It is plain threads and `poll`, and trusts nothing that it runs: programs are another user,
//! without privileges, in a cgroup of their own. It never panics on what they do; when it cannot
//! go on it says why on the console and the microVM ends.

mod boot;
mod cgroup;
mod console;
mod detached;
mod exec;
mod files;
mod original;
mod reaper;
mod renewal;
mod seccomp;
mod session;
mod transport;
mod wake;
mod warm;
mod workers;
mod zygote;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use crate::reaper::Reaper;

/// What every connection needs to serve its requests.
pub(crate) struct Guest {
    /// Collects the children that execs start.
    pub(crate) reaper: Reaper,
    /// The cgroup that holds those of all execs.
    pub(crate) execs: cgroup::Cgroup,
    /// The one that holds the zygotes.
    pub(crate) zygote_group: cgroup::Cgroup,
    /// A cgroup that was made for an exec to come.
    pub(crate) spare_group: Mutex<Option<cgroup::Cgroup>>,
    /// Threads that wait for something to do.
    pub(crate) workers: workers::Workers,
    /// Interpreters that wait for a program.
    pub(crate) zygotes: zygote::Zygotes,
    /// Programs that outlive their session.
    pub(crate) detached: detached::Registry,
    /// Whether programs may run.
    pub(crate) renewal: renewal::Renewal,
    /// What programs may ask of the kernel.
    pub(crate) tier: firelane_guest_proto::Tier,
    /// Facts for the welcome message.
    pub(crate) facts: boot::Facts,
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return outside();
    }
    if let Err(error) = run() {
        console::log(&format!("cannot go on: {}", console::chain(&error)));
    }
    // The driver sees the reset as the end of the microVM; the console tells it why.
    boot::reset()
}

/// Outside of a guest it only shows what its filters do.
fn outside() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["verify", "seccomp"] => seccomp::verify().and_then(|verdict| {
            writeln!(io::stdout(), "{}", verdict.report)?;
            Ok(verdict.holds)
        }),
        [seccomp::PROBE, ref how @ ..] if how.len() <= 1 => {
            seccomp::probe(how.first().copied()).map(|()| true)
        }
        _ => {
            eprintln!(
                "firelane-guest is the init program of a Firelane microVM; \
                 elsewhere it only knows 'firelane-guest verify seccomp'"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("firelane-guest: cannot look at the seccomp filters: {error}");
            ExitCode::from(125)
        }
    }
}

/// Why the guest cannot go on.
#[derive(Debug, thiserror::Error)]
enum GuestError {
    #[error("cannot prepare the guest")]
    Boot(#[from] boot::BootError),
    #[error("cannot listen for the host")]
    Transport(#[from] transport::TransportError),
    #[error("cannot collect children")]
    Reap(#[source] io::Error),
}

fn run() -> Result<(), GuestError> {
    let reaper = Reaper::block_signals().map_err(GuestError::Reap)?;
    let prepared = boot::prepare()?;
    let listeners = transport::open()?;
    let guest = Arc::new(Guest {
        reaper,
        execs: prepared.execs,
        zygote_group: prepared.zygotes,
        spare_group: Mutex::new(None),
        workers: workers::Workers::default(),
        zygotes: zygote::Zygotes::default(),
        detached: detached::Registry::default(),
        renewal: renewal::Renewal::default(),
        tier: prepared.tier,
        facts: prepared.facts.ready_now(),
    });
    transport::serve(listeners, &guest)?;
    guest.reaper.run().map_err(GuestError::Reap)
}
