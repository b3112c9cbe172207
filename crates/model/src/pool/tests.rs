use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Moment;

const NOW: Moment = Moment::after_origin(Duration::from_secs(1_000));
const SECOND: Duration = Duration::from_secs(1);

fn pool(min: u32, max: u32) -> Pool {
    let max_age = SECOND * 600;
    let config = PoolConfig { min, max, max_age };
    Pool::new(config, NOW)
}

/// A pool with its minimum ready, prepared in no time.
fn filled(min: u32, max: u32) -> Pool {
    let mut pool = pool(min, max);
    for id in pool.plan(NOW).start {
        assert!(pool.ready(id, NOW));
    }
    assert_eq!(pool.plan(NOW), Plan::default());
    pool
}

fn counts(preparing: u32, ready: u32, retiring: u32) -> Counts {
    Counts {
        preparing,
        ready,
        retiring,
    }
}

#[test]
fn the_minimum_is_prepared_and_what_is_claimed_is_replaced() {
    let mut pool = pool(2, 5);
    let first = pool.plan(NOW);
    assert_eq!(first.start.len(), 2);
    assert_eq!(pool.plan(NOW), Plan::default());
    assert_eq!(pool.claim(NOW), None);
    assert!(pool.ready(first.start[0], NOW));
    assert!(!pool.ready(first.start[0], NOW), "it is ready already");
    assert_eq!(pool.claim(NOW), Some(first.start[0]));
    assert_eq!(pool.claim(NOW), None);
    assert_eq!(pool.plan(NOW).start.len(), 1);
    assert_eq!(pool.counts(), counts(2, 0, 0));
    assert_eq!((pool.totals().claimed, pool.totals().missed), (1, 2));
}

#[test]
fn the_oldest_is_claimed_first_and_never_one_too_old() {
    let mut pool = filled(1, 2);
    let late = NOW + SECOND * 590;
    pool.claim(NOW).unwrap();
    let plan = pool.plan(NOW);
    assert!(pool.ready(plan.start[0], late));
    assert_eq!(
        pool.clone().claim(NOW + SECOND * 1_189),
        Some(plan.start[0])
    );
    assert_eq!(pool.claim(NOW + SECOND * 1_190), None);
    let next = pool.plan(NOW + SECOND * 1_190);
    assert_eq!(next.retire, plan.start);
    assert_eq!(next.start.len(), 1);
}

#[test]
fn one_that_soon_is_too_old_is_replaced_while_it_waits() {
    let mut pool = pool(1, 2);
    let first = pool.plan(NOW).start[0];
    let ready = NOW + SECOND * 10;
    assert!(pool.ready(first, ready));
    assert_eq!(pool.plan(ready + SECOND * 579), Plan::default());
    let plan = pool.plan(ready + SECOND * 580);
    assert_eq!((plan.start.len(), plan.retire.len()), (1, 0));
    assert!(pool.ready(plan.start[0], ready + SECOND * 590));
    assert_eq!(pool.clone().claim(ready + SECOND * 599), Some(first));
    assert_eq!(pool.plan(ready + SECOND * 600).retire, [first]);
}

#[test]
fn the_pool_grows_ahead_of_the_demand_and_shrinks_after_it() {
    let mut pool = pool(1, 10);
    let mut now = NOW;
    let mut preparing = Vec::new();
    // Two claims each second, one second to prepare.
    for _ in 0..600 {
        pool.claim(now);
        preparing.extend(
            pool.plan(now)
                .start
                .into_iter()
                .map(|id| (now + SECOND, id)),
        );
        now = now + SECOND / 2;
        preparing.retain(|&(due, id)| due > now || !pool.ready(id, now));
    }
    assert_eq!(pool.target(now), 3);
    let missed = pool.totals().missed;
    assert!(missed < 10, "{missed} of 600 found nothing");
    // A rush beyond the maximum.
    for _ in 0..1_000 {
        pool.claim(now);
    }
    pool.plan(now);
    assert_eq!((pool.target(now), pool.counts().all()), (10, 10));
    let later = now + SECOND * 500;
    for id in preparing.into_iter().map(|(_, id)| id) {
        pool.ready(id, now);
    }
    assert_eq!(pool.target(later), 1);
    let ready = pool.counts().ready;
    let retired = pool.plan(later).retire.len() as u32;
    assert_eq!(ready - retired, 2.min(ready));
}

#[test]
fn a_target_that_wavers_by_one_destroys_nothing() {
    let mut pool = pool(2, 5);
    for id in pool.plan(NOW).start {
        assert!(pool.ready(id, NOW + SECOND));
    }
    let now = NOW + SECOND;
    pool.claim(now).unwrap();
    pool.claim(now).unwrap();
    pool.claim(now);
    assert_eq!(pool.target(now), 3);
    for id in pool.plan(now).start {
        assert!(pool.ready(id, now));
    }
    let later = now + SECOND * 300;
    assert_eq!((pool.target(later), pool.counts().ready), (2, 3));
    assert_eq!(pool.plan(later), Plan::default());
}

#[test]
fn slots_that_live_shorter_than_they_take_are_not_made_without_end() {
    let mut pool = pool(1, 5);
    let id = pool.plan(NOW).start[0];
    let now = NOW + SECOND * 3_600;
    assert!(pool.ready(id, now));
    assert_eq!(pool.plan(now + SECOND * 299), Plan::default());
    assert_eq!(pool.plan(now + SECOND * 300).start.len(), 1);
    assert_eq!(pool.plan(now + SECOND * 599), Plan::default());
}

