//! A machine from nothing, and what would be asked for it.

use std::time::Duration;

use super::client::check_region;
use super::client::{AUTHORIZE_INGRESS, CREATE_SECURITY_GROUP, REVOKE_INGRESS, RUN_INSTANCES};
use super::groups::{self, GROUP, Group};
use super::instances::{self, Place, Seen};
use super::kinds::{self, Kind};
use super::networks::{self, Network};
use super::params::Params;
use super::{Aws, images, sources, user_data};
use crate::error::{Class, CloudError, Effect};
use crate::machine::{Machine, Spec};
use crate::provider::Step;

/// How often a machine that was just made is looked for. EC2 tells of it to everybody some seconds
/// after it has told its maker ("Eventual consistency", EC2 API reference).
const LOOKS: u32 = 6;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Smallest root disk: that of the image.
const LEAST_GIB: u32 = 8;
/// Largest gp3 volume.
const MOST_GIB: u32 = 16_384;

/// What only this provider knows, from the lane or from the environment.
pub(super) struct Extras {
    /// Id of a subnet.
    pub(super) subnet: Option<String>,
    /// Id of a security group that is used as it is.
    pub(super) group: Option<String>,
}

/// What was found out before anything is made.
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) image: images::Image,
    pub(super) network: Network,
}

impl Found {
    /// With a group, all that a request needs.
    pub(super) fn place(&self, group: &str) -> Place {
        Place {
            image: self.image.clone(),
            kvm: self.kind.kvm,
            network: self.network.clone(),
            group: group.to_owned(),
        }
    }
}

impl Aws {
    /// The extras of a lane; unknown ones are refused.
    pub(super) fn extras(&self, spec: &Spec) -> Result<Extras, CloudError> {
        const KNOWN: [&str; 2] = ["subnet", "security-group"];
        if let Some(name) = spec
            .extras
            .keys()
            .find(|name| !KNOWN.contains(&name.as_str()))
        {
            let message = format!("aws knows no {name:?}, but {}", KNOWN.join(" and "));
            return Err(RUN_INSTANCES.error(Class::Invalid, message));
        }
        let of = |name: &str, variable: &str| {
            let extra = spec.extras.get(name).map(String::as_str);
            extra
                .or_else(|| self.settings.variable(variable))
                .map(str::to_owned)
        };
        let group = of("security-group", "AWS_SG_ID");
        if let Some(group) = &group
            && !spec.ssh_from.is_empty()
        {
            let networks = spec.ssh_from.join(", ");
            let message =
                format!("{group} is used as it is, and SSH is to come from {networks} only");
            return Err(RUN_INSTANCES
                .error(Class::Invalid, message)
                .with_remedy("leave out the one or the other: AWS_SG_ID, or --ssh-from"));
        }
        Ok(Extras {
            subnet: of("subnet", "AWS_SUBNET_ID"),
            group,
        })
    }

    /// Looks up what a request needs.
    async fn find(&self, spec: &Spec, extras: &Extras) -> Result<Found, CloudError> {
        let (client, region) = (&self.client, spec.region.as_str());
        check_region(region)?;
        check_disk(spec.disk_gib)?;
        let kind = kinds::check(client, region, &spec.instance_type, spec.kvm).await?;
        let image = images::newest(client, region).await?;
        let network = networks::find(client, region, extras.subnet.as_deref()).await?;
        Ok(Found {
            kind,
            image,
            network,
        })
    }

    /// Makes it.
    pub(super) async fn make(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let extras = self.extras(spec)?;
        let user_data = user_data::packed(&spec.user_data)?;
        let found = self.find(spec, &extras).await?;
        let vpc = &found.network.vpc;
        let group = match extras.group {
            Some(id) => Group { id, is_new: false },
            None => {
                let from = sources::find(&self.client, spec).await?;
                groups::ready(&self.client, spec, vpc, from).await?
            }
        };
        let request = instances::request(spec, &found.place(&group.id), &user_data);
        match instances::run(&self.client, &spec.region, &request).await {
            Ok(Seen::There(machine)) => {
                let settled = self.settle(*machine).await;
                if settled.is_err() {
                    groups::give_up(&self.client, spec, vpc, &group).await;
                }
                settled
            }
            Ok(Seen::Nothing | Seen::Gone(_)) => {
                let lane = spec.lane;
                let message = format!("the machine of {lane} has been given back already");
                Err(RUN_INSTANCES.error(Class::Invalid, message))
            }
            Err(error) => {
                if error.effect == Effect::None {
                    groups::give_up(&self.client, spec, vpc, &group).await;
                }
                // Somebody's sweep was between us and the group: it is made again.
                if error.code.as_deref() == Some("InvalidGroup.NotFound") && self.is_ours(spec) {
                    let class = Class::Transient;
                    return Err(CloudError { class, ..error });
                }
                Err(error)
            }
        }
    }

