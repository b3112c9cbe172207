//! The jail that QEMU is started in, and the bounds of its cgroups.

use std::path::{Path, PathBuf};

use firelane_sys::cgroup::Bounds;
use firelane_sys::jail::Jail;

use super::args::{self, OPENS_FD, Origin, TB_SIZE_MIB};
use crate::machine::{Acceleration, Files, Network, Shape};
use crate::place::Place;

/// What QEMU needs beside guest memory and translated code, in MiB.
const OVERHEAD_MIB: u32 = 160;
/// Threads of a QEMU: processors, its own, and workers for disk reads.
const MAX_THREADS: u32 = 128;
const OPEN_FILES: u64 = 256;
/// What a microVM's whole state has beside its memory, in MiB: devices, and nine bytes for each page
/// of memory, of which there are 256 in a MiB. More than either ever is, below 16 GiB.
const STREAM_OVERHEAD_MIB: u32 = 64;
/// Host folders that QEMU finds in its jail: its program, libraries and firmware.
const SYSTEM_FOLDERS: [&str; 6] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
];
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];

/// A QEMU that is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Its program.
    pub program: &'a Path,
    /// Its machine.
    pub shape: &'a Shape,
    /// The machine's files, as QEMU finds them.
    pub files: &'a Files,
    /// How the microVM comes to be.
    pub origin: Origin,
    /// What executes the guest's instructions.
    pub acceleration: Acceleration,
    /// Rate of the host's time-stamp counter in kHz.
    pub tsc_khz: u64,
    /// What is behind the guest's network device, if it has one: a tap is QEMU's descriptor
    /// [`TAP_FD`](super::TAP_FD).
    pub network: Option<Network>,
}

impl Plan<'_> {
    /// What the VMM may use.
    #[must_use]
    pub fn bounds(shape: &Shape) -> Bounds {
        let memory_mib =
            u64::from(shape.memory_mib) + u64::from(TB_SIZE_MIB) + u64::from(OVERHEAD_MIB);
        Bounds {
            memory_bytes: memory_mib << 20,
            pids: MAX_THREADS + shape.vcpus,
            // The processors, and half of one for the devices.
            cpu_percent: shape.vcpus * 100 + 50,
        }
    }

    /// The jail, without the machine's files: whoever starts it adds them, by path or by descriptor.
    #[must_use]
    pub fn jail(&self, place: Place) -> Jail {
        let mut read_only = existing(&SYSTEM_FOLDERS);
        if !self.program.starts_with("/usr") {
            read_only.push(self.program.to_owned());
        }
        let mut devices: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
        if self.acceleration == Acceleration::Kvm {
            devices.push("/dev/kvm".into());
        }
        let file_mib = u64::from(self.shape.memory_mib) + u64::from(STREAM_OVERHEAD_MIB);
        Jail {
            program: self.program.to_owned(),
            args: args::arguments(
                self.shape,
                self.files,
                self.origin,
                self.acceleration,
                self.tsc_khz,
                self.network,
            ),
            user: place.user,
            mountpoint: place.mountpoint,
            is_jailer: false,
            pid_namespace: true,
            read_only,
            writable: Vec::new(),
            given: Vec::new(),
            devices,
            cgroups: place.cgroups,
            open_files: OPEN_FILES,
            last_descriptor: args::last_descriptor(self.network),
            file_bytes: file_mib << 20,
            shares: false,
            opens_channel: (self.origin != Origin::Boot).then_some(OPENS_FD),
            kept_descriptor: place.kept_descriptor,
            owner: std::process::id(),
        }
    }
}

/// Files and folders of the host that there are.
fn existing(paths: &[&str]) -> Vec<PathBuf> {
    let paths = paths.iter().map(PathBuf::from);
    paths.filter(|path| path.exists()).collect()
}
