//! The fence by programs of `bpf/fence.c`, which the kernel runs for each frame on the tap.
//!
//! | Map | Holds |
//! | --- | --- |
//! | `SETTINGS` | addresses of guest and gateway |
//! | `GRANTS` | the policy's table, looked up by longest prefix |
//! | `PINNED` | addresses of names, each with its end on the monotonic clock |
//! | `LIVE` | flows that the guest began; the least lately used one makes room |
//! | `SEEN` | the other sides of flows and refusals; the same |
//! | `TALLY` | counters |
//! | `BUCKETS` | tokens: bytes out, bytes in, new flows |
//!
//! The programs are attached by netlink and not by a link's descriptor (`BPF_LINK_CREATE`): such a one
//! would end with this process, a moment before a VMM that outlives it is killed. Source: Linux,
//! `Documentation/bpf`, tc-bpf(8).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use aya::EbpfLoader;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use aya::programs::SchedClassifier;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcAttachType, qdisc_add_clsact};
use firelane_sys::network::Namespace;
use rustix::time::{ClockId, clock_gettime};

use super::tally::{Count, MAX_LISTED, Meeting, Tally};
use super::{Fence, FenceError, FenceKind, MAX_PINNED};
use crate::plan;
use crate::policy::{MAX_SPANS, Policy, Span, Table};

/// The programs, compiled; see `cargo xtask bpf`.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/fence.o");

/// Bytes of `struct grant`.
const GRANT: usize = 16 + MAX_SPANS * 8;
/// Bytes of `struct bucket`.
const BUCKET: usize = 40;

/// The fence.
pub(crate) struct Ebpf {
    programs: aya::Ebpf,
    /// The ports of each rule, by number.
    spans: Vec<Span>,
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FenceError {
    FenceError::Ebpf(error.into())
}

impl Ebpf {
    /// Raises it on the tap in this namespace.
    pub(crate) fn raise(
        inner: &Namespace,
        policy: &Policy,
        table: &Table,
    ) -> Result<Self, FenceError> {
        let mut programs = EbpfLoader::new()
            .map_max_entries("LIVE", policy.flows_at_once)
            .load(OBJECT)
            .map_err(refused)?;
        fill(&mut programs, policy, table)?;
        inner
            .inside(|| attach(&mut programs))
            .map_err(FenceError::Enter)??;
        let spans = policy.rules.iter().map(|rule| rule.span).collect();
        Ok(Self { programs, spans })
    }

