//! Which hosts there are. Each holds a lease that its reports renew: one that is silent gets no work,
//! and what it had is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_wire::bus::ReportHost;
use firelane_wire::host::Host;
use tokio::time::Instant;

/// How long a host may be silent.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The hosts that have reported.
#[derive(Default)]
pub(crate) struct Hosts {
    all: BTreeMap<String, Known>,
}

struct Known {
    host: Host,
    draining: bool,
    seen: Instant,
    /// Runs that it was given and that have not ended.
    given: u32,
}

impl Hosts {
    /// Takes a host's word of how it is. Whether it was not there before.
    pub(crate) fn report(&mut self, report: ReportHost, now: Instant) -> bool {
        let ReportHost { host, draining } = report;
        let is_new = !self.is_there(&host.id, now);
        let given = self.all.get(&host.id).map_or(0, |known| known.given);
        let known = Known {
            host,
            draining,
            seen: now,
            given,
        };
        self.all.insert(known.host.id.clone(), known);
        is_new
    }

    /// The host that gets the next run, if one has a free slot: the one with the most. One slot of it
    /// is taken from now on.
    pub(crate) fn take_slot(&mut self, now: Instant) -> Option<String> {
        let free = |known: &Known| known.host.slots.saturating_sub(known.given);
        let able = self.all.values_mut().filter(|known| known.takes_work(now));
        let best = able
            .filter(|known| free(known) > 0)
            .max_by_key(|known| free(known))?;
        best.given += 1;
        Some(best.host.id.clone())
    }

    /// A run that the host was given has ended.
    pub(crate) fn free_slot(&mut self, host: &str) {
        if let Some(known) = self.all.get_mut(host) {
            known.given = known.given.saturating_sub(1);
        }
    }

    /// Whether the host has told of itself lately.
    pub(crate) fn is_there(&self, host: &str, now: Instant) -> bool {
        self.all.get(host).is_some_and(|known| known.is_there(now))
    }

    /// Whether a host is there and takes work.
    pub(crate) fn takes_work(&self, host: &str, now: Instant) -> bool {
        let known = self.all.get(host);
        known.is_some_and(|known| known.takes_work(now))
    }

    /// The hosts that take work.
    pub(crate) fn able(&self, now: Instant) -> impl Iterator<Item = &str> {
        let able = self.all.values().filter(move |known| known.takes_work(now));
        able.map(|known| known.host.id.as_str())
    }

    /// Runs that can run at once, of all hosts.
    pub(crate) fn slots(&self, now: Instant) -> u32 {
        let able = self.all.values().filter(|known| known.takes_work(now));
        able.map(|known| known.host.slots).sum()
    }

    /// Runs that hosts were given and that have not ended.
    pub(crate) fn given(&self) -> u32 {
        self.all.values().map(|known| known.given).sum()
    }

    /// The hosts that are there.
    pub(crate) fn list(&self, now: Instant) -> Vec<Host> {
        let there = self.all.values().filter(|known| known.is_there(now));
        there.map(|known| known.host.clone()).collect()
    }
}

impl Known {
    fn is_there(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < LEASE
    }

    fn takes_work(&self, now: Instant) -> bool {
        self.is_there(now) && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, slots: u32, draining: bool) -> ReportHost {
        ReportHost {
            host: Host {
                id: id.into(),
                driver: "qemu".into(),
                acceleration: "tcg".into(),
                slots,
                running: 0,
                sandboxes: 0,
                pools: Vec::new(),
                standing: Default::default(),
                version: "1".into(),
            },
            draining,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_go_where_most_is_free_and_never_over_the_slots() {
        let mut hosts = Hosts::default();
        let now = Instant::now();
        assert!(hosts.report(report("a", 1, false), now));
        assert!(hosts.report(report("b", 2, false), now));
        let mut given: Vec<_> = (0..3).map_while(|_| hosts.take_slot(now)).collect();
        assert_eq!(given[0], "b");
        given.sort();
        assert_eq!(given, ["a", "b", "b"]);
        assert_eq!(hosts.take_slot(now), None);
        // A report does not forget what was given.
        assert!(!hosts.report(report("b", 2, false), now));
        assert_eq!(hosts.take_slot(now), None);
        hosts.free_slot("a");
        assert_eq!(hosts.take_slot(now).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_or_drains_gets_nothing() {
        let mut hosts = Hosts::default();
        let now = Instant::now();
        hosts.report(report("a", 1, false), now);
        hosts.report(report("b", 1, true), now);
        assert_eq!(hosts.slots(now), 1);
        assert_eq!(hosts.take_slot(now).as_deref(), Some("a"));
        hosts.free_slot("a");
        let later = now + LEASE;
        assert_eq!(hosts.take_slot(later), None);
        assert!(!hosts.is_there("a", later));
        assert_eq!(hosts.list(later), []);
        assert!(hosts.report(report("a", 1, false), later));
        assert_eq!(hosts.able(later).collect::<Vec<_>>(), ["a"]);
        assert!(hosts.takes_work("a", later) && !hosts.takes_work("b", later));
    }
}
