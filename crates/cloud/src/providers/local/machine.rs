//! One machine: making, finding, removing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use firelane_model::lane::LaneId;
use serde::{Deserialize, Serialize};

use super::processes::{end, keeping, machine_argument};
use super::tool::{Failed, file, run};
use super::{NAME, network, root};
use crate::machine::{Handle, Machine, MachineState, Spec};
use crate::marker;

/// How long its process may take to be there.
const START: Duration = Duration::from_secs(10);
/// Where systemd-nspawn makes a folder for each machine, by its name, and leaves it.
const PROPAGATE: &str = "/run/systemd/nspawn/propagate";
const MOUNT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Longest end of a console that is told.
const MOST_CONSOLE: usize = 64 << 10;

/// What is kept of a machine.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    tags: BTreeMap<String, String>,
    instance_type: String,
    /// Number of its link, once it has one and its process was started.
    number: Option<u16>,
}

/// Where machines are.
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    pub(super) fn new(folder: PathBuf) -> Place {
        Place { folder }
    }

    /// Makes a machine and starts it. What a process that was killed left of the same is removed first.
    pub(super) fn create(&self, spec: &Spec) -> Result<Machine, Failed> {
        let id = spec.lane.to_string();
        self.remove(&id)?;
        let system = root::root(&self.folder)?;
        match self.start(&id, spec, &system) {
            Ok(machine) => Ok(machine),
            Err(error) => {
                self.remove(&id)?;
                Err(error)
            }
        }
    }

    fn start(&self, id: &str, spec: &Spec, system: &Path) -> Result<Machine, Failed> {
        let folder = self.machine(id);
        // Nobody else looks into a machine.
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(&folder).map_err(file("make", &folder))?;
        for name in ["upper", "work", "root"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(file("make", &path))?;
        }
        let mut kept = Kept {
            tags: marker::tags(spec),
            instance_type: spec.instance_type.clone(),
            number: None,
        };
        write(&folder, &kept)?;
        let root = folder.join("root");
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            system.display(),
            folder.join("upper").display(),
            folder.join("work").display()
        );
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&root);
        run(&mut mount, MOUNT)?;
        seed(&root, id, spec)?;
        let number = network::make(id)?;
        nspawn(&folder, id, spec)?;
        kept.number = Some(number);
        write(&folder, &kept)?;
        self.get(id)?
            .ok_or_else(|| Failed::State("the machine is gone as soon as it was made".into()))
    }

    /// One machine. None: there is none.
    pub(super) fn get(&self, id: &str) -> Result<Option<Machine>, Failed> {
        let path = self.machine(id).join("machine.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(file("read", &path))?,
        };
        let kept: Kept = serde_json::from_slice(&text)
            .map_err(|error| Failed::State(format!("{}: {error}", path.display())))?;
        let state = match kept.number {
            // Whoever made it was killed half-way, or is at it: it is of no use to another.
            None => MachineState::Failed,
            Some(_) if keeping(id).is_empty() => MachineState::Stopped,
            Some(_) => MachineState::Running,
        };
        Ok(Some(Machine {
            handle: Handle {
                provider: NAME.into(),
                region: "here".into(),
                id: id.to_owned(),
            },
            state,
            address: kept.number.map(network::address),
            ssh_port: 22,
            instance_type: kept.instance_type,
            mark: marker::read(&kept.tags),
        }))
    }

    /// All machines.
    pub(super) fn list(&self) -> Result<Vec<Machine>, Failed> {
        let folder = self.folder.join("machines");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(file("read", &folder))?,
        };
        let mut machines = Vec::new();
        for entry in entries {
            let name = entry.map_err(file("read", &folder))?.file_name();
            if let Some(id) = name.to_str().filter(|id| id.parse::<LaneId>().is_ok()) {
                machines.extend(self.get(id)?);
            }
        }
        Ok(machines)
    }

    /// Removes everything of a machine. What is not there is fine.
    pub(super) fn remove(&self, id: &str) -> Result<(), Failed> {
        // It names files, namespaces and processes: nothing but an id does.
        id.parse::<LaneId>()
            .map_err(|error| Failed::State(format!("{id:?}: {error}")))?;
        end(id)?;
        network::remove(id)?;
        root::remove(&Path::new(PROPAGATE).join(id))?;
        let folder = self.machine(id);
        let mounted = folder.join("root");
        while is_mounted(&mounted)? {
            run(Command::new("umount").arg(&mounted), MOUNT)?;
        }
        // What tells that there is something goes last.
        for name in ["root", "upper", "work"] {
            root::remove(&folder.join(name))?;
        }
        root::remove(&folder)
    }

    /// The end of what a machine wrote on its console.
    pub(super) fn console(&self, id: &str) -> Result<Option<String>, Failed> {
        let path = self.machine(id).join("console");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", &path)(error)),
            Ok(text) => {
                let from = text.len().saturating_sub(MOST_CONSOLE);
                Ok(Some(String::from_utf8_lossy(&text[from..]).into_owned()))
            }
        }
    }

    fn machine(&self, id: &str) -> PathBuf {
        self.folder.join("machines").join(id)
    }
}