    fn map(&self, name: &str) -> Result<&Map, FenceError> {
        self.programs.map(name).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> FenceError {
    refused(format!("the object has no {name}"))
}

fn attach(programs: &mut aya::Ebpf) -> Result<(), FenceError> {
    qdisc_add_clsact(plan::TAP).map_err(refused)?;
    let ways = [
        ("from_guest", TcAttachType::Ingress),
        ("to_guest", TcAttachType::Egress),
    ];
    for (name, way) in ways {
        let program = programs.program_mut(name).ok_or_else(|| missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        let options = TcAttachOptions::Netlink(NlOptions::default());
        let link = program
            .attach_with_options(plan::TAP, way, options)
            .map_err(refused)?;
        // The program stays on the tap for as long as there is one: it must not be dropped with us.
        std::mem::forget(program.take_link(link).map_err(refused)?);
    }
    Ok(())
}

fn fill(programs: &mut aya::Ebpf, policy: &Policy, table: &Table) -> Result<(), FenceError> {
    let map = programs
        .map_mut("SETTINGS")
        .ok_or_else(|| missing("SETTINGS"))?;
    let mut settings: Array<_, [u8; 20]> = Array::try_from(map).map_err(refused)?;
    settings.set(0, addresses(), 0).map_err(refused)?;

    let map = programs
        .map_mut("GRANTS")
        .ok_or_else(|| missing("GRANTS"))?;
    let mut grants: LpmTrie<_, [u8; 4], [u8; GRANT]> = LpmTrie::try_from(map).map_err(refused)?;
    for (prefix, grant) in table.entries() {
        let key = Key::new(prefix.bits().into(), prefix.address().octets());
        let value = grant_bytes(&grant.spans, grant.blocked, 0);
        grants.insert(&key, value, 0).map_err(refused)?;
    }

    let map = programs
        .map_mut("BUCKETS")
        .ok_or_else(|| missing("BUCKETS"))?;
    let mut buckets: Array<_, [u8; BUCKET]> = Array::try_from(map).map_err(refused)?;
    let rates = [
        policy.bytes_per_second,
        policy.bytes_per_second,
        policy.flows_per_second,
    ];
    for (index, rate) in (0..).zip(rates) {
        buckets.set(index, bucket_bytes(rate), 0).map_err(refused)?;
    }
    Ok(())
}

/// `struct settings`.
fn addresses() -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..6].copy_from_slice(&plan::GUEST_MAC);
    bytes[6..12].copy_from_slice(&plan::GATEWAY_MAC);
    bytes[12..16].copy_from_slice(&plan::GUEST.octets());
    bytes[16..].copy_from_slice(&plan::GATEWAY.octets());
    bytes
}

/// `struct grant`.
fn grant_bytes(spans: &BTreeSet<Span>, blocked: bool, expires_ns: u64) -> [u8; GRANT] {
    let mut bytes = [0; GRANT];
    let count = u32::try_from(spans.len().min(MAX_SPANS)).unwrap_or_default();
    bytes[..8].copy_from_slice(&expires_ns.to_ne_bytes());
    bytes[8..12].copy_from_slice(&count.to_ne_bytes());
    bytes[12..16].copy_from_slice(&u32::from(blocked).to_ne_bytes());
    for (slot, span) in bytes[16..].chunks_exact_mut(8).zip(spans) {
        slot[..2].copy_from_slice(&span.first.to_ne_bytes());
        slot[2..4].copy_from_slice(&span.last.to_ne_bytes());
        slot[4] = span.protocol.number();
    }
    bytes
}

/// `struct bucket`, full: a second's worth.
fn bucket_bytes(rate: u64) -> [u8; BUCKET] {
    let mut bytes = [0; BUCKET];
    bytes[8..16].copy_from_slice(&rate.to_ne_bytes());
    bytes[16..24].copy_from_slice(&now_ns().to_ne_bytes());
    bytes[24..32].copy_from_slice(&rate.to_ne_bytes());
    bytes[32..].copy_from_slice(&rate.to_ne_bytes());
    bytes
}

/// The clock of `bpf_ktime_get_ns`, bpf-helpers(7).
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

/// What of a pinned address still holds: its ports and its end.
fn read_pin(bytes: &[u8; GRANT], spans: &[Span]) -> (BTreeSet<Span>, u64) {
    let count = u32::from_ne_bytes(number(bytes, 8)) as usize;
    let slots: Vec<&[u8]> = bytes[16..].chunks_exact(8).take(count).collect();
    let holds = |span: &Span| {
        let only = BTreeSet::from([*span]);
        slots.contains(&&grant_bytes(&only, false, 0)[16..24])
    };
    let held = spans.iter().filter(|span| holds(span)).copied().collect();
    (held, u64::from_ne_bytes(number(bytes, 0)))
}

impl Fence for Ebpf {
    fn kind(&self) -> FenceKind {
        FenceKind::Ebpf
    }

    fn pin(
        &mut self,
        address: Ipv4Addr,
        rules: &[usize],
        lasts: Duration,
    ) -> Result<(), FenceError> {
        let map = self
            .programs
            .map_mut("PINNED")
            .ok_or_else(|| missing("PINNED"))?;
        let mut pinned: HashMap<_, [u8; 4], [u8; GRANT]> =
            HashMap::try_from(map).map_err(refused)?;
        let now = now_ns();
        let mut held = 0;
        let mut over = Vec::new();
        for entry in pinned.iter() {
            let (key, value) = entry.map_err(refused)?;
            held += 1;
            if u64::from_ne_bytes(number(&value, 0)) <= now {
                over.push(key);
            }
        }
        for key in &over {
            pinned.remove(key).map_err(refused)?;
        }
        let key = address.octets();
        let before = pinned.get(&key, 0).ok();
        if before.is_none() && held - over.len() >= MAX_PINNED {
            return Err(FenceError::Full);
        }
        let mut spans: BTreeSet<Span> = rules
            .iter()
            .filter_map(|rule| self.spans.get(*rule))
            .copied()
            .collect();
        let mut end = now + u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX / 2);
        if let Some((held, until)) = before.map(|bytes| read_pin(&bytes, &self.spans)) {
            spans.extend(held);
            end = end.max(until);
        }
        if spans.len() > MAX_SPANS {
            return Err(FenceError::Full);
        }
        pinned
            .insert(key, grant_bytes(&spans, false, end), 0)
            .map_err(refused)
    }

