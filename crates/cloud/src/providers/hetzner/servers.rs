//! Servers: asked for, looked at, given back.

use std::collections::BTreeMap;

use serde::Serialize;

use super::NAME;
use super::answers::{Doing, DoingAnswer, Image, Server, ServerAnswer};
use super::beside::Beside;
use super::client::{Action, Client, DELETE_SERVER, GET_SERVER, SERVERS};
use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, MachineState, Spec};
use crate::marker::{self, EPHEMERAL, LABEL, LANE, Which};

/// What a lane's server, firewall and key are named. It is a host name, and a project has it once.
pub(super) fn name(spec: &Spec) -> String {
    format!("firelane-{}", spec.lane)
}

/// What selects things of ours by their labels (API reference, "Label Selector").
pub(super) fn selector(which: &Which) -> String {
    let ours = format!("{EPHEMERAL}==true");
    match which {
        Which::All => ours,
        Which::Label(label) => format!("{ours},{LABEL}=={label}"),
        Which::Lane(lane) => format!("{ours},{LANE}=={lane}"),
    }
}

/// Body of `POST /servers`.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    name: String,
    server_type: &'a str,
    /// Number of the image.
    image: String,
    location: &'a str,
    /// Without a key, a password is made and sent by e-mail.
    ssh_keys: [String; 1],
    firewalls: [UsedFirewall; 1],
    labels: BTreeMap<String, String>,
    public_net: PublicNet,
    start_after_create: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_data: &'a str,
}

#[derive(Serialize)]
struct UsedFirewall {
    firewall: u64,
}

#[derive(Serialize)]
struct PublicNet {
    enable_ipv4: bool,
    enable_ipv6: bool,
}

/// The request for a machine.
pub(super) fn request<'a>(spec: &'a Spec, image: &Image, beside: &Beside) -> Request<'a> {
    let firewall = beside.firewall.id;
    Request {
        name: name(spec),
        server_type: &spec.instance_type,
        image: image.id.to_string(),
        location: &spec.region,
        ssh_keys: [beside.key.id.to_string()],
        firewalls: [UsedFirewall { firewall }],
        labels: marker::tags(spec),
        public_net: PublicNet {
            enable_ipv4: true,
            enable_ipv6: true,
        },
        start_after_create: true,
        user_data: &spec.user_data,
    }
}

/// Looks at one. None: there is none, or no longer.
pub(super) async fn look(client: &Client, id: u64) -> Result<Option<Machine>, CloudError> {
    match client.get::<ServerAnswer>(GET_SERVER, Some(id)).await {
        Ok(answer) => read(GET_SERVER, &answer.server).map(Some),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The server with this name, whosever it is.
pub(super) async fn named(client: &Client, name: &str) -> Result<Option<Machine>, CloudError> {
    let servers: Vec<Server> = client.list(SERVERS, &[("name", name)]).await?;
    let found = servers.iter().find(|server| server.name == name);
    found.map(|server| read(SERVERS, server)).transpose()
}

/// Those of ours.
pub(super) async fn list(client: &Client, which: &Which) -> Result<Vec<Machine>, CloudError> {
    let selector = selector(which);
    let filters = [("label_selector", selector.as_str())];
    let servers: Vec<Server> = client.list(SERVERS, &filters).await?;
    let mut machines = Vec::new();
    for server in &servers {
        // What is removed is decided by the labels themselves, not by who understood the question.
        let ours = server.labels.get(EPHEMERAL).map(String::as_str) == Some("true");
        let machine = read(SERVERS, server)?;
        let meant = match &machine.mark {
            Some(mark) => which.means(mark),
            // Ephemeral, but made by something that gives no labels.
            None => *which == Which::All,
        };
        if ours && meant {
            machines.push(machine);
        }
    }
    Ok(machines)
}

/// Gives one back. One that is gone is fine.
pub(super) async fn delete(client: &Client, id: u64) -> Result<(), CloudError> {
    remove(client, id).await.map(drop)
}

/// The same. None: it is gone; else what goes on until it is.
pub(super) async fn remove(client: &Client, id: u64) -> Result<Option<Doing>, CloudError> {
    let none = None::<&()>;
    match client
        .call::<DoingAnswer>(DELETE_SERVER, Some(id), none)
        .await
    {
        Ok(answer) => Ok(Some(answer.action)),
        Err(error) if error.class == Class::NotFound => Ok(None),
        // Something is being done with it: that may be what is asked for.
        Err(error) if error.code.as_deref() == Some("locked") => match look(client, id).await? {
            Some(machine) if machine.state != MachineState::Leaving => Err(error),
            Some(_) | None => Ok(None),
        },
        Err(error) => Err(error),
    }
}

/// A server as a machine.
pub(super) fn read(action: Action, server: &Server) -> Result<Machine, CloudError> {
    let id = server.id;
    let state = match server.status.as_str() {
        "initializing" | "starting" | "migrating" | "rebuilding" | "unknown" => {
            MachineState::Pending
        }
        "running" => MachineState::Running,
        // Between being made and being started.
        "off" if server.locked => MachineState::Pending,
        "off" | "stopping" => MachineState::Stopped,
        "deleting" => MachineState::Leaving,
        other => {
            return Err(action.senseless(format!("server {id} is {other:?}, which is no state")));
        }
    };
    Ok(Machine {
        handle: Handle {
            provider: NAME.to_owned(),
            region: server.location.name.clone(),
            id: id.to_string(),
        },
        state,
        address: server.public_net.ipv4.as_ref().map(|v4| v4.ip.clone()),
        ssh_port: 22,
        instance_type: server.server_type.name.clone(),
        mark: marker::read(&server.labels),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(status: &str, locked: bool) -> Result<Machine, CloudError> {
        let server = json!({
            "id": 42, "name": "x", "status": status, "locked": locked, "labels": {},
            "location": { "name": "fsn1" }, "server_type": { "name": "cx33" },
            "public_net": { "ipv4": { "ip": "192.0.2.1" } },
        });
        read(SERVERS, &serde_json::from_value(server).unwrap())
    }

    #[test]
    fn states_are_those_of_lanes() {
        let check = |status, locked, expected| {
            assert_eq!(of(status, locked).unwrap().state, expected, "{status}");
        };
        check("initializing", true, MachineState::Pending);
        check("off", true, MachineState::Pending);
        check("starting", false, MachineState::Pending);
        check("running", false, MachineState::Running);
        check("stopping", true, MachineState::Stopped);
        check("off", false, MachineState::Stopped);
        check("deleting", true, MachineState::Leaving);
        let error = of("resting", false).unwrap_err();
        assert_eq!(
            &*error.message,
            "server 42 is \"resting\", which is no state"
        );
    }

    #[test]
    fn labels_select() {
        let label: firelane_model::lane::Label = "one".parse().unwrap();
        assert_eq!(selector(&Which::All), "mvm-ephemeral==true");
        assert_eq!(
            selector(&Which::Label(label)),
            "mvm-ephemeral==true,firelane-label==one"
        );
    }
}
