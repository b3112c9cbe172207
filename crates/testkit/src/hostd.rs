//! A firelane-hostd of a test's own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firelane_host_proto::{CallError, Client};
use firelane_vmm::rundir::Record;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::Value;

use crate::Lab;

/// The user and group that nobody has.
pub const NOBODY: u32 = 65534;
/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// It runs; dropped, it is ended in order, and nothing may be left of it.
pub struct Hostd {
    process: Option<Child>,
    program: PathBuf,
    folder: PathBuf,
    options: Vec<String>,
}

impl Hostd {
    /// Starts one in the lab for the members of [`NOBODY`]'s group, with these options beside.
    ///
    /// # Panics
    /// If it does not listen.
    #[must_use]
    pub fn start(lab: &Lab, options: &[&str]) -> Hostd {
        let mut hostd = Hostd {
            process: None,
            program: lab.bin().join("firelane-hostd"),
            folder: lab.path().join("hostd"),
            options: options.iter().map(ToString::to_string).collect(),
        };
        hostd.restart();
        hostd
    }

    /// Starts it again, after [`Hostd::kill`] or [`Hostd::end`].
    ///
    /// # Panics
    /// If it does not listen.
    pub fn restart(&mut self) {
        let mut command = Command::new(&self.program);
        for (option, path) in [
            ("--socket", self.socket()),
            ("--run-dir", self.run_dir()),
            ("--audit", self.folder.join("audit")),
        ] {
            command.arg(option).arg(path);
        }
        command
            .args(["--group", &NOBODY.to_string()])
            .args(&self.options)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        fs::create_dir_all(&self.folder).expect("our own folder");
        self.process = Some(command.spawn().expect("it is built"));
        wait("it listens", || UnixStream::connect(self.socket()).ok());
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("sock")
    }

    /// Folder of its run directories.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("r")
    }

    /// What it has on record of a microVM.
    ///
    /// # Panics
    /// If there is nothing.
    #[must_use]
    pub fn record(&self, id: &str) -> Record {
        let record = fs::read(self.run_dir().join(id).join("owner")).expect("a record");
        serde_json::from_slice(&record).expect("a record")
    }

    /// The lines of its audit.
    ///
    /// # Panics
    /// If one is no JSON.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("audit")).expect("an audit");
        let line = |line| serde_json::from_str(line).expect("a line of JSON");
        text.lines().map(line).collect()
    }

    /// Kills it, as a crash would.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn end(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), Signal::TERM).expect("it is ours");
        let status = process.wait().expect("it is ours");
        assert!(status.success(), "{status}");
    }

    /// Nothing of any microVM is left with it.
    ///
    /// # Panics
    /// If something is.
    pub fn assert_empty(&self) {
        let entries = fs::read_dir(self.run_dir()).expect("its folder");
        let names = entries.flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// Waits until nothing is left.
    pub fn wait_until_empty(&self) {
        wait("nothing is left", || {
            let entries = fs::read_dir(self.run_dir()).expect("its folder");
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names
                .all(|name| name.as_encoded_bytes().starts_with(b"."))
                .then_some(())
        });
    }
}

impl Drop for Hostd {
    fn drop(&mut self) {
        if self.process.is_some() && !std::thread::panicking() {
            self.end();
            self.assert_empty();
        } else if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Connects as this user, in its group alone.
///
/// # Errors
/// Those of the client.
///
/// # Panics
/// If we are not root.
pub fn connect_as(user: u32, group: u32, socket: &Path) -> Result<Client, CallError> {
    as_user(user, group, || Client::connect(socket))
}

/// Does something as this user; only the thread that does it changes.
///
/// # Panics
/// If we are not root.
pub fn as_user<T: Send>(user: u32, group: u32, act: impl FnOnce() -> T + Send) -> T {
    let changed = move || {
        let (uid, gid) = (
            rustix::process::Uid::from_raw(user),
            rustix::process::Gid::from_raw(group),
        );
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            changed().expect("only root may");
            act()
        });
        thread.join().expect("it does not panic")
    })
}

/// Waits until `what` is so.
///
/// # Panics
/// If it does not come to be.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
