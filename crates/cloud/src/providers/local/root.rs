//! The system that machines share: Debian 12 with what a cloud's image has, built once.
//!
//! It is built beside its place and renamed, so that it is whole or not there; two that build at the
//! same time take turns. Its recipe is a part of its name: another recipe is another system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::tool::{Failed, file, run};

/// Grows with every change to what is built.
const RECIPE: &str = "debian-12-2";
const SUITE: &str = "bookworm";
/// Debian's keys, on a host of another distribution.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What clouds' images have, and what the preparation of a machine would fetch: it has no network.
const PACKAGES: [&str; 14] = [
    "ca-certificates",
    "cloud-init",
    "curl",
    "dbus",
    "iproute2",
    "make",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "qemu-system-x86",
    "rsync",
    "sudo",
    "systemd-sysv",
];
/// How names of systems begin that are not built yet.
const HALF: &str = "half-";
/// How long a build may take.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// cloud-init takes its document from a folder, and leaves the network as it is.
const CLOUD_INIT: &str = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n";

/// The folder of the system; built if it is not there.
pub(super) fn root(folder: &Path) -> Result<PathBuf, Failed> {
    let roots = folder.join("roots");
    fs::create_dir_all(&roots).map_err(file("make", &roots))?;
    let lock = roots.join("lock");
    let lock = File::create(&lock).map_err(file("open", &lock))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| Failed::State(format!("cannot lock {}: {error}", roots.display())))?;
    let root = roots.join(RECIPE);
    if root.exists() {
        return Ok(root);
    }
    // Half a build of a process that was killed. What it started may still be at it, so each build has a place of its own.
    for entry in fs::read_dir(&roots).map_err(file("read", &roots))? {
        let entry = entry.map_err(file("read", &roots))?;
        if entry.file_name().to_string_lossy().starts_with(HALF) {
            remove(&entry.path())?;
        }
    }
    let half = roots.join(format!("{HALF}{}", std::process::id()));
    build(&half)?;
    fs::rename(&half, &root).map_err(file("move", &half))?;
    Ok(root)
}

fn build(root: &Path) -> Result<(), Failed> {
    // It ends with us.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "mmdebstrap"]);
    command.args(["--variant=minbase", "--mode=root"]);
    command.arg(format!("--include={}", PACKAGES.join(",")));
    if Path::new(KEYRING).is_file() {
        command.arg(format!("--keyring={KEYRING}"));
    }
    command.arg(SUITE).arg(root);
    command
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command, BUILD)?;
    let settings = root.join("etc/cloud/cloud.cfg.d/90_firelane.cfg");
    fs::write(&settings, CLOUD_INIT).map_err(file("write", &settings))?;
    // Each machine has keys and an id of its own.
    let ssh = root.join("etc/ssh");
    for entry in fs::read_dir(&ssh).map_err(file("read", &ssh))? {
        let entry = entry.map_err(file("read", &ssh))?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path()).map_err(file("remove", &entry.path()))?;
        }
    }
    let id = root.join("etc/machine-id");
    fs::write(&id, "").map_err(file("write", &id))
}

/// Removes a folder; one that is not there is fine.
pub(super) fn remove(folder: &Path) -> Result<(), Failed> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(file("remove", folder)),
    }
}
