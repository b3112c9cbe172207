//! A rehearsal host on this machine: a Debian in `systemd-nspawn`, with real systemd, real cloud-init
//! and a real SSH server, but no account and no spend.
//!
//! ```text
//!   <state>/local/roots/<recipe>/         the system, built once by mmdebstrap, never written
//!   <state>/local/machines/<lane id>/     one machine
//!     machine.json                        what it is; written first, removed last
//!     upper, work, root                   its overlay: root is where it is mounted
//!     console                             what it writes on its console
//!   /run/netns/<lane id>                  its network: one veth pair, fl-N outside, host0 inside
//! ```
//!
//! A machine is found by the id of its lane: in the names of its folder and of its network namespace, among the
//! arguments of the process that keeps it, and by that namespace for what runs inside. So any process removes it
//! wholly, whenever who made it was killed.
//! It ends by itself when its time is over; its files go with `down` or `reap`. It has no way to any
//! network but the link to this machine.
//!
//! | File | Holds |
//! | --- | --- |
//! | `root.rs` | the system that machines share |
//! | `machine.rs` | one machine: making, finding, removing |
//! | `processes.rs` | its processes, and their end |
//! | `network.rs` | its link |
//! | `tool.rs` | programs of this machine |

mod machine;
mod network;
mod processes;
mod root;
mod tool;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use self::machine::Place;
use self::tool::Failed;
use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept, UserData, Verdict};
use crate::settings::Settings;

pub(crate) const NAME: &str = "local";
/// Programs that it needs, each with its Debian package.
const TOOLS: [(&str, &str); 6] = [
    ("setpriv", "util-linux"),
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("timeout", "coreutils"),
];

/// The provider.
pub(crate) struct Local {
    folder: PathBuf,
}

impl Local {
    pub(crate) fn new(settings: &Settings) -> Local {
        Local {
            folder: settings.state.join(NAME),
        }
    }

    /// Looks at and changes this machine on a thread that may block.
    async fn work<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce(Place) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, CloudError> {
        let place = Place::new(self.folder.clone());
        let done = tokio::task::spawn_blocking(move || work(place)).await;
        let failed = |message: String| CloudError::new(NAME, call, Class::Invalid, message);
        match done {
            Ok(done) => done.map_err(|failure| failed(failure.to_string())),
            Err(panicked) => Err(failed(panicked.to_string()).with_unknown_effect()),
        }
    }
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: true,
            user_data: Some(UserData {
                most_bytes: 1 << 20,
                gzip: false,
                templated: false,
            }),
            makes_machines: true,
            lists: true,
            tells_late: Duration::ZERO,
            native_ttl: true,
            shutdown_ends_billing: true,
            firewall: false,
            downloads: false,
        }
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        Ok("here".into())
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        Ok("nspawn".into())
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        let mut checks = Vec::new();
        let is_root = rustix::process::geteuid().is_root();
        checks.push(if is_root {
            Check::new("root", Verdict::Ok, "this is root")
        } else {
            Check::new("root", Verdict::Failed, "a machine is made by root only")
                .with_remedy("run it with sudo")
        });
        for (program, package) in TOOLS {
            checks.push(if tool::is_there(program) {
                Check::new(program, Verdict::Ok, "it is there")
            } else {
                Check::new(program, Verdict::Failed, "it is not installed")
                    .with_remedy(format!("apt-get install {package}"))
            });
        }
        if let Some(name) = spec.extras.keys().next() {
            let message = format!("there is no setting {name:?}");
            checks.push(Check::new("settings", Verdict::Failed, message));
        }
        Ok(checks)
    }

    async fn quote(&self, _: &Spec) -> Result<Option<Quote>, CloudError> {
        Ok(Some(Quote {
            milli_usd_per_hour: 0,
            source: "this machine".into(),
        }))
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let with = vec![("machine".to_owned(), spec.lane.to_string())];
        Ok(vec![Step {
            call: "systemd-nspawn".into(),
            with,
        }])
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let spec = spec.clone();
        self.work("create", move |place| place.create(&spec)).await
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        let id = handle.id.clone();
        self.work("get", move |place| place.get(&id)).await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        let machines = self.work("list", |place| place.list()).await?;
        let meant = |machine: &Machine| machine.mark.as_ref().is_some_and(|mark| which.means(mark));
        Ok(machines.into_iter().filter(meant).collect())
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        let id = handle.id.clone();
        self.work("delete", move |place| place.remove(&id)).await
    }

    async fn sweep(&self, _: &Which) -> Result<Swept, CloudError> {
        // Whatever of a machine is left lies in its folder, and goes with it.
        Ok(Swept::default())
    }

    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError> {
        let id = handle.id.clone();
        self.work("console_log", move |place| place.console(&id))
            .await
    }
}
