//! What is beside a server: a firewall that lets SSH in from its owner only, and the lane's key.
//!
//! Both are the lane's own: rules of a firewall can only be set all at once, so lanes that shared one could
//! undo each other's. Without a key, Hetzner makes a password for root and sends it by e-mail.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::answers::{Firewall, FirewallAnswer, Key, KeyAnswer, Listed};
use super::client::{
    Action, CREATE_FIREWALL, CREATE_KEY, Client, DELETE_FIREWALL, DELETE_KEY, FIREWALLS, KEYS,
    SET_RULES,
};
use super::servers::{self, name, selector};
use crate::error::{Class, CloudError, Effect};
use crate::machine::Spec;
use crate::marker::{self, EPHEMERAL, LANE, Which};
use crate::provider::Swept;

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thing {
    pub(super) id: u64,
    /// This call has made it.
    is_new: bool,
}

/// Both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    pub(super) key: Thing,
    pub(super) firewall: Thing,
}

/// What is common to firewalls and keys.
trait Labelled: Listed {
    const WHAT: &'static str;
    const ALL: Action;
    const DELETE: Action;
    fn id(&self) -> u64;
    fn name(&self) -> &str;
    fn labels(&self) -> &BTreeMap<String, String>;
}

impl Labelled for Firewall {
    const WHAT: &'static str = "firewall";
    const ALL: Action = FIREWALLS;
    const DELETE: Action = DELETE_FIREWALL;

    fn id(&self) -> u64 {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl Labelled for Key {
    const WHAT: &'static str = "key";
    const ALL: Action = KEYS;
    const DELETE: Action = DELETE_KEY;

    fn id(&self) -> u64 {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

/// Body of `POST /ssh_keys`.
#[derive(Serialize)]
struct NewKey<'a> {
    name: String,
    public_key: &'a str,
    labels: BTreeMap<String, String>,
}

/// Body of `POST /firewalls`.
#[derive(Serialize)]
struct NewFirewall<'a> {
    name: String,
    labels: BTreeMap<String, String>,
    rules: [Rule<'a>; 1],
}

/// Body of `POST /firewalls/{id}/actions/set_rules`.
#[derive(Serialize)]
struct Rules<'a> {
    rules: [Rule<'a>; 1],
}

#[derive(Serialize)]
struct Rule<'a> {
    direction: &'static str,
    protocol: &'static str,
    port: &'static str,
    source_ips: &'a [String],
    description: String,
}

fn rule<'a>(spec: &Spec, networks: &'a [String]) -> Rule<'a> {
    Rule {
        direction: "in",
        protocol: "tcp",
        port: "22",
        source_ips: networks,
        description: format!("firelane owner {}", spec.owner),
    }
}

/// Key and firewall of a lane. What this call has made of them is removed if it fails.
pub(super) async fn ready(
    client: &Client,
    spec: &Spec,
    networks: &[String],
) -> Result<Beside, CloudError> {
    let key = key(client, spec).await?;
    match firewall(client, spec, networks).await {
        Ok(firewall) => Ok(Beside { key, firewall }),
        Err(error) => {
            forget::<Key>(client, key).await;
            Err(error)
        }
    }
}

/// Removes what was made for a server that did not come about.
pub(super) async fn give_up(client: &Client, beside: &Beside) {
    forget::<Firewall>(client, beside.firewall).await;
    forget::<Key>(client, beside.key).await;
}

async fn forget<T: Labelled>(client: &Client, thing: Thing) {
    if !thing.is_new {
        return;
    }
    match delete::<T>(client, thing.id).await {
        Ok(()) => tracing::debug!(
            id = thing.id,
            "a {} is removed, because there is no machine",
            T::WHAT
        ),
        // It has the marker, and a sweep finds it.
        Err(error) => {
            tracing::warn!(%error, id = thing.id, "a {} is left for a sweep", T::WHAT);
        }
    }
}

/// Removes one. One that is gone is fine.
async fn delete<T: Labelled>(client: &Client, id: u64) -> Result<(), CloudError> {
    match client.done(T::DELETE, id).await {
        Err(error) if error.class == Class::NotFound => Ok(()),
        done => done,
    }
}

async fn key(client: &Client, spec: &Spec) -> Result<Thing, CloudError> {
    let body = NewKey {
        name: name(spec),
        public_key: spec.ssh_key.trim(),
        labels: marker::tags(spec),
    };
    let made = client
        .call::<KeyAnswer>(CREATE_KEY, None, Some(&body))
        .await;
    made_or_found::<Key>(client, spec, made.map(|answer| answer.ssh_key)).await
}