    fn tally(&self) -> Result<Tally, FenceError> {
        let counters: Array<_, u64> = Array::try_from(self.map("TALLY")?).map_err(refused)?;
        let mut tally = Tally::default();
        for (index, count) in (0..).zip(Count::ALL) {
            let times = counters.get(&index, 0).map_err(refused)?;
            if times > 0 {
                tally.counts.insert(*count, times);
            }
        }
        tally.meetings = meetings(self.map("SEEN")?)?;
        Ok(tally)
    }
}

/// The latest first.
fn meetings(map: &Map) -> Result<Vec<Meeting>, FenceError> {
    let seen: HashMap<&MapData, [u8; 8], [u8; 16]> = HashMap::try_from(map).map_err(refused)?;
    let mut meetings = Vec::new();
    for entry in seen.iter().take(2 * MAX_LISTED) {
        let (key, value) = entry.map_err(refused)?;
        let Some(count) = Count::ALL.get(usize::from(key[7])) else {
            continue;
        };
        let meeting = Meeting {
            count: *count,
            address: Ipv4Addr::from(number::<4>(&key, 0)),
            port: u16::from_be_bytes(number(&key, 4)),
            protocol: key[6],
            times: u64::from_ne_bytes(number(&value, 0)),
        };
        meetings.push((u64::from_ne_bytes(number(&value, 8)), meeting));
    }
    meetings.sort_by_key(|(last_ns, _)| std::cmp::Reverse(*last_ns));
    Ok(meetings.into_iter().map(|(_, meeting)| meeting).collect())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::policy::Protocol;

    #[test]
    fn the_object_is_that_of_its_source() {
        let sums = include_str!("../../bpf/SHA256SUMS");
        let files: [(&str, &[u8]); 2] = [
            ("fence.c", include_bytes!("../../bpf/fence.c")),
            ("fence.o", OBJECT),
        ];
        for (name, bytes) in files {
            let hash: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let line = format!("{hash}  {name}");
            assert!(
                sums.lines().any(|own| own == line),
                "{name}: run `cargo xtask bpf`"
            );
        }
    }

    #[test]
    fn the_object_names_no_path_of_the_machine_that_made_it() {
        for path in [&b"/home/"[..], b"/tmp/", b"/work/", b"/root/"] {
            assert!(!OBJECT.windows(path.len()).any(|bytes| bytes == path));
        }
    }

    #[test]
    fn counts_have_the_order_of_the_source() {
        let source = include_str!("../../bpf/fence.c");
        let list = source
            .split_once("enum count {")
            .unwrap()
            .1
            .split_once("COUNTS")
            .unwrap()
            .0;
        let names: Vec<String> = list
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .collect();
        let own: Vec<&str> = Count::ALL.iter().map(|count| count.name()).collect();
        assert_eq!(names[..own.len()], own);
        assert_eq!(names.len(), own.len() + 1, "{names:?}");
    }

    #[test]
    fn a_pin_is_read_as_it_was_written() {
        let span = |protocol, first, last| Span {
            protocol,
            first,
            last,
        };
        let all = [
            span(Protocol::Tcp, 1, 65535),
            span(Protocol::Udp, 53, 53),
            span(Protocol::Tcp, 443, 443),
        ];
        let pinned = BTreeSet::from([all[0], all[2]]);
        assert_eq!(
            read_pin(&grant_bytes(&pinned, false, 77), &all),
            (pinned, 77)
        );
    }
}
