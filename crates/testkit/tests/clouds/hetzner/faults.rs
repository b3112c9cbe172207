//! Each call in turn goes wrong.

use firelane_cloud::marker::Which;
use firelane_cloud::provider::Provider as _;
use firelane_cloud::{CloudError, Effect, Machine};
use firelane_testkit::clouds::Fault;
use firelane_testkit::clouds::hetzner::HetznerCloud;

use super::{clear, hetzner, patient, spec};

const FAULTS: [Fault; 9] = [
    Fault::Refused(403, "forbidden"),
    Fault::Refused(429, "rate_limit_exceeded"),
    Fault::Refused(500, "server_error"),
    Fault::Refused(409, "conflict"),
    Fault::Refused(423, "locked"),
    Fault::Cut,
    Fault::Lost,
    Fault::Senseless,
    Fault::NoIds,
];
/// What a create asks for until there is a server; afterwards it only looks.
const CALLS: [&str; 6] = [
    "GET /locations",
    "GET /server_types",
    "GET /images",
    "POST /ssh_keys",
    "POST /firewalls",
    "POST /servers",
];

/// What is there has an owner, and is what the caller was told of.
fn check(
    cloud: &HetznerCloud,
    lane: &str,
    made: &Result<Machine, CloudError>,
    call: Option<&str>,
    what: &str,
) {
    for labels in cloud.labels() {
        assert_eq!(labels["mvm-ephemeral"], "true", "{what}");
        assert_eq!(labels["firelane-lane"], lane, "{what}");
    }
    match made {
        Ok(machine) => {
            assert_eq!(cloud.servers(), [machine.handle.id.as_str()], "{what}");
        }
        Err(error) => {
            assert_eq!(Some(&*error.call), call, "{what}: {error}");
            if error.effect == Effect::None {
                assert_eq!(cloud.counts(), (0, 0, 0), "{what}: {error}");
            } else {
                assert!(cloud.servers().len() <= 1, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_create_stops_at_the_call_that_fails_and_names_it() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let mut lane = 0;
    let mut failed = 0;
    for fault in FAULTS {
        for number in 0.. {
            lane += 1;
            let spec = spec("faulty", lane);
            let call = CALLS.get(number).copied();
            let what = format!("{fault:?} at call {number}, {call:?}");
            cloud.fail_nth(number, fault);
            let made = provider.create(&spec).await;
            let reached = cloud.mend();
            failed += usize::from(made.is_err());
            check(&cloud, &spec.lane.to_string(), &made, call, &what);
            clear(&cloud, &provider, &Which::Lane(spec.lane), &what).await;
            if !reached {
                assert!(number > CALLS.len(), "{what}");
                break;
            }
        }
    }
    // An answer that was lost is no failure where a look tells what became of it.
    assert!(failed > FAULTS.len() * CALLS.len() * 3 / 4, "{failed}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_makes_one_machine() {
    let cloud = HetznerCloud::start().await;
    let provider = patient(&cloud);
    let mut lane = 100;
    for fault in &FAULTS[1..] {
        for number in 0.. {
            lane += 1;
            let spec = spec("patient", lane);
            let which = Which::Lane(spec.lane);
            let what = format!("{fault:?} at call {number}");
            cloud.fail_nth(number, *fault);
            let made = provider.create(&spec).await;
            let reached = cloud.mend();
            assert!(made.is_ok(), "{what}: {made:?}");
            check(&cloud, &spec.lane.to_string(), &made, None, &what);
            // Giving it back takes no more than trying again either.
            cloud.fail_nth(number % 6, *fault);
            clear(&cloud, &provider, &which, &what).await;
            let _ = cloud.mend();
            if !reached {
                assert!(number > CALLS.len(), "{what}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_machine_whose_answer_was_lost_is_found_again() {
    let cloud = HetznerCloud::start().await;
    let provider = patient(&cloud);
    for fault in [Fault::Lost, Fault::Senseless, Fault::NoIds] {
        cloud.fail("POST /servers", fault);
    }
    let machine = provider.create(&spec("lost", 1)).await.unwrap();
    let calls = cloud.calls();
    let creates = calls.iter().filter(|call| *call == "POST /servers");
    let looked_first = "it is looked for before it is asked for again";
    assert_eq!(creates.count(), 1, "{looked_first}");
    assert_eq!(cloud.servers(), [machine.handle.id]);
    assert!(!cloud.mend(), "two faults were not needed");
}

#[tokio::test]
async fn an_hour_that_is_used_up_is_waited_for() {
    let cloud = HetznerCloud::start().await;
    cloud.calls_left(4);
    let error = hetzner(&cloud).create(&spec("many", 1)).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("rate_limit_exceeded"));
    assert!(error.retry_after.is_some(), "{error:?}");
    assert_eq!(cloud.counts(), (0, 0, 0));
    cloud.calls_left(4);
    let provider = patient(&cloud);
    provider.create(&spec("many", 1)).await.unwrap();
    clear(&cloud, &provider, &Which::All, "all").await;
}
