//! A provider that is made up. It has what providers have: machines that take a while, that are told
//! of late, and a thing beside each of them that outlives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use firelane_cloud::marker::{self, Which};
use firelane_cloud::provider::{Capabilities, Check, Quote, Step, Swept, UserData, Verdict};
use firelane_cloud::{Class, CloudError, Handle, Machine, MachineState, Provider, Spec};

use tokio::time::Instant;

use super::faults::{Fault, Faults};

const NAME: &str = "simulated";
/// Looks at a machine until it runs, and after a delete until it is gone.
const LOOKS: u32 = 3;
/// How long lists do not tell of what was created.
const UNSEEN: Duration = Duration::from_secs(5);

/// What is at the provider.
#[derive(Default)]
struct World {
    machines: BTreeMap<String, Known>,
    /// Ids of keys, with the tags of the lane that they are of.
    keys: BTreeMap<String, BTreeMap<String, String>>,
    next: u32,
    /// Credentials are refused.
    locked_out: bool,
}

struct Known {
    tags: BTreeMap<String, String>,
    instance_type: String,
    /// Networks that may log in.
    open_to: Vec<String>,
    user_data: String,
    state: MachineState,
    looks: u32,
    seen_from: Instant,
}

/// The provider. Clones are the same one.
#[derive(Clone, Default)]
pub struct SimulatedCloud {
    world: Arc<Mutex<World>>,
    faults: Faults,
}

impl SimulatedCloud {
    /// An empty one with these faults.
    pub fn new(faults: Faults) -> Self {
        Self {
            world: Arc::default(),
            faults,
        }
    }

    /// A machine that is somebody else's, with these tags.
    pub fn add_decoy(&self, id: &str, tags: &[(&str, &str)]) {
        let tags = tags.iter();
        let known = Known {
            tags: tags
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            instance_type: "other".into(),
            open_to: Vec::new(),
            user_data: String::new(),
            state: MachineState::Running,
            looks: LOOKS,
            seen_from: Instant::now(),
        };
        self.world().machines.insert(id.to_owned(), known);
    }

    /// Ids of all machines that are not gone, and of all keys.
    pub fn what_is_there(&self) -> Vec<String> {
        let world = self.world();
        world
            .machines
            .keys()
            .chain(world.keys.keys())
            .cloned()
            .collect()
    }

    /// From where one may log in to the machines that are there.
    pub fn open_to(&self) -> Vec<String> {
        let world = self.world();
        let machines = world.machines.values();
        machines.flat_map(|known| known.open_to.clone()).collect()
    }

    /// What the machines that are there read as they boot.
    pub fn user_data(&self) -> Vec<String> {
        let world = self.world();
        let machines = world.machines.values();
        machines.map(|known| known.user_data.clone()).collect()
    }

    /// Whether credentials are refused from now on.
    pub fn lock_out(&self, locked_out: bool) {
        self.world().locked_out = locked_out;
    }

