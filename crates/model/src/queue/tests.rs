use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Moment;

type Queue = FairQueue<u32, u8, ()>;
type Queued = Entry<u32, u8, ()>;

const NOW: Moment = Moment::ORIGIN;
const MAX_COST: u32 = 20;
const ROOMY: Limits = Limits {
    total: 20_000,
    per_tenant: 20_000,
    cost: NonZeroU32::new(MAX_COST).unwrap(),
};

fn entry(id: u32, tenant: u8) -> Queued {
    Entry {
        id,
        tenant,
        weight: NonZeroU32::MIN,
        priority: 0,
        cost: NonZeroU32::MIN,
        deadline: None,
        item: (),
    }
}

fn at(seconds: u64) -> Moment {
    NOW + Duration::from_secs(seconds)
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn pop_all(queue: &mut Queue) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop(NOW))
        .map(|entry| entry.id)
        .collect()
}

/// Pushes (tenant, weight, priority, cost), with ids from 0, and pops all.
fn check(entries: &[(u8, u32, u8, u32)], expected: &[u32]) {
    let mut queue = Queue::new(ROOMY);
    for (id, &(tenant, weight, priority, cost)) in (0..).zip(entries) {
        let pushed = queue.push(Entry {
            weight: number(weight),
            priority,
            cost: number(cost),
            ..entry(id, tenant)
        });
        pushed.unwrap();
    }
    assert_eq!(pop_all(&mut queue), expected, "{entries:?}");
}

#[test]
fn who_is_next() {
    // One tenant: first in, first out; higher priorities before lower ones.
    check(&[(0, 1, 0, 1), (0, 1, 0, 9), (0, 1, 0, 1)], &[0, 1, 2]);
    check(
        &[(0, 1, 0, 1), (0, 1, 9, 1), (0, 1, 5, 1), (0, 1, 9, 1)],
        &[1, 3, 2, 0],
    );
    // Tenants take turns, however many each pushed first, and whatever priority one asks for.
    check(
        &[(0, 1, 0, 1), (0, 1, 0, 1), (0, 1, 0, 1), (1, 1, 0, 1)],
        &[0, 3, 1, 2],
    );
    check(
        &[(0, 1, 9, 1), (0, 1, 9, 1), (1, 1, 0, 1), (1, 1, 0, 1)],
        &[0, 2, 1, 3],
    );
    // By weight.
    check(
        &[
            (0, 1, 0, 1),
            (0, 1, 0, 1),
            (1, 2, 0, 1),
            (1, 2, 0, 1),
            (1, 2, 0, 1),
        ],
        &[0, 2, 3, 1, 4],
    );
    // By cost: one of three against three of one.
    check(
        &[(0, 1, 0, 3), (1, 1, 0, 1), (1, 1, 0, 1), (1, 1, 0, 1)],
        &[1, 2, 0, 3],
    );
}

#[test]
fn each_bound_is_named() {
    let mut queue = Queue::new(Limits {
        total: 3,
        per_tenant: 2,
        cost: number(5),
    });
    queue.push(entry(0, 0)).unwrap();
    assert_eq!(queue.push(entry(0, 1)), Err(Refused::AlreadyQueued));
    let (cost, limit) = (number(6), number(5));
    assert_eq!(
        queue.push(Entry {
            cost,
            ..entry(1, 0)
        }),
        Err(Refused::TooCostly { cost, limit })
    );
    queue.push(entry(1, 0)).unwrap();
    assert_eq!(
        queue.push(entry(2, 0)),
        Err(Refused::TenantFull { limit: 2 })
    );
    queue.push(entry(2, 1)).unwrap();
    assert_eq!(
        queue.push(entry(3, 1)),
        Err(Refused::QueueFull { limit: 3 })
    );
    queue.cancel(1).unwrap();
    assert_eq!(queue.push(entry(3, 1)), Ok(Place { ahead: 2 }));
    assert_eq!(queue.tenants().collect::<Vec<_>>(), [(&0, 1), (&1, 2)]);
}

#[test]
fn what_is_overdue_is_expired_and_never_popped() {
    let mut queue = Queue::new(Limits { total: 3, ..ROOMY });
    for (id, deadline) in [(0, Some(9)), (1, None), (2, Some(5))] {
        queue
            .push(Entry {
                deadline: deadline.map(at),
                ..entry(id, 0)
            })
            .unwrap();
    }
    assert_eq!(queue.next_deadline(), Some(at(5)));
    assert!(queue.expire(at(4)).is_empty());
    assert_eq!(queue.pop(at(9)).unwrap().id, 1);
    assert!(queue.pop(at(9)).is_none());
    assert!(queue.is_empty());
    // Until they are asked for, they take room.
    queue.push(entry(3, 0)).unwrap();
    assert!(matches!(
        queue.push(entry(4, 0)),
        Err(Refused::QueueFull { .. })
    ));
    let expired = queue.expire(at(0)).into_iter().map(|entry| entry.id);
    assert_eq!(expired.collect::<Vec<_>>(), [2, 0]);
    assert_eq!(queue.next_deadline(), None);
    queue.push(entry(4, 0)).unwrap();
}

