//! The resolver of a sandbox: it listens at the gateway, and answers for names that a rule is for.
//!
//! ```text
//! question ─▶ a rule for the name? ─▶ the host's resolvers ─▶ blocked addresses out ─▶ pinned ─▶ answer
//! ```
//!
//! The guest gets no address before the fence has it, and none in a blocked range, whatever the name's owner
//! publishes: that would let a name rebind to a private network. Other types than A have no records here.
//! The questions to the host's resolvers are sent from the host's namespace.

mod answer;
mod upstream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use firelane_sys::network::{Namespace, bind_to_device};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;

use crate::Options;
use crate::fence::Fence;
use crate::plan::{DNS_PORT, GATEWAY, TAP};
use crate::policy::{Policy, Table};
use answer::{Reply, read_question, write_reply};

/// Shortest and longest time that an address stays pinned, in seconds. A client connects a moment after
/// it has asked, whatever the record says; and an owner's long time must not open an address for ever.
const FLOOR: u32 = 60;
const CAP: u32 = 3600;
/// Questions that are looked into at once; others wait in the socket's buffer, and are lost beyond that.
const WORKERS: usize = 4;
/// Names that are listed.
const MAX_NAMES: usize = 256;

/// A fence that others pin to, and read, too.
pub(crate) type SharedFence = Arc<Mutex<Box<dyn Fence>>>;

/// What became of a name that the guest asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// `answered`, `rebound` (an address was in a blocked range, and kept back), `no_name`, `refused` or `failed`.
    pub outcome: &'static str,
    /// How often.
    pub times: u64,
}

/// A resolver that answers, until it is dropped.
pub(crate) struct Resolver {
    stop: Option<OwnedFd>,
    workers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    policy: Policy,
    table: Table,
    upstream: Vec<SocketAddr>,
    /// Seconds that an address stays pinned at least.
    least: u32,
    fence: SharedFence,
    lookups: Mutex<Vec<Lookup>>,
}

impl Resolver {
    /// Listens at the gateway, in the sandbox's namespace; asks the servers of `options`, or those of the host.
    pub(crate) fn start(
        inner: &Namespace,
        policy: &Policy,
        table: &Table,
        options: Options,
        fence: &SharedFence,
    ) -> io::Result<Self> {
        let socket = inner.inside(|| {
            let socket = UdpSocket::bind((GATEWAY, DNS_PORT))?;
            // Questions come from the guest, and not by the way out.
            bind_to_device(&socket, TAP)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        })??;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            table: table.clone(),
            upstream: options.upstream.unwrap_or_else(upstream::of_the_host),
            least: options.least_pin.unwrap_or(FLOOR),
            fence: Arc::clone(fence),
            lookups: Mutex::default(),
        });
        let mut resolver = Self {
            stop: Some(stop),
            workers: Vec::new(),
            shared,
        };
        for _ in 0..WORKERS {
            let (socket, stopped) = (socket.try_clone()?, stopped.try_clone()?);
            let shared = Arc::clone(&resolver.shared);
            let thread = std::thread::Builder::new().name("resolver".into());
            resolver
                .workers
                .push(thread.spawn(move || work(&socket, &stopped, &shared))?);
        }
        Ok(resolver)
    }

    /// The names that were asked for, in the order of their first time.
    pub(crate) fn lookups(&self) -> Vec<Lookup> {
        let lookups = self.shared.lookups.lock();
        lookups.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The other end of the pipe tells the workers.
        self.stop = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::warn!("a worker of the resolver panicked");
            }
        }
    }
}

fn work(socket: &UdpSocket, stopped: &OwnedFd, shared: &Shared) {
    let mut bytes = [0; 1024];
    loop {
        let mut waited = [
            PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waited, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot wait for questions");
                return;
            }
            Ok(_) if !waited[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        // Another worker may have been faster.
        let Ok((length, from)) = socket.recv_from(&mut bytes) else {
            continue;
        };
        if let Some(reply) = shared.answer(&bytes[..length])
            && let Err(error) = socket.send_to(&reply, from)
        {
            tracing::debug!(%error, "an answer did not reach the guest");
        }
    }
}

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = read_question(question)?;
        let (reply, outcome) = self.decide(&asked.name, asked.addresses);
        self.note(&asked.name, outcome);
        write_reply(question, &reply)
    }

    fn decide(&self, name: &str, addresses: bool) -> (Reply, &'static str) {
        if !self.policy.names(name) {
            return (Reply::Refused, "refused");
        }
        if !addresses {
            return (Reply::Addresses(Vec::new(), FLOOR), "answered");
        }
        let (found, ttl) = match upstream::ask(&self.upstream, name) {
            Reply::Addresses(found, ttl) => (found, ttl),
            Reply::NoName => return (Reply::NoName, "no_name"),
            Reply::Refused | Reply::Failed => return (Reply::Failed, "failed"),
        };
        let all = found.len();
        let open: Vec<Ipv4Addr> = found
            .into_iter()
            .filter(|address| !self.table.is_blocked(*address))
            .collect();
        if open.is_empty() && all > 0 {
            return (Reply::Refused, "rebound");
        }
        let lasts = ttl.max(self.least).min(CAP);
        if let Err(error) = self.pin(name, &open, lasts) {
            tracing::warn!(%error, "addresses could not be pinned");
            return (Reply::Failed, "failed");
        }
        let outcome = if open.len() < all {
            "rebound"
        } else {
            "answered"
        };
        (Reply::Addresses(open, ttl.min(lasts)), outcome)
    }

    fn pin(
        &self,
        name: &str,
        addresses: &[Ipv4Addr],
        seconds: u32,
    ) -> Result<(), crate::fence::FenceError> {
        let rules: Vec<usize> = self
            .policy
            .rules_of(name)
            .map(|(number, _)| number)
            .collect();
        let mut fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = Duration::from_secs(seconds.into());
        addresses
            .iter()
            .try_for_each(|address| fence.pin(*address, &rules, lasts))
    }

    fn note(&self, name: &str, outcome: &'static str) {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |lookup: &&mut Lookup| lookup.name == name && lookup.outcome == outcome;
        if let Some(lookup) = lookups.iter_mut().find(same) {
            lookup.times += 1;
        } else if lookups.len() < MAX_NAMES {
            lookups.push(Lookup {
                name: name.to_owned(),
                outcome,
                times: 1,
            });
        }
    }
}
