//! The jail that Firecracker is started in where it is ours, and the bounds of its cgroups.
//!
//! All else is said to Firecracker over its API, by whoever drives it. Source of the arguments:
//! Firecracker, `src/firecracker/src/main.rs`, v1.16.1.

use std::path::{Path, PathBuf};

use firelane_sys::cgroup::Bounds;
use firelane_sys::jail::Jail;
use serde::{Deserialize, Serialize};

use crate::machine::Shape;
use crate::place::Place;

/// The API's socket in the VMM's folder; the longest name of those that it makes.
pub const API_SOCKET: &str = "api.sock";
/// The socket of the microVM's ports there. A port that the host listens on is `v.sock_<port>`.
pub const VSOCK: &str = "v.sock";
/// Open files of a VMM at most; a microVM with disk, vsock and entropy has 41.
pub const OPEN_FILES: u64 = 256;
/// The last descriptor that the VMM inherits: stderr.
pub const STDERR_FD: i32 = 2;

/// What Firecracker needs beside guest memory, in MiB: less than five of its own, page tables, and a
/// jailer's copy of its program.
const OVERHEAD_MIB: u32 = 64;
/// Threads of a Firecracker beside its processors, and its keeper.
const MAX_THREADS: u32 = 16;
/// Room in a snapshot's file for what is not memory, in MiB.
const STATE_MIB: u32 = 16;

/// How a microVM comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It boots.
    Boot,
    /// It boots, to become a snapshot.
    Template,
    /// It is restored from a snapshot, whose memory it maps.
    Clone,
    /// It is restored from a snapshot, and handed its memory as it misses it.
    PagedClone,
}

/// A Firecracker that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Its program.
    pub program: &'a Path,
    /// Its machine.
    pub shape: &'a Shape,
    /// How the microVM comes to be.
    pub origin: Origin,
    /// The folder of its sockets, as it finds it.
    pub folder: &'a Path,
}

impl Plan<'_> {
    /// What the VMM may use.
    #[must_use]
    pub fn bounds(shape: &Shape) -> Bounds {
        Bounds {
            // Twice: where its folder is in memory, what it writes when it is saved counts as its own.
            memory_bytes: (2 * u64::from(shape.memory_mib) + u64::from(OVERHEAD_MIB)) << 20,
            pids: MAX_THREADS + shape.vcpus,
            // The processors, and half of one for the devices.
            cpu_percent: shape.vcpus * 100 + 50,
        }
    }

    /// What it is told when it is started, by a jailer too, which tells it its name itself.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let socket = self.folder.join(API_SOCKET).display().to_string();
        vec!["--api-sock".into(), socket, "--level".into(), "Warn".into()]
    }

    /// The jail, without the machine's files and the VMM's folders: whoever starts it adds them, by path or by
    /// descriptor.
    #[must_use]
    pub fn jail(&self, place: Place) -> Jail {
        let mut devices = vec![PathBuf::from("/dev/kvm")];
        if self.origin == Origin::PagedClone {
            devices.push("/dev/userfaultfd".into());
        }
        let file_mib = u64::from(self.shape.memory_mib) + u64::from(STATE_MIB);
        let mut args = vec!["--id".into(), self.shape.id.clone()];
        args.extend(self.arguments());
        Jail {
            program: self.program.to_owned(),
            args,
            user: place.user,
            mountpoint: place.mountpoint,
            is_jailer: false,
            pid_namespace: true,
            read_only: vec![self.program.to_owned()],
            writable: Vec::new(),
            given: Vec::new(),
            devices,
            cgroups: place.cgroups,
            open_files: OPEN_FILES,
            file_bytes: file_mib << 20,
            shares: false,
            last_descriptor: STDERR_FD,
            opens_channel: None,
            kept_descriptor: place.kept_descriptor,
            owner: std::process::id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(origin: Origin) -> Jail {
        let shape = Shape {
            id: "vm-1".into(),
            memory_mib: 128,
            vcpus: 2,
        };
        let plan = Plan {
            program: Path::new("/opt/firecracker"),
            shape: &shape,
            origin,
            folder: Path::new("/vm/folder"),
        };
        plan.jail(Place {
            mountpoint: "/root".into(),
            user: Some(7),
            cgroups: Vec::new(),
            kept_descriptor: None,
        })
    }

    #[test]
    fn it_is_told_its_name_and_where_it_is_asked() {
        let jail = jail(Origin::Boot);
        let expected = "--id vm-1 --api-sock /vm/folder/api.sock --level Warn";
        assert_eq!(jail.args.join(" "), expected);
        assert_eq!(jail.file_bytes, 144 << 20);
        assert_eq!(jail.last_descriptor, 2);
    }

    #[test]
    fn only_who_is_handed_its_memory_can_have_it_handed() {
        for (origin, devices) in [
            (Origin::Boot, vec!["/dev/kvm"]),
            (Origin::Template, vec!["/dev/kvm"]),
            (Origin::Clone, vec!["/dev/kvm"]),
            (Origin::PagedClone, vec!["/dev/kvm", "/dev/userfaultfd"]),
        ] {
            let devices: Vec<PathBuf> = devices.into_iter().map(PathBuf::from).collect();
            assert_eq!(jail(origin).devices, devices, "{origin:?}");
        }
    }

    #[test]
    fn the_largest_machine_there_could_be_has_bounds() {
        let shape = Shape {
            id: "vm-1".into(),
            memory_mib: u32::MAX,
            vcpus: 1,
        };
        assert!(Plan::bounds(&shape).memory_bytes > u64::from(u32::MAX) << 21);
    }
}
