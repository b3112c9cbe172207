//! What the tests begin with: a hostd, and a microVM that could be started.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use firelane_host_proto::message::{Code, Refusal, Reply, Request, Role, Start, Vmm};
use firelane_host_proto::{CallError, Client};
use firelane_launch::machine::{Acceleration, Shape};
use firelane_launch::qemu::Origin;
use firelane_testkit::{Lab, booted};

/// Of a guest that never runs.
const MEMORY_MIB: u32 = 64;

/// Tests that need root's rights say so where they have none.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: firelane-hostd has to be root, and the tests are not run by root");
    }
    root
}

/// What goes with the start of a QEMU that boots a template's kernel, and waits before it does.
pub(crate) struct Given {
    pub(crate) roles: Vec<Role>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Our ends.
    pub(crate) monitor: UnixStream,
    _others: (UnixStream, UnixStream, io::PipeReader),
}

impl Given {
    pub(crate) fn new(lab: &Lab) -> Given {
        let (monitor, theirs) = UnixStream::pair().expect("sockets");
        let (link, link_theirs) = UnixStream::pair().expect("sockets");
        let (console, console_theirs) = UnixStream::pair().expect("sockets");
        let (stderr, stderr_theirs) = io::pipe().expect("a pipe");
        let kernel = booted::machine(lab, "base", MEMORY_MIB).kernel;
        let kernel = File::open(kernel).expect("the template is built");
        Given {
            roles: vec![
                Role::Kernel,
                Role::Monitor,
                Role::Link,
                Role::Console,
                Role::Stderr,
            ],
            descriptors: vec![
                kernel.into(),
                theirs.into(),
                link_theirs.into(),
                console_theirs.into(),
                stderr_theirs.into(),
            ],
            monitor,
            _others: (link, console, stderr),
        }
    }

    /// The same with another descriptor in a role's place.
    pub(crate) fn with(mut self, role: Role, descriptor: impl Into<OwnedFd>) -> Given {
        let at = self.roles.iter().position(|had| *had == role);
        self.descriptors[at.expect("it has one")] = descriptor.into();
        self
    }

    /// The same without a role's descriptor.
    pub(crate) fn without(mut self, role: Role) -> Given {
        let at = self.roles.iter().position(|had| *had == role);
        let at = at.expect("it has one");
        self.roles.remove(at);
        drop(self.descriptors.remove(at));
        self
    }
}

/// A start of this machine.
pub(crate) fn request(id: &str, memory_mib: u32, vcpus: u32, given: &Given) -> Request {
    Request::Start(Start {
        shape: Shape {
            id: id.into(),
            memory_mib,
            vcpus,
        },
        vmm: Vmm::Qemu {
            origin: Origin::Boot,
            acceleration: Acceleration::Tcg,
            tsc_khz: 2_000_000,
        },
        given: given.roles.clone(),
    })
}

/// A microVM that runs, and what is at its end when it does not any more.
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) life: UnixStream,
    /// Without its sockets QEMU would end.
    pub(crate) given: Given,
}

/// Starts a small one.
pub(crate) fn start(client: &mut Client, lab: &Lab, id: &str) -> Result<Started, CallError> {
    let mut given = Given::new(lab);
    let (reply, came) = ask(client, &request(id, MEMORY_MIB, 1, &given), &given)?;
    let Reply::Started { pid, .. } = reply else {
        panic!("{reply:?}");
    };
    let life = came.into_iter().next().expect("a socket comes along");
    let life = life.into();
    // Those are the VMM's: when it ends, ours are at their end.
    given.descriptors.clear();
    Ok(Started { pid, life, given })
}

pub(crate) fn ask(
    client: &mut Client,
    request: &Request,
    given: &Given,
) -> Result<(Reply, Vec<OwnedFd>), CallError> {
    let descriptors: Vec<_> = given.descriptors.iter().map(AsFd::as_fd).collect();
    client.call(request, &descriptors)
}

/// Asks without descriptors.
pub(crate) fn say(client: &mut Client, request: &Request) -> Result<Reply, CallError> {
    client.call(request, &[]).map(|(reply, _)| reply)
}

/// The refusal that an answer has to be.
pub(crate) fn refusal<T>(answer: Result<T, CallError>) -> Refusal {
    match answer {
        Err(CallError::Refused(refusal)) => refusal,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was done"),
    }
}

/// Its code.
pub(crate) fn code<T>(answer: Result<T, CallError>) -> Code {
    refusal(answer).code
}
