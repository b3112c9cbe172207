//! The processes of one machine: which they are, and their end.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::tool::{Failed, file};

/// How long a machine may take to shut down before it is killed.
const SHUTDOWN: Duration = Duration::from_secs(15);
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// By this argument those outside of a machine are known.
pub(super) fn machine_argument(id: &str) -> String {
    format!("--machine={id}")
}

/// The processes outside of a machine that keep it running: that of systemd-nspawn, and its timer.
pub(super) fn keeping(id: &str) -> Vec<Pid> {
    let argument = machine_argument(id);
    such(|process| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}

/// The processes inside: those in its network namespace. What they start in others of their own ends with their init.
fn inside(id: &str) -> Result<Vec<Pid>, Failed> {
    let path = Path::new("/run/netns").join(id);
    let namespace = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(file("look at", &path))?,
    };
    let namespace = (namespace.dev(), namespace.ino());
    // One that has just ended has none.
    Ok(such(|process| {
        fs::metadata(process.join("ns/net")).is_ok_and(|its| (its.dev(), its.ino()) == namespace)
    }))
}

fn such(is_wanted: impl Fn(&Path) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            is_wanted(&entry.path()).then_some(pid)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// Ends the processes of a machine: in order first, then by force. Who ends systemd-nspawn alone has not ended what runs
/// inside: killed, or told to end before it listens for that, it leaves its child behind.
pub(super) fn end(id: &str) -> Result<(), Failed> {
    kill(&keeping(id), Signal::TERM);
    let begun = Instant::now();
    while !keeping(id).is_empty() && begun.elapsed() < SHUTDOWN {
        std::thread::sleep(LOOK);
    }
    let begun = Instant::now();
    loop {
        let left = [keeping(id), inside(id)?].concat();
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > KILLED {
            return Err(Failed::State(format!("the machine {id} does not end")));
        }
        kill(&left, Signal::KILL);
        std::thread::sleep(LOOK);
    }
}

fn kill(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that has just ended is fine.
        let _ = kill_process(*process, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::network;
    use super::*;

    /// Takes what it is told to end by, as an init does.
    const STUBBORN: &str = "trap '' TERM; echo up; while :; do sleep 1; done";

    #[test]
    fn what_is_inside_a_machine_ends_with_it_though_nothing_keeps_it_any_more() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root has machines here");
            return;
        }
        let id = format!("fl-test-{}", std::process::id());
        network::make(&id).unwrap();
        let words = ["netns", "exec", &id, "sh", "-c", STUBBORN];
        let mut left = Command::new("ip").args(words).spawn().unwrap();
        let begun = Instant::now();
        while inside(&id).unwrap().is_empty() && begun.elapsed() < KILLED {
            std::thread::sleep(LOOK);
        }
        let seen = (keeping(&id), inside(&id).unwrap().len());
        // Collected as soon as it ends, as init does with what is left behind.
        let collecting = std::thread::spawn(move || left.wait().unwrap());
        let ended = end(&id);
        network::remove(&id).unwrap();
        assert_eq!(seen.0, []);
        assert!(seen.1 > 0);
        ended.unwrap();
        assert!(!collecting.join().unwrap().success());
    }
}
