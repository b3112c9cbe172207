use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Moment;

fn at(seconds: u64) -> Moment {
    Moment::after_origin(Duration::from_secs(seconds))
}

fn terms() -> Terms {
    Terms {
        provider: "aws".into(),
        region: "us-east-1".into(),
        instance_type: "c8i.2xlarge".into(),
        disk_gib: 50,
        kvm: true,
        extras: BTreeMap::new(),
        ttl_s: Some(4 * 3600),
        ssh_keys: Some(Vec::new()),
        firecracker: Some(String::new()),
    }
}

fn planned() -> Record {
    Record::Planned {
        lane: LaneId::from_bits(1),
        label: "mine".parse().unwrap(),
        owner: "alice".into(),
        terms: terms(),
        expires: at(4 * 3600),
        milli_usd_per_hour: Some(400),
    }
}

fn made() -> Record {
    let handle = Handle {
        provider: "aws".into(),
        region: "us-east-1".into(),
        id: "i-1".into(),
    };
    Record::Made { handle }
}

fn addressed() -> Record {
    let address = "192.0.2.1".into();
    Record::Addressed { address, port: 22 }
}

/// All records of a lane that comes as far as it can.
fn whole() -> Vec<Record> {
    let mut records = vec![planned()];
    for step in Step::FORWARD {
        records.push(Record::Begun { step });
        if step == Step::Create {
            records.extend([made(), addressed()]);
        }
        records.push(Record::Done { step });
    }
    records
}

fn read(records: Vec<Record>) -> Result<Lane, Impossible> {
    let timed = (0..).map(at).zip(records);
    Lane::read(timed).map(|lane| lane.expect("there are records"))
}

#[test]
fn each_step_leads_to_the_next_stage() {
    let mut lane = Lane::begin(planned(), at(0)).unwrap();
    let mut stages = vec![lane.stage];
    while let Some(step) = lane.stage.next() {
        lane.apply(Record::Begun { step }, at(1)).unwrap();
        if step == Step::Create {
            lane.apply(made(), at(1)).unwrap();
            lane.apply(addressed(), at(1)).unwrap();
        }
        lane.apply(Record::Done { step }, at(1)).unwrap();
        stages.push(lane.stage);
    }
    let names: Vec<_> = stages.iter().map(ToString::to_string).collect();
    assert_eq!(
        names.join(" "),
        "planned created reachable cloud-init synced deployed verified"
    );
}

#[test]
fn it_can_be_given_back_from_every_stage_and_never_comes_again() {
    let records = whole();
    for length in 1..=records.len() {
        let mut lane = read(records[..length].to_vec()).unwrap();
        let step = Step::Retire;
        lane.apply(Record::Begun { step }, at(99)).unwrap();
        assert_eq!((lane.stage, lane.since), (Stage::Expiring, at(99)));
        for step in Step::FORWARD {
            let refused = lane.apply(Record::Begun { step }, at(99)).unwrap_err();
            let stage = Stage::Expiring;
            assert_eq!(refused, Impossible::OutOfTurn { stage, step });
        }
        lane.apply(Record::Done { step }, at(100)).unwrap();
        assert_eq!(lane.stage, Stage::Retired);
        lane.apply(Record::Begun { step }, at(101)).unwrap_err();
    }
}

#[test]
fn a_failure_keeps_the_stage_and_can_be_tried_again() {
    let mut records = whole();
    records.truncate(5);
    let mut lane = read(records).unwrap();
    assert_eq!(lane.stage, Stage::Created);
    let step = Step::Reach;
    lane.apply(Record::Begun { step }, at(9)).unwrap();
    let cause = "no answer".to_owned();
    lane.apply(
        Record::Failed {
            step,
            cause: cause.clone(),
        },
        at(9),
    )
    .unwrap();
    assert_eq!(lane.stage, Stage::Created);
    assert_eq!(lane.failed, Some((step, cause)));
    lane.apply(Record::Begun { step }, at(10)).unwrap();
    lane.apply(Record::Done { step }, at(11)).unwrap();
    assert_eq!((lane.stage, lane.failed), (Stage::Reachable, None));
}

#[test]
fn a_create_that_was_begun_may_have_made_something() {
    let step = Step::Create;
    let lane = read(vec![planned(), Record::Begun { step }]).unwrap();
    assert!(lane.maybe_made);
    assert_eq!((lane.stage, lane.handle), (Stage::Planned, None));
    let cause = "the answer was lost".into();
    let lane = read(vec![
        planned(),
        Record::Begun { step },
        Record::Failed { step, cause },
    ]);
    assert!(lane.unwrap().maybe_made);
}

