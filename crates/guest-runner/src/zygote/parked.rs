//! A parked interpreter: it waits with its pipes in place, and becomes one program.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use firelane_guest_proto::Lang;
use rustix::process::{Pid, Signal, kill_process};

use super::Order;
use super::waiting::Waiting;
use crate::Guest;
use crate::cgroup::Cgroup;
use crate::exec::{self, Ours};
use crate::reaper::Watch;
use crate::wake::Wake;

/// Where its program is: not an argument, which the interpreter would remember.
const PROGRAM: &str = "/run/firelane-node.js";

/// An interpreter that waits for its one program.
pub(super) struct Parked {
    lang: Lang,
    waiting: Waiting,
    ours: Ours,
}

/// A parked interpreter that has become a program.
pub(crate) struct Unparked {
    pub(crate) ours: Ours,
    pub(crate) pid: Pid,
    pub(crate) watch: Arc<Watch>,
}

impl Parked {
    pub(super) fn start(
        guest: &Guest,
        lang: Lang,
        snippets: &[String],
        env: &BTreeMap<String, String>,
    ) -> io::Result<Option<Parked>> {
        let (Lang::Node, Some(interpreter)) = (lang, exec::interpreter(lang)) else {
            return Ok(None);
        };
        if !Path::new(PROGRAM).exists() {
            fs::write(PROGRAM, include_str!("node.js"))?;
            fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o444))?;
        }
        let (ours, theirs) = exec::pipes()?;
        let mut command = Command::new(interpreter);
        command
            .arg(PROGRAM)
            .args(snippets)
            .stdin(Stdio::from(theirs.stdin))
            .stdout(Stdio::from(theirs.stdout))
            .stderr(Stdio::from(theirs.stderr));
        let waiting = Waiting::start(guest, command, env.clone())?;
        Ok(Some(Parked {
            lang,
            waiting,
            ours,
        }))
    }

    pub(super) fn lang(&self) -> Lang {
        self.lang
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        self.waiting.env()
    }

    /// Has it become a program.
    pub(super) fn unpark(
        self,
        order: &Order<'_>,
        group: &Cgroup,
        wake: &Arc<Wake>,
    ) -> io::Result<Unparked> {
        let pid = i32::try_from(self.waiting.pid())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it has no number"))?;
        group.add(self.waiting.pid())?;
        let args: Vec<String> = [order.folder.to_owned()]
            .into_iter()
            .chain(order.args.iter().cloned())
            .collect();
        self.waiting.send(order.file, &args, order.env, &[])?;
        // A program of the same user may have stopped it.
        kill_process(pid, Signal::CONT)?;
        let watch = self.waiting.release();
        watch.ring_instead(wake);
        Ok(Unparked {
            ours: self.ours,
            pid,
            watch,
        })
    }
}