#[test]
fn who_was_away_has_saved_nothing() {
    let mut queue = Queue::new(ROOMY);
    for id in 0..1_000 {
        queue.push(entry(id, 0)).unwrap();
    }
    queue.push(entry(1_000, 1)).unwrap();
    for _ in 0..500 {
        queue.pop(NOW).unwrap();
    }
    for id in 2_000..2_100 {
        queue.push(entry(id, 1)).unwrap();
    }
    let next: Vec<_> = (0..20).map(|_| queue.pop(NOW).unwrap().tenant).collect();
    assert_eq!(next.iter().filter(|&&tenant| tenant == 1).count(), 10);
}

#[test]
fn who_comes_and_goes_gets_no_more_than_its_share() {
    let mut queue = Queue::new(ROOMY);
    for id in 0..100 {
        queue.push(entry(id, 0)).unwrap();
    }
    let mut served = BTreeMap::new();
    for id in 1_000..1_100 {
        if queue.tenant_len(&1) == 0 {
            queue.push(entry(id, 1)).unwrap();
        }
        *served.entry(queue.pop(NOW).unwrap().tenant).or_insert(0) += 1;
    }
    assert_eq!(served, BTreeMap::from([(0, 50), (1, 50)]));
}

#[test]
fn a_flood_does_not_make_the_others_wait() {
    let mut queue = Queue::new(ROOMY);
    for id in 0..10_000 {
        queue.push(entry(id, 0)).unwrap();
    }
    for id in 10_000..12_000 {
        let ahead = queue.push(entry(id, 1)).unwrap().ahead;
        assert!(ahead <= 2, "{ahead} before the only one of its tenant");
        for _ in 0..ahead {
            assert_eq!(queue.pop(NOW).unwrap().tenant, 0);
        }
        assert_eq!(queue.pop(NOW).unwrap().id, id);
    }
}

#[test]
fn another_weight_counts_from_then_on() {
    let mut queue = Queue::new(ROOMY);
    for id in 0..100 {
        queue.push(entry(id, 0)).unwrap();
    }
    let costly = Entry {
        cost: number(20),
        ..entry(1_000, 1)
    };
    queue.push(costly).unwrap();
    for _ in 0..10 {
        assert_eq!(queue.pop(NOW).unwrap().tenant, 0);
    }
    // Ten rounds have passed since it came: ten are missing, at five a round.
    let heavier = Entry {
        weight: number(5),
        ..entry(1_001, 1)
    };
    queue.push(heavier).unwrap();
    assert_eq!(queue.position(1_000), Some(2));
}

#[test]
fn credit_saved_for_a_costly_entry_is_bounded_by_its_cost() {
    let mut queue = Queue::new(ROOMY);
    for id in 0..1_000 {
        queue.push(entry(id, 0)).unwrap();
    }
    for id in 1_000..2_000 {
        queue.push(entry(id, 1)).unwrap();
    }
    let costly = Entry {
        cost: number(MAX_COST),
        priority: 1,
        ..entry(9_999, 1)
    };
    queue.push(costly).unwrap();
    while queue.position(9_999) != Some(0) {
        assert_eq!(queue.pop(NOW).unwrap().tenant, 0);
    }
    queue.cancel(9_999).unwrap();
    let burst = std::iter::from_fn(|| queue.pop(NOW))
        .take_while(|entry| entry.tenant == 1)
        .count();
    assert!(burst <= MAX_COST as usize, "{burst}");
}

/// What the queue promises, walked through round by round: the plain way, on a full backlog.
fn round_by_round(entries: &[Queued]) -> Vec<u32> {
    let mut tenants: Vec<(u8, Vec<&Queued>)> = Vec::new();
    for entry in entries {
        match tenants.iter_mut().find(|(name, _)| *name == entry.tenant) {
            Some((_, list)) => list.push(entry),
            None => tenants.push((entry.tenant, vec![entry])),
        }
    }
    let mut order = Vec::new();
    let mut credits = vec![0; tenants.len()];
    while order.len() < entries.len() {
        for ((_, list), credit) in tenants.iter_mut().zip(&mut credits) {
            let Some(latest) = list.iter().max_by_key(|entry| entry.id) else {
                continue;
            };
            *credit += latest.weight.get();
            while let Some(index) = (0..list.len())
                .min_by_key(|&index| (u8::MAX - list[index].priority, list[index].id))
                .filter(|&index| list[index].cost.get() <= *credit)
            {
                *credit -= list[index].cost.get();
                order.push(list.remove(index).id);
            }
        }
    }
    order
}

