//! What there is in a project, and what calls do to it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::things::{Action, Firewall, Key, Server, type_in};
use super::{Answer, Exchange, catalog, refusal};

/// Looks until an action ends.
const LOOKS: u32 = 2;
/// Most things of a page, whatever is asked for.
const PAGE: usize = 50;
/// Largest user-data.
const MOST_USER_DATA: usize = 32 << 10;

/// One project.
pub(super) struct World {
    pub(super) servers: BTreeMap<u64, Server>,
    pub(super) firewalls: BTreeMap<u64, Firewall>,
    pub(super) keys: BTreeMap<u64, Key>,
    actions: BTreeMap<u64, Action>,
    last: u64,
    /// Commands whose next action ends with this code.
    pub(super) failing: Vec<(String, String)>,
    pub(super) page: usize,
    /// Nothing that is being done goes on.
    pub(super) stands_still: bool,
    /// Where servers are.
    address: Option<String>,
}

impl Default for World {
    fn default() -> World {
        World {
            servers: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            keys: BTreeMap::new(),
            actions: BTreeMap::new(),
            last: 1_000,
            failing: Vec::new(),
            page: PAGE,
            stands_still: false,
            address: None,
        }
    }
}

fn missing(what: &str) -> Answer {
    refusal(404, "not_found", &format!("{what} not found"))
}

fn wrong(message: &str) -> Answer {
    refusal(422, "invalid_input", message)
}

fn taken() -> Answer {
    refusal(409, "uniqueness_error", "name is already used")
}

fn string(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_default().to_owned()
}

impl World {
    /// Does what a call asks for.
    pub(super) fn done(&mut self, call: &Exchange) -> Answer {
        let parts: Vec<_> = call.path.trim_matches('/').split('/').collect();
        let id = parts.get(1).and_then(|id| id.parse::<u64>().ok());
        let body = &call.request;
        match (call.method.as_str(), parts.as_slice(), id) {
            ("GET", [list], _) => self.list(list, &call.query),
            ("GET", ["servers", _], Some(id)) => {
                self.look(id);
                match self.servers.get(&id) {
                    Some(server) => (200, json!({ "server": server.shown() })),
                    None => missing("server"),
                }
            }
            ("GET", ["actions", _], Some(id)) => {
                self.advance(id);
                match self.actions.get(&id) {
                    Some(action) => (200, json!({ "action": action.shown() })),
                    None => missing("action"),
                }
            }
            ("GET", ["firewalls", _], Some(id)) => match self.firewalls.get(&id) {
                Some(firewall) => {
                    let shown = firewall.shown(&self.users_of(id));
                    (200, json!({ "firewall": shown }))
                }
                None => missing("firewall"),
            },
            ("POST", ["servers"], _) => self.make_server(body).unwrap_or_else(|refused| refused),
            ("POST", ["firewalls"], _) => self.make_firewall(body),
            ("POST", ["firewalls", _, "actions", "set_rules"], Some(id)) => {
                self.set_rules(id, body)
            }
            ("POST", ["ssh_keys"], _) => self.make_key(body),
            ("DELETE", ["servers", _], Some(id)) => self.remove_server(id),
            ("DELETE", ["firewalls", _], Some(id)) => {
                if !self.users_of(id).is_empty() {
                    return refusal(422, "resource_in_use", "firewall is still in use");
                }
                match self.firewalls.remove(&id) {
                    Some(_) => (204, Value::Null),
                    None => missing("firewall"),
                }
            }
            ("DELETE", ["ssh_keys", _], Some(id)) => match self.keys.remove(&id) {
                Some(_) => (204, Value::Null),
                None => missing("SSH key"),
            },
            _ => missing("page"),
        }
    }

