//! The fence by rules of the kernel's packet filter, for kernels that refuse the programs.
//!
//! Table `netdev firelane` looks at frames as the tap gets them from the guest; table `ip firelane`
//! decides about flows, with the kernel's connection tracking in the place of the programs' flow table.
//! A ruleset is taken as a whole or not at all. Source: nft(8) of nftables 1.0.6.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use firelane_sys::network::Namespace;
use serde_json::Value;

use super::tally::{Count, MAX_LISTED, Meeting, Tally};
use super::{Fence, FenceError, FenceKind, MAX_PINNED};
use crate::plan::{self, DNS_PORT, GATEWAY, GUEST, TAP};
use crate::policy::{Place, Policy, Span, Table};
use crate::program::{ProgramError, nft, nft_json};

/// Counted by table `netdev firelane`.
const FRAMES: &[Count] = &[
    Count::PacketsOut,
    Count::Ethertype,
    Count::Ipv6,
    Count::SourceMac,
    Count::SourceAddress,
    Count::Arp,
    Count::Malformed,
    Count::Fragment,
    Count::Protocol,
    Count::Rate,
];
/// Counted by table `ip firelane`.
const PACKETS: &[Count] = &[
    Count::PacketsIn,
    Count::Flows,
    Count::Denied,
    Count::Blocked,
    Count::Rate,
    Count::FlowRate,
    Count::FlowTable,
    Count::Unsolicited,
];
/// Those of them whose other sides are listed.
const LISTED: &[Count] = &[Count::Flows, Count::Denied, Count::Blocked];

/// The fence.
pub(crate) struct Nft {
    inner: Namespace,
    /// Until when addresses are pinned, by the number of a rule.
    pinned: BTreeMap<(Ipv4Addr, usize), Instant>,
}

impl Nft {
    /// Raises it on the tap in this namespace.
    pub(crate) fn raise(
        inner: &Namespace,
        policy: &Policy,
        table: &Table,
    ) -> Result<Self, FenceError> {
        let ruleset = frames(policy) + &packets(policy, table);
        let inner = inner.try_clone().map_err(FenceError::Enter)?;
        let fence = Self {
            inner,
            pinned: BTreeMap::new(),
        };
        fence.inside(|| nft(&ruleset))?;
        Ok(fence)
    }

    fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, ProgramError> + Send,
    ) -> Result<T, FenceError> {
        self.inner
            .inside(work)
            .map_err(FenceError::Enter)?
            .map_err(FenceError::Nftables)
    }
}

fn counters(counts: &[Count]) -> String {
    counts
        .iter()
        .map(|count| format!("counter c_{} {{ }}\n", count.name()))
        .collect()
}

/// What is decided about a frame by itself.
fn frames(policy: &Policy) -> String {
    let (guest, rate) = (plan::mac_text(plan::GUEST_MAC), policy.bytes_per_second);
    let counters = counters(FRAMES);
    format!(
        "table netdev firelane {{
{counters}
chain from_guest {{
type filter hook ingress device \"{TAP}\" priority 0; policy drop;
ether saddr != {guest} counter name c_source_mac drop
ether type ip6 counter name c_ipv6 drop
ether type arp goto arp_from_guest
ether type != ip counter name c_ethertype drop
ip version != 4 counter name c_malformed drop
ip hdrlength != 5 counter name c_malformed drop
ip saddr != {GUEST} counter name c_source_address drop
ip frag-off & 0x3fff != 0 counter name c_fragment drop
ip protocol != {{ tcp, udp }} counter name c_protocol drop
goto rated
}}
chain arp_from_guest {{
arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation {{ request, reply }} \
arp saddr ether {guest} arp saddr ip {GUEST} arp daddr ip {GATEWAY} goto rated
counter name c_arp drop
}}
chain rated {{
limit rate over {rate} bytes/second burst {rate} bytes counter name c_rate drop
counter name c_packets_out accept
}}
}}
"
    )
}