async fn firewall(client: &Client, spec: &Spec, networks: &[String]) -> Result<Thing, CloudError> {
    let body = NewFirewall {
        name: name(spec),
        labels: marker::tags(spec),
        rules: [rule(spec, networks)],
    };
    let made = client
        .call::<FirewallAnswer>(CREATE_FIREWALL, None, Some(&body))
        .await;
    let thing = made_or_found::<Firewall>(client, spec, made.map(|answer| answer.firewall)).await?;
    if !thing.is_new {
        // Of an earlier call, which may have seen another address of this machine.
        set_rules(client, spec, thing.id, networks).await?;
    }
    Ok(thing)
}

async fn set_rules(
    client: &Client,
    spec: &Spec,
    firewall: u64,
    networks: &[String],
) -> Result<(), CloudError> {
    let rules = Rules {
        rules: [rule(spec, networks)],
    };
    let _: serde_json::Value = client.call(SET_RULES, Some(firewall), Some(&rules)).await?;
    Ok(())
}

/// Has the lane's firewall, if it is there, let in from these networks and from no others.
pub(super) async fn let_in(
    client: &Client,
    spec: &Spec,
    networks: &[String],
) -> Result<(), CloudError> {
    let (name, lane) = (name(spec), spec.lane.to_string());
    let found = client
        .list::<Firewall>(FIREWALLS, &[("name", &name)])
        .await?;
    let own =
        |firewall: &Firewall| firewall.name == name && firewall.labels.get(LANE) == Some(&lane);
    match found.into_iter().find(own) {
        Some(firewall) => set_rules(client, spec, firewall.id, networks).await,
        None => Ok(()),
    }
}

/// What was made; or what there is with this lane's name, if an earlier call has made it, or this one
/// although the answer says nothing of it.
async fn made_or_found<T: Labelled>(
    client: &Client,
    spec: &Spec,
    made: Result<T, CloudError>,
) -> Result<Thing, CloudError> {
    let error = match made {
        Ok(thing) => {
            let (id, is_new) = (thing.id(), true);
            return Ok(Thing { id, is_new });
        }
        Err(error) => error,
    };
    if error.effect == Effect::None && error.class != Class::Conflict {
        return Err(error);
    }
    let name = name(spec);
    let found = match client.list::<T>(T::ALL, &[("name", &name)]).await {
        Ok(found) => found.into_iter().find(|thing| thing.name() == name),
        Err(second) => {
            tracing::warn!(%second, "what became of a {} is not known", T::WHAT);
            return Err(error);
        }
    };
    match found {
        Some(thing) if thing.labels().get(LANE) == Some(&spec.lane.to_string()) => Ok(Thing {
            id: thing.id(),
            is_new: error.class != Class::Conflict,
        }),
        Some(_) => {
            let message = format!("there is a {} {name}, and it is not of this lane", T::WHAT);
            Err(CloudError {
                class: Class::Invalid,
                message: message.into(),
                ..error
            })
        }
        None => Err(error),
    }
}

/// Firewalls and keys go whose lane has no server any more. That others are in use is worth a word only
/// where everything should go.
pub(super) async fn sweep(client: &Client, which: &Which) -> Result<Swept, CloudError> {
    let machines = servers::list(client, which).await?;
    let lanes = machines
        .iter()
        .filter_map(|machine| machine.mark.as_ref()?.lane)
        .map(|lane| lane.to_string())
        .collect();
    let mut swept = Swept::default();
    of_nobody::<Firewall>(client, which, &lanes, &mut swept).await?;
    of_nobody::<Key>(client, which, &lanes, &mut swept).await?;
    Ok(swept)
}

async fn of_nobody<T: Labelled>(
    client: &Client,
    which: &Which,
    lanes: &BTreeSet<String>,
    swept: &mut Swept,
) -> Result<(), CloudError> {
    let selector = selector(which);
    let things: Vec<T> = client
        .list(T::ALL, &[("label_selector", &selector)])
        .await?;
    for thing in things {
        let labels = thing.labels();
        let ours = labels.get(EPHEMERAL).map(String::as_str) == Some("true");
        let meant = match marker::read(labels) {
            Some(mark) => which.means(&mark),
            None => *which == Which::All,
        };
        if !ours || !meant {
            continue;
        }
        let name = format!("{} {}", T::WHAT, thing.name());
        if labels.get(LANE).is_some_and(|lane| lanes.contains(lane)) {
            if *which == Which::All {
                swept.used.push(name);
            }
            continue;
        }
        match delete::<T>(client, thing.id()).await {
            Ok(()) => swept.removed.push(name),
            // A machine that is on its way out, or somebody has put it to use.
            Err(error) if error.class == Class::Conflict => {
                swept.left.push((name, "a machine uses it".to_owned()));
            }
            Err(error) if error.class.may_pass() => return Err(error),
            Err(error) => swept.left.push((name, error.to_string())),
        }
    }
    Ok(())
}