    /// A machine ends by itself, as one whose time is over.
    pub fn lose_machines(&self) {
        self.world().machines.clear();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: with its fault, if it has one.
    async fn call<T>(
        &self,
        name: &str,
        mut work: impl FnMut(&mut World) -> Result<T, CloudError> + Send,
    ) -> Result<T, CloudError> {
        let fail = |class, message: &str| CloudError::new(NAME, name, class, message);
        if self.world().locked_out {
            return Err(fail(Class::Auth, "the token is not taken"));
        }
        match self.faults.next(name) {
            None => work(&mut self.world()),
            Some(Fault::Throttled) => Err(fail(Class::Throttle, "too often")),
            Some(Fault::Lost) => Err(fail(Class::Transient, "no route").with_unknown_effect()),
            Some(Fault::Refused) => Err(fail(Class::Invalid, "refused")),
            Some(Fault::AnswerLost) => {
                // Whatever it came to.
                let _ = work(&mut self.world());
                Err(fail(Class::Transient, "no answer").with_unknown_effect())
            }
            Some(Fault::Twice) => {
                let _ = work(&mut self.world());
                work(&mut self.world())
            }
            Some(Fault::KilledBefore) => self.faults.die().await,
            Some(Fault::KilledAfter) => {
                let _ = work(&mut self.world());
                self.faults.die().await
            }
        }
    }
}

impl Known {
    fn machine(&self, id: &str) -> Machine {
        Machine {
            handle: Handle {
                provider: NAME.into(),
                region: "here".into(),
                id: id.to_owned(),
            },
            state: self.state,
            address: (self.state == MachineState::Running).then(|| "192.0.2.1".to_owned()),
            ssh_port: 22,
            instance_type: self.instance_type.clone(),
            mark: marker::read(&self.tags),
        }
    }
}

#[async_trait]
impl Provider for SimulatedCloud {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: true,
            user_data: Some(UserData {
                most_bytes: 16 << 10,
                gzip: false,
                templated: false,
            }),
            makes_machines: true,
            lists: true,
            tells_late: UNSEEN * 2,
            native_ttl: false,
            shutdown_ends_billing: true,
            firewall: true,
            downloads: true,
        }
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        Ok("here".into())
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        Ok("large".into())
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        let known = spec.region == "here";
        self.call("preflight", |_| {
            let verdict = if known { Verdict::Ok } else { Verdict::Failed };
            Ok(vec![Check::new("region", verdict, "there is only here")])
        })
        .await
    }

    async fn quote(&self, _: &Spec) -> Result<Option<Quote>, CloudError> {
        self.call("quote", |_| {
            Ok(Some(Quote {
                milli_usd_per_hour: 400,
                source: "made up".into(),
            }))
        })
        .await
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let label = spec.label.to_string();
        let with = vec![("label".to_owned(), label)];
        Ok(vec![Step {
            call: "create".into(),
            with,
        }])
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let tags = marker::tags(spec);
        let key = format!("key-{}", spec.lane);
        self.call("import-key", |world| {
            world.keys.insert(key.clone(), tags.clone());
            Ok(())
        })
        .await?;
        self.call("create", |world| {
            world.next += 1;
            let id = format!("machine-{}", world.next);
            let known = Known {
                tags: tags.clone(),
                instance_type: spec.instance_type.clone(),
                open_to: spec.ssh_from.clone(),
                user_data: spec.user_data.clone(),
                state: MachineState::Pending,
                looks: 0,
                seen_from: Instant::now() + UNSEEN,
            };
            let machine = known.machine(&id);
            world.machines.insert(id, known);
            Ok(machine)
        })
        .await
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        self.call("get", |world| {
            let Some(known) = world.machines.get_mut(&handle.id) else {
                return Ok(None);
            };
            known.looks += 1;
            match known.state {
                MachineState::Pending if known.looks >= LOOKS => {
                    known.state = MachineState::Running;
                }
                MachineState::Leaving if known.looks >= LOOKS => {
                    world.machines.remove(&handle.id);
                    return Ok(None);
                }
                _ => {}
            }
            Ok(Some(known.machine(&handle.id)))
        })
        .await
    }

    async fn let_in(&self, handle: &Handle, spec: &Spec) -> Result<(), CloudError> {
        self.call("let_in", |world| {
            if let Some(known) = world.machines.get_mut(&handle.id) {
                known.open_to = spec.ssh_from.clone();
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        self.call("list", |world| {
            let mut machines = Vec::new();
            let seen = |known: &Known| known.seen_from <= Instant::now();
            for (id, known) in world.machines.iter().filter(|(_, known)| seen(known)) {
                let machine = known.machine(id);
                let is_marked = known
                    .tags
                    .get(marker::EPHEMERAL)
                    .is_some_and(|tag| tag == "true");
                let meant = machine
                    .mark
                    .as_ref()
                    .map_or(*which == Which::All, |mark| which.means(mark));
                if is_marked && meant {
                    machines.push(machine);
                }
            }
            Ok(machines)
        })
        .await
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        self.call("delete", |world| {
            let Some(known) = world.machines.get_mut(&handle.id) else {
                return Err(CloudError::new(NAME, "delete", Class::NotFound, "no such"));
            };
            (known.state, known.looks) = (MachineState::Leaving, 0);
            Ok(())
        })
        .await
    }

    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        self.call("sweep", |world| {
            let used: Vec<_> = world
                .machines
                .values()
                .filter_map(|known| marker::read(&known.tags))
                .collect();
            let mut swept = Swept::default();
            world.keys.retain(|id, tags| {
                let Some(mark) = marker::read(tags) else {
                    return true;
                };
                let is_used = used.iter().any(|other| other.lane == mark.lane);
                if is_used && which.means(&mark) {
                    swept.used.push(id.clone());
                }
                let goes = which.means(&mark) && !is_used;
                if goes {
                    swept.removed.push(id.clone());
                }
                !goes
            });
            Ok(swept)
        })
        .await
    }

    async fn console_log(&self, _: &Handle) -> Result<Option<String>, CloudError> {
        self.call("console_log", |_| Ok(Some("it boots".into())))
            .await
    }
}
