//! A sandbox's namespace, with its tap and its way out.
//!
//! ```text
//!   sandbox's namespace                               host's namespace
//!   guest ── tap0 ─ fence ─ forwarding ─ NAT ─ out0 ═══ fln<hash> ─ NAT ─ the host's routes
//!            192.0.0.1                  198.18.x.y     198.18.x.z
//! ```
//!
//! On the host there are a device and a table of the packet filter, both named by a hash of the
//! sandbox's id. The kernel removes the device with the namespace, whose holders are the process that
//! made it and the VMM; the table is removed by [`Link::remove`], or by the next [`sweep`].

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use firelane_sys::network::{Namespace, Tap};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

use crate::plan::{self, GATEWAY, GUEST, OUTSIDE, PREFIX, TAP, WAY_OUT};
use crate::policy::{Place, Policy};
use crate::program::{ProgramError, ip, ip_json, nft, nft_json};

/// Hexadecimal digits of the hash in a name.
const DIGITS: usize = 12;

/// Why a sandbox's link could not be made, or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refuses a namespace.
    #[error("cannot make a network namespace")]
    Namespace(#[source] io::Error),
    /// The kernel refuses a tap.
    #[error("cannot make a tap")]
    Tap(#[source] io::Error),
    /// A setting of the kernel's cannot be read or written.
    #[error("cannot set {setting}")]
    Setting {
        /// Its path.
        setting: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host does not pass packets on.
    #[error("the host does not forward IPv4")]
    NoForwarding,
    /// Another device has the addresses.
    #[error("{address} is in use on the host, by something else than Firelane")]
    AddressInUse {
        /// One of them.
        address: Ipv4Addr,
    },
    /// A program that was to change the network.
    #[error("cannot {step}")]
    Step {
        /// What it was to do.
        step: &'static str,
        /// Why not.
        #[source]
        source: ProgramError,
    },
}

impl LinkError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            LinkError::NoForwarding => Some("sysctl -w net.ipv4.ip_forward=1"),
            LinkError::Namespace(_) => Some("networks need root"),
            LinkError::Tap(_) => Some("modprobe tun"),
            LinkError::Step { source, .. } => source.remedy(),
            _ => None,
        }
    }
}

fn step<T>(step: &'static str, done: Result<T, ProgramError>) -> Result<T, LinkError> {
    done.map_err(|source| LinkError::Step { step, source })
}

/// The devices of one sandbox.
#[derive(Debug)]
pub(crate) struct Link {
    /// The host's namespace: that of the thread that made the link.
    outer: Namespace,
    /// The sandbox's.
    pub(crate) inner: Namespace,
    pub(crate) tap: Tap,
    /// The way out as it is named on the host; the table has the same name.
    pub(crate) name: String,
    removed: bool,
}

impl Link {
    /// Makes the namespace and the tap. Nothing passes yet: see [`Link::connect`].
    pub(crate) fn new(id: &str) -> Result<Self, LinkError> {
        let outer = Namespace::current().map_err(LinkError::Namespace)?;
        let inner = Namespace::new().map_err(LinkError::Namespace)?;
        let tap = inner
            .inside(|| {
                set("net/ipv6/conf/all/disable_ipv6", "1")?;
                set("net/ipv6/conf/default/disable_ipv6", "1")?;
                set("net/ipv4/ip_forward", "1")?;
                set("net/ipv4/conf/all/accept_redirects", "0")?;
                set("net/ipv4/conf/all/send_redirects", "0")?;
                Tap::new(TAP).map_err(LinkError::Tap)
            })
            .map_err(LinkError::Namespace)??;
        Ok(Self {
            outer,
            inner,
            tap,
            name: name(id),
            removed: false,
        })
    }

    /// Connects it to the host, and through that to everything else: the fence stands by now.
    pub(crate) fn connect(&self, policy: &Policy, host: &[Ipv4Addr]) -> Result<(), LinkError> {
        let (outside, inside) = self.outside(|| self.connect_outside(policy, host))??;
        let enter = self.inner.inside(|| connect_inside(outside, inside));
        enter.map_err(LinkError::Namespace)?
    }

    fn connect_outside(
        &self,
        policy: &Policy,
        host: &[Ipv4Addr],
    ) -> Result<(Ipv4Addr, Ipv4Addr), LinkError> {
        let name = &self.name;
        if read("net/ipv4/ip_forward")?.trim() != "1" {
            return Err(LinkError::NoForwarding);
        }
        let inner = self.inner.path();
        let pair = format!(
            "link add name {name} type veth peer name {WAY_OUT} netns {}",
            inner.display()
        );
        step("make the way out of the namespace", ip(&[pair]))?;
        set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        let (outside, inside) = plan::link(index(name)?);
        let held = step(
            "list addresses",
            ip_json(&["-4", "address", "show", "to", &format!("{outside}/31")]),
        )?;
        let taken = |link: &serde_json::Value| {
            link["addr_info"]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        };
        if held.as_array().is_some_and(|links| links.iter().any(taken)) {
            return Err(LinkError::AddressInUse { address: outside });
        }
        step(
            "filter on the host",
            nft(&host_rules(name, inside, &named(policy, host))),
        )?;
        let lines = [
            format!("address add {outside}/31 dev {name}"),
            format!("link set {name} up"),
        ];
        step("connect the way out", ip(&lines))?;
        Ok((outside, inside))
    }

    /// Removes what is on the host.
    pub(crate) fn remove(&mut self) -> Result<(), LinkError> {
        if self.removed {
            return Ok(());
        }
        let name = &self.name;
        self.outside(|| {
            if index(name).is_ok() {
                step("remove the way out", ip(&[format!("link delete {name}")]))?;
            }
            delete_table(name)
        })??;
        self.removed = true;
        Ok(())
    }

    fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LinkError> {
        self.outer.inside(work).map_err(LinkError::Namespace)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(name = self.name, %error, "a sandbox's network is left for the next sweep");
        }
    }
}

/// The name of a sandbox's device and table on the host.
pub(crate) fn name(id: &str) -> String {
    let hash = blake3::hash(id.as_bytes()).to_hex();
    format!("{OUTSIDE}{}", &hash[..DIGITS])
}

/// Whether something of that name is one of ours.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(OUTSIDE).is_some_and(|hash| {
        hash.len() == DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// All addresses of the host.
pub(crate) fn host_addresses() -> Result<Vec<Ipv4Addr>, LinkError> {
    let links = step("list addresses", ip_json(&["-4", "address", "show"]))?;
    let lists = links.as_array().into_iter().flatten();
    let lists = lists.filter_map(|link| link["addr_info"].as_array());
    let texts = lists.flatten().filter_map(|entry| entry["local"].as_str());
    Ok(texts.filter_map(|text| text.parse().ok()).collect())
}

/// Those addresses of the host that a rule names.
fn named(policy: &Policy, host: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let named = |address: &&Ipv4Addr| {
        policy.rules.iter().any(|rule| match rule.place {
            Place::Addresses(prefix) => prefix.bits() == 32 && prefix.has(**address),
            _ => false,
        })
    };
    host.iter().filter(named).copied().collect()
}

/// What holds on the host for one way out: only answers come in by it, and of the host itself it reaches what
/// is named, also if the host gets addresses later.
fn host_rules(name: &str, inside: Ipv4Addr, named: &[Ipv4Addr]) -> String {
    let open: String = named
        .iter()
        .map(|address| format!("iifname \"{name}\" ip daddr {address} accept\n"))
        .collect();
    format!(
        "table ip {name} {{
chain input {{
type filter hook input priority 0; policy accept;
{open}iifname \"{name}\" drop
}}
chain forward {{
type filter hook forward priority 0; policy accept;
iifname \"{name}\" ip saddr != {inside} drop
iifname \"{name}\" oifname \"{OUTSIDE}*\" drop
oifname \"{name}\" ct state != {{ established, related }} drop
}}
chain postrouting {{
type nat hook postrouting priority 100; policy accept;
ip saddr {inside} oifname != \"{name}\" masquerade
}}
}}
"
    )
}

fn connect_inside(outside: Ipv4Addr, inside: Ipv4Addr) -> Result<(), LinkError> {
    let gateway_mac = plan::mac_text(plan::GATEWAY_MAC);
    let guest_mac = plan::mac_text(plan::GUEST_MAC);
    let rules = format!(
        "table ip firelane_nat {{
chain postrouting {{
type nat hook postrouting priority 100; policy accept;
oifname \"{WAY_OUT}\" masquerade
}}
}}
"
    );
    step("translate addresses", nft(&rules))?;
    let mtu = plan::MTU;
    let lines = [
        "link set lo up".to_owned(),
        format!("link set {TAP} address {gateway_mac} mtu {mtu} up"),
        format!("address add {GATEWAY}/{PREFIX} dev {TAP}"),
        format!("neighbour replace {GUEST} lladdr {guest_mac} dev {TAP} nud permanent"),
        format!("address add {inside}/31 dev {WAY_OUT}"),
        format!("link set {WAY_OUT} up"),
        format!("route add default via {outside} dev {WAY_OUT}"),
    ];
    step("number the sandbox's devices", ip(&lines))
}

/// Removes the tables of ways out that are gone, in the namespace of the calling thread: their owners were
/// killed. Tells how many there were.
///
/// # Errors
/// [`LinkError`] if the packet filter does not list or remove them.
pub fn sweep() -> Result<usize, LinkError> {
    let mut removed = 0;
    for name in tables()? {
        if is_ours(&name) && index(&name).is_err() {
            delete_table(&name)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn tables() -> Result<Vec<String>, LinkError> {
    let listed = step("list tables", nft_json(&["list", "tables", "ip"]))?;
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let names = objects.filter_map(|object| object["table"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// One that somebody else has just removed is gone too.
fn delete_table(name: &str) -> Result<(), LinkError> {
    match nft(&format!("delete table ip {name}\n")) {
        Err(_) if !tables()?.iter().any(|table| table == name) => Ok(()),
        done => step("remove the host's rules", done),
    }
}

/// The number of a device.
fn index(name: &str) -> Result<u32, LinkError> {
    let number = || name_to_index(socket(AddressFamily::INET, SocketType::DGRAM, None)?, name);
    number().map_err(|error| LinkError::Setting {
        setting: name.to_owned(),
        source: error.into(),
    })
}

fn set(setting: &str, value: &str) -> Result<(), LinkError> {
    let path = format!("/proc/sys/{setting}");
    match fs::write(&path, value) {
        // A kernel without IPv6 has nothing to turn off.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && setting.starts_with("net/ipv6/") =>
        {
            Ok(())
        }
        done => done.map_err(|source| LinkError::Setting {
            setting: path,
            source,
        }),
    }
}

fn read(setting: &str) -> Result<String, LinkError> {
    let path = format!("/proc/sys/{setting}");
    fs::read_to_string(&path).map_err(|source| LinkError::Setting {
        setting: path,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_device_and_are_recognised() {
        let name = name("some-microvm");
        assert!(
            name.len() <= firelane_sys::network::MAX_DEVICE_NAME,
            "{name}"
        );
        assert!(is_ours(&name));
        for other in ["fln", "flannel.1", "fln-00000000000", "fln0123456789abc"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
