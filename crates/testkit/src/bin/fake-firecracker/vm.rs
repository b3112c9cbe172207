//! The microVM behind the API: what was configured, whether it runs, its snapshots.

use std::cell::RefCell;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use serde::Deserialize;

use crate::FORMAT;
use crate::faults::Fault;
use crate::guest::{self, Simulated};
use crate::paged::Paged;
use crate::snapshot::{self, State, Words};

/// Why a request is answered with 400; whether the process ends then.
pub(super) struct Refused {
    pub(super) fault: String,
    pub(super) ends: bool,
}

impl From<String> for Refused {
    fn from(fault: String) -> Refused {
        Refused { fault, ends: false }
    }
}

type Answer = Result<(), Refused>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Paused,
}

pub(super) struct Vm {
    phase: Phase,
    /// Something other than logger and metrics was configured.
    touched: bool,
    mem_size_mib: u64,
    kernel: bool,
    drives: Vec<PathBuf>,
    vsock: Option<PathBuf>,
    guest: Option<Rc<RefCell<Simulated>>>,
    /// The vsock was reset since it was paused.
    reset: bool,
    /// Memory that somebody else fills.
    paged: Option<Paged>,
    fault: Fault,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u64,
    #[serde(default)]
    smt: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootSource {
    kernel_image_path: PathBuf,
    initrd_path: Option<PathBuf>,
    #[serde(rename = "boot_args")]
    _boot_args: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drive {
    pub(super) drive_id: String,
    path_on_host: PathBuf,
    #[serde(rename = "is_root_device")]
    _is_root_device: bool,
    #[serde(rename = "is_read_only")]
    _is_read_only: bool,
    rate_limiter: Option<RateLimiter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimiter {
    bandwidth: Option<TokenBucket>,
    ops: Option<TokenBucket>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBucket {
    size: u64,
    refill_time: u64,
}

impl RateLimiter {
    /// With a size or a time of 0 the real one has no bound, and says nothing of it.
    fn bounds_all(&self) -> bool {
        let bounds = |bucket: &Option<TokenBucket>| {
            let bucket = bucket.as_ref();
            bucket.is_some_and(|bucket| bucket.size > 0 && bucket.refill_time > 0)
        };
        bounds(&self.bandwidth) && bounds(&self.ops)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vsock {
    guest_cid: u32,
    uds_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    action_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VmState {
    state: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    snapshot_type: Option<String>,
    snapshot_path: PathBuf,
    mem_file_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Load {
    snapshot_path: PathBuf,
    mem_backend: Backend,
    #[serde(default)]
    resume_vm: bool,
    vsock_override: Option<Override>,
    #[serde(default, rename = "clock_realtime")]
    _clock_realtime: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    backend_type: String,
    backend_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    uds_path: PathBuf,
}

impl Vm {
    pub(super) fn new(fault: Fault) -> Vm {
        Vm {
            phase: Phase::NotStarted,
            touched: false,
            // What the real one has if nothing is said.
            mem_size_mib: 128,
            kernel: false,
            drives: Vec::new(),
            vsock: None,
            guest: None,
            reset: false,
            paged: None,
            fault,
        }
    }

    /// What may only be said before the start.
    fn configure(&mut self) -> Answer {
        if self.phase == Phase::NotStarted {
            self.touched = true;
            return Ok(());
        }
        Err(
            "The requested operation is not supported after starting the microVM."
                .to_owned()
                .into(),
        )
    }

    fn started(&self) -> Answer {
        if self.phase == Phase::NotStarted {
            return Err(
                "The requested operation is not supported before starting the microVM."
                    .to_owned()
                    .into(),
            );
        }
        Ok(())
    }

    pub(super) fn machine(&mut self, config: &MachineConfig) -> Answer {
        self.configure()?;
        if !(1..=32).contains(&config.vcpu_count) || config.mem_size_mib == 0 || config.smt {
            return Err("The vCPU number or memory size is invalid."
                .to_owned()
                .into());
        }
        self.mem_size_mib = config.mem_size_mib;
        Ok(())
    }

    pub(super) fn boot_source(&mut self, source: &BootSource) -> Answer {
        self.configure()?;
        let initrd = source.initrd_path.iter();
        for path in [&source.kernel_image_path].into_iter().chain(initrd) {
            File::open(path).map_err(|error| {
                format!("Boot source error: The kernel file cannot be opened: {error}")
            })?;
        }
        self.kernel = true;
        Ok(())
    }

    pub(super) fn drive(&mut self, drive: Drive) -> Answer {
        self.configure()?;
        File::open(&drive.path_on_host).map_err(|error| {
            format!("Drive config error: Unable to create the virtio block device: {error}")
        })?;
        // Not the real one's: a guest whose disk is not bounded is a fault of the driver.
        if !drive
            .rate_limiter
            .is_some_and(|limiter| limiter.bounds_all())
        {
            return Err("the drive has no rate limiter".to_owned().into());
        }
        self.drives.push(drive.path_on_host);
        Ok(())
    }

    pub(super) fn vsock(&mut self, vsock: Vsock) -> Answer {
        self.configure()?;
        if vsock.guest_cid < 3 {
            return Err("Vsock config error: the CID is reserved".to_owned().into());
        }
        self.vsock = Some(vsock.uds_path);
        Ok(())
    }

    /// Entropy and serial: nothing of theirs is simulated.
    pub(super) fn device(&mut self) -> Answer {
        self.configure()
    }

    pub(super) fn action(&mut self, action: &Action) -> Answer {
        match (action.action_type.as_str(), self.phase) {
            ("InstanceStart", Phase::NotStarted) if self.kernel => {
                self.go(Words::default(), self.vsock.clone())
                    .map_err(Refused::from)?;
                self.resume();
                Ok(())
            }
            ("InstanceStart", Phase::NotStarted) => {
                let fault = "Cannot start microvm without kernel configuration.".to_owned();
                Err(fault.into())
            }
            ("InstanceStart", _) => self.configure(),
            ("FlushMetrics" | "SendCtrlAltDel", _) => self.started(),
            (other, _) => Err(format!("unknown variant `{other}`").into()),
        }
    }

    pub(super) fn state(&mut self, asked: &VmState) -> Answer {
        self.started()?;
        match asked.state.as_str() {
            "Paused" if self.phase == Phase::Paused => {}
            "Paused" => self.pause(),
            "Resumed" => {
                // In 1.16 the vsock device then waits for a word of the guest that never comes (firecracker#6100).
                if self.phase == Phase::Paused && !self.reset && self.fault.minor() == 16 {
                    self.guest
                        .iter()
                        .for_each(|guest| guest.borrow_mut().deafen());
                }
                self.resume();
            }
            other => return Err(format!("unknown variant `{other}`").into()),
        }
        Ok(())
    }

    pub(super) fn create(&mut self, create: &Create) -> Answer {
        self.started()?;
        let (Phase::Paused, Some(guest)) = (self.phase, &self.guest) else {
            let fault = "Create snapshot error: Cannot save Vcpu state: the microVM is running";
            return Err(fault.to_owned().into());
        };
        let state = State {
            format: FORMAT.into(),
            mem_size_mib: self.mem_size_mib,
            vsock: self.vsock.clone().unwrap_or_default(),
            drives: self.drives.clone(),
        };
        let is_diff = create.snapshot_type.as_deref() == Some("Diff");
        let mut guest = guest.borrow_mut();
        guest.reset_vsock();
        self.reset = true;
        let (to_state, to_memory) = (&create.snapshot_path, &create.mem_file_path);
        snapshot::write(&state, guest.words(), is_diff, to_state, to_memory)
            .map_err(|error| format!("Create snapshot error: {error}").into())
    }

    pub(super) fn load(&mut self, load: &Load) -> Answer {
        if self.touched || self.phase != Phase::NotStarted {
            let fault = "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.";
            return Err(fault.to_owned().into());
        }
        self.load_fresh(load)
            .map_err(|fault| Refused { fault, ends: true })
    }

    fn load_fresh(&mut self, load: &Load) -> Result<(), String> {
        let state = snapshot::read(&load.snapshot_path, FORMAT)?;
        let (backend, size) = (&load.mem_backend, state.mem_size_mib << 20);
        let words = match backend.backend_type.as_str() {
            "File" => snapshot::words_in(&backend.backend_path, size)?,
            "Uffd" => {
                let paged = Paged::hand_over(&backend.backend_path, size, &self.fault)?;
                let words = paged.words();
                self.paged = Some(paged);
                words
            }
            other => return Err(format!("unknown variant `{other}`")),
        };
        let vsock = match &load.vsock_override {
            Some(other) => other.uds_path.clone(),
            None => state.vsock,
        };
        self.mem_size_mib = state.mem_size_mib;
        self.drives = state.drives;
        self.vsock = Some(vsock.clone());
        self.go(words, Some(vsock))?;
        self.phase = Phase::Paused;
        self.reset = true;
        if load.resume_vm {
            self.resume();
        }
        Ok(())
    }

    fn go(&mut self, words: Words, vsock: Option<PathBuf>) -> Result<(), String> {
        let guest = Rc::new(RefCell::new(Simulated::new(self.mem_size_mib, words)));
        if let Some(path) = vsock {
            let listener = guest::bind(&path)?;
            let listening = guest::listen(listener, Rc::clone(&guest), self.fault.clone());
            tokio::task::spawn_local(listening);
        }
        self.guest = Some(guest);
        Ok(())
    }

    fn resume(&mut self) {
        self.set(Phase::Running);
    }

    fn pause(&mut self) {
        self.reset = false;
        self.set(Phase::Paused);
    }

    fn set(&mut self, phase: Phase) {
        self.phase = phase;
        if let Some(guest) = &self.guest {
            guest.borrow_mut().runs = phase == Phase::Running;
        }
    }
}
