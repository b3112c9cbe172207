//! What goes wrong, told by the program's name: `fake-firecracker-<kind>-<point>`, or
//! `fake-firecracker-version-<version>`.

use std::process::exit;

/// Where something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Before the API listens.
    Start,
    Machine,
    Kernel,
    Disk,
    Vsock,
    Entropy,
    Serial,
    Action,
    State,
    Create,
    Load,
    /// When the guest's memory is handed over.
    Memory,
    /// When the host connects to the guest.
    Connect,
}

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing happens any more.
    Hangs,
    /// The process ends.
    Dies,
    /// What comes back is not HTTP.
    Garbage,
    /// The connection is closed in the middle of an answer.
    Half,
    /// An error, told without a `fault_message`; a message without what belongs to it.
    Mute,
    /// What is passed on is something else.
    Wrong,
    /// More is claimed than there is.
    Beyond,
    /// What is claimed is less than there is.
    Outside,
}

/// A fault, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    fault: Option<(Kind, Point)>,
    version: Option<String>,
}

/// What a request is answered with instead of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    Nothing,
    Garbage,
    Half,
    Mute,
    Wrong,
    Beyond,
    Outside,
}

impl Fault {
    pub(super) fn of_this_program() -> Fault {
        let name = std::env::args().next().unwrap_or_default();
        let told = name
            .rsplit_once("fake-firecracker-")
            .and_then(|(_, told)| told.split_once('-'));
        match told {
            Some(("version", version)) => Fault {
                fault: None,
                version: Some(version.into()),
            },
            Some((kind, point)) => Fault {
                fault: Some((kind_of(kind), point_of(point))),
                version: None,
            },
            None => Fault {
                fault: None,
                version: None,
            },
        }
    }

    /// Whether the version that it claims has no such request.
    pub(super) fn is_unknown(&self, here: Point) -> bool {
        here == Point::Serial && self.minor() < 16
    }

    /// The second number of the version that it claims.
    pub(super) fn minor(&self) -> u32 {
        let version = self.version().unwrap_or(crate::VERSION);
        let minor = version
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok());
        minor.expect("a version has two numbers")
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Ends or stops the process here, if that is the fault.
    pub(super) fn strike_process(&self, here: Point) {
        match self.fault {
            Some((Kind::Dies, point)) if point == here => {
                eprintln!("fake-firecracker: dies at {here:?}, as it was told to");
                exit(1);
            }
            Some((Kind::Hangs, Point::Start)) if here == Point::Start => loop {
                std::thread::park();
            },
            _ => {}
        }
    }

    /// What a request is answered with here, if not with its answer.
    pub(super) fn instead(&self, here: Point) -> Option<Instead> {
        self.strike_process(here);
        let (kind, point) = self.fault?;
        if point != here {
            return None;
        }
        Some(match kind {
            Kind::Hangs | Kind::Dies => Instead::Nothing,
            Kind::Garbage => Instead::Garbage,
            Kind::Half => Instead::Half,
            Kind::Mute => Instead::Mute,
            Kind::Wrong => Instead::Wrong,
            Kind::Beyond => Instead::Beyond,
            Kind::Outside => Instead::Outside,
        })
    }
}

fn kind_of(name: &str) -> Kind {
    match name {
        "hangs" => Kind::Hangs,
        "dies" => Kind::Dies,
        "garbage" => Kind::Garbage,
        "half" => Kind::Half,
        "mute" => Kind::Mute,
        "wrong" => Kind::Wrong,
        "beyond" => Kind::Beyond,
        "outside" => Kind::Outside,
        other => panic!("no fault is called {other}"),
    }
}

fn point_of(name: &str) -> Point {
    match name {
        "start" => Point::Start,
        "machine" => Point::Machine,
        "kernel" => Point::Kernel,
        "disk" => Point::Disk,
        "vsock" => Point::Vsock,
        "entropy" => Point::Entropy,
        "serial" => Point::Serial,
        "action" => Point::Action,
        "state" => Point::State,
        "create" => Point::Create,
        "load" => Point::Load,
        "memory" => Point::Memory,
        "connect" => Point::Connect,
        other => panic!("no point is called {other}"),
    }
}
