//! From nothing to a machine, and back.

use std::collections::BTreeSet;

use firelane_cloud::marker::Which;
use firelane_cloud::provider::{Provider as _, Swept, Verdict};
use firelane_cloud::{Class, MachineState, Spec};
use serde_json::{Value, json};

use super::{Cloud, HOME, spec};

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn a_machine_is_made_once_as_it_was_wanted_and_given_back() {
    let cloud = Cloud::start().await;
    let aws = cloud.aws();
    let spec = spec("first", 1);

    let rows = aws.preflight(&spec).await.unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.verdict))
        .collect();
    let ok = Verdict::Ok;
    let expected = [
        ("credentials", ok),
        ("region", ok),
        ("instance type", ok),
        ("image", ok),
        ("disk", ok),
        ("user-data", ok),
        ("network", ok),
        ("ssh from", ok),
        ("security group", ok),
        ("permission", ok),
        ("quota", ok),
        ("price", ok),
    ];
    assert_eq!(shown, expected, "{rows:?}");
    let quote = aws.quote(&spec).await.unwrap().unwrap();
    assert_eq!(quote.milli_usd_per_hour, 433);
    assert!(quote.source.starts_with("price list"), "{quote:?}");
    let steps = aws.plan(&spec).await.unwrap();
    let calls: Vec<_> = steps.iter().map(|step| step.call.as_str()).collect();
    let made = [
        "CreateSecurityGroup",
        "AuthorizeSecurityGroupIngress",
        "RunInstances",
    ];
    assert_eq!(calls, made);
    assert_eq!(cloud.counts(HOME), (0, 0), "neither makes anything");

    let machine = aws.create(&spec).await.unwrap();
    assert_eq!(machine.state, MachineState::Pending);
    assert_eq!(machine.address, None);
    assert_eq!(aws.create(&spec).await.unwrap().handle, machine.handle);
    let seen = cloud.seen(HOME);
    let tags = json!({
        "mvm-ephemeral": "true",
        "firelane-label": "first",
        "firelane-lane": spec.lane.to_string(),
        "firelane-owner": "tester",
        "firelane-created": "1795000000",
        "firelane-expires": "1795014400",
        "Name": "firelane-first",
    });
    let instances = seen["instances"].as_array().unwrap();
    assert_eq!(
        instances.len(),
        1,
        "one token is one machine: {instances:?}"
    );
    let mut instance = instances[0].clone();
    instance["subnet"].take();
    assert_eq!(
        instance,
        json!({
            "id": machine.handle.id,
            "state": "running",
            "type": "c8i.2xlarge",
            "image": "ami-00000002",
            "tags": tags,
            "tokens": "required",
            "shutdown": "terminate",
            "data": spec.user_data,
            "groups": ["mvm-ephemeral-ssh"],
            "root": "/dev/sda1",
            "disks": [{ "size": 50, "type": "gp3", "tags": tags }],
            "subnet": null,
        })
    );
    let group = &seen["groups"][0];
    assert_eq!(group["tags"]["mvm-ephemeral"], "true");
    let rule = json!([["tcp", 22, 22, "198.51.100.7/32", "firelane owner tester"]]);
    assert_eq!(group["rules"], rule);
    let elsewhere = Spec {
        ssh_from: vec!["203.0.113.9/32".into()],
        ..spec.clone()
    };
    for _ in 0..2 {
        aws.let_in(&machine.handle, &elsewhere).await.unwrap();
        let group = &cloud.seen(HOME)["groups"][0];
        let rule = json!([["tcp", 22, 22, "203.0.113.9/32", "firelane owner tester"]]);
        assert_eq!(group["rules"], rule, "it lets its owner in from elsewhere");
    }
    let mut calls = cloud.ec2.calls();
    let run = calls
        .iter()
        .rfind(|call| call.action == "RunInstances")
        .unwrap();
    let param = |name: &str| run.params.get(name).map(String::as_str);
    assert_eq!(param("CpuOptions.NestedVirtualization"), Some("enabled"));
    assert_eq!(param("ClientToken"), Some(&*spec.lane.to_string()));

    let found = aws.get(&machine.handle).await.unwrap().unwrap();
    assert_eq!(found.state, MachineState::Running);
    assert!(found.address.is_some(), "{found:?}");
    let mark = found.mark.unwrap();
    assert_eq!(
        (mark.label, mark.lane),
        (spec.label.clone(), Some(spec.lane))
    );
    assert!(aws.console_log(&machine.handle).await.unwrap().is_some());
    let swept = aws.sweep(&Which::Lane(spec.lane)).await.unwrap();
    assert_eq!(swept, Swept::default(), "that others use it is no news");
    let swept = aws.sweep(&Which::All).await.unwrap();
    assert_eq!((swept.removed.len(), swept.used.len()), (0, 1), "{swept:?}");

    aws.delete(&machine.handle).await.unwrap();
    aws.delete(&machine.handle).await.unwrap();
    assert_eq!(aws.get(&machine.handle).await.unwrap(), None);
    assert_eq!(aws.list(&Which::All).await.unwrap(), []);
    let swept = aws.sweep(&Which::All).await.unwrap();
    assert_eq!((swept.removed.len(), swept.left.len()), (1, 0), "{swept:?}");
    assert_eq!(cloud.counts(HOME), (0, 0));
    let error = aws.create(&spec).await.unwrap_err();
    assert_eq!(
        error.class,
        Class::Invalid,
        "a lane has one machine, ever: {error}"
    );

    calls.extend(cloud.ec2.calls());
    let asked: BTreeSet<_> = calls.into_iter().map(|call| call.action).collect();
    let mut allowed = policy();
    // What this lane did not come to, and what comes with others.
    for other in ["CreateTags", "DescribeSubnets"] {
        assert!(allowed.remove(other), "{other}");
    }
    allowed.insert("GetCallerIdentity".to_owned());
    assert_eq!(asked, allowed, "the policy in docs/providers/aws.md");
}

/// The actions of the policy that the documentation tells users to make.
fn policy() -> BTreeSet<String> {
    let page = include_str!("../../../../../docs/providers/aws.md");
    let text = page.split("```json").nth(1).expect("there is a policy");
    let text = text.split("```").next().expect("it ends");
    let policy: Value = serde_json::from_str(text).expect("it is JSON");
    let statements = policy["Statement"].as_array().expect("it has statements");
    let actions = statements
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        });
    actions
        .map(|action| {
            let (_, name) = action
                .as_str()
                .expect("a text")
                .split_once(':')
                .expect("service:Action");
            name.to_owned()
        })
        .collect()
}
