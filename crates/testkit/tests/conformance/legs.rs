//! The drivers and guests that are put through the suite.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firelane_testkit::conformance::{Subject, bare_command, bare_machine, linux_command};
use firelane_testkit::{Lab, booted};
use firelane_vmm::firecracker::{FindError, Firecracker, Jailing, MemoryFrom, Place};

/// Memory of a bare guest in MiB.
const BARE_MIB: u32 = 128;
/// The stand-in for a Firecracker.
const FAKE: &str = env!("CARGO_BIN_EXE_fake-firecracker");

/// QEMU by emulation, which every host has, with Linux.
pub(crate) async fn qemu() -> Subject {
    let lab = Lab::new();
    let (driver, machine) = (booted::qemu(&lab), booted::machine(&lab, "base", 256));
    Subject {
        lab,
        driver: Arc::new(driver),
        machine,
        command: linux_command,
    }
}

/// A Firecracker that does what real ones do, around the bare guest's own code.
pub(crate) async fn fake_firecracker() -> Subject {
    let lab = Lab::new();
    let driver = fake(&lab, "fake-firecracker").await;
    let driver = driver.expect("it says its version");
    let mut subject = bare(lab, driver);
    // It reads no kernel, so any file is one.
    subject.machine.kernel = FAKE.into();
    subject
}

/// The same with guests whose memory is handed out as they miss it.
pub(crate) async fn fake_firecracker_paged() -> Subject {
    paged("fake-firecracker").await
}

/// The stand-in under this name, with guests whose memory is handed out as they miss it.
pub(crate) async fn paged(name: &str) -> Subject {
    from(name, MemoryFrom::Userfault).await
}

/// The stand-in under this name, with guests that come by their memory in this way.
pub(crate) async fn from(name: &str, memory: MemoryFrom) -> Subject {
    let lab = Lab::new();
    let driver = fake(&lab, name).await.expect("it says its version");
    let mut subject = bare(lab, driver.with_memory(memory));
    subject.machine.kernel = FAKE.into();
    subject
}

/// The stand-in under this name, which tells what goes wrong in it.
pub(crate) async fn fake(lab: &Lab, name: &str) -> Result<Firecracker, FindError> {
    let program = lab.path().join(name);
    std::os::unix::fs::symlink(FAKE, &program).expect("our own folder");
    Firecracker::find(Place {
        program: program.clone(),
        jailing: Jailing::None,
        jail_program: program,
        run_base: lab.run_dir(),
    })
    .await
}

/// A real one in our own jail.
pub(crate) async fn real_firecracker_in_our_jail() -> Subject {
    let lab = Lab::new();
    let driver = real(&lab, Jailing::Ours).await;
    bare(lab, driver)
}

/// The same with guests whose memory is handed out as they miss it.
pub(crate) async fn real_firecracker_paged_in_our_jail() -> Subject {
    let lab = Lab::new();
    let driver = real(&lab, Jailing::Ours).await;
    bare(lab, driver.with_memory(MemoryFrom::Userfault))
}

/// The same in its jailer.
pub(crate) async fn real_firecracker_paged_in_its_jailer() -> Subject {
    let lab = Lab::new();
    let driver = real(&lab, Jailing::Jailer(named("FIRELANE_JAILER"))).await;
    bare(lab, driver.with_memory(MemoryFrom::Userfault))
}

/// A real one in its jailer.
pub(crate) async fn real_firecracker_in_its_jailer() -> Subject {
    let lab = Lab::new();
    let driver = real(&lab, Jailing::Jailer(named("FIRELANE_JAILER"))).await;
    bare(lab, driver)
}

fn named(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} names no program"))
        .into()
}

async fn real(lab: &Lab, jailing: Jailing) -> Firecracker {
    let place = Place {
        program: named("FIRELANE_FIRECRACKER"),
        jailing,
        jail_program: lab.bin().join("firelane"),
        run_base: lab.run_dir(),
    };
    Firecracker::find(place).await.expect("it can be used")
}

/// A driver with the bare guest.
pub(crate) fn bare(lab: Lab, driver: Firecracker) -> Subject {
    let machine = bare_machine(&lab, BARE_MIB);
    Subject {
        lab,
        driver: Arc::new(driver),
        machine,
        command: bare_command,
    }
}

/// The stand-in's own file.
pub(crate) fn fake_file() -> &'static Path {
    Path::new(FAKE)
}
