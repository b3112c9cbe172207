//! A command that runs, and how it ended.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

/// A command that runs.
pub struct Running {
    child: Owned,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: JoinHandle<Vec<u8>>,
}

/// A child that does not outlive its test: dropped while it runs, as when the test fails, it is
/// killed.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It may end by itself at this moment.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; -n if signal n ended it.
    pub code: i32,
    /// Its stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Its stdout, exactly.
    pub stdout_bytes: Vec<u8>,
    /// Its stderr.
    pub stderr: String,
}

impl Running {
    /// Starts it with `input` already in its standard input; the rest is written by the test.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(mut command: Command, input: &[u8]) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(input).expect("a pipe takes a little");
        let mut stderr = child.stderr.take().expect("it was piped");
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).expect("a pipe can be read");
            bytes
        });
        let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        Running {
            child: Owned(child),
            stdin: Some(stdin),
            stdout,
            stderr,
        }
    }

    /// Its next line of stdout; waits for it.
    ///
    /// # Panics
    /// If its stdout cannot be read.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("a pipe can be read");
        line
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// If its standard input was ended.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin
            .as_mut()
            .expect("it is open")
            .write_all(bytes)
            .expect("it reads");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).expect("it runs");
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn is_over(&mut self) -> bool {
        let status = self.child.0.try_wait().expect("it is our child");
        status.is_some()
    }

    /// How far it has read or written a file that it has open, in bytes.
    #[must_use]
    pub fn position_in(&self, file: &Path) -> Option<u64> {
        let process = Path::new("/proc").join(self.child.0.id().to_string());
        let mut open = fs::read_dir(process.join("fd")).ok()?.flatten();
        let found =
            open.find(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == file))?;
        let info = fs::read_to_string(process.join("fdinfo").join(found.file_name())).ok()?;
        let position = info.lines().find_map(|line| line.strip_prefix("pos:"))?;
        position.trim().parse().ok()
    }

    /// Closes its stdout unread, ends its standard input and waits for its end.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn leave(self) -> Ended {
        let Running {
            mut child,
            stdin,
            stdout,
            stderr,
        } = self;
        drop((stdin, stdout));
        let status = child.0.wait().expect("it is our child");
        ended(status, Vec::new(), stderr)
    }

    /// Ends its standard input and waits for its end.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let mut stdout_bytes = Vec::new();
        self.stdout
            .read_to_end(&mut stdout_bytes)
            .expect("a pipe can be read");
        let status = self.child.0.wait().expect("it is our child");
        ended(status, stdout_bytes, self.stderr)
    }
}

fn ended(status: ExitStatus, stdout_bytes: Vec<u8>, stderr: JoinHandle<Vec<u8>>) -> Ended {
    let stderr = stderr.join().expect("the reader does not panic");
    Ended {
        code: status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&stdout_bytes).into_owned(),
        stdout_bytes,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
