//! What there is of a microVM, and whether its VMM is confined, as the kernel tells it.

use std::io;

use firelane_host_proto::message::{Code, Refusal, State, Told};
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail::{self, Controls};

use crate::refuse::refuse;
use crate::table::{Entry, Life};

/// What a VMM is confined by: what the jail does, and its cgroups.
pub(crate) fn controls(pid: u32, cgroups: &Cgroups) -> io::Result<Vec<Told>> {
    let read = Controls::of(pid)?;
    let mut told: Vec<Told> = read.0.into_iter().map(tell).collect();
    let held = cgroups.hold(pid)?;
    if !cgroups.bounded.is_empty() {
        told.push(Told {
            name: "own cgroups".into(),
            on: held,
            reason: match held {
                true => String::new(),
                false => "the VMM is not in its groups".into(),
            },
        });
    }
    Ok(told)
}

fn tell(control: jail::Control) -> Told {
    let (on, reason) = match control.state {
        jail::State::On => (true, String::new()),
        jail::State::Off(reason) | jail::State::Impossible(reason) => (false, reason),
    };
    Told {
        name: control.name.into(),
        on,
        reason,
    }
}

/// Refuses what is not confined by everything: root can have all of it. A controller that the host does
/// not have is told as absent and is none of these.
pub(crate) fn confined(controls: &[Told]) -> Result<(), Refusal> {
    match controls.iter().find(|control| !control.on) {
        None => Ok(()),
        Some(Told { name, reason, .. }) => Err(refuse(
            Code::Unconfined,
            format!("{name} is off ({reason})"),
        )),
    }
}

/// What there is of it.
pub(crate) fn of(entry: &Entry) -> State {
    let empty = State {
        id: entry.id.clone(),
        vmm: entry.vmm.into(),
        pid: None,
        status: None,
        user: None,
        cgroups: Cgroups::default(),
        controls: Vec::new(),
    };
    match entry.life() {
        Life::Starting => empty,
        Life::Running(running) => State {
            pid: Some(running.vmm.pid),
            user: running.user,
            // It may end while it is looked at: then there is nothing to tell.
            controls: controls(running.vmm.pid, &running.cgroups).unwrap_or_default(),
            cgroups: running.cgroups,
            ..empty
        },
        Life::Ended(ended) => State {
            status: Some(ended.status),
            ..empty
        },
    }
}
