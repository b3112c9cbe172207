//! What is somebody else's, or another lane's.

use firelane_cloud::marker::Which;
use firelane_cloud::provider::Provider as _;
use firelane_testkit::clouds::Call;
use serde_json::json;

use super::{Cloud, HOME, spec};

const AWAY: &str = "eu-central-1";

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn machines_are_found_in_all_regions_and_others_are_left_alone() {
    let cloud = Cloud::start().await;
    // All regions that the account has.
    let aws = cloud.aws_with(&[]);
    let decoys = cloud.boto("decoys", HOME);
    let mut mine = spec("mine", 1);
    mine.region = AWAY.to_owned();
    let mine = (aws.create(&mine).await.unwrap(), mine);
    let hers = spec("hers", 2);
    let hers = (aws.create(&hers).await.unwrap(), hers);

    let ids = async |which: Which| -> Vec<(String, String)> {
        let machines = aws.list(&which).await.unwrap();
        let mut ids: Vec<_> = machines
            .into_iter()
            .map(|machine| (machine.handle.region, machine.handle.id))
            .collect();
        ids.sort();
        ids
    };
    let of = |region: &str, id: &str| (region.to_owned(), id.to_owned());
    let (my_id, her_id) = (of(AWAY, &mine.0.handle.id), of(HOME, &hers.0.handle.id));
    assert_eq!(ids(Which::All).await, [my_id.clone(), her_id.clone()]);
    assert_eq!(ids(Which::Label(mine.1.label.clone())).await, [my_id]);
    assert_eq!(
        ids(Which::Lane(hers.1.lane)).await,
        std::slice::from_ref(&her_id)
    );
    let calls = cloud.ec2.calls();
    let regions: std::collections::BTreeSet<_> = calls.iter().map(|call| &call.region).collect();
    assert!(regions.len() > 10, "{regions:?}");

    for machine in aws.list(&Which::All).await.unwrap() {
        aws.delete(&machine.handle).await.unwrap();
    }
    let swept = aws.sweep(&Which::All).await.unwrap();
    assert_eq!((swept.removed.len(), swept.left), (2, Vec::new()));
    let left = cloud.seen(HOME);
    let left: Vec<_> = left["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].clone())
        .collect();
    assert_eq!(json!(left), decoys);
    assert_eq!(cloud.counts(AWAY), (0, 0));
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn rules_follow_their_owner_and_those_of_nobody_go() {
    let cloud = Cloud::start().await;
    let aws = cloud.aws();
    let rules = || cloud.seen(HOME)["groups"][0]["rules"].take();
    let rule = |network: &str, owner: &str| {
        let owner = format!("firelane owner {owner}");
        json!(["tcp", 22, 22, network, owner])
    };
    let mut spec = spec("first", 1);
    aws.create(&spec).await.unwrap();
    cloud.boto("open", HOME);
    assert_eq!(rules().as_array().unwrap().len(), 3);

    (spec.label, spec.lane) = ("second".parse().unwrap(), super::spec("x", 2).lane);
    spec.ssh_from = vec!["192.0.2.7/24".to_owned(), "198.51.100.8/32".to_owned()];
    let steps = aws.plan(&spec).await.unwrap();
    let calls: Vec<_> = steps.iter().map(|step| step.call.as_str()).collect();
    let expected = [
        "AuthorizeSecurityGroupIngress",
        "RevokeSecurityGroupIngress",
        "RunInstances",
    ];
    assert_eq!(calls, expected);
    aws.create(&spec).await.unwrap();
    let expected = [
        rule("192.0.2.0/24", "tester"),
        rule("198.51.100.8/32", "tester"),
        rule("203.0.113.9/32", "another"),
    ];
    assert_eq!(rules(), json!(expected));
    assert_eq!(cloud.counts(HOME), (2, 1), "one group for both");
    (spec.label, spec.lane) = ("third".parse().unwrap(), super::spec("x", 3).lane);
    let _ = cloud.ec2.calls();
    aws.create(&spec).await.unwrap();
    let changed = |calls: Vec<Call>| {
        calls
            .into_iter()
            .any(|call| call.action.ends_with("Ingress"))
    };
    assert!(
        !changed(cloud.ec2.calls()),
        "what is as it has to be is left alone"
    );

    // Nobody is named: it is the address that asks.
    (spec.label, spec.lane) = ("fourth".parse().unwrap(), super::spec("x", 4).lane);
    spec.ssh_from.clear();
    aws.create(&spec).await.unwrap();
    let expected = [
        rule("198.51.100.99/32", "tester"),
        rule("203.0.113.9/32", "another"),
    ];
    assert_eq!(rules(), json!(expected));
}
