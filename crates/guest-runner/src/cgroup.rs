//! The guest's own cgroup v2 tree: one group for all execs, one below it for each.
//!
//! Source of the file formats: Linux, `Documentation/admin-guide/cgroup-v2.rst` (6.1).

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the tree is mounted.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";
const CONTROLLERS: &str = "+memory +pids +cpu";

/// How often a group that is being frozen is looked at.
const FREEZE_POLL: Duration = Duration::from_millis(2);

/// A cgroup that we made.
pub(crate) struct Cgroup {
    path: PathBuf,
    bounds: Bounds,
}

/// Bounds of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes, files in memory included.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) processes: u32,
}

impl Cgroup {
    /// The group that holds all execs, so that together they cannot starve the guest-runner.
    pub(crate) fn for_execs(bounds: Bounds) -> io::Result<Cgroup> {
        write(Path::new(MOUNT), "cgroup.subtree_control", CONTROLLERS)?;
        let group = Cgroup::make(Path::new(MOUNT).join("execs"), bounds)?;
        group.write("cgroup.subtree_control", CONTROLLERS)?;
        // The guest-runner must get the processor when a fork bomb wants all of it.
        group.write("cpu.weight", "1")?;
        Ok(group)
    }

    /// Its bounds.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Gives it these bounds, if it has others.
    pub(crate) fn bound(&mut self, bounds: Bounds) -> io::Result<()> {
        if self.bounds != bounds {
            self.bounds = bounds;
            self.write_bounds()?;
        }
        Ok(())
    }

    /// A group below this one. When one of its processes is killed for memory, all are.
    pub(crate) fn child(&self, name: &str, bounds: Bounds) -> io::Result<Cgroup> {
        let group = Cgroup::make(self.path.join(name), bounds)?;
        group.write("memory.oom.group", "1")?;
        Ok(group)
    }

    fn make(path: PathBuf, bounds: Bounds) -> io::Result<Cgroup> {
        fs::create_dir(&path)?;
        let group = Cgroup { path, bounds };
        group.write_bounds()?;
        Ok(group)
    }

    fn write_bounds(&self) -> io::Result<()> {
        self.write("memory.max", &self.bounds.memory_bytes.to_string())?;
        self.write("pids.max", &self.bounds.processes.to_string())
    }

    /// The file through which a process joins.
    pub(crate) fn procs(&self) -> io::Result<fs::File> {
        fs::File::options()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    /// Moves a process into the group.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in the group, however it detached itself.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Stops every process in the group and below, and waits until they stand still.
    pub(crate) fn freeze(&self, deadline: Instant) -> io::Result<()> {
        self.write("cgroup.freeze", "1")?;
        while self.counter("cgroup.events", "frozen")? == 0 {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(FREEZE_POLL);
        }
        Ok(())
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// Whether any process is left.
    pub(crate) fn populated(&self) -> io::Result<bool> {
        Ok(self.counter("cgroup.events", "populated")? != 0)
    }

    /// Whether the memory bound killed a process.
    pub(crate) fn out_of_memory(&self) -> io::Result<bool> {
        Ok(self.counter("memory.events", "oom_kill")? != 0)
    }

    /// CPU time used, in microseconds.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        self.counter("cpu.stat", "usage_usec")
    }

    /// The most memory used at once, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> io::Result<u64> {
        let text = self.read("memory.peak")?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Removes the group; it must be empty.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_dir(&self.path)
    }

    fn counter(&self, file: &str, key: &str) -> io::Result<u64> {
        let text = self.read(file)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        let value = value.ok_or_else(|| io::Error::other(format!("{file} has no {key}")))?;
        value.parse().map_err(io::Error::other)
    }

    /// What a file says: less than a page, which comes whole with one read.
    fn read(&self, file: &str) -> io::Result<String> {
        let mut page = [0; 4096];
        let length = fs::File::open(self.path.join(file))?.read(&mut page)?;
        let text = String::from_utf8_lossy(&page[..length]);
        Ok(text.into_owned())
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        write(&self.path, file, value)
    }
}

fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(folder.join(file), value)
        .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))
}
