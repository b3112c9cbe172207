//! What cannot be made, and what is told of it.

use firelane_cloud::machine::Spec;
use firelane_cloud::marker::Which;
use firelane_cloud::provider::{Provider as _, Verdict};
use firelane_cloud::{Class, CloudError, Effect, Handle};
use firelane_testkit::clouds::Fault;
use firelane_testkit::clouds::hetzner::{HetznerCloud, READER};

use super::{clear, hetzner, opened, patient, spec};

/// Message and remedy.
fn told(error: &CloudError) -> String {
    format!("{error}; {}", error.remedy.as_deref().unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_made_is_named_before_anything_is_made() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let check = async |change: fn(&mut Spec), expected: &[&str]| {
        let mut spec = spec("bad", 1);
        change(&mut spec);
        let error = provider.create(&spec).await.unwrap_err();
        let planned = provider.plan(&spec).await.unwrap_err();
        assert_eq!(planned, error);
        let told = told(&error);
        for expected in expected {
            assert!(told.contains(expected), "{expected:?} in {told}");
        }
        assert_eq!(error.class, Class::Invalid, "{told}");
        let rows = provider.preflight(&spec).await.unwrap();
        let failed = rows.iter().filter(|row| row.verdict == Verdict::Failed);
        assert_eq!(failed.count(), 1, "{rows:?}");
        let calls = cloud.calls();
        assert!(calls.iter().all(|call| call.starts_with("GET ")), "{told}");
    };
    check(
        |spec| spec.kvm = true,
        &["have no KVM", "--no-kvm", "aws", "existing"],
    )
    .await;
    check(
        |spec| spec.region = "mars1".into(),
        &["\"mars1\" is no location", "fsn1", "ash"],
    )
    .await;
    check(
        |spec| spec.instance_type = "cx41".into(),
        &["cx41 is deprecated", "take one of cx33, ccx23"],
    )
    .await;
    // Cheaper, and deprecated in this location only.
    check(
        |spec| spec.instance_type = "cpx41".into(),
        &[
            "cpx41 is deprecated in fsn1, and not to be had after 2026-07-01",
            "take one of cx33, ccx23",
        ],
    )
    .await;
    check(
        |spec| spec.instance_type = "cax21".into(),
        &["cax21 has no x86-64 processor"],
    )
    .await;
    check(
        |spec| spec.instance_type = "cpx31".into(),
        &["fsn1 has no type cpx31"],
    )
    .await;
    check(
        |spec| spec.instance_type = "cx53".into(),
        &["fsn1 has no cx53 left now", "take one of cx33, ccx23"],
    )
    .await;
    check(
        |spec| spec.instance_type = "cx99/../".into(),
        &["there is no type \"cx99/../\""],
    )
    .await;
    check(
        |spec| spec.disk_gib = 81,
        &["the disk of cx33 has 80 GiB, and 81 are wanted", "ccx23"],
    )
    .await;
    check(
        |spec| spec.user_data = "x".repeat((32 << 10) + 1),
        &["the user-data has 32769 bytes, and Hetzner takes 32768"],
    )
    .await;
    check(
        |spec| spec.ssh_from = vec!["0.0.0.0/0".into()],
        &["SSH from \"0.0.0.0/0\": that is everybody", "--ssh-from"],
    )
    .await;
    check(
        |spec| drop(spec.extras.insert("subnet".into(), "x".into())),
        &["hetzner knows no \"subnet\""],
    )
    .await;
}

#[tokio::test]
async fn the_largest_document_that_is_allowed_is_taken() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let mut spec = spec("large", 1);
    spec.user_data = "x".repeat(32 << 10);
    provider.create(&spec).await.unwrap();
    clear(&cloud, &provider, &Which::All, "all").await;
}

#[tokio::test]
async fn a_token_that_is_missing_wrong_or_may_not_write_is_named_and_nothing_is_spent() {
    let cloud = HetznerCloud::start().await;
    let spec = spec("token", 1);
    for (token, class, message) in [
        ("", Class::NoCredentials, "HCLOUD_TOKEN is not set"),
        ("hushWrong", Class::Auth, "HCLOUD_TOKEN is wrong"),
    ] {
        let provider = opened(&cloud, token).unwrap();
        let error = provider.create(&spec).await.unwrap_err();
        assert_eq!((error.class, error.effect), (class, Effect::None));
        assert!(told(&error).contains(message), "{}", told(&error));
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        let rows = provider.preflight(&spec).await.unwrap();
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.verdict))
            .collect();
        assert_eq!(shown, [("credentials", Verdict::Failed)]);
    }
    let provider = opened(&cloud, READER).unwrap();
    let error = provider.create(&spec).await.unwrap_err();
    assert_eq!((error.class, error.effect), (Class::Auth, Effect::None));
    assert_eq!(&*error.call, "POST /ssh_keys");
    assert!(told(&error).contains("Read & Write"), "{}", told(&error));
    assert_eq!(cloud.counts(), (0, 0, 0));
}

#[tokio::test]
async fn where_there_is_no_room_nothing_is_left() {
    let cloud = HetznerCloud::start().await;
    let provider = patient(&cloud);
    for (status, code, class) in [
        (412, "resource_unavailable", Class::Capacity),
        (412, "placement_error", Class::Capacity),
        (403, "resource_limit_exceeded", Class::Quota),
    ] {
        cloud.fail("POST /servers", Fault::Refused(status, code));
        let error = provider.create(&spec("full", 1)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_deref()), (class, Some(code)));
        assert!(error.remedy.is_some());
        assert_eq!(cloud.counts(), (0, 0, 0), "{code}");
    }
    // What was taken, and did not come about later.
    for command in ["create_server", "start_server"] {
        cloud.fail_action(command, "resource_unavailable");
        let error = provider.create(&spec("full", 2)).await.unwrap_err();
        let expected = (Class::Capacity, Effect::None, "POST /servers");
        assert_eq!((error.class, error.effect, &*error.call), expected);
        assert!(error.message.contains(command), "{error}");
        assert_eq!(cloud.counts(), (0, 0, 0), "{command}");
    }
    // A sweep of somebody else took the firewall after it was made.
    cloud.fail("POST /servers", Fault::Refused(404, "not_found"));
    provider.create(&spec("full", 3)).await.unwrap();
    clear(&cloud, &provider, &Which::All, "all").await;
}

#[tokio::test]
async fn what_is_somebody_elses_or_no_handle_of_ours_is_left_alone() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let handle = |provider: &str, id: &str| Handle {
        provider: provider.to_owned(),
        region: "fsn1".to_owned(),
        id: id.to_owned(),
    };
    for (bad, message) in [
        (handle("aws", "1"), "is not of hetzner"),
        (handle("hetzner", "1/actions"), "is no number of a server"),
        (handle("hetzner", ""), "is no number of a server"),
    ] {
        let error = provider.delete(&bad).await.unwrap_err();
        assert!(error.message.contains(message), "{error}");
        assert_eq!(provider.get(&bad).await.unwrap_err(), error);
    }
    assert_eq!(cloud.calls(), [""; 0]);
    // Gone is fine.
    provider.delete(&handle("hetzner", "999")).await.unwrap();
}