/// What is decided about flows. Before all else, what the kernel would drop by itself, and not count.
fn packets(policy: &Policy, table: &Table) -> String {
    let (rate, flows) = (policy.bytes_per_second, policy.flows_per_second);
    let at_once = policy.flows_at_once;
    let mut text = format!("table ip firelane {{\n{}", counters(PACKETS));
    for count in LISTED {
        let name = count.name();
        text += &format!(
            "set seen_{name} {{ type ipv4_addr . inet_proto . inet_service; size {MAX_LISTED}; flags dynamic; counter; }}\n"
        );
    }
    text += &named(policy);
    text += &addressed(table);
    let note = |count: Count| {
        format!(
            "update @seen_{} {{ ip daddr . meta l4proto . th dport }}",
            count.name()
        )
    };
    text += &format!(
        "chain denied {{\n{}\ncounter name c_denied drop\n}}
chain blocked {{\n{}\ncounter name c_blocked drop\n}}
chain begin {{
ct mark 1 accept
limit rate over {flows}/second burst {flows} packets counter name c_flow_rate drop
ct count over {at_once} counter name c_flow_table drop
{}
ct mark set 1 counter name c_flows accept
}}
chain prerouting {{
type filter hook prerouting priority -150; policy accept;
iifname \"{TAP}\" ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 }} goto blocked
}}
chain input {{
type filter hook input priority 0; policy drop;
iifname \"{TAP}\" ip daddr {GATEWAY} udp dport {DNS_PORT} accept
iifname \"{TAP}\" goto blocked
ct state established,related accept
}}
chain output {{
type filter hook output priority 0; policy accept;
oifname \"{TAP}\" goto rated
}}
chain forward {{
type filter hook forward priority 0; policy drop;
iifname \"{TAP}\" oifname != \"{TAP}\" goto from_guest
oifname \"{TAP}\" ip daddr {GUEST} ct state established,related goto rated
oifname \"{TAP}\" counter name c_unsolicited drop
}}
chain from_guest {{\nct state established ct mark 1 accept\ngoto addressed\n}}
chain rated {{
limit rate over {rate} bytes/second burst {rate} bytes counter name c_rate drop
counter name c_packets_in accept
}}
}}
",
        note(Count::Denied),
        note(Count::Blocked),
        note(Count::Flows),
    );
    // Chains are declared before what jumps to them.
    let declared = [
        "denied",
        "blocked",
        "begin",
        "names",
        "addressed",
        "rated",
        "from_guest",
    ];
    let declared: String = declared
        .iter()
        .map(|name| format!("add chain ip firelane {name}\n"))
        .collect();
    format!("add table ip firelane\n{declared}{text}")
}

/// A set of pinned addresses for each rule about a name, and the chain that asks them.
fn named(policy: &Policy) -> String {
    let mut sets = String::new();
    let mut rules = String::new();
    for (number, rule) in policy.rules.iter().enumerate() {
        if matches!(rule.place, Place::Addresses(_)) {
            continue;
        }
        sets += &format!(
            "set pinned_{number} {{ type ipv4_addr; size {MAX_PINNED}; flags timeout; }}\n"
        );
        let ports = ports(rule.span);
        rules += &format!("ip daddr @pinned_{number} {ports} goto begin\n");
    }
    format!("{sets}chain names {{\n{rules}goto denied\n}}\n")
}

fn ports(span: Span) -> String {
    format!(
        "{} dport {}-{}",
        span.protocol.name(),
        span.first,
        span.last
    )
}

/// A chain for each prefix of the table, and one that finds the longest.
fn addressed(table: &Table) -> String {
    let mut chains = String::new();
    let mut finder = String::from("chain addressed {\n");
    for (number, (prefix, grant)) in table
        .entries()
        .enumerate()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        let (_, otherwise) = (prefix, if grant.blocked { "blocked" } else { "names" });
        let rules = allowed(&grant.spans);
        // Writing to a string does not fail.
        let _ = writeln!(
            chains,
            "chain range_{number} {{\n{rules}goto {otherwise}\n}}"
        );
        let _ = writeln!(finder, "ip daddr {prefix} goto range_{number}");
    }
    format!("{chains}{finder}goto names\n}}\n")
}

fn allowed(spans: &BTreeSet<Span>) -> String {
    spans
        .iter()
        .map(|span| format!("{} goto begin\n", ports(*span)))
        .collect()
}

