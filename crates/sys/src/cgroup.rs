//! Bounds on a VMM from outside: cgroup v2 where its controllers are, v1 otherwise.
//!
//! Sources: Linux, `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Where hosts mount cgroups.
const MOUNT: &str = "/sys/fs/cgroup";
/// Our folder in each hierarchy.
const OURS: &str = "firelane";
/// Period of the processor bound, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// How long killed processes may take to leave their group.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);
/// The controllers that we use, under the names that version 2 gives them.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];
/// Bytes per second that a group may read from each disk, and as many to write. A microVM needs none
/// while it runs: its files are in the host's memory. One that is taken over could keep a disk busy.
const DISK_BYTES_PER_S: u64 = 512 << 20;
/// Where the kernel lists block devices: sysfs(5).
const BLOCK_DEVICES: &str = "/sys/block";
/// Names of those that are no disks of their own.
const NO_DISKS: [&str; 3] = ["loop", "ram", "zram"];

/// What a group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Processor time, in hundredths of one processor.
    pub cpu_percent: u32,
}

/// The cgroups of one microVM: one folder under v2, one per controller under v1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    folders: Vec<PathBuf>,
    /// Controllers that bound the group.
    pub bounded: Vec<String>,
    /// Controllers that do not, with the reason.
    pub absent: Vec<(String, String)>,
}

/// Where the host has what bounds are put on.
struct Host<'a> {
    /// Its cgroups.
    mount: &'a Path,
    /// Its block devices.
    devices: &'a Path,
}

impl Cgroups {
    /// Makes the groups of the microVM `id`. What cannot be bounded is told in
    /// [`Cgroups::absent`], never passed over.
    #[must_use]
    pub fn make(id: &str, bounds: &Bounds) -> Cgroups {
        let host = Host {
            mount: Path::new(MOUNT),
            devices: Path::new(BLOCK_DEVICES),
        };
        Cgroups::make_at(&host, id, bounds)
    }

    fn make_at(host: &Host<'_>, id: &str, bounds: &Bounds) -> Cgroups {
        let mut groups = Cgroups::default();
        let v2 = fs::read_to_string(host.mount.join("cgroup.controllers")).unwrap_or_default();
        for controller in CONTROLLERS {
            let made = if v2.split_ascii_whitespace().any(|name| name == controller) {
                groups.bound_v2(host, id, controller, bounds)
            } else {
                groups.bound_v1(host, id, controller, bounds)
            };
            match made {
                Ok(()) => groups.bounded.push(controller.into()),
                Err(error) => groups.absent.push((controller.into(), error.to_string())),
            }
        }
        groups
    }

    /// The groups that there are of the microVM `id`, made by whom or when ever.
    #[must_use]
    pub fn left_by(id: &str) -> Cgroups {
        let mount = Path::new(MOUNT);
        let v1 = CONTROLLERS
            .iter()
            .map(|controller| mount.join(in_v1(controller)));
        let parents = v1.chain([mount.to_owned()]);
        let folders = parents.map(|parent| parent.join(OURS).join(id));
        Cgroups {
            folders: folders.filter(|folder| folder.is_dir()).collect(),
            ..Cgroups::default()
        }
    }

    fn bound_v2(
        &mut self,
        host: &Host<'_>,
        id: &str,
        controller: &str,
        bounds: &Bounds,
    ) -> io::Result<()> {
        let parent = host.mount.join(OURS);
        enable(host.mount, controller)?;
        make_folder(&parent)?;
        enable(&parent, controller)?;
        let folder = self.folder(&parent, id)?;
        match controller {
            "memory" => {
                write(&folder, "memory.max", &bounds.memory_bytes.to_string())?;
                if_there(&folder, "memory.swap.max", "0")
            }
            "pids" => write(&folder, "pids.max", &bounds.pids.to_string()),
            "io" => each(&disks(host.devices), |disk| {
                let most = DISK_BYTES_PER_S;
                write(
                    &folder,
                    "io.max",
                    &format!("{disk} rbps={most} wbps={most}"),
                )
            }),
            _ => write(
                &folder,
                "cpu.max",
                &format!("{} {CPU_PERIOD_US}", quota_us(bounds)),
            ),
        }
    }

    fn bound_v1(
        &mut self,
        host: &Host<'_>,
        id: &str,
        controller: &str,
        bounds: &Bounds,
    ) -> io::Result<()> {
        let hierarchy = host.mount.join(in_v1(controller));
        if !hierarchy.join("cgroup.procs").exists() {
            return Err(io::Error::other("the host has no such controller mounted"));
        }
        let parent = hierarchy.join(OURS);
        make_folder(&parent)?;
        let folder = self.folder(&parent, id)?;
        match controller {
            "memory" => {
                let bytes = bounds.memory_bytes.to_string();
                write(&folder, "memory.limit_in_bytes", &bytes)?;
                if_there(&folder, "memory.memsw.limit_in_bytes", &bytes)
            }
            "pids" => write(&folder, "pids.max", &bounds.pids.to_string()),
            "io" => each(&disks(host.devices), |disk| {
                ["read", "write"].into_iter().try_for_each(|way| {
                    let file = format!("blkio.throttle.{way}_bps_device");
                    write(&folder, &file, &format!("{disk} {DISK_BYTES_PER_S}"))
                })
            }),
            _ => {
                write(&folder, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                write(&folder, "cpu.cfs_quota_us", &quota_us(bounds).to_string())
            }
        }
    }

    fn folder(&mut self, parent: &Path, id: &str) -> io::Result<PathBuf> {
        let folder = parent.join(id);
        if !self.folders.contains(&folder) {
            make_folder(&folder)?;
            self.folders.push(folder.clone());
        }
        Ok(folder)
    }

    /// The groups.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The files through which a process of one thread joins all groups: `tasks` of version 1, which moves
    /// that thread and does not wait, and `cgroup.procs` of version 2.
    #[must_use]
    pub fn joined_through(&self) -> Vec<PathBuf> {
        let file = |folder: &PathBuf| match folder.join("tasks") {
            tasks if tasks.exists() => tasks,
            _ => folder.join("cgroup.procs"),
        };
        self.folders.iter().map(file).collect()
    }

    /// Whether this process is in all of them.
    ///
    /// # Errors
    /// If a group cannot be read.
    pub fn hold(&self, pid: u32) -> io::Result<bool> {
        let pid = pid.to_string();
        for folder in &self.folders {
            let procs = folder.join("cgroup.procs");
            let text = fs::read_to_string(&procs).map_err(|error| named(&error, &procs))?;
            if !text.lines().any(|line| line == pid) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the groups; their processes must have been killed. Those already gone are fine. Waits up to two seconds
    /// for each, so not for a thread on which others wait.
    ///
    /// # Errors
    /// If a group still has processes after two seconds.
    pub fn remove(&self) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| remove(folder))
    }
}

/// A process that was killed leaves its groups thread by thread, while its memory is given back.
fn remove(folder: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && start.elapsed() < REMOVE_DEADLINE =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            removed => return removed.map_err(|error| named(&error, folder)),
        }
    }
}

