//! From nothing to a machine, and back.

use firelane_cloud::marker::Which;
use firelane_cloud::provider::{Provider as _, Verdict};
use firelane_cloud::{Class, MachineState, Spec};
use firelane_testkit::clouds::hetzner::HetznerCloud;
use serde_json::json;

use super::{clear, give_back, hetzner, patient, spec};

#[tokio::test]
async fn a_machine_is_made_once_as_it_was_wanted_and_given_back() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    assert_eq!(provider.default_region().await.unwrap(), "fsn1");
    // Cheaper ones are too small, of another architecture, deprecated or elsewhere.
    assert_eq!(provider.default_instance_type().await.unwrap(), "cx33");
    let spec = spec("first", 1);

    let rows = provider.preflight(&spec).await.unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.verdict))
        .collect();
    let expected = [
        ("credentials", Verdict::Ok),
        ("region", Verdict::Ok),
        ("KVM", Verdict::Ok),
        ("instance type", Verdict::Ok),
        ("image", Verdict::Ok),
        ("user-data", Verdict::Ok),
        ("ssh from", Verdict::Ok),
        ("quota", Verdict::Warning),
        ("price", Verdict::Ok),
    ];
    assert_eq!(shown, expected, "{rows:?}");
    let quote = provider.quote(&spec).await.unwrap().unwrap();
    // 0.0119 for the server and 0.001 for its address, in euros.
    assert_eq!(quote.milli_usd_per_hour, 17);
    assert!(
        quote.source.ends_with("0.012900 EUR, at 1.25 USD"),
        "{quote:?}"
    );
    let steps = provider.plan(&spec).await.unwrap();
    let calls: Vec<_> = steps.iter().map(|step| step.call.as_str()).collect();
    assert_eq!(
        calls,
        ["POST /ssh_keys", "POST /firewalls", "POST /servers"]
    );
    let planned = cloud.calls();
    assert!(
        planned.iter().all(|call| call.starts_with("GET ")),
        "{planned:?}"
    );

    let machine = provider.create(&spec).await.unwrap();
    assert_eq!(machine.state, MachineState::Running);
    assert!(machine.address.is_some(), "{machine:?}");
    assert_eq!(provider.create(&spec).await.unwrap().handle, machine.handle);
    assert_eq!(cloud.counts(), (1, 1, 1), "one lane is one machine");
    let said = cloud.said();
    let asked = |call: &str| {
        let mut said = said.iter();
        let found = said.find(|exchange| exchange.call() == call);
        found.unwrap_or_else(|| panic!("{call}")).request.clone()
    };
    let name = format!("firelane-{}", spec.lane);
    let tags = json!({
        "mvm-ephemeral": "true",
        "firelane-label": "first",
        "firelane-lane": spec.lane.to_string(),
        "firelane-owner": "tester",
        "firelane-created": "1795000000",
        "firelane-expires": "1795014400",
    });
    let rule = json!({
        "direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["198.51.100.0/24"],
        "description": "firelane owner tester",
    });
    assert_eq!(
        asked("POST /firewalls"),
        json!({ "name": name, "labels": tags, "rules": [rule] })
    );
    assert_eq!(
        asked("POST /ssh_keys"),
        json!({ "name": name, "labels": tags, "public_key": spec.ssh_key })
    );
    let mut server = asked("POST /servers");
    let firewall = server["firewalls"][0]["firewall"].take();
    let key = server["ssh_keys"][0].take();
    assert!(firewall.is_u64() && key.is_string());
    assert_eq!(
        server,
        json!({
            "name": name, "labels": tags, "server_type": "cx33", "location": "fsn1", "image": "103",
            "user_data": spec.user_data, "start_after_create": true,
            "public_net": { "enable_ipv4": true, "enable_ipv6": true },
            "firewalls": [{ "firewall": null }], "ssh_keys": [null],
        })
    );

    let found = provider.get(&machine.handle).await.unwrap().unwrap();
    let mark = found.mark.unwrap();
    assert_eq!(
        (mark.label, mark.lane),
        (spec.label.clone(), Some(spec.lane))
    );
    assert_eq!(found.handle.region, "fsn1");
    let elsewhere = Spec {
        ssh_from: vec!["203.0.113.9/32".into()],
        ..spec.clone()
    };
    provider.let_in(&machine.handle, &elsewhere).await.unwrap();
    let said = cloud.said();
    let last = said.last().unwrap();
    assert!(
        last.call().ends_with("/actions/set_rules"),
        "{}",
        last.call()
    );
    let from = &last.request["rules"][0]["source_ips"];
    assert_eq!(*from, json!(["203.0.113.9/32"]));
    assert_eq!(provider.console_log(&machine.handle).await.unwrap(), None);
    let swept = provider.sweep(&Which::All).await.unwrap();
    assert_eq!((swept.removed.len(), swept.used.len()), (0, 2), "{swept:?}");

    provider.delete(&machine.handle).await.unwrap();
    provider.delete(&machine.handle).await.unwrap();
    let leaving = provider.list(&Which::All).await.unwrap();
    assert_eq!(leaving[0].state, MachineState::Leaving);
    let error = provider.create(&spec).await.unwrap_err();
    assert_eq!(error.class, Class::Invalid, "{error}");
    give_back(&provider, &machine.handle).await;
    provider.delete(&machine.handle).await.unwrap();
    assert_eq!(provider.list(&Which::All).await.unwrap(), []);
    let swept = provider.sweep(&Which::All).await.unwrap();
    assert_eq!((swept.removed.len(), swept.left.len()), (2, 0), "{swept:?}");
    assert_eq!(cloud.counts(), (0, 0, 0));
}