/// Whole or not at all.
fn write(folder: &Path, kept: &Kept) -> Result<(), Failed> {
    let text = serde_json::to_vec(kept).expect("strings and a number are JSON");
    let aside = folder.join("machine.json.new");
    fs::write(&aside, text).map_err(file("write", &aside))?;
    let path = folder.join("machine.json");
    fs::rename(&aside, &path).map_err(file("move", &aside))
}

/// What cloud-init reads: NoCloud's two files ("Datasources", cloud-init 22.4).
fn seed(root: &Path, id: &str, spec: &Spec) -> Result<(), Failed> {
    let folder = root.join("var/lib/cloud/seed/nocloud");
    fs::create_dir_all(&folder).map_err(file("make", &folder))?;
    let name = format!("firelane-{}", spec.label);
    let meta = format!("instance-id: {id}\nlocal-hostname: {name}\n");
    for (file_name, text) in [("user-data", &spec.user_data), ("meta-data", &meta)] {
        let path = folder.join(file_name);
        // There is the machine's private key in it.
        let mut options = OpenOptions::new();
        let opened = options.create_new(true).write(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(file("write", &path))?;
    }
    Ok(())
}

/// Starts the machine, so that it outlives us, and ends when its time is over.
fn nspawn(folder: &Path, id: &str, spec: &Spec) -> Result<(), Failed> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let left = spec.expires.since_origin().saturating_sub(now);
    let console = folder.join("console");
    let out = File::create(&console).map_err(file("open", &console))?;
    let err = out.try_clone().map_err(file("open", &console))?;
    let mut command = Command::new("setsid");
    command.args(["--fork", "timeout", "--kill-after=30"]);
    command.arg(format!("{}", left.as_secs().max(1)));
    command.args([
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
    ]);
    command.arg(machine_argument(id));
    command.arg(format!("--hostname=firelane-{}", spec.label));
    command.arg(format!("--network-namespace-path=/run/netns/{id}"));
    // What our services do on a host that is theirs: jails, their networks and fences.
    command.arg("--capability=all");
    if Path::new("/dev/kvm").exists() {
        command.arg("--bind=/dev/kvm");
    }
    command.arg("--console=pipe");
    command.arg("--directory").arg(folder.join("root"));
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    let failed = |error: io::Error| Failed::Tool {
        program: "setsid".into(),
        said: error.to_string(),
    };
    let status = command.status().map_err(failed)?;
    if !status.success() {
        return Err(failed(io::Error::other(status.to_string())));
    }
    let begun = Instant::now();
    while keeping(id).is_empty() {
        if begun.elapsed() > START {
            let said = fs::read_to_string(&console).unwrap_or_default();
            return Err(Failed::State(format!(
                "systemd-nspawn did not start: {said}"
            )));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether something is mounted there: mountinfo(5) of proc, field 5, in which blanks are written as octal
/// numbers.
fn is_mounted(path: &Path) -> Result<bool, Failed> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(file("read", table))?;
    let Ok(path) = fs::canonicalize(path) else {
        return Ok(false);
    };
    let wanted = path.to_string_lossy().replace(' ', "\\040");
    Ok(text
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(&wanted)))
}
