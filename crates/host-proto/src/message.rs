//! What is asked and answered.
//!
//! JSON objects: a request has its operation in `op`, an answer its kind in `reply`. Fields that are not
//! known are refused.

use std::fmt;
use std::path::{Path, PathBuf};

use firelane_launch::firecracker;
use firelane_launch::machine::{Acceleration, Shape};
use firelane_launch::qemu::Origin;
use firelane_sys::cgroup::Cgroups;
use serde::{Deserialize, Serialize};

/// What hostd can be asked for. Each is on one id, or on all that are the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The first: which versions of the protocol the client speaks.
    Hello {
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// Starts a VMM. Its descriptors come with it, in the order of `given`.
    Start(Start),
    /// The VMM is configured: every control has to be in force now. One that lacks one is ended.
    Confirm {
        /// Which.
        id: String,
    },
    /// The VMM's process stands still, by a signal that the caller's user may not send. One that does already is
    /// fine.
    Pause {
        /// Which.
        id: String,
    },
    /// It goes on. One that runs is fine.
    Resume {
        /// Which.
        id: String,
    },
    /// Ends a microVM and removes what it had. One that is gone already is fine.
    Stop {
        /// Which.
        id: String,
    },
    /// What there is of one.
    Inspect {
        /// Which.
        id: String,
    },
    /// The caller's microVMs.
    List {},
    /// Removes what microVMs left whose owner was killed.
    Sweep {},
}

/// The names of all operations, as they are in `op`.
pub const OPERATIONS: [&str; 9] = [
    "hello", "start", "confirm", "pause", "resume", "stop", "inspect", "list", "sweep",
];

impl Request {
    /// Its name in the audit.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Request::Hello { .. } => "hello",
            Request::Start(_) => "start",
            Request::Confirm { .. } => "confirm",
            Request::Pause { .. } => "pause",
            Request::Resume { .. } => "resume",
            Request::Stop { .. } => "stop",
            Request::Inspect { .. } => "inspect",
            Request::List {} => "list",
            Request::Sweep {} => "sweep",
        }
    }

    /// The microVM that it is about, if it is about one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self {
            Request::Start(start) => Some(&start.shape.id),
            Request::Confirm { id }
            | Request::Pause { id }
            | Request::Resume { id }
            | Request::Stop { id }
            | Request::Inspect { id } => Some(id),
            Request::Hello { .. } | Request::List {} | Request::Sweep {} => None,
        }
    }
}

/// A VMM that shall be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Name and size of the machine.
    pub shape: Shape,
    /// Which VMM, and how it begins.
    pub vmm: Vmm,
    /// What the descriptors that come with the request are.
    pub given: Vec<Role>,
}

/// A kind of VMM, with what only that kind is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Vmm {
    /// QEMU.
    Qemu {
        /// How the microVM comes to be.
        origin: Origin,
        /// What executes the guest's instructions.
        acceleration: Acceleration,
        /// Rate of the host's time-stamp counter in kHz.
        tsc_khz: u64,
    },
    /// Firecracker. Its client drives it over the API socket, which the VMM makes in the folder that the client has
    /// handed over, as it does the socket of the microVM's ports.
    Firecracker {
        /// How the microVM comes to be.
        origin: firecracker::Origin,
    },
}

impl Vmm {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Vmm::Qemu { .. } => "qemu",
            Vmm::Firecracker { .. } => "firecracker",
        }
    }
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The kernel: a file, open for reading only.
    Kernel,
    /// The initrd, the same.
    Initrd,
    /// The root file system image, the same.
    Rootfs,
    /// The memory of a snapshot, the same.
    Memory,
    /// The rest of a snapshot, the same.
    State,
    /// A folder of the caller's own, in which the VMM makes its sockets, and its files when it is saved.
    Folder,
    /// Another, in which it writes the snapshot that it becomes.
    Snapshot,
    /// The VMM's end of its monitor: a Unix stream socket.
    Monitor,
    /// Its end of the link's port, the same.
    Link,
    /// Its end of the guest's console, the same.
    Console,
    /// The jail's end of the socket over which opens are answered, the same.
    Opens,
    /// What the guest says, where that is the VMM's stdout: the writing end of a pipe.
    Stdout,
    /// What the VMM says: the same.
    Stderr,
}

