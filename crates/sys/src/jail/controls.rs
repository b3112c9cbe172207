//! Which controls are in force on a running VMM, read from `/proc`: what the kernel does, not what
//! we asked for.

use std::borrow::Cow;
use std::fs;
use std::io;

use serde::Serialize;

/// Whether a control is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum State {
    /// It is.
    On,
    /// It is not, though this host could.
    Off(String),
    /// It cannot be, here.
    Impossible(String),
}

/// One control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether it is in force.
    #[serde(flatten)]
    pub state: State,
}

/// The controls on one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Controls(pub Vec<Control>);

impl Controls {
    /// Reads them.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn of(pid: u32) -> io::Result<Controls> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let root = rustix::process::geteuid().is_root();
        let namespace = |kind: &str| -> io::Result<State> {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
            let ours = fs::read_link(format!("/proc/self/ns/{kind}"))?;
            Ok(match (theirs != ours, root) {
                (true, _) => State::On,
                (false, true) => State::Off("the VMM shares the host's".into()),
                (false, false) => {
                    State::Impossible("not root, and this host allows no user namespaces".into())
                }
            })
        };
        Ok(Controls(vec![
            Control {
                name: "own user".into(),
                state: own_user(&status, root),
            },
            Control {
                name: "no capabilities".into(),
                state: no_capabilities(&status),
            },
            Control {
                name: "no new privileges".into(),
                state: is(&status, "NoNewPrivs", "1"),
            },
            Control {
                name: "seccomp filter".into(),
                state: is(&status, "Seccomp", "2"),
            },
            Control {
                name: "own mount namespace".into(),
                state: namespace("mnt")?,
            },
            Control {
                name: "own network namespace".into(),
                state: namespace("net")?,
            },
            Control {
                name: "own IPC namespace".into(),
                state: namespace("ipc")?,
            },
            Control {
                name: "own PID namespace".into(),
                state: match namespace("pid")? {
                    State::On => State::On,
                    // The keeper of one has to be outside of it, where an ordinary user is nobody.
                    _ if !root => State::Impossible("only root can make one for a VMM".into()),
                    off => off,
                },
            },
        ]))
    }

    /// The first control that is not in force though this host could have it, and why. A host on which
    /// the VMM has no namespace at all is one that allows none: the jail has tried.
    #[must_use]
    pub fn lacking(&self) -> Option<(&str, &str)> {
        let is_namespace = |control: &Control| control.name.ends_with("namespace");
        let allowed = self
            .0
            .iter()
            .any(|control| is_namespace(control) && control.state == State::On);
        self.0.iter().find_map(|control| match &control.state {
            State::Off(reason) if allowed || !is_namespace(control) => {
                Some((control.name.as_ref(), reason.as_str()))
            }
            State::Off(_) | State::On | State::Impossible(_) => None,
        })
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn is(status: &str, name: &str, wanted: &str) -> State {
    match field(status, name) {
        Some(value) if value == wanted => State::On,
        Some(value) => State::Off(format!("{name} is {value}")),
        None => State::Impossible(format!("this kernel does not tell {name}")),
    }
}

fn own_user(status: &str, root: bool) -> State {
    let ours = rustix::process::getuid().as_raw();
    let uids: Vec<u32> = field(status, "Uid")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|uid| uid.parse().ok())
        .collect();
    match (uids.is_empty() || uids.contains(&ours), root) {
        (false, _) => State::On,
        (true, true) => State::Off("the VMM runs as this user".into()),
        (true, false) => State::Impossible("only root can change to another user".into()),
    }
}

fn no_capabilities(status: &str) -> State {
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        match field(status, set) {
            Some(value) if value.bytes().all(|digit| digit == b'0') => {}
            Some(value) => return State::Off(format!("{set} is {value}")),
            None => return State::Impossible(format!("this kernel does not tell {set}")),
        }
    }
    State::On
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_never_jailed_has_its_controls_off() {
        // Ourselves: the same user, the same namespaces, no filter.
        let controls = Controls::of(std::process::id()).unwrap();
        let root = rustix::process::geteuid().is_root();
        for name in ["own user", "own mount namespace", "own network namespace"] {
            let control = controls
                .0
                .iter()
                .find(|control| control.name == name)
                .unwrap();
            match (&control.state, root) {
                (State::Off(_), true) | (State::Impossible(_), false) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_process_without_controls_is_told_apart() {
        let status = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n";
        assert!(matches!(no_capabilities(status), State::Off(_)));
        assert!(matches!(is(status, "NoNewPrivs", "1"), State::Off(_)));
        assert!(matches!(is(status, "Missing", "1"), State::Impossible(_)));
        let jailed = "CapEff:\t0000\nCapPrm:\t0000\nCapInh:\t0000\nCapAmb:\t0000\nSeccomp:\t2\n";
        assert_eq!(no_capabilities(jailed), State::On);
        assert_eq!(is(jailed, "Seccomp", "2"), State::On);
    }
}