/// The name of a controller's hierarchy in version 1.
fn in_v1(controller: &str) -> &str {
    match controller {
        "io" => "blkio",
        same => same,
    }
}

/// Does something for each of the disks.
fn each(disks: &[String], bound: impl FnMut(&String) -> io::Result<()>) -> io::Result<()> {
    match disks {
        [] => Err(io::Error::other("the host has no disk")),
        disks => disks.iter().try_for_each(bound),
    }
}

/// The host's disks by their numbers, as `8:0`. Those without a medium have nothing to be bounded.
fn disks(devices: &Path) -> Vec<String> {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let disks = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
    });
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).ok();
    let disks = disks.filter_map(|entry| {
        let folder = entry.path();
        let size = read(&folder, "size")?;
        let numbers = read(&folder, "dev")?;
        (size.trim() != "0").then(|| numbers.trim().to_owned())
    });
    disks.collect()
}

fn quota_us(bounds: &Bounds) -> u64 {
    CPU_PERIOD_US * u64::from(bounds.cpu_percent) / 100
}

fn enable(folder: &Path, controller: &str) -> io::Result<()> {
    write(folder, "cgroup.subtree_control", &format!("+{controller}"))
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(&error, path)),
        _ => Ok(()),
    }
}

/// Writes a file that a kernel without swap accounting does not have.
fn if_there(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    if folder.join(file).exists() {
        write(folder, file, value)
    } else {
        Ok(())
    }
}

fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| named(&error, &path))
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        memory_bytes: 1 << 20,
        pids: 7,
        cpu_percent: 150,
    };

    /// A host with one disk, and what is none: a loop device, and a drive without a medium.
    fn devices(folder: &Path) -> PathBuf {
        let devices = folder.join("block");
        for (name, numbers, size) in [("vda", "254:0", 8), ("loop0", "7:0", 8), ("sr0", "11:0", 0)]
        {
            let device = devices.join(name);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("dev"), format!("{numbers}\n")).unwrap();
            fs::write(device.join("size"), format!("{size}\n")).unwrap();
        }
        devices
    }

    fn make_at(folder: &Path, devices: &Path) -> Cgroups {
        let host = Host {
            mount: folder,
            devices,
        };
        Cgroups::make_at(&host, "vm-1", &BOUNDS)
    }

    #[test]
    fn v2_is_used_where_it_has_the_controllers() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(
            mount.path().join("cgroup.controllers"),
            "cpu io memory pids\n",
        )
        .unwrap();
        let groups = make_at(mount.path(), &devices(mount.path()));
        assert_eq!(groups.bounded, CONTROLLERS);
        let read =
            |file: &str| fs::read_to_string(mount.path().join("firelane/vm-1").join(file)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("pids.max"), "7");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("io.max"), "254:0 rbps=536870912 wbps=536870912");
        let joined = mount.path().join("firelane/vm-1/cgroup.procs");
        assert_eq!(groups.joined_through(), [joined]);
    }

    #[test]
    fn v1_is_the_fallback_and_what_is_missing_is_told() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(mount.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        for controller in ["memory", "cpu", "blkio"] {
            fs::create_dir(mount.path().join(controller)).unwrap();
            fs::write(mount.path().join(controller).join("cgroup.procs"), "").unwrap();
        }
        let groups = make_at(mount.path(), &devices(mount.path()));
        assert_eq!(groups.bounded, ["memory", "cpu", "io"]);
        assert_eq!(groups.absent[0].0, "pids");
        let quota = mount.path().join("cpu/firelane/vm-1/cpu.cfs_quota_us");
        assert_eq!(fs::read_to_string(quota).unwrap(), "150000");
        let disk = mount.path().join("blkio/firelane/vm-1");
        for file in [
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
        ] {
            assert_eq!(
                fs::read_to_string(disk.join(file)).unwrap(),
                "254:0 536870912"
            );
        }
    }

    #[test]
    fn a_host_without_disks_has_none_to_bound() {
        let mount = tempfile::tempdir().unwrap();
        fs::write(
            mount.path().join("cgroup.controllers"),
            "cpu io memory pids\n",
        )
        .unwrap();
        let groups = make_at(mount.path(), &mount.path().join("none"));
        let told = [("io".to_owned(), "the host has no disk".to_owned())];
        assert_eq!(groups.absent, told);
    }
}