impl Role {
    /// Whether this is a file that the VMM finds in its jail.
    #[must_use]
    pub fn is_file(self) -> bool {
        matches!(
            self,
            Role::Kernel | Role::Initrd | Role::Rootfs | Role::Memory | Role::State
        )
    }

    /// Whether this is a folder that the VMM finds in its jail, and may write.
    #[must_use]
    pub fn is_folder(self) -> bool {
        matches!(self, Role::Folder | Role::Snapshot)
    }

    /// Where the VMM finds a file or folder. No client has a say in it.
    #[must_use]
    pub fn seen(self) -> PathBuf {
        Path::new("/vm").join(self.name())
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Kernel => "kernel",
            Role::Initrd => "initrd",
            Role::Rootfs => "rootfs",
            Role::Memory => "memory",
            Role::State => "state",
            Role::Folder => "folder",
            Role::Snapshot => "snapshot",
            Role::Monitor => "monitor",
            Role::Link => "link",
            Role::Console => "console",
            Role::Opens => "opens",
            Role::Stdout => "stdout",
            Role::Stderr => "stderr",
        }
    }
}

/// What hostd answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To hello: the version that counts from here on, and what can be started.
    Welcome {
        /// The version.
        version: u32,
        /// QEMU's program, if there is one.
        qemu: Option<PathBuf>,
        /// Firecracker's, if there is one.
        firecracker: Option<PathBuf>,
    },
    /// To start: the VMM runs, confined. A socket comes along, which is at its end when the VMM has ended
    /// and nothing of it is left.
    Started {
        /// Its number.
        pid: u32,
        /// Its cgroups.
        cgroups: Cgroups,
    },
    /// To confirm, inspect, pause and resume.
    State(State),
    /// To stop: nothing of it is left.
    Stopped {
        /// How its process ended; `None` if hostd knew of none.
        status: Option<String>,
    },
    /// To list.
    Listed {
        /// The caller's microVMs.
        microvms: Vec<State>,
    },
    /// To sweep.
    Swept {
        /// How many were removed.
        removed: u32,
        /// What could not be, with the reason.
        left: Vec<String>,
    },
    /// It was not done, and nothing of it is left.
    Refused(Refusal),
}

/// What there is of a microVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Its name.
    pub id: String,
    /// Which VMM it has.
    pub vmm: String,
    /// The VMM's process; `None` if it has ended.
    pub pid: Option<u32>,
    /// How it ended, if it has.
    pub status: Option<String>,
    /// The user that it runs as.
    pub user: Option<u32>,
    /// Its cgroups.
    pub cgroups: Cgroups,
    /// What it is confined by, as the kernel tells it; empty if it has ended.
    pub controls: Vec<Told>,
}

/// One control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub on: bool,
    /// Why it is not; empty if it is.
    pub reason: String,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{code}: {cause}")]
pub struct Refusal {
    /// The kind, on which clients branch.
    pub code: Code,
    /// What is wrong, for people.
    pub cause: String,
    /// What can be done about it, where that is known.
    pub remedy: Option<String>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The client's user may not use hostd.
    WrongUser,
    /// There is no version that both speak.
    WrongVersion,
    /// There is no such operation.
    UnknownOperation,
    /// The request is not of the form that its operation has.
    Malformed,
    /// The frame is larger than any may be, or has more descriptors.
    TooLarge,
    /// The frame began and did not end in time.
    Late,
    /// There are as many clients or microVMs as there may be.
    Busy,
    /// The id is not one that a microVM can have.
    BadId,
    /// A microVM of this id is there already.
    IdTaken,
    /// The microVM is another user's.
    NotYours,
    /// There is no such microVM.
    NotFound,
    /// A number is out of its bounds.
    OutOfBounds,
    /// A descriptor is not what its role says, or the wrong ones came.
    BadDescriptor,
    /// The program that is to be started is not on this host.
    NoProgram,
    /// The VMM is not confined by something that this host has.
    Unconfined,
    /// The VMM, or its jail, ended before it ran.
    Died,
    /// A step on the host failed.
    Failed,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::WrongUser => "wrong user",
            Code::WrongVersion => "wrong version",
            Code::UnknownOperation => "unknown operation",
            Code::Malformed => "malformed request",
            Code::TooLarge => "request too large",
            Code::Late => "request not complete in time",
            Code::Busy => "too many",
            Code::BadId => "bad id",
            Code::IdTaken => "id taken",
            Code::NotYours => "not yours",
            Code::NotFound => "not found",
            Code::OutOfBounds => "out of bounds",
            Code::BadDescriptor => "bad descriptor",
            Code::NoProgram => "no such program",
            Code::Unconfined => "not confined",
            Code::Died => "the VMM ended",
            Code::Failed => "failed",
        })
    }
}

