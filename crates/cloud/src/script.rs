//! Providers that are shell scripts: a file with four functions.
//!
//! ```sh
//! # environment: MYCLOUD_TOKEN MYCLOUD_PROJECT
//! provider_default_instance_type() { echo small; }      # one line
//! provider_default_region()        { echo here; }       # one line
//! provider_up()   { ...; }   # LABEL FILE: makes a machine that runs the cloud-init document FILE,
//!                            # prints its address, or ADDRESS:PORT, and nothing else
//! provider_down() { ...; }   # LABEL, or an empty argument for all that has the tag mvm-ephemeral=true;
//!                            # what is gone is fine. If LANE is not empty, only what that lane made:
//!                            # somebody else may have a machine with the same label
//! ```
//!
//! bash reads the file, and nothing is called unless all four are there. A function gets a new, small
//! environment: `PATH`, `HOME`, `LANG`; `REGION`, `INSTANCE_TYPE`, `BOOT_DISK_SIZE` (GiB), `SSH_PUBKEY`,
//! `EXPIRES` (seconds since the Unix epoch), `OWNER` and `LANE` of the lane; and those variables of its user that
//! a line `# environment:` names. What it writes to stderr is shown as it comes; what it writes to stdout
//! is its answer and nothing more. One that takes too long, or whose lane is interrupted, is killed with
//! everything that it started. After an `up` that failed in any way `down` is called with the label.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use firelane_model::lane::{Label, LaneId};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, MachineState, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept, UserData, Verdict};
use crate::settings::Settings;

/// What every script has.
const FUNCTIONS: [&str; 4] = [
    "provider_default_instance_type",
    "provider_default_region",
    "provider_up",
    "provider_down",
];
/// How long a question may take.
const ASK: Duration = Duration::from_secs(30);
/// How long a machine may take to be made, or to go.
const WORK: Duration = Duration::from_secs(30 * 60);
/// Most bytes of an answer.
const MOST: u64 = 64 << 10;

/// Reads the script `$1`, then calls the function `$2` with the rest. Nothing that the script writes while
/// it is read is taken for an answer. Its standard input is open for as long as whoever waits for it lives: one
/// that is killed cannot kill the script, which would make a machine that nobody waits for.
const CALL: &str = r#"
{ read -r; kill -KILL 0; } <&0 >/dev/null 2>&1 &
# A function that waits for what it began does not wait for this.
disown
exec </dev/null
set -u
script=$1 function=$2
shift 2
source "$script" >&2 || exit 120
lacking=121
for name in provider_default_instance_type provider_default_region provider_up provider_down; do
    declare -F "$name" >/dev/null || exit "$lacking"
    lacking=$((lacking + 1))
done
set -e
if [ "$function" != check ]; then "$function" "$@"; fi
"#;
/// Exit code of [`CALL`] if bash cannot read the script.
const UNREADABLE: i32 = 120;
/// If it lacks the first of [`FUNCTIONS`]; of the others, the numbers that follow.
const LACKING: i32 = 121;

/// A script, as a provider.
pub(crate) struct Script {
    /// Its path from the root: the same script is one provider, from wherever it is named.
    name: String,
    path: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Script {
    /// Reads which variables the script wants. It is not run.
    pub(crate) fn open(name: &str, settings: &Settings) -> Result<Script, CloudError> {
        let path = fs::canonicalize(name).and_then(|path| Ok((fs::read_to_string(&path)?, path)));
        let (text, path) = path.map_err(|error| {
            CloudError::new(name, "read", Class::Invalid, error.to_string())
                .with_remedy("say the path of a script")
        })?;
        let mut environment = BTreeMap::new();
        for line in text.lines() {
            let Some(names) = line.strip_prefix("# environment:") else {
                continue;
            };
            for variable in names.split_whitespace() {
                if let Some(value) = settings.variable(variable) {
                    environment.insert(variable.to_owned(), value.to_owned());
                }
            }
        }
        for variable in ["PATH", "HOME", "LANG"] {
            if let Some(value) = settings.variable(variable) {
                environment.insert(variable.to_owned(), value.to_owned());
            }
        }
        Ok(Script {
            name: path.to_string_lossy().into_owned(),
            path,
            environment,
        })
    }

    /// Calls a function; gives its answer, without the end of its last line.
    async fn call(
        &self,
        function: &str,
        arguments: &[&str],
        of_lane: &BTreeMap<&str, String>,
        deadline: Duration,
    ) -> Result<String, CloudError> {
        let fail = |class, message: &str| CloudError::new(&self.name, function, class, message);
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc", "-c", CALL, "bash"])
            .arg(&self.path)
            .arg(function)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .envs(of_lane)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| fail(Class::Invalid, &format!("cannot start bash: {error}")))?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        // Waiting for the child would close it.
        let owner = child.stdin.take();
        let stdout = child.stdout.take();
        let work = async {
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MOST).read_to_end(&mut answer).await?;
            }
            let status = child.wait().await?;
            Ok::<_, std::io::Error>((answer, status))
        };
        let ended = timeout(deadline, work).await;
        // Whatever it left in the background goes with it.
        drop((group, owner));
        let Ok(ended) = ended else {
            let message = format!("it has not ended after {} s", deadline.as_secs());
            return Err(fail(Class::Invalid, &message).with_unknown_effect());
        };
        let (answer, status) = ended
            .map_err(|error| fail(Class::Transient, &error.to_string()).with_unknown_effect())?;
        let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
        let lacks = |code: i32| FUNCTIONS.get(usize::try_from(code - LACKING).ok()?);
        if let Some(name) = status.code().and_then(lacks) {
            let message = format!("the script does not define {name}");
            let remedy = format!("a script defines {}", FUNCTIONS.join(", "));
            return Err(fail(Class::Invalid, &message).with_remedy(remedy));
        }
        match status.code() {
            Some(0) => Ok(answer),
            Some(UNREADABLE) => Err(fail(Class::Invalid, "bash cannot read the script")),
            _ => {
                Err(fail(Class::Invalid, &format!("it ended with {status}")).with_unknown_effect())
            }
        }
    }

    /// A function that answers with one word on one line.
    async fn word(&self, function: &str) -> Result<String, CloudError> {
        let answer = self.call(function, &[], &BTreeMap::new(), ASK).await?;
        if answer.is_empty() || answer.contains(char::is_whitespace) {
            let message = format!("it answered {answer:?}, which is not one word");
            return Err(CloudError::new(
                &self.name,
                function,
                Class::Invalid,
                message,
            ));
        }
        Ok(answer)
    }

    /// A script's machines have no ids: a label and, where it is known, the lane.
    fn handle(&self, label: &Label, lane: Option<LaneId>, region: &str) -> Handle {
        let lane = lane.map_or_else(String::new, |lane| format!("@{lane}"));
        Handle {
            provider: self.name.clone(),
            region: region.to_owned(),
            id: format!("{label}{lane}"),
        }
    }

    async fn up(&self, spec: &Spec, file: &Path) -> Result<Machine, CloudError> {
        let call = "provider_up";
        let file = file.to_string_lossy();
        let label = spec.label.as_str();
        let answer = self
            .call(call, &[label, &file], &of_lane(spec), WORK)
            .await?;
        let Some((address, ssh_port)) = crate::providers::existing::split(&answer) else {
            let message = format!("it printed {answer:?}, which is no address");
            return Err(CloudError::new(&self.name, call, Class::Invalid, message)
                .with_unknown_effect()
                .with_remedy("a script prints the machine's address on stdout, and nothing else"));
        };
        Ok(Machine {
            handle: self.handle(&spec.label, Some(spec.lane), &spec.region),
            state: MachineState::Running,
            address: Some(address.to_owned()),
            ssh_port,
            instance_type: spec.instance_type.clone(),
            mark: None,
        })
    }
}