#[test]
fn failures_in_a_row_are_waited_out_longer_and_longer() {
    let mut pool = pool(3, 5);
    let mut now = NOW;
    let mut start = pool.plan(now).start;
    for id in start.drain(..) {
        assert!(pool.failed(id, now));
        assert!(!pool.failed(id, now), "it is gone");
    }
    for wait in [4, 8, 16, 32, 60, 60] {
        assert_eq!(
            pool.plan(now + (SECOND * wait - SECOND / 10)),
            Plan::default()
        );
        now = now + SECOND * wait;
        start = pool.plan(now).start;
        assert_eq!(start.len(), 1, "one alone is tried");
        assert_eq!(pool.plan(now + SECOND * 3_600), Plan::default());
        assert!(pool.failed(start[0], now));
    }
    now = now + SECOND * 60;
    let works = pool.plan(now).start[0];
    assert!(pool.ready(works, now));
    assert_eq!(pool.plan(now).start.len(), 2);
}

#[test]
fn one_that_ends_while_it_waits_has_failed() {
    let mut pool = pool(1, 1);
    let id = pool.plan(NOW).start[0];
    assert!(pool.ready(id, NOW));
    assert!(pool.failed(id, NOW));
    assert_eq!(pool.claim(NOW), None);
    assert_eq!(pool.plan(NOW), Plan::default());
    assert_eq!(pool.plan(NOW + SECOND).start.len(), 1);
}

#[test]
fn a_pool_that_may_hold_nothing_drains() {
    let mut pool = pool(2, 4);
    let plan = pool.plan(NOW);
    assert!(pool.ready(plan.start[0], NOW));
    pool.configure(PoolConfig {
        min: 2,
        max: 0,
        max_age: SECOND,
    });
    assert_eq!(pool.plan(NOW).retire, [plan.start[0]]);
    assert!(pool.ready(plan.start[1], NOW));
    assert_eq!(pool.plan(NOW).retire, [plan.start[1]]);
    assert_eq!(pool.counts(), counts(0, 0, 2));
    assert!(pool.gone(plan.start[0]) && pool.gone(plan.start[1]));
    assert!(!pool.gone(plan.start[1]));
    assert_eq!(pool.counts().all(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Plan,
    Claim,
    Ready(prop::sample::Index),
    Failed(prop::sample::Index),
    Gone(prop::sample::Index),
    Later(u64),
    Configure(u32, u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Plan),
        4 => Just(Step::Claim),
        4 => any::<prop::sample::Index>().prop_map(Step::Ready),
        1 => any::<prop::sample::Index>().prop_map(Step::Failed),
        2 => any::<prop::sample::Index>().prop_map(Step::Gone),
        2 => (0..20_000_u64).prop_map(Step::Later),
        1 => (0..6_u32, 0..9_u32).prop_map(|(min, max)| Step::Configure(min, max)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each slot goes one way, whatever is told of whichever slot, in time or late.
    #[test]
    fn no_slot_is_claimed_twice_or_leaks(steps in prop::collection::vec(any_step(), 0..300)) {
        let max_age = SECOND * 30;
        let mut config = PoolConfig { min: 2, max: 5, max_age };
        let mut pool = Pool::new(config, NOW);
        let (mut now, mut all) = (NOW, Vec::new());
        let mut ready_since = BTreeMap::new();
        let (mut preparing, mut left) = (BTreeSet::new(), BTreeSet::new());
        let mut retiring = BTreeSet::new();
        for step in steps {
            let some = |index: prop::sample::Index| (!all.is_empty()).then(|| *index.get(&all));
            match step {
                Step::Plan => {
                    let before = pool.counts().all();
                    let plan = pool.plan(now);
                    prop_assert!(plan.start.is_empty() || pool.counts().all() <= config.max);
                    prop_assert_eq!(pool.counts().all(), before + plan.start.len() as u32);
                    for id in plan.start {
                        prop_assert!(!all.contains(&id));
                        all.push(id);
                        preparing.insert(id);
                    }
                    for id in plan.retire {
                        prop_assert!(ready_since.remove(&id).is_some());
                        retiring.insert(id);
                    }
                }
                Step::Claim => if let Some(id) = pool.claim(now) {
                    let since: Option<Moment> = ready_since.remove(&id);
                    prop_assert!(since.is_some_and(|since| now.since(since) < max_age));
                    left.insert(id);
                },
                Step::Ready(index) => if let Some(id) = some(index) {
                    let told = preparing.remove(&id);
                    prop_assert_eq!(pool.ready(id, now), told);
                    if told {
                        ready_since.insert(id, now);
                    }
                },
                Step::Failed(index) => if let Some(id) = some(index) {
                    let told = preparing.remove(&id) || ready_since.remove(&id).is_some();
                    prop_assert_eq!(pool.failed(id, now), told);
                    if told {
                        left.insert(id);
                    }
                },
                Step::Gone(index) => if let Some(id) = some(index) {
                    let told = retiring.remove(&id);
                    prop_assert_eq!(pool.gone(id), told);
                    if told {
                        left.insert(id);
                    }
                },
                Step::Later(ms) => now = now + Duration::from_millis(ms),
                Step::Configure(min, max) => {
                    config = PoolConfig { min, max, max_age };
                    pool.configure(config);
                }
            }
            let there = counts(preparing.len() as u32, ready_since.len() as u32, retiring.len() as u32);
            prop_assert_eq!(pool.counts(), there);
            let totals = pool.totals();
            prop_assert_eq!(totals.claimed + totals.failed + totals.gone, left.len() as u64);
            prop_assert_eq!(totals.started, left.len() as u64 + u64::from(there.all()));
        }
    }
}