#[test]
fn what_cannot_have_happened_is_refused() {
    let check = |records: Vec<Record>, expected: &str| {
        assert_eq!(read(records).unwrap_err().to_string(), expected);
    };
    let begun = |step| Record::Begun { step };
    let done = |step| Record::Done { step };
    check(vec![made()], "a journal begins with what was planned");
    check(vec![planned(), planned()], "a lane is planned once");
    check(
        vec![planned(), begun(Step::Sync)],
        "a lane that is planned does not sync",
    );
    check(
        vec![planned(), done(Step::Create)],
        "the step create ended without having begun",
    );
    check(
        vec![planned(), made()],
        "a lane that is planned was told of a machine",
    );
    check(
        vec![planned(), begun(Step::Create), done(Step::Create)],
        "a machine was created, and nothing says which or where",
    );
    assert_eq!(Lane::read([]), Ok(None));
}

#[test]
fn spend_counts_from_plan_to_the_end_and_is_rounded_up() {
    let mut lane = Lane::begin(planned(), at(0)).unwrap();
    assert_eq!(lane.milli_usd(at(3600)), Some(0));
    let step = Step::Create;
    lane.apply(Record::Begun { step }, at(0)).unwrap();
    assert_eq!(lane.milli_usd(at(3600)), Some(400));
    assert_eq!(lane.milli_usd(at(1)), Some(1));
    let step = Step::Retire;
    lane.apply(Record::Begun { step }, at(7000)).unwrap();
    lane.apply(Record::Done { step }, at(7200)).unwrap();
    assert_eq!(lane.milli_usd(at(99_999)), Some(800));
    lane.milli_usd_per_hour = None;
    assert_eq!(lane.milli_usd(at(1)), None);
}

#[test]
fn its_time_is_over_at_the_end() {
    let lane = Lane::begin(planned(), at(0)).unwrap();
    assert!(!lane.is_expired(at(4 * 3600 - 1)));
    assert!(lane.is_expired(at(4 * 3600)));
}

#[test]
fn other_terms_are_named_one_by_one() {
    let mut asked = terms();
    assert_eq!(terms().differences(&asked), []);
    asked.instance_type = "c5.metal".into();
    asked.extras.insert("subnet".into(), "subnet-1".into());
    let names: Vec<_> = terms()
        .differences(&asked)
        .into_iter()
        .map(|difference| {
            format!(
                "{}: {} -> {}",
                difference.name, difference.has, difference.asked
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            "instance type: c8i.2xlarge -> c5.metal",
            "subnet:  -> subnet-1"
        ]
    );
}

#[test]
fn labels_fit_every_provider() {
    let check = |text: &str, expected: &str| {
        assert_eq!(text.parse::<Label>().unwrap_err().to_string(), expected);
    };
    let rule = "a label begins with a letter, ends with a letter or digit, and has only a-z, 0-9 and hyphens between";
    check("", "a label has 1 to 40 characters, not 0");
    check(&"a".repeat(41), "a label has 1 to 40 characters, not 41");
    check("1a", &format!("{rule}: character 1, '1', does not fit"));
    check("-a", &format!("{rule}: character 1, '-', does not fit"));
    check("a-", &format!("{rule}: character 2, '-', does not fit"));
    check("aB", &format!("{rule}: character 2, 'B', does not fit"));
    check("a/b", &format!("{rule}: character 2, '/', does not fit"));
    check("ä", &format!("{rule}: character 1, 'ä', does not fit"));
    for good in ["a", "a-1", "z9"] {
        assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
    }
}

fn record() -> impl Strategy<Value = Record> {
    let step = prop_oneof![
        proptest::sample::select(Step::FORWARD.to_vec()),
        Just(Step::Retire)
    ];
    prop_oneof![
        Just(made()),
        Just(addressed()),
        step.clone().prop_map(|step| Record::Begun { step }),
        step.clone().prop_map(|step| Record::Done { step }),
        step.prop_map(|step| Record::Failed {
            step,
            cause: "no".into()
        }),
    ]
}

proptest! {
    /// Whatever comes in whatever order: what is refused changes nothing, what is over stays over,
    /// and no machine is forgotten before the lane is retired.
    #[test]
    fn any_history_keeps_to_the_rules(records in proptest::collection::vec(record(), 0..60)) {
        let mut lane = Lane::begin(planned(), at(0)).unwrap();
        for record in records {
            let before = lane.clone();
            match lane.apply(record, at(1)) {
                Err(_) => prop_assert_eq!(&lane, &before),
                Ok(()) => {
                    prop_assert!(before.stage != Stage::Retired);
                    prop_assert!(before.stage != Stage::Expiring || lane.stage >= Stage::Expiring);
                    prop_assert!(before.handle.is_none() || lane.handle.is_some());
                    prop_assert!(!(Stage::Created..Stage::Expiring).contains(&lane.stage) || lane.address.is_some());
                }
            }
        }
    }

    #[test]
    fn a_label_is_a_host_name(text in "[a-z0-9-]{0,45}") {
        if let Ok(label) = text.parse::<Label>() {
            let named = format!("firelane-{label}");
            prop_assert!(named.len() <= 63 && !named.ends_with('-'));
        }
    }
}
