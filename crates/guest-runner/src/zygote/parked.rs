//! A parked interpreter: it waits in a cgroup of its own with its pipes in place, and becomes one
//! program. Python's and Ruby's are forked by their zygotes, before there is anything to run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use firelane_guest_proto::Lang;
use rustix::process::{Pid, Signal, kill_process};

use super::Order;
use super::forking::Zygote;
use super::waiting::Waiting;
use crate::Guest;
use crate::cgroup::{Bounds, Cgroup};
use crate::exec::{self, Ours, Running, Theirs};
use crate::wake::Wake;

/// Where Node's program is: not an argument, which the interpreter would remember.
const NODE: &str = "/run/firelane-node.js";
/// The same for Bash, which reads it before the program.
const BASH: &str = "/run/firelane-bash.sh";
/// What names it to Bash.
const BASH_ENV: &str = "BASH_ENV";

/// An interpreter that waits for its one program.
pub(super) struct Parked {
    lang: Lang,
    waiting: Waiting,
    ours: Ours,
    /// The cgroup that it is in.
    group: Cgroup,
}

impl Parked {
    /// Starts one, or has a zygote fork one.
    pub(super) fn start(
        guest: &Guest,
        lang: Lang,
        zygote: Option<&Zygote>,
        snippets: &[String],
        env: &BTreeMap<String, String>,
    ) -> io::Result<Option<Parked>> {
        let (ours, theirs) = exec::pipes()?;
        let waiting = match (zygote, lang, exec::interpreter(lang)) {
            (Some(zygote), _, _) => zygote.park(guest, &theirs)?,
            (None, Lang::Node, Some(interpreter)) => {
                let mut node = node(interpreter, snippets)?;
                Waiting::start(guest, lang, with(&mut node, env, theirs), env.clone())?
            }
            // With one of its own it would not find ours.
            (None, Lang::Bash, Some(interpreter)) if !env.contains_key(BASH_ENV) => {
                let mut bash = Command::new(interpreter);
                bash.arg(exec::first_source(lang));
                let bash = with(&mut bash, env, theirs)
                    .env(BASH_ENV, place(BASH, include_str!("bash.sh"))?);
                Waiting::start(guest, lang, bash, env.clone())?
            }
            _ => return Ok(None),
        };
        // Where its program will be: to move it then would be slow.
        let name = format!("exec-of-{}", waiting.pid());
        let group = guest.execs.child(&name, exec::usual_bounds(guest))?;
        group.add(waiting.pid())?;
        Ok(Some(Parked {
            lang,
            waiting,
            ours,
            group,
        }))
    }

    pub(super) fn lang(&self) -> Lang {
        self.lang
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        self.waiting.env()
    }

    /// Has it become a program, within these bounds.
    pub(super) fn unpark(
        mut self,
        order: &Order<'_>,
        bounds: Bounds,
        wake: &Arc<Wake>,
    ) -> io::Result<Running> {
        let pid = i32::try_from(self.waiting.pid())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it has no number"))?;
        self.group.bound(bounds)?;
        match self.lang {
            Lang::Bash => self.waiting.send_to_shell(order)?,
            _ => self.waiting.send(order, &[])?,
        }
        // A program of the same user may have stopped it.
        kill_process(pid, Signal::CONT)?;
        let watch = self.waiting.release();
        watch.ring_instead(wake);
        Ok(Running::new(self.ours, pid, watch, self.group))
    }
}

/// The command that starts the parked Node.
fn node(interpreter: PathBuf, snippets: &[String]) -> io::Result<Command> {
    let mut command = Command::new(interpreter);
    command
        .arg(place(NODE, include_str!("node.js"))?)
        .args(snippets);
    Ok(command)
}

/// Gives a command its environment and streams.
fn with<'a>(
    command: &'a mut Command,
    env: &BTreeMap<String, String>,
    theirs: Theirs,
) -> &'a mut Command {
    command
        .env_clear()
        .envs(env)
        .stdin(Stdio::from(theirs.stdin))
        .stdout(Stdio::from(theirs.stdout))
        .stderr(Stdio::from(theirs.stderr))
}

/// Puts a program where the programs' user can read it, unless it is there.
fn place(path: &'static str, program: &str) -> io::Result<&'static str> {
    if !Path::new(path).exists() {
        fs::write(path, program)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o444))?;
    }
    Ok(path)
}
