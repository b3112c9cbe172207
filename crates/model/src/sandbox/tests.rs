use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::ExecId;
use crate::time::Moment;

const NOW: Moment = Moment::after_origin(Duration::from_secs(1_000));
const SECOND: Duration = Duration::from_secs(1);
const EXEC: ExecId = ExecId::from_bits(1);

fn at(seconds: u32) -> Moment {
    NOW + SECOND * seconds
}

fn terms(then: Then) -> Terms {
    Terms {
        ttl: SECOND * 600,
        max_ttl: SECOND * 3_600,
        idle: Some(IdlePolicy {
            after: SECOND * 60,
            rest: SECOND / 100,
            then,
        }),
    }
}

/// Created at `NOW` and running.
fn running(then: Then) -> Sandbox {
    let (mut sandbox, action) = Sandbox::create(terms(then), NOW);
    assert_eq!(sandbox.apply(Event::Done(action), NOW), Ok(None));
    sandbox
}

fn ask(sandbox: &mut Sandbox, asked: Asked) -> Result<Option<Action>, Refused> {
    sandbox.apply(Event::Asked(asked), NOW)
}

/// A running sandbox to which all this happens, each followed by the action given.
fn check(events: &[(Event, Option<Action>)], expected: State) {
    let mut sandbox = running(Then::Pause);
    for &(event, action) in events {
        assert_eq!(
            sandbox.apply(event, NOW),
            Ok(action),
            "{event:?} of {events:?}"
        );
    }
    assert_eq!(sandbox.state(), expected, "{events:?}");
}

#[test]
fn each_way_through_life() {
    use Event::{Asked as A, Done, Failed};
    let pause = (A(Asked::Pause), Some(Action::Pause));
    let paused = (Done(Action::Pause), None);
    let resume = (A(Asked::Resume), Some(Action::Resume));
    let save = (A(Asked::Save), Some(Action::Save));
    let roll_back = (A(Asked::RollBack), Some(Action::RollBack));
    let saving = |from| State::Saving { from };
    let failed = State::Destroying {
        reason: Reason::Failed,
    };

    check(&[pause], State::Pausing);
    check(&[pause, paused], State::Paused);
    check(&[pause, (Failed(Action::Pause), None)], State::Running);
    check(&[pause, paused, resume], State::Resuming);
    check(
        &[pause, paused, resume, (Done(Action::Resume), None)],
        State::Running,
    );
    check(
        &[pause, paused, resume, (Failed(Action::Resume), None)],
        State::Paused,
    );
    check(&[save], saving(Still::Running));
    check(&[save, (Done(Action::Save), None)], State::Running);
    check(&[pause, paused, save], saving(Still::Paused));
    check(
        &[pause, paused, save, (Failed(Action::Save), None)],
        State::Paused,
    );
    check(&[roll_back], State::RollingBack);
    check(
        &[pause, paused, roll_back, (Done(Action::RollBack), None)],
        State::Running,
    );
    check(
        &[roll_back, (Failed(Action::RollBack), Some(Action::Destroy))],
        failed,
    );
    // It is so already.
    check(&[(A(Asked::Resume), None)], State::Running);
    check(&[pause, paused, (A(Asked::Pause), None)], State::Paused);
}

#[test]
fn what_cannot_be_created_is_destroyed() {
    let (mut sandbox, create) = Sandbox::create(terms(Then::Pause), NOW);
    let action = sandbox.apply(Event::Failed(create), NOW).unwrap();
    assert_eq!(action, Some(Action::Destroy));
    sandbox.apply(Event::Done(Action::Destroy), NOW).unwrap();
    let reason = Reason::Failed;
    assert_eq!(sandbox.state(), State::Destroyed { reason });
    assert_eq!(
        ask(&mut sandbox, Asked::Pause),
        Err(Refused::Gone { reason })
    );
    assert_eq!(sandbox.next_deadline(), None);
}

