//! What a Firecracker is started with, held against its role, and starts that come to nothing. None of it
//! needs a real one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use firelane_host_proto::Client;
use firelane_host_proto::message::{Code, Refusal, Request, Role, Start, Vmm};
use firelane_launch::firecracker::Origin;
use firelane_launch::machine::Shape;
use firelane_testkit::Lab;
use firelane_testkit::hostd::{Hostd, NOBODY, connect_as};
use rustix::fs::OFlags;

use crate::begun::{is_root, refusal};

/// A start that is asked for.
struct Asked {
    origin: Origin,
    given: Vec<(Role, OwnedFd)>,
}

impl Asked {
    /// The boot of a kernel, with an ordinary user's folder.
    fn boot(lab: &Lab) -> Asked {
        let folder = lab.path().join("folder");
        fs::create_dir_all(&folder).expect("our own folder");
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("we are root");
        let kernel = File::open(lab.bin().join("firelane-bare")).expect("it is built");
        Asked {
            origin: Origin::Boot,
            given: vec![
                (Role::Kernel, kernel.into()),
                (Role::Folder, open(&folder)),
                (Role::Stdout, pipe()),
                (Role::Stderr, pipe()),
            ],
        }
    }

    /// The same with another descriptor in a role's place, or with one more.
    fn with(mut self, role: Role, descriptor: impl Into<OwnedFd>) -> Asked {
        self.given.retain(|(had, _)| *had != role);
        self.given.push((role, descriptor.into()));
        self
    }

    fn from(self, origin: Origin) -> Asked {
        Asked { origin, ..self }
    }

    fn refused(self, client: &mut Client) -> Refusal {
        let request = Request::Start(Start {
            shape: Shape {
                id: "given".into(),
                memory_mib: 64,
                vcpus: 1,
            },
            vmm: Vmm::Firecracker {
                origin: self.origin,
            },
            given: self.given.iter().map(|(role, _)| *role).collect(),
        });
        let descriptors: Vec<_> = self.given.iter().map(|(_, fd)| fd.as_fd()).collect();
        refusal(client.call(&request, &descriptors))
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).expect("our own").into()
}

/// The writing end of one that nobody reads.
fn pipe() -> OwnedFd {
    io::pipe().expect("a pipe").1.into()
}

#[test]
fn a_host_without_a_firecracker_says_so() {
    if !is_root("a_host_without_a_firecracker_says_so") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &["--firecracker", "/nonexistent/firecracker"]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    assert_eq!(client.firecracker(), None);
    let refused = Asked::boot(&lab).refused(&mut client);
    assert_eq!(refused.code, Code::NoProgram);
    let remedy = refused.remedy.expect("there is one");
    assert!(remedy.contains("firelane-hostd --firecracker"), "{remedy}");
    hostd.assert_empty();
}

#[test]
fn a_folder_has_to_be_the_clients_own() {
    if !is_root("a_folder_has_to_be_the_clients_own") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &["--firecracker", "/bin/true"]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let mut refused = |role, folder: OwnedFd, origin| {
        let asked = Asked::boot(&lab).from(origin).with(role, folder);
        let refused = asked.refused(&mut client);
        assert_eq!(refused.code, Code::BadDescriptor, "{refused:?}");
        refused.cause
    };
    let own = lab.path().join("own");
    fs::create_dir(&own).expect("our own folder");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(OFlags::PATH.bits().cast_signed());
    for (role, origin) in [
        (Role::Folder, Origin::Boot),
        (Role::Snapshot, Origin::Template),
    ] {
        for (folder, cause) in [
            // Its user may read these as well, and write the second one.
            (open(Path::new("/usr")), "another user"),
            (open(Path::new("/tmp")), "another user"),
            (open(&lab.bin().join("firelane")), "no folder"),
            (pipe(), "no folder"),
            (options.open(&own).expect("a path").into(), "mere path"),
        ] {
            let told = refused(role, folder, origin);
            assert!(told.contains(cause), "{role:?}: {told}");
        }
    }
    hostd.assert_empty();
}

#[test]
fn each_way_to_begin_has_its_descriptors_and_no_others() {
    if !is_root("each_way_to_begin_has_its_descriptors_and_no_others") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &["--firecracker", "/bin/true"]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let file = || open(&lab.bin().join("firelane"));
    let boot = || Asked::boot(&lab);
    for (asked, cause) in [
        (boot().from(Origin::Template), "'snapshot' is missing"),
        (boot().from(Origin::Clone), "'kernel' is not expected"),
        (
            boot().with(Role::Memory, file()),
            "'memory' is not expected",
        ),
        (
            boot().with(Role::Snapshot, file()),
            "'snapshot' is not expected",
        ),
        (
            boot().with(Role::Monitor, file()),
            "'monitor' is not expected",
        ),
        (boot().with(Role::Stdout, file()), "writing end of a pipe"),
    ] {
        let refused = asked.refused(&mut client);
        assert_eq!(refused.code, Code::BadDescriptor, "{refused:?}");
        assert!(refused.cause.contains(cause), "{}", refused.cause);
    }
    let mut restored = boot().from(Origin::PagedClone);
    restored.given.retain(|(role, _)| *role != Role::Kernel);
    let refused = restored.refused(&mut client);
    assert_eq!(refused.cause, "'state' is missing");
    hostd.assert_empty();
}

#[test]
fn a_program_that_ends_before_it_runs_is_told_and_leaves_nothing() {
    if !is_root("a_program_that_ends_before_it_runs_is_told_and_leaves_nothing") {
        return;
    }
    let lab = Lab::new();
    // It needs libraries, and finds none in a Firecracker's jail.
    let program = lab.bin().join("firelane");
    let program = program.to_str().expect("a plain path");
    let hostd = Hostd::start(&lab, &["--firecracker", program]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    assert_eq!(client.firecracker(), Some(Path::new(program)));
    for _ in 0..2 {
        let refused = Asked::boot(&lab).refused(&mut client);
        assert_eq!(refused.code, Code::Died, "{refused:?}");
        hostd.assert_empty();
    }
}