    /// Labels of everything.
    pub(super) fn labels(&self) -> Vec<Value> {
        let servers = self.servers.values().map(|one| one.labels.clone());
        let firewalls = self.firewalls.values().map(|one| one.labels.clone());
        let keys = self.keys.values().map(|one| one.labels.clone());
        servers.chain(firewalls).chain(keys).collect()
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn users_of(&self, firewall: u64) -> Vec<u64> {
        let servers = self.servers.values();
        let users = servers.filter(|server| server.firewalls.contains(&firewall));
        users.map(|server| server.id).collect()
    }

    fn list(&self, name: &str, query: &str) -> Answer {
        if name == "pricing" {
            return (200, catalog::pricing());
        }
        let things: Vec<Value> = match name {
            "locations" => catalog::locations(),
            "server_types" => catalog::server_types(),
            "images" => catalog::images(),
            "servers" => self.servers.values().map(Server::shown).collect(),
            "ssh_keys" => self.keys.values().map(Key::shown).collect(),
            "firewalls" => {
                let firewalls = self.firewalls.values();
                let shown = firewalls.map(|one| one.shown(&self.users_of(one.id)));
                shown.collect()
            }
            _ => return missing("page"),
        };
        let asked: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let number = |name: &str| {
            let found = asked.iter().find(|(asked, _)| asked == name);
            found.and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let fits = |thing: &Value| {
            asked.iter().all(|(name, value)| match name.as_str() {
                "page" | "per_page" => true,
                "label_selector" => selected(&thing["labels"], value),
                field => thing[field] == *value,
            })
        };
        let things: Vec<_> = things.into_iter().filter(fits).collect();
        let page = number("page").unwrap_or(1).max(1);
        let size = number("per_page").unwrap_or(25).clamp(1, self.page);
        let (total, last) = (things.len(), things.len().div_ceil(size).max(1));
        let shown: Vec<_> = things
            .into_iter()
            .skip((page - 1) * size)
            .take(size)
            .collect();
        let pagination = json!({
            "page": page, "per_page": size, "last_page": last, "total_entries": total,
            "next_page": (page < last).then_some(page + 1), "previous_page": (page > 1).then_some(page - 1),
        });
        (
            200,
            json!({ name: shown, "meta": { "pagination": pagination } }),
        )
    }

    fn make_key(&mut self, body: &Value) -> Answer {
        let (name, public_key) = (string(body, "name"), string(body, "public_key"));
        if name.is_empty() || !public_key.starts_with("ssh-") {
            return wrong("name or public key");
        }
        let is_taken = |key: &Key| key.name == name || key.public_key == public_key;
        if self.keys.values().any(is_taken) {
            return taken();
        }
        let id = self.next();
        let labels = labels(body);
        let key = Key {
            id,
            name,
            labels,
            public_key,
        };
        let shown = json!({ "ssh_key": key.shown() });
        self.keys.insert(id, key);
        (201, shown)
    }

    /// All servers have this address.
    pub(super) fn move_to(&mut self, address: &str) {
        self.address = Some(address.to_owned());
        for server in self.servers.values_mut() {
            server.address = self.address.clone();
        }
    }

    fn make_firewall(&mut self, body: &Value) -> Answer {
        let name = string(body, "name");
        let Some(rules) = rules(body) else {
            return wrong("rules");
        };
        if self.firewalls.values().any(|one| one.name == name) {
            return taken();
        }
        let id = self.next();
        let labels = labels(body);
        let firewall = Firewall {
            id,
            name,
            labels,
            rules,
        };
        let shown = json!({ "firewall": firewall.shown(&[]), "actions": [] });
        self.firewalls.insert(id, firewall);
        (201, shown)
    }

    fn set_rules(&mut self, id: u64, body: &Value) -> Answer {
        let Some(rules) = rules(body) else {
            return wrong("rules");
        };
        let Some(firewall) = self.firewalls.get_mut(&id) else {
            return missing("firewall");
        };
        firewall.rules = rules;
        (201, json!({ "actions": [] }))
    }

    fn make_server(&mut self, body: &Value) -> Result<Answer, Answer> {
        let name = string(body, "name");
        let host = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(host) {
            return Err(wrong("name"));
        }
        if self.servers.values().any(|server| server.name == name) {
            return Err(taken());
        }
        let location = string(body, "location");
        let mut known = catalog::locations().into_iter();
        let location = known
            .find(|one| one["name"] == location)
            .ok_or_else(|| wrong("location"))?;
        let place = string(&location, "name");
        let kind = type_in(&string(body, "server_type"), &place);
        let kind = kind.ok_or_else(|| wrong("unsupported server type"))?;
        let image = string(body, "image");
        let number = image.parse::<u64>().ok();
        let fits = |one: &Value| {
            let is_named = one["name"] == image && one["type"] == "system";
            (is_named || one["id"].as_u64() == number)
                && one["architecture"] == kind["architecture"]
                && one["status"] == "available"
        };
        let mut images = catalog::images().into_iter();
        let image = images.rfind(fits);
        let image = image.ok_or_else(|| wrong("image"))?;
        if string(body, "user_data").len() > MOST_USER_DATA {
            return Err(wrong("user_data is too long"));
        }
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let mut firewalls = Vec::new();
        for one in list("firewalls") {
            let id = one["firewall"].as_u64();
            let id = id.filter(|id| self.firewalls.contains_key(id));
            firewalls.push(id.ok_or_else(|| missing("firewall"))?);
        }
        let keys = list("ssh_keys");
        for one in &keys {
            let named = one.as_str().unwrap_or_default();
            let fits = |key: &Key| key.name == named || key.id.to_string() == named;
            if !self.keys.values().any(fits) {
                return Err(missing("SSH key"));
            }
        }
        let id = self.next();
        let actions = vec![
            self.begin("create_server", id),
            self.begin("start_server", id),
        ];
        let password = keys.is_empty().then_some("made-for-root");
        let server = Server {
            id,
            name,
            status: "initializing",
            labels: labels(body),
            kind,
            image,
            location,
            firewalls,
            address: self.address.clone(),
            actions: actions.clone(),
        };
        let answer = json!({
            "server": server.shown(), "action": self.actions[&actions[0]].shown(),
            "next_actions": [self.actions[&actions[1]].shown()], "root_password": password,
        });
        self.servers.insert(id, server);
        Ok((201, answer))
    }

    fn remove_server(&mut self, id: u64) -> Answer {
        let Some(server) = self.servers.get(&id) else {
            return missing("server");
        };
        if server.status == "deleting" {
            return refusal(423, "locked", "server is locked");
        }
        let action = self.begin("delete_server", id);
        let server = self.servers.get_mut(&id).expect("it is there");
        server.status = "deleting";
        server.actions = vec![action];
        (200, json!({ "action": self.actions[&action].shown() }))
    }

    fn begin(&mut self, command: &str, server: u64) -> u64 {
        let failing = self.failing.iter().position(|(name, _)| name == command);
        let error = failing.map(|at| self.failing.remove(at).1);
        let id = self.next();
        let action = Action {
            id,
            command: command.to_owned(),
            server,
            left: LOOKS,
            error,
        };
        self.actions.insert(id, action);
        id
    }

    /// A look at a server is a look at what is done with it.
    fn look(&mut self, server: u64) {
        let server = self.servers.get(&server);
        if let Some(action) = server.and_then(|server| server.actions.first()) {
            self.advance(*action);
        }
    }

    /// Time goes on with each look.
    fn advance(&mut self, id: u64) {
        if self.stands_still {
            return;
        }
        let Some(action) = self.actions.get_mut(&id) else {
            return;
        };
        let Some(server) = self.servers.get_mut(&action.server) else {
            action.left = 0;
            return;
        };
        // What is not the next has to wait.
        if action.left == 0 || server.actions.first() != Some(&id) {
            return;
        }
        action.left -= 1;
        if action.left > 0 {
            return;
        }
        server.actions.remove(0);
        match (action.command.as_str(), &action.error) {
            (_, Some(_)) => {
                server.status = "off";
                server.actions.clear();
            }
            ("create_server", None) => server.status = "off",
            ("start_server", None) => server.status = "running",
            _ => drop(self.servers.remove(&action.server)),
        }
    }
}

fn labels(body: &Value) -> Value {
    match &body["labels"] {
        Value::Null => json!({}),
        labels => labels.clone(),
    }
}

/// Rules, if each lets something in from networks that are some.
fn rules(body: &Value) -> Option<Vec<Value>> {
    let rules = body["rules"].as_array().cloned().unwrap_or_default();
    let is_network = |network: &Value| {
        let (address, length) = network.as_str()?.split_once('/')?;
        address.parse::<IpAddr>().ok()?;
        length.parse::<u8>().ok()
    };
    let fits = |rule: &Value| {
        let from = rule["source_ips"].as_array();
        from.is_some_and(|from| {
            !from.is_empty() && from.iter().all(|one| is_network(one).is_some())
        })
    };
    rules.iter().all(fits).then_some(rules)
}

/// Whether labels are those that a selector wants: `key==value` and `key=value`, with commas between.
fn selected(labels: &Value, selector: &str) -> bool {
    selector.split(',').all(|part| match part.split_once('=') {
        Some((key, value)) => labels[key] == value.trim_start_matches('='),
        None => !labels[part].is_null(),
    })
}
