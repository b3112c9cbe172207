//! Programs of this machine, each with a deadline.

use std::env;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between two looks at a program that runs.
const LOOK: Duration = Duration::from_millis(20);

/// Why something on this machine was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// A program failed.
    #[error("{program} failed: {said}")]
    Tool { program: String, said: String },
    /// A program had not ended in time, and was killed.
    #[error("{program} had not ended after {} s", after.as_secs())]
    Late { program: String, after: Duration },
    /// A file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    State(String),
}

/// Whether a program can be started.
pub(crate) fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<(), Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |said: String| Failed::Tool {
        program: program.clone(),
        said,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = stderr {
            // What was read before an error is all that can be told.
            let _ = stderr.read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Err(error) => return Err(failed(error.to_string())),
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < deadline => std::thread::sleep(LOOK),
            Ok(None) => {
                if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                    // It may have ended by itself just now.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                let _ = child.wait();
                let after = deadline;
                return Err(Failed::Late { program, after });
            }
        }
    };
    let said = reader.join().unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(failed(format!("{status}: {}", last.join("; "))))
}

/// A file that could not be used.
pub(crate) fn file(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> Failed + use<> {
    let path = path.to_owned();
    move |source| Failed::File {
        doing,
        path,
        source,
    }
}