#[test]
fn a_refusal_says_what_the_sandbox_is_doing() {
    let (mut sandbox, create) = Sandbox::create(terms(Then::Pause), NOW);
    let state = State::Creating;
    for asked in [
        Asked::Exec(EXEC),
        Asked::Pause,
        Asked::Save,
        Asked::RollBack,
    ] {
        assert_eq!(ask(&mut sandbox, asked), Err(Refused::Busy { state }));
    }
    sandbox.apply(Event::Done(create), NOW).unwrap();
    ask(&mut sandbox, Asked::Pause).unwrap();
    sandbox.apply(Event::Done(Action::Pause), NOW).unwrap();
    let refused = ask(&mut sandbox, Asked::Exec(EXEC)).unwrap_err();
    let text = "a sandbox that is paused cannot begin an exec";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn a_destroy_supersedes_whatever_is_being_done() {
    let mut sandbox = running(Then::Pause);
    ask(&mut sandbox, Asked::Save).unwrap();
    assert_eq!(ask(&mut sandbox, Asked::Destroy), Ok(Some(Action::Destroy)));
    assert_eq!(ask(&mut sandbox, Asked::Destroy), Ok(None));
    let reason = Reason::Asked;
    // What it was doing ends all the same, and the VMM dies, as it should.
    for late in [
        Event::Done(Action::Save),
        Event::Failed(Action::Save),
        Event::VmmDied,
        Event::Tick,
    ] {
        assert_eq!(sandbox.apply(late, at(9_999)), Ok(None));
        assert_eq!(sandbox.state(), State::Destroying { reason });
    }
    sandbox.apply(Event::Done(Action::Destroy), NOW).unwrap();
    assert_eq!(sandbox.state(), State::Destroyed { reason });
}

#[test]
fn the_end_of_its_service_is_its_own() {
    let mut sandbox = running(Then::Pause);
    let ended = sandbox.apply(Event::ServiceEnds, NOW);
    assert_eq!(ended, Ok(Some(Action::Destroy)));
    let reason = Reason::HostRestarted;
    assert_eq!(sandbox.state(), State::Destroying { reason });
    assert_eq!(sandbox.apply(Event::ServiceEnds, NOW), Ok(None));
}

#[test]
fn who_uses_it_or_gives_it_a_policy_puts_idleness_off() {
    let mut sandbox = running(Then::Pause);
    assert_eq!(sandbox.next_deadline(), Some(at(60)));
    sandbox.apply(Event::Used, at(50)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(110)));
    assert_eq!(sandbox.apply(Event::Tick, at(60)), Ok(None));
    sandbox.set_idle(sandbox.idle(), at(80));
    assert_eq!(sandbox.next_deadline(), Some(at(140)));
    sandbox.set_idle(None, at(90));
    assert_eq!(sandbox.next_deadline(), Some(at(600)));
}

#[test]
fn a_destroy_that_fails_is_tried_again_later() {
    let mut sandbox = running(Then::Pause);
    ask(&mut sandbox, Asked::Destroy).unwrap();
    assert_eq!(sandbox.next_deadline(), None);
    assert_eq!(sandbox.apply(Event::Failed(Action::Destroy), NOW), Ok(None));
    assert_eq!(sandbox.next_deadline(), Some(at(1)));
    assert_eq!(sandbox.apply(Event::Tick, NOW), Ok(None));
    assert_eq!(sandbox.apply(Event::Tick, at(1)), Ok(Some(Action::Destroy)));
    assert_eq!(sandbox.apply(Event::Tick, at(2)), Ok(None));
}

#[test]
fn a_sandbox_lives_until_its_time_is_over() {
    let mut sandbox = running(Then::Pause);
    ask(&mut sandbox, Asked::Exec(EXEC)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(600)));
    assert_eq!(sandbox.apply(Event::Tick, at(599)), Ok(None));
    ask(&mut sandbox, Asked::ExpireAt(at(3_600))).unwrap();
    let most = SECOND * 3_600;
    let later = Asked::ExpireAt(at(3_601));
    assert_eq!(ask(&mut sandbox, later), Err(Refused::OverCap { most }));
    assert_eq!(sandbox.expires(), at(3_600));
    assert_eq!(sandbox.apply(Event::Tick, at(3_599)), Ok(None));
    ask(&mut sandbox, Asked::Save).unwrap();
    let over = sandbox.apply(Event::Tick, at(3_600));
    assert_eq!(over, Ok(Some(Action::Destroy)));
    let reason = Reason::TtlOver;
    assert_eq!(sandbox.state(), State::Destroying { reason });
}

#[test]
fn more_time_than_allowed_is_not_given_at_first_either() {
    let mut terms = terms(Then::Pause);
    terms.ttl = Duration::MAX;
    assert_eq!(Sandbox::create(terms, NOW).0.expires(), at(3_600));
}

