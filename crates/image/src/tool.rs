//! External programs: started in a process group of their own, bounded by a deadline, with the
//! tail of their stderr kept for the error. Dropping a running [`Job`] kills its whole group.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Lines of stderr kept for an error message.
const TAIL_LINES: usize = 20;
/// Longest stderr line kept, in bytes; the rest of the line is dropped.
const LINE_LIMIT: usize = 1024;

/// Why an external program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The program is not installed, or not on `PATH`.
    #[error("program {program} is not installed")]
    Missing {
        /// Name that was looked up.
        program: String,
    },
    /// The program could not be started or watched.
    #[error("cannot run {program}")]
    Start {
        /// Name of the program.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program ended with a failure.
    #[error("{program} failed ({status}){}", shown(stderr))]
    Failed {
        /// Name of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote to stderr.
        stderr: String,
    },
    /// The program was still running at its deadline and has been killed.
    #[error("{program} did not end within {} s{}", timeout.as_secs(), shown(stderr))]
    TimedOut {
        /// Name of the program.
        program: String,
        /// The time it was given.
        timeout: Duration,
        /// The last lines it wrote to stderr.
        stderr: String,
    },
}

impl ToolError {
    /// The last lines the program wrote to stderr; empty when it never ran.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } | Self::TimedOut { stderr, .. } => stderr,
            Self::Missing { .. } | Self::Start { .. } => "",
        }
    }
}

fn shown(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!(": {stderr}")
    }
}

/// A running program.
pub(crate) struct Job {
    program: String,
    child: Child,
    ended: bool,
    deadline: Instant,
    timeout: Duration,
    stderr: Option<JoinHandle<String>>,
}

impl Job {
    /// Starts `tool` with stdin closed and stderr captured; `stdout` says where its output goes.
    pub(crate) fn start(tool: Tool, stdout: Stdio, timeout: Duration) -> Result<Self, ToolError> {
        let Tool {
            program,
            mut command,
        } = tool;
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ToolError::Missing {
                program: program.clone(),
            },
            _ => ToolError::Start {
                program: program.clone(),
                source,
            },
        })?;
        let pipe = child.stderr.take();
        let stderr = pipe.map(|pipe| std::thread::spawn(move || tail(pipe)));
        Ok(Self {
            program,
            child,
            ended: false,
            deadline: Instant::now() + timeout,
            timeout,
            stderr,
        })
    }

    /// The pipe from the program's stdout, once, if it was started with one.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for the end, at most until the deadline. On success returns the tail of stderr.
    pub(crate) fn finish(mut self) -> Result<String, ToolError> {
        let status = self.wait().map_err(|source| ToolError::Start {
            program: self.program.clone(),
            source,
        })?;
        if status.is_none() {
            self.kill();
        }
        let stderr = self
            .stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default();
        let program = self.program.clone();
        match status {
            None => Err(ToolError::TimedOut {
                program,
                timeout: self.timeout,
                stderr,
            }),
            Some(status) if status.success() => Ok(stderr),
            Some(status) => Err(ToolError::Failed {
                program,
                status,
                stderr,
            }),
        }
    }

    /// The exit status, or nothing when the deadline came first.
    fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let status = self.child.wait()?;
        self.ended = true;
        Ok(Some(status))
    }

    fn kill(&mut self) {
        if !self.ended {
            // The group may already be gone: then there is nothing left to kill.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
            self.ended = true;
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program by the name errors use for it, and the command that starts it.
pub(crate) struct Tool {
    program: String,
    /// Takes arguments and environment.
    pub(crate) command: Command,
}

impl Tool {
    /// Looks `program` up on `PATH` when it starts, or takes it as it is if it has a `/`.
    ///
    /// Where the host has util-linux's `setpriv`, the program gets SIGTERM when the thread that started
    /// it ends: an interrupted build does not leave a downloader behind.
    pub(crate) fn new(program: &str) -> Self {
        let installed = program.contains('/') || on_path(program).is_some();
        let command = match on_path("setpriv") {
            Some(setpriv) if installed => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", "--", program]);
                command
            }
            _ => Command::new(program),
        };
        Self {
            program: program.to_owned(),
            command,
        }
    }

    /// Runs to the end with stdout discarded.
    pub(crate) fn run(self, timeout: Duration) -> Result<(), ToolError> {
        Job::start(self, Stdio::null(), timeout)?.finish().map(drop)
    }
}

/// The first file of that name in the folders of `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn tail(pipe: impl Read) -> String {
    let mut reader = BufReader::new(pipe);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        line.truncate(LINE_LIMIT);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if text.is_empty() {
            continue;
        }
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
    Vec::from(lines).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Tool {
        let mut tool = Tool::new("sh");
        tool.command.args(["-c", script]);
        tool
    }

    #[test]
    fn a_failure_carries_the_tail_of_stderr() {
        let error = sh("echo first >&2; echo last >&2; exit 3")
            .run(Duration::from_secs(60))
            .unwrap_err();
        assert_eq!(error.stderr(), "first\nlast");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Tool::new("firelane-no-such-tool")
            .run(Duration::from_secs(60))
            .unwrap_err();
        assert!(
            matches!(error, ToolError::Missing { program } if program == "firelane-no-such-tool")
        );
    }

    #[test]
    fn the_whole_group_dies_at_the_deadline() {
        // The grandchild holds stderr open: `finish` returns only when it is dead too.
        let error = sh("sleep 1000 & wait").run(Duration::ZERO).unwrap_err();
        assert!(matches!(error, ToolError::TimedOut { .. }));
    }
}