impl Fence for Nft {
    fn kind(&self) -> FenceKind {
        FenceKind::Nftables
    }

    fn pin(
        &mut self,
        address: Ipv4Addr,
        rules: &[usize],
        lasts: Duration,
    ) -> Result<(), FenceError> {
        let now = Instant::now();
        let end = now + lasts;
        self.pinned.retain(|_, end| *end > now);
        let held = |rule: &&usize| {
            self.pinned
                .get(&(address, **rule))
                .is_none_or(|held| *held < end)
        };
        let rules: Vec<usize> = rules.iter().filter(held).copied().collect();
        if self.pinned.len() + rules.len() > MAX_PINNED {
            return Err(FenceError::Full);
        }
        // An element keeps the time that it was added with: so it is taken out and added in one step.
        let seconds = lasts.as_secs().max(1);
        let lines = rules.iter().map(|rule| {
            let element = |what: &str, more: &str| {
                format!("{what} element ip firelane pinned_{rule} {{ {address}{more} }}\n")
            };
            let timeout = format!(" timeout {seconds}s");
            element("add", &timeout) + &element("delete", "") + &element("add", &timeout)
        });
        let lines: String = lines.collect();
        self.inside(|| nft(&lines))?;
        self.pinned
            .extend(rules.into_iter().map(|rule| ((address, rule), end)));
        Ok(())
    }

    fn tally(&self) -> Result<Tally, FenceError> {
        let (frames, packets) = self.inside(|| {
            let frames = nft_json(&["list", "table", "netdev", "firelane"])?;
            Ok((frames, nft_json(&["list", "table", "ip", "firelane"])?))
        })?;
        let mut tally = Tally::default();
        for object in objects(&frames)?.iter().chain(objects(&packets)?) {
            if let Some(counter) = object.get("counter") {
                read_counter(counter, &mut tally)?;
            } else if let Some(set) = object.get("set") {
                read_set(set, &mut tally)?;
            }
        }
        Ok(tally)
    }
}

fn unreadable(what: &Value) -> FenceError {
    FenceError::Listed {
        reason: format!("{what} is not as expected"),
    }
}

fn objects(listed: &Value) -> Result<&Vec<Value>, FenceError> {
    listed["nftables"]
        .as_array()
        .ok_or_else(|| unreadable(listed))
}

fn read_counter(counter: &Value, tally: &mut Tally) -> Result<(), FenceError> {
    let name = counter["name"]
        .as_str()
        .and_then(|name| name.strip_prefix("c_"));
    let times = counter["packets"]
        .as_u64()
        .ok_or_else(|| unreadable(counter))?;
    let bytes = counter["bytes"]
        .as_u64()
        .ok_or_else(|| unreadable(counter))?;
    let mut add = |count, number| {
        if number > 0 {
            *tally.counts.entry(count).or_default() += number;
        }
    };
    let Some(count) = Count::ALL.iter().find(|count| Some(count.name()) == name) else {
        return Err(unreadable(counter));
    };
    add(*count, times);
    match count {
        Count::PacketsOut => add(Count::BytesOut, bytes),
        Count::PacketsIn => add(Count::BytesIn, bytes),
        _ => {}
    }
    Ok(())
}

fn read_set(set: &Value, tally: &mut Tally) -> Result<(), FenceError> {
    let seen = set["name"]
        .as_str()
        .and_then(|name| name.strip_prefix("seen_"));
    let Some(count) = LISTED.iter().find(|count| Some(count.name()) == seen) else {
        return Ok(());
    };
    for element in set["elem"].as_array().into_iter().flatten() {
        let element = &element["elem"];
        let parts = &element["val"]["concat"];
        let address = parts[0].as_str().and_then(|text| text.parse().ok());
        let port = parts[2].as_u64().and_then(|port| u16::try_from(port).ok());
        let protocol = match parts[1].as_str() {
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            _ => None,
        };
        let (Some(address), Some(port), Some(protocol)) = (address, port, protocol) else {
            return Err(unreadable(element));
        };
        let times = element["counter"]["packets"].as_u64().unwrap_or(1);
        tally.meetings.push(Meeting {
            count: *count,
            address,
            port,
            protocol,
            times,
        });
    }
    Ok(())
}