/// Kills all processes of a group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Those that are gone cannot be killed.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn of_lane(spec: &Spec) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("REGION", spec.region.clone()),
        ("INSTANCE_TYPE", spec.instance_type.clone()),
        ("BOOT_DISK_SIZE", spec.disk_gib.to_string()),
        ("SSH_PUBKEY", spec.ssh_key.clone()),
        ("EXPIRES", spec.expires.since_origin().as_secs().to_string()),
        ("OWNER", spec.owner.clone()),
        ("LANE", spec.lane.to_string()),
    ])
}

#[async_trait]
impl Provider for Script {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: true,
            user_data: Some(UserData {
                // The least of those clouds that take any.
                most_bytes: 16 << 10,
                gzip: false,
                templated: false,
            }),
            makes_machines: true,
            lists: false,
            tells_late: Duration::ZERO,
            native_ttl: false,
            shutdown_ends_billing: false,
            firewall: false,
            downloads: true,
        }
    }

    fn handle_of(&self, label: &Label, lane: Option<LaneId>, region: &str) -> Option<Handle> {
        Some(self.handle(label, lane, region))
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        self.word("provider_default_region").await
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        self.word("provider_default_instance_type").await
    }

    async fn preflight(&self, _: &Spec) -> Result<Vec<Check>, CloudError> {
        let found = self.call("check", &[], &BTreeMap::new(), ASK).await;
        Ok(vec![match found {
            Ok(_) => Check::new("functions", Verdict::Ok, FUNCTIONS.join(", ")),
            Err(error) => Check::new("functions", Verdict::Failed, &*error.message),
        }])
    }

    async fn quote(&self, _: &Spec) -> Result<Option<Quote>, CloudError> {
        Ok(None)
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let with = vec![("label".to_owned(), spec.label.to_string())];
        Ok(vec![Step {
            call: "provider_up".into(),
            with,
        }])
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let call = "provider_up";
        let failed = |error: std::io::Error| {
            CloudError::new(&self.name, call, Class::Transient, error.to_string())
        };
        let file = tempfile::NamedTempFile::new().map_err(failed)?;
        fs::write(file.path(), &spec.user_data).map_err(failed)?;
        let error = match self.up(spec, file.path()).await {
            Ok(machine) => return Ok(machine),
            Err(error) => error,
        };
        let handle = self.handle(&spec.label, Some(spec.lane), &spec.region);
        match self.delete(&handle).await {
            Ok(()) => Err(CloudError {
                effect: crate::Effect::None,
                ..error
            }),
            Err(left) => {
                tracing::warn!(%left, "what a script made may be left");
                Err(error)
            }
        }
    }

    async fn get(&self, _: &Handle) -> Result<Option<Machine>, CloudError> {
        // A script cannot be asked. What `up` made is written down with its address.
        Ok(None)
    }

    async fn list(&self, _: &Which) -> Result<Vec<Machine>, CloudError> {
        Ok(Vec::new())
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        let (label, lane) = handle.id.split_once('@').unwrap_or((&handle.id, ""));
        let of_lane =
            BTreeMap::from([("REGION", handle.region.clone()), ("LANE", lane.to_owned())]);
        self.call("provider_down", &[label], &of_lane, WORK)
            .await
            .map(drop)
    }

    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        if *which == Which::All {
            let nothing = BTreeMap::new();
            self.call("provider_down", &[""], &nothing, WORK).await?;
        }
        Ok(Swept::default())
    }

    async fn console_log(&self, _: &Handle) -> Result<Option<String>, CloudError> {
        Ok(None)
    }
}