prop_compose! {
    /// The weight belongs to the tenant.
    fn any_entry()(
        tenant in 0..5_u8,
        priority in 0..3_u8,
        cost in prop_oneof![Just(1), 1..=MAX_COST],
        deadline in prop::option::weighted(0.2, 1..100_u64),
    ) -> Queued {
        Entry {
            weight: number(1 + u32::from(tenant) * u32::from(tenant)),
            priority,
            cost: number(cost),
            deadline: deadline.map(at),
            ..entry(0, tenant)
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(Queued),
    Pop,
    Cancel(u32),
    Expire,
    Later(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_entry().prop_map(Step::Push),
        4 => Just(Step::Pop),
        1 => (0..200_u32).prop_map(Step::Cancel),
        1 => Just(Step::Expire),
        1 => (0..20_u64).prop_map(Step::Later),
    ]
}

/// Carries out some steps; ids are counted. What went in, and what came out and how.
fn play(queue: &mut Queue, steps: &[Step]) -> (Vec<Queued>, Vec<u32>, Moment) {
    let (mut pushed, mut left, mut now) = (Vec::new(), Vec::new(), NOW);
    for step in steps {
        match step {
            Step::Push(entry) => {
                let id = pushed.len() as u32;
                let entry = Entry {
                    id,
                    ..entry.clone()
                };
                let place = queue.push(entry.clone()).unwrap();
                assert_eq!(queue.position(id), Some(place.ahead));
                pushed.push(entry);
            }
            Step::Pop => left.extend(queue.pop(now).map(|entry| {
                assert!(entry.deadline.is_none_or(|deadline| deadline > now));
                entry.id
            })),
            Step::Cancel(id) => left.extend(queue.cancel(*id).map(|entry| entry.id)),
            Step::Expire => left.extend(queue.expire(now).iter().map(|entry| entry.id)),
            Step::Later(seconds) => now = now + Duration::from_secs(*seconds),
        }
    }
    (pushed, left, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_is_lost_or_comes_twice(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut queue = Queue::new(ROOMY);
        let (pushed, mut left, now) = play(&mut queue, &steps);
        left.extend(std::iter::from_fn(|| queue.pop(now)).map(|entry| entry.id));
        left.extend(queue.expire(now).iter().map(|entry| entry.id));
        left.sort_unstable();
        prop_assert_eq!(left, (0..pushed.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(queue.tenants().count(), 0);
        prop_assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn a_position_is_the_number_of_pops(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut queue = Queue::new(ROOMY);
        let (pushed, _, _) = play(&mut queue, &steps);
        let positions: Vec<_> = (0..pushed.len() as u32)
            .filter_map(|id| Some((queue.position(id)?, id)))
            .collect();
        let order = pop_all(&mut queue); // at a time before every deadline
        prop_assert_eq!(order.len(), positions.len());
        for (position, id) in positions {
            prop_assert_eq!(order[position], id);
        }
    }

    #[test]
    fn a_tenant_is_served_by_priority_and_then_in_order(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut queue = Queue::new(ROOMY);
        let (pushed, _, _) = play(&mut queue, &steps);
        let mut latest = BTreeMap::new();
        for id in pop_all(&mut queue) {
            let entry = &pushed[id as usize];
            let key = (u8::MAX - entry.priority, id);
            let before = latest.insert(entry.tenant, key);
            prop_assert!(before.is_none_or(|before| before < key));
        }
    }

    #[test]
    fn a_backlog_is_served_round_by_round(entries in prop::collection::vec(any_entry(), 0..100)) {
        let entries: Vec<_> = (0..).zip(entries)
            .map(|(id, entry)| Entry { id, deadline: None, ..entry })
            .collect();
        let mut queue = Queue::new(ROOMY);
        for entry in &entries {
            queue.push(entry.clone()).unwrap();
        }
        prop_assert_eq!(pop_all(&mut queue), round_by_round(&entries));
    }

    /// Two tenants, never without an entry, whatever a third does: over each interval what they got,
    /// divided by their weights, differs by less than two rounds and one entry of each.
    #[test]
    fn shares_are_by_weight(
        weights in (1..6_u32, 1..6_u32),
        costs in prop::collection::vec((1..=MAX_COST, 1..=MAX_COST, 0..3_u8), 1..200),
    ) {
        let mut queue = Queue::new(ROOMY);
        let (mut id, mut served) = (0, vec![(0.0, 0.0)]);
        let mut push = |queue: &mut Queue, tenant: u8, weight, cost| {
            id += 1;
            let entry = Entry { weight: number(weight), cost: number(cost), ..entry(id, tenant) };
            queue.push(entry).unwrap();
        };
        for (first, second, third) in costs {
            if third > 0 {
                push(&mut queue, 2, 3, first);
            }
            while queue.tenant_len(&0) < 2 {
                push(&mut queue, 0, weights.0, first);
            }
            while queue.tenant_len(&1) < 2 {
                push(&mut queue, 1, weights.1, second);
            }
            let popped = queue.pop(NOW).unwrap();
            let (mut a, mut b) = served[served.len() - 1];
            let share = f64::from(popped.cost.get()) / f64::from(popped.weight.get());
            match popped.tenant {
                0 => a += share,
                1 => b += share,
                _ => {}
            }
            served.push((a, b));
        }
        let most = f64::from(MAX_COST);
        let bound = 2.0 + most / f64::from(weights.0) + most / f64::from(weights.1);
        for (index, from) in served.iter().enumerate() {
            for to in &served[index..] {
                let difference = ((to.0 - from.0) - (to.1 - from.1)).abs();
                prop_assert!(difference < bound, "{} of {}", difference, bound);
            }
        }
    }
}
