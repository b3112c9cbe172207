//! Servers, firewalls and keys, as answers have them.

use serde_json::{Value, json};

use super::catalog::{self, THEN};

/// A server.
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) labels: Value,
    pub(super) kind: Value,
    pub(super) image: Value,
    pub(super) location: Value,
    pub(super) firewalls: Vec<u64>,
    /// None: one of its own, which nobody has (RFC 5737).
    pub(super) address: Option<String>,
    /// What is to be done with it, the next first.
    pub(super) actions: Vec<u64>,
}

impl Server {
    pub(super) fn shown(&self) -> Value {
        let id = self.id;
        let (_, low) = (id / 200, id % 200);
        let firewalls = self.firewalls.iter();
        let firewalls: Vec<_> = firewalls
            .map(|id| json!({ "id": id, "status": "applied" }))
            .collect();
        let nobodys = || format!("192.0.2.{}", low + 1);
        let address = self.address.clone().unwrap_or_else(nobodys);
        json!({
            "id": id, "name": self.name, "status": self.status, "created": THEN, "labels": self.labels,
            "locked": !self.actions.is_empty(), "server_type": self.kind, "image": self.image,
            "location": self.location,
            "datacenter": {
                "id": 1, "name": "dc1", "description": "DC 1", "location": self.location,
                "server_types": { "available": [], "available_for_migration": [], "supported": [] },
            },
            "backup_window": null, "included_traffic": 654_321, "ingoing_traffic": null, "outgoing_traffic": null,
            "iso": null, "load_balancers": [], "placement_group": null, "primary_disk_size": self.kind["disk"],
            "private_net": [], "protection": { "delete": false, "rebuild": false }, "rescue_enabled": false,
            "volumes": [],
            "public_net": {
                "firewalls": firewalls, "floating_ips": [],
                "ipv4": { "id": id, "ip": address, "blocked": false, "dns_ptr": "one.example" },
                "ipv6": { "id": id + 1, "ip": "2001:db8::/64", "blocked": false, "dns_ptr": [] },
            },
        })
    }
}

/// A firewall; `used` has the servers that it is applied to.
pub(super) struct Firewall {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Value,
    pub(super) rules: Vec<Value>,
}

impl Firewall {
    pub(super) fn shown(&self, used: &[u64]) -> Value {
        let used = used.iter();
        let used: Vec<_> = used
            .map(|id| json!({ "type": "server", "server": { "id": id } }))
            .collect();
        let rules = self.rules.iter().map(|rule| {
            json!({
                "direction": rule["direction"], "protocol": rule["protocol"], "port": rule["port"],
                "source_ips": rule["source_ips"].as_array().cloned().unwrap_or_default(),
                "destination_ips": rule["destination_ips"].as_array().cloned().unwrap_or_default(),
                "description": rule["description"],
            })
        });
        json!({
            "id": self.id, "name": self.name, "labels": self.labels, "created": THEN, "applied_to": used,
            "rules": rules.collect::<Vec<_>>(),
        })
    }
}

/// A key.
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: Value,
    pub(super) public_key: String,
}

impl Key {
    pub(super) fn shown(&self) -> Value {
        // Not the real one, but one for each key.
        let pairs = self.public_key.bytes().rev().take(16);
        let pairs: Vec<_> = pairs.map(|byte| format!("{byte:02x}")).collect();
        json!({
            "id": self.id, "name": self.name, "labels": self.labels, "created": THEN,
            "fingerprint": pairs.join(":"), "public_key": self.public_key,
        })
    }
}

/// Something that takes some looks until it is done.
pub(super) struct Action {
    pub(super) id: u64,
    pub(super) command: String,
    pub(super) server: u64,
    /// Looks until it ends.
    pub(super) left: u32,
    /// What it comes to.
    pub(super) error: Option<String>,
}

impl Action {
    pub(super) fn shown(&self) -> Value {
        let status = match (self.left, &self.error) {
            (1.., _) => "running",
            (0, None) => "success",
            (0, Some(_)) => "error",
        };
        let error = self.error.as_ref().filter(|_| self.left == 0);
        let finished = if self.left == 0 {
            json!(THEN)
        } else {
            Value::Null
        };
        json!({
            "id": self.id, "command": self.command, "status": status, "started": THEN, "finished": finished,
            "progress": if self.left == 0 { 100 } else { 50 },
            "resources": [{ "id": self.server, "type": "server" }],
            "error": error.map(|code| json!({ "code": code, "message": "as a test wants it" })),
        })
    }
}

/// A type that can be had in a location now.
pub(super) fn type_in(name: &str, location: &str) -> Option<Value> {
    let kinds = catalog::server_types().into_iter();
    let mut kinds = kinds.filter(|kind| kind["name"] == name && kind["deprecated"] == false);
    kinds.find(|kind| {
        let places = kind["locations"].as_array().expect("a list");
        places
            .iter()
            .any(|at| at["name"] == location && at["deprecation"].is_null())
    })
}