#[test]
fn idle_is_no_exec_and_processors_at_rest() {
    let mut sandbox = running(Then::Pause);
    assert_eq!(sandbox.next_deadline(), Some(at(60)));
    // An exec that does nothing but run.
    sandbox
        .apply(Event::Asked(Asked::Exec(EXEC)), at(10))
        .unwrap();
    assert_eq!(sandbox.apply(Event::Tick, at(100)), Ok(None));
    sandbox.apply(Event::ExecEnded(EXEC), at(110)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(170)));
    // Work without an exec, then rest.
    sandbox.apply(Event::CpuUsed(SECOND * 30), at(150)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(210)));
    sandbox.apply(Event::CpuUsed(SECOND * 30), at(200)).unwrap();
    assert_eq!(sandbox.apply(Event::Tick, at(209)), Ok(None));
    assert_eq!(sandbox.apply(Event::Tick, at(210)), Ok(Some(Action::Pause)));
    sandbox.apply(Event::Done(Action::Pause), at(211)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(600)));
    // Resumed, it has its time again.
    sandbox.apply(Event::Asked(Asked::Resume), at(500)).unwrap();
    sandbox.apply(Event::Done(Action::Resume), at(501)).unwrap();
    assert_eq!(sandbox.next_deadline(), Some(at(561)));
}

#[test]
fn an_idle_sandbox_can_be_destroyed_instead() {
    let mut sandbox = running(Then::Destroy);
    assert_eq!(
        sandbox.apply(Event::Tick, at(60)),
        Ok(Some(Action::Destroy))
    );
    let reason = Reason::Idle;
    assert_eq!(sandbox.state(), State::Destroying { reason });
}

#[test]
fn a_pause_for_idleness_that_fails_is_not_repeated_at_once() {
    let mut sandbox = running(Then::Pause);
    assert_eq!(sandbox.apply(Event::Tick, at(60)), Ok(Some(Action::Pause)));
    sandbox.apply(Event::Failed(Action::Pause), at(60)).unwrap();
    assert_eq!(sandbox.apply(Event::Tick, at(61)), Ok(None));
    assert_eq!(sandbox.next_deadline(), Some(at(120)));
}

#[test]
fn execs_are_counted_by_name() {
    let mut sandbox = running(Then::Pause);
    let exec = |bits| Asked::Exec(ExecId::from_bits(bits));
    for bits in 0..MAX_EXECS as u128 {
        assert_eq!(ask(&mut sandbox, exec(bits)), Ok(None));
    }
    assert_eq!(ask(&mut sandbox, exec(0)), Err(Refused::ExecExists));
    let limit = MAX_EXECS;
    let refused = Refused::TooManyExecs { limit };
    assert_eq!(ask(&mut sandbox, exec(999)), Err(refused));
    sandbox.apply(Event::ExecEnded(EXEC), NOW).unwrap();
    sandbox.apply(Event::ExecEnded(EXEC), NOW).unwrap();
    assert_eq!(sandbox.execs().count(), limit - 1);
    // A roll-back ends them all.
    ask(&mut sandbox, Asked::RollBack).unwrap();
    sandbox.apply(Event::Done(Action::RollBack), NOW).unwrap();
    assert_eq!(sandbox.execs().count(), 0);
}

#[test]
fn what_an_earlier_service_left_is_destroyed() {
    let (sandbox, action) = Sandbox::left_behind(State::Paused, NOW);
    assert_eq!(action, Some(Action::Destroy));
    let reason = Reason::HostRestarted;
    assert_eq!(sandbox.state(), State::Destroying { reason });
    // What had its reason keeps it.
    let reason = Reason::Idle;
    let (sandbox, action) = Sandbox::left_behind(State::Destroying { reason }, NOW);
    assert_eq!(action, Some(Action::Destroy));
    assert_eq!(sandbox.state(), State::Destroying { reason });
    let (_, action) = Sandbox::left_behind(State::Destroyed { reason }, NOW);
    assert_eq!(action, None);
}

fn any_action() -> impl Strategy<Value = Action> {
    prop::sample::select(vec![
        Action::Create,
        Action::Pause,
        Action::Resume,
        Action::Save,
        Action::RollBack,
        Action::Destroy,
    ])
}

/// What comes from outside; an owner tells the end of its actions besides.
#[derive(Clone, Copy, Debug)]
enum Step {
    Event(Event),
    /// The action in hand ends.
    End {
        well: bool,
    },
    Later(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let exec = || (0..4_u128).prop_map(ExecId::from_bits);
    let asked = prop_oneof![
        2 => exec().prop_map(Asked::Exec),
        2 => Just(Asked::Pause),
        2 => Just(Asked::Resume),
        2 => Just(Asked::Save),
        2 => Just(Asked::RollBack),
        2 => (0..4_000_u32).prop_map(|seconds| Asked::ExpireAt(at(seconds))),
        1 => Just(Asked::Destroy),
    ];
    let event = prop_oneof![
        12 => asked.prop_map(Event::Asked),
        4 => exec().prop_map(Event::ExecEnded),
        4 => (0..100_u32).prop_map(|seconds| Event::CpuUsed(SECOND * seconds)),
        1 => Just(Event::VmmDied),
        1 => Just(Event::ServiceEnds),
        2 => Just(Event::Used),
        6 => Just(Event::Tick),
    ];
    prop_oneof![
        8 => event.prop_map(Step::Event),
        8 => prop::bool::weighted(0.8).prop_map(|well| Step::End { well }),
        2 => (0..100_u32).prop_map(Step::Later),
    ]
}

fn is_passing(state: State) -> bool {
    !matches!(
        state,
        State::Running | State::Paused | State::Destroyed { .. }
    )
}

/// A sandbox, and what its owner is doing for it.
struct Owned {
    sandbox: Sandbox,
    in_hand: Option<Action>,
    now: Moment,
}

impl Owned {
    fn new(then: Then) -> Self {
        let (sandbox, action) = Sandbox::create(terms(then), NOW);
        Self {
            sandbox,
            in_hand: Some(action),
            now: NOW,
        }
    }