    /// Whether the group is the one that we make.
    fn is_ours(&self, spec: &Spec) -> bool {
        self.extras(spec).is_ok_and(|extras| extras.group.is_none())
    }

    /// Until others are told of it too. It is ours in any case.
    async fn settle(&self, machine: Machine) -> Result<Machine, CloudError> {
        let handle = &machine.handle;
        for look in 1..=LOOKS {
            match instances::look(&self.client, &handle.region, &handle.id).await {
                Ok(Seen::There(machine)) => return Ok(*machine),
                Ok(Seen::Gone(reason)) => {
                    let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
                    let message = format!("{} was terminated at once: {reason}", handle.id);
                    return Err(RUN_INSTANCES.error(Class::Capacity, message));
                }
                Ok(Seen::Nothing) => {}
                Err(error) => tracing::info!(%error, %handle, "made, and not seen yet"),
            }
            if look < LOOKS {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(machine)
    }

    /// Has its group let its user in from where the user is now. A group that is the user's own is left
    /// as it is.
    pub(super) async fn refresh(&self, spec: &Spec) -> Result<(), CloudError> {
        let extras = self.extras(spec)?;
        if extras.group.is_some() {
            return Ok(());
        }
        let from = sources::find(&self.client, spec).await?;
        let subnet = extras.subnet.as_deref();
        let network = networks::find(&self.client, &spec.region, subnet).await?;
        groups::refresh(&self.client, spec, &network.vpc, from).await
    }

    /// What [`make`](Self::make) would ask for. The user-data is told of by its size.
    pub(super) async fn steps(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let extras = self.extras(spec)?;
        let user_data = user_data::packed(&spec.user_data)?;
        let found = self.find(spec, &extras).await?;
        let mut steps = Vec::new();
        let group = match extras.group {
            Some(id) => id,
            None => {
                let vpc = &found.network.vpc;
                let from = sources::find(&self.client, spec).await?;
                let (id, changes) = groups::missing(&self.client, spec, vpc, from).await?;
                let new = id.is_none();
                let id = id.unwrap_or_else(|| format!("the new group {GROUP}"));
                if new {
                    let with = [("GroupName", GROUP), ("VpcId", vpc)];
                    let with = with.map(|(name, value)| (name.to_owned(), value.to_owned()));
                    steps.push(step(CREATE_SECURITY_GROUP.name, with.to_vec()));
                }
                if !changes.add.is_empty() {
                    let params = groups::authorize(&id, &changes.add, &spec.owner);
                    steps.push(step(AUTHORIZE_INGRESS.name, params.pairs().to_vec()));
                }
                if !changes.remove.is_empty() {
                    let rules = changes.remove.iter().map(String::as_str);
                    let params = Params::new().list("SecurityGroupRuleId", rules);
                    steps.push(step(REVOKE_INGRESS.name, params.pairs().to_vec()));
                }
                id
            }
        };
        let request = instances::request(spec, &found.place(&group), &[]);
        let mut with = request.pairs().to_vec();
        with.push(("Image".to_owned(), found.image.name));
        if !user_data.is_empty() {
            let size = format!("{} bytes", user_data.len());
            with.push(("UserData".to_owned(), size));
        }
        steps.push(step(RUN_INSTANCES.name, with));
        Ok(steps)
    }

    /// For the preflight: each lookup by itself.
    pub(super) async fn lookups(&self, spec: &Spec, extras: &Extras) -> Lookups {
        let (client, region) = (&self.client, spec.region.as_str());
        Lookups {
            kind: kinds::check(client, region, &spec.instance_type, spec.kvm).await,
            image: images::newest(client, region).await,
            network: networks::find(client, region, extras.subnet.as_deref()).await,
        }
    }
}

/// What was looked up, and what of it failed.
pub(super) struct Lookups {
    pub(super) kind: Result<Kind, CloudError>,
    pub(super) image: Result<images::Image, CloudError>,
    pub(super) network: Result<Network, CloudError>,
}

/// Refuses a root disk that EC2 would refuse.
pub(super) fn check_disk(gib: u32) -> Result<(), CloudError> {
    if (LEAST_GIB..=MOST_GIB).contains(&gib) {
        return Ok(());
    }
    let message = format!("a root disk has {LEAST_GIB} to {MOST_GIB} GiB, not {gib}");
    Err(RUN_INSTANCES.error(Class::Invalid, message))
}

fn step(call: &str, with: Vec<(String, String)>) -> Step {
    let call = call.to_owned();
    Step { call, with }
}
