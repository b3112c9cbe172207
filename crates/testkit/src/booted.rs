//! QEMU with Linux, driven directly: for tests below the command, and to run many programs in one guest
//! that was booted, where the command would boot one for each.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_guest_proto::{Lang, SESSION_PORT};
use firelane_image::Store;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{Acceleration, DiskLimits, Driver, Machine, MicroVm};
use firelane_vmm::qemu::{Qemu, default_program};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::Timeline;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::Lab;

/// How long a boot, and a guest that has booted, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// QEMU by emulation, which every host has.
#[must_use]
pub fn qemu(lab: &Lab) -> Qemu {
    Qemu {
        program: default_program(),
        jail_program: lab.bin().join("firelane"),
        run_base: lab.run_dir(),
        acceleration: Acceleration::Tcg,
        tsc_khz: firelane_sys::tsc::measure_khz(),
        hostd: None,
    }
}

/// A microVM of a template, without a name.
///
/// # Panics
/// If the template is not built, or does not verify.
#[must_use]
pub fn machine(lab: &Lab, template: &str, memory_mib: u32) -> Machine {
    let template = Store::open(lab.home()).and_then(|store| store.get(template));
    let mut template = template
        .and_then(|template| template.verified())
        .expect("the template is built");
    let runner = lab.bin().join("firelane-guest");
    Machine {
        id: String::new(),
        kernel: template.vmlinux(),
        initrd: Some(template.initrd(&runner).expect("the guest-runner is built")),
        rootfs: Some(template.rootfs()),
        memory_mib,
        vcpus: 1,
        boot_timeout: PATIENCE,
        snapshot: None,
        network: None,
        disk: DiskLimits::DEFAULT,
    }
}

/// A guest that was booted, and in which no interpreter waits.
pub struct Booted {
    runtime: Runtime,
    vm: Box<dyn MicroVm>,
    session: Session,
    env: BTreeMap<String, String>,
}

impl Booted {
    /// Boots one.
    ///
    /// # Panics
    /// If it does not boot.
    #[must_use]
    pub fn start(lab: &Lab, template: &str, memory_mib: u32) -> Booted {
        let machine = Machine {
            id: lab.name("booted"),
            ..machine(lab, template, memory_mib)
        };
        let env = Store::open(lab.home()).and_then(|store| store.get(template));
        let env = env.expect("the template is built").manifest().env.clone();
        let runtime = Runtime::new().expect("threads can be made");
        let driver = qemu(lab);
        let (vm, session) = runtime.block_on(async {
            let mut timeline = Timeline::start();
            let vm = driver
                .boot(&machine, &mut timeline)
                .await
                .expect("it boots");
            let deadline = Instant::now() + PATIENCE;
            let stream = connect(vm.vsock_path(), SESSION_PORT, deadline).await;
            let session = Session::open(stream.expect("it listens")).await;
            (vm, session.expect("it greets"))
        });
        Booted {
            runtime,
            vm,
            session,
            env,
        }
    }

    /// Runs a program as `firelane run --json` would, and reports so much of it as does not depend on when
    /// and where.
    ///
    /// # Panics
    /// If the guest does not.
    #[must_use]
    pub fn run_json(&self, lang: Lang, code: &str, env: &[(&str, &str)]) -> Value {
        let own = env
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let spec = ExecSpec {
            trace_id: "booted".into(),
            program: Program::Code {
                lang,
                source: code.into(),
                args: Vec::new(),
            },
            env: self.env.clone().into_iter().chain(own).collect(),
            cwd: Some("/work".into()),
            limits: Limits {
                timeout_ms: 60_000,
                output_bytes: 1 << 20,
                ..Limits::default()
            },
            pty: None,
        };
        self.runtime.block_on(async {
            self.clear().await;
            let mut exec = self.session.exec(&spec).await.expect("it takes it");
            exec.stdin().end().await.expect("it takes no input");
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            loop {
                match exec.next().await.expect("it answers") {
                    Event::Stdout(bytes) => stdout.extend(bytes),
                    Event::Stderr(bytes) => stderr.extend(bytes),
                    Event::Started => {}
                    Event::Ended(outcome) => {
                        return json!({
                            "stdout": String::from_utf8_lossy(&stdout),
                            "stderr": String::from_utf8_lossy(&stderr),
                            "exit_code": outcome.exit_code(),
                            "signal": outcome.signal(),
                            "interpreter": outcome.interpreter,
                        });
                    }
                }
            }
        })
    }

    /// Removes what the program before left in its folder: its own source is in the way of the next.
    async fn clear(&self) {
        let argv = ["find", "/work", "-mindepth", "1", "-delete"].map(String::from);
        let spec = ExecSpec {
            trace_id: "clear".into(),
            program: Program::Command {
                argv: argv.to_vec(),
            },
            env: Vec::new(),
            cwd: None,
            limits: Limits::default(),
            pty: None,
        };
        let mut exec = self.session.exec(&spec).await.expect("it takes it");
        loop {
            if let Event::Ended(outcome) = exec.next().await.expect("it answers") {
                assert_eq!(outcome.exit_code(), 0, "the folder can be cleared");
                return;
            }
        }
    }

    /// Destroys it.
    ///
    /// # Panics
    /// If something of it resists.
    pub fn destroy(self) {
        let Booted {
            runtime,
            vm,
            session,
            ..
        } = self;
        runtime.block_on(async {
            session.close().await;
            vm.destroy().await.expect("nothing resists");
        });
    }
}