/// Reads a request.
///
/// # Errors
/// [`Code::UnknownOperation`] or [`Code::Malformed`].
pub fn parse(frame: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: serde_json::Error| Refusal {
        code: Code::Malformed,
        cause: error.to_string(),
        remedy: None,
    };
    let value: serde_json::Value = serde_json::from_slice(frame).map_err(malformed)?;
    if let Some(name) = value.get("op").and_then(serde_json::Value::as_str)
        && !OPERATIONS.contains(&name)
    {
        let shown: String = name.escape_debug().take(40).collect();
        return Err(Refusal {
            code: Code::UnknownOperation,
            cause: format!("there is no operation '{shown}'"),
            remedy: Some(format!("use one of {}", OPERATIONS.join(", "))),
        });
    }
    serde_json::from_value(value).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(request: &str, expected: Result<&str, Code>) {
        let got = parse(request.as_bytes());
        let got = got
            .as_ref()
            .map(Request::operation)
            .map_err(|refusal| refusal.code);
        assert_eq!(got, expected, "{request}");
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_kind() {
        check(r#"{"op":"hello","min":1,"max":1}"#, Ok("hello"));
        check(r#"{"op":"stop","id":"vm-1"}"#, Ok("stop"));
        check(r#"{"op":"list"}"#, Ok("list"));
        check(r#"{"op":"shell","id":"vm-1"}"#, Err(Code::UnknownOperation));
        check(r#"{"op":"stop"}"#, Err(Code::Malformed));
        check(r#"{"op":"stop","id":"a","and":1}"#, Err(Code::Malformed));
        check(r#"{"op":"list","all":true}"#, Err(Code::Malformed));
        check(r#"{"id":"a"}"#, Err(Code::Malformed));
        check(r#"[1]"#, Err(Code::Malformed));
        check("", Err(Code::Malformed));
        let start = r#"{"op":"start","shape":{"id":"a","memory_mib":1,"vcpus":1},"given":[],
            "vmm":{"kind":"qemu","origin":"boot","acceleration":"tcg","tsc_khz":1"#;
        check(&format!("{start}}}}}"), Ok("start"));
        let other = start
            .replace("qemu", "firecracker")
            .replace(r#","acceleration":"tcg","tsc_khz":1"#, "}}");
        check(&other, Ok("start"));
        check(&other.replace("boot", "paged_clone"), Ok("start"));
        check(&other.replace("boot", "other"), Err(Code::Malformed));
        check(&format!("{start},\"args\":[]}}}}"), Err(Code::Malformed));
        check(&format!("{start}}},\"user\":0}}"), Err(Code::Malformed));
    }

    #[test]
    fn each_operation_has_its_name() {
        for name in OPERATIONS {
            let refusal = parse(format!(r#"{{"op":"{name}","odd":1}}"#).as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Code::Malformed, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let refused = parse(&bytes).map_err(|refusal| refusal.code);
            prop_assert!(matches!(refused, Ok(_) | Err(Code::Malformed | Code::UnknownOperation)));
        }

        #[test]
        fn requests_come_back_as_they_were(id in "[a-z0-9-]{1,64}", memory_mib: u32, vcpus: u32, tsc_khz: u64) {
            let vmm = Vmm::Qemu { origin: Origin::Clone, acceleration: Acceleration::Kvm, tsc_khz };
            let shape = Shape { id, memory_mib, vcpus };
            let request = Request::Start(Start { shape, vmm, given: vec![Role::Rootfs, Role::Opens] });
            let bytes = serde_json::to_vec(&request).unwrap();
            prop_assert_eq!(parse(&bytes).unwrap(), request);
        }
    }
}
