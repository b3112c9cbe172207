//! What is put through the suite: a driver, and a guest that it boots.

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Outcome, Program as Exec};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{BootError, DiskLimits, Driver, Machine, MicroVm, SnapshotFiles};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::Timeline;
use tokio::time::Instant;

use crate::Lab;

/// How long a guest that runs may take to open a session: an emulated one, on a busy machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a guest is asked to do, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Say this.
    Echo(String),
    /// Say the next number, from 1; a clone goes on with the number after the snapshot's last.
    Count,
}

/// A driver with a guest of its.
pub struct Subject {
    /// Its corner of the host.
    pub lab: Lab,
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// What it boots; the name is put in.
    pub machine: Machine,
    /// A program as the guest's command line.
    pub command: fn(&Program) -> Vec<String>,
}

impl Subject {
    /// Its machine by this name, made this test's own.
    #[must_use]
    pub fn named(&self, id: &str) -> Machine {
        Machine {
            id: self.lab.name(id),
            ..self.machine.clone()
        }
    }

    /// Boots it by this name.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn boot(&self, id: &str) -> Result<Box<dyn MicroVm>, BootError> {
        self.boot_machine(&self.named(id)).await
    }

    /// Boots a machine of the guest's.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn boot_machine(&self, machine: &Machine) -> Result<Box<dyn MicroVm>, BootError> {
        self.driver.boot(machine, &mut Timeline::start()).await
    }

    /// Restores a snapshot by this name.
    ///
    /// # Errors
    /// Those of the driver.
    pub async fn restore(
        &self,
        id: &str,
        files: &SnapshotFiles,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let machine = self.named(id);
        let mut timeline = Timeline::start();
        self.driver.restore(&machine, files, &mut timeline).await
    }

    /// What the guest says to a program, and that it ended well.
    ///
    /// # Panics
    /// If it did not.
    pub async fn said(&self, session: &Session, program: &Program) -> String {
        let (text, outcome) = run(session, (self.command)(program)).await;
        assert_eq!(outcome.exit_code(), 0, "{program:?}: {text}");
        text
    }

    /// Whether the guest still answers over this session.
    pub async fn answers(&self, session: &Session) -> bool {
        let spec = spec((self.command)(&Program::Echo("here".into())));
        match session.exec(&spec).await {
            Ok(mut exec) => exec.next().await.is_ok(),
            Err(_) => false,
        }
    }

    /// The guest's next number, over a session of its own.
    ///
    /// # Panics
    /// If it says none.
    pub async fn count(&self, vm: &dyn MicroVm) -> u64 {
        let session = open(vm).await;
        let text = self.said(&session, &Program::Count).await;
        session.close().await;
        let number = text.trim().parse();
        number.unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }
}

fn spec(argv: Vec<String>) -> ExecSpec {
    ExecSpec {
        trace_id: "conformance".into(),
        program: Exec::Command { argv },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    }
}

async fn run(session: &Session, argv: Vec<String>) -> (String, Outcome) {
    let mut exec = session.exec(&spec(argv)).await.expect("the guest takes it");
    let mut text = Vec::new();
    loop {
        match exec.next().await.expect("the guest answers") {
            Event::Stdout(bytes) => text.extend(bytes),
            Event::Ended(outcome) => {
                let text = String::from_utf8(text).expect("text");
                return (text, outcome);
            }
            Event::Started | Event::Stderr(_) => {}
        }
    }
}

/// Opens a session.
///
/// # Panics
/// If the guest does not.
pub async fn open(vm: &dyn MicroVm) -> Session {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .expect("the guest listens");
    Session::open(stream).await.expect("the guest greets")
}

/// The bare guest's command line.
#[must_use]
pub fn bare_command(program: &Program) -> Vec<String> {
    match program {
        Program::Echo(text) => vec!["echo".into(), text.clone()],
        Program::Count => vec!["counter".into()],
    }
}

/// The same on Linux.
#[must_use]
pub fn linux_command(program: &Program) -> Vec<String> {
    match program {
        Program::Echo(text) => vec!["echo".into(), text.clone()],
        Program::Count => {
            let script = "read n < /tmp/count; echo $((n + 1)) | tee /tmp/count";
            let script = format!("touch /tmp/count; {script}");
            ["bash", "-c", &script].map(String::from).to_vec()
        }
    }
}

/// A microVM of the bare guest.
#[must_use]
pub fn bare_machine(lab: &Lab, memory_mib: u32) -> Machine {
    Machine {
        id: String::new(),
        kernel: lab.bin().join("firelane-bare"),
        initrd: None,
        rootfs: None,
        memory_mib,
        vcpus: 1,
        boot_timeout: Duration::from_secs(30),
        snapshot: None,
        network: None,
        disk: DiskLimits::DEFAULT,
    }
}