    fn step(&mut self, step: Step) {
        let event = match step {
            Step::Event(event) => event,
            Step::Later(seconds) => {
                self.now = self.now + SECOND * seconds;
                return;
            }
            Step::End { well } => match self.in_hand.take() {
                Some(action) if well => Event::Done(action),
                Some(action) => Event::Failed(action),
                None => return,
            },
        };
        let before = self.sandbox.state();
        match self.sandbox.apply(event, self.now) {
            Ok(Some(action)) => {
                assert!(
                    self.in_hand.is_none()
                        || action == Action::Destroy && self.in_hand != Some(Action::Destroy),
                    "{action:?} while {:?}",
                    self.in_hand
                );
                self.in_hand = Some(action);
            }
            Ok(None) => {}
            Err(_) => {
                assert!(matches!(event, Event::Asked(_)), "{event:?} was refused");
                assert_eq!(self.sandbox.state(), before);
            }
        }
        let state = self.sandbox.state();
        // An action is in hand in passing states, and only there; a failed destroy waits.
        let waits = matches!(state, State::Destroying { .. }) && self.in_hand.is_none();
        assert!(is_passing(state) == self.in_hand.is_some() || waits);
        if matches!(before, State::Destroyed { .. }) {
            assert_eq!(state, before, "it is final");
        }
        if let State::Destroying { reason } = before {
            assert!(state == before || state == State::Destroyed { reason });
        }
        let over = self.sandbox.next_deadline().is_none();
        let destroying = matches!(state, State::Destroying { .. });
        assert!(!over || destroying && !waits || matches!(state, State::Destroyed { .. }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn it_can_always_be_destroyed(
        then in prop::sample::select(vec![Then::Pause, Then::Destroy]),
        steps in prop::collection::vec(any_step(), 0..100),
        failures in 0..3,
    ) {
        let mut owned = Owned::new(then);
        for step in steps {
            owned.step(step);
        }
        owned.step(Step::Event(Event::Asked(Asked::Destroy)));
        for _ in 0..failures {
            owned.step(Step::End { well: false });
            owned.step(Step::Later(1));
            owned.step(Step::Event(Event::Tick));
        }
        if owned.in_hand.is_none() {
            owned.step(Step::Later(1));
            owned.step(Step::Event(Event::Tick));
        }
        owned.step(Step::End { well: true });
        let state = owned.sandbox.state();
        prop_assert!(matches!(state, State::Destroyed { .. }), "{:?}", state);
    }

    #[test]
    fn it_ends_by_itself_if_nobody_extends_it(steps in prop::collection::vec(any_step(), 0..100)) {
        let mut owned = Owned::new(Then::Pause);
        for step in steps {
            owned.step(step);
        }
        // Nothing but deadlines and the ends of actions.
        for _ in 0..10 {
            owned.step(Step::End { well: true });
            owned.now = owned.now.max(owned.sandbox.next_deadline().unwrap_or(NOW));
            owned.step(Step::Event(Event::Tick));
        }
        let state = owned.sandbox.state();
        prop_assert!(matches!(state, State::Destroyed { .. }), "{:?}", state);
    }

    #[test]
    fn the_end_of_what_is_not_in_hand_changes_nothing(
        steps in prop::collection::vec(any_step(), 0..60),
        action in any_action(),
        well: bool,
    ) {
        let mut owned = Owned::new(Then::Pause);
        for step in steps {
            owned.step(step);
        }
        prop_assume!(owned.in_hand != Some(action));
        let (before, deadline) = (owned.sandbox.state(), owned.sandbox.next_deadline());
        let event = if well { Event::Done(action) } else { Event::Failed(action) };
        prop_assert_eq!(owned.sandbox.apply(event, owned.now), Ok(None));
        prop_assert_eq!(owned.sandbox.state(), before);
        prop_assert_eq!(owned.sandbox.next_deadline(), deadline);
    }
}