#[tokio::test]
async fn machines_are_found_by_their_marker_on_all_pages() {
    let cloud = HetznerCloud::start().await;
    cloud.pages_of(2);
    let provider = patient(&cloud);
    let mut lanes = Vec::new();
    for lane in 1..=5 {
        let spec = spec(if lane == 5 { "other" } else { "one" }, lane);
        provider.create(&spec).await.unwrap();
        lanes.push(spec);
    }
    let count = async |which: Which| provider.list(&which).await.unwrap().len();
    assert_eq!(count(Which::All).await, 5);
    assert_eq!(count(Which::Label(lanes[0].label.clone())).await, 4);
    assert_eq!(count(Which::Lane(lanes[4].lane)).await, 1);
    // What is beside a machine goes with its lane, and with no other.
    let one = Which::Lane(lanes[0].lane);
    let machine = provider.list(&one).await.unwrap().remove(0);
    give_back(&provider, &machine.handle).await;
    let swept = provider.sweep(&one).await.unwrap();
    assert_eq!((swept.removed.len(), swept.left.len()), (2, 0), "{swept:?}");
    assert_eq!(cloud.counts(), (4, 4, 4));
    clear(&cloud, &provider, &Which::All, "all").await;
}

#[tokio::test]
async fn who_names_no_network_is_let_in_from_the_own_address() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let mut spec = spec("own", 1);
    spec.ssh_from.clear();
    provider.create(&spec).await.unwrap();
    // A firewall that an earlier call has left is brought up to date.
    let machine = provider.list(&Which::All).await.unwrap().remove(0);
    give_back(&provider, &machine.handle).await;
    spec.ssh_from = vec!["203.0.113.9/32".to_owned()];
    provider.create(&spec).await.unwrap();
    let said = cloud.said();
    let sources = said
        .iter()
        .map(|exchange| &exchange.request["rules"][0]["source_ips"])
        .filter(|sources| !sources.is_null());
    let sources: Vec<_> = sources.collect();
    let expected = [
        json!(["198.51.100.99/32"]),
        json!(["203.0.113.9/32"]),
        json!(["203.0.113.9/32"]),
    ];
    assert_eq!(sources, expected.iter().collect::<Vec<_>>());
    clear(&cloud, &provider, &Which::All, "all").await;
}
