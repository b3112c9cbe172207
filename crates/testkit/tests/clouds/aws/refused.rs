//! What cannot be made, and what is told of it.

use firelane_cloud::machine::Spec;
use firelane_cloud::provider::{Provider as _, Verdict};
use firelane_cloud::{Class, CloudError};
use firelane_testkit::clouds::Fault;

use super::{Cloud, HOME, spec};

const NO_KVM: &str = "c8i";

/// Message and remedy.
fn told(error: &CloudError) -> String {
    format!("{error}; {}", error.remedy.as_deref().unwrap_or_default())
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn what_cannot_be_made_is_named_before_anything_is_made() {
    let cloud = Cloud::start().await;
    let aws = cloud.aws();
    let check = async |change: fn(&mut Spec), expected: &[&str]| {
        let mut spec = spec("bad", 1);
        change(&mut spec);
        let error = aws.create(&spec).await.unwrap_err();
        let told = told(&error);
        for expected in expected {
            assert!(told.contains(expected), "{expected:?} in {told}");
        }
        assert!(
            matches!(error.class, Class::Invalid | Class::NotFound),
            "{told}"
        );
        assert_eq!(cloud.counts(HOME), (0, 0), "{told}");
    };
    let kind = |spec: &mut Spec| spec.instance_type = "t3.micro".into();
    check(
        kind,
        &["t3.micro has no KVM", NO_KVM, "c5.metal", "--no-kvm"],
    )
    .await;
    let arm = |spec: &mut Spec| (spec.instance_type, spec.kvm) = ("t4g.micro".into(), false);
    check(arm, &["t4g.micro has no x86-64 processor"]).await;
    let none = |spec: &mut Spec| spec.instance_type = "c99.metal".into();
    check(none, &["c99.metal", "InvalidInstanceType"]).await;
    let region = |spec: &mut Spec| spec.region = "evil.example/#".into();
    check(region, &["\"evil.example/#\" is no region"]).await;
    let open = |spec: &mut Spec| spec.ssh_from = vec!["0.0.0.0/0".into()];
    check(open, &["SSH from \"0.0.0.0/0\": that is everybody"]).await;
    let extra = |spec: &mut Spec| drop(spec.extras.insert("subnte".into(), "x".into()));
    check(
        extra,
        &["aws knows no \"subnte\", but subnet and security-group"],
    )
    .await;
    let subnet = |spec: &mut Spec| drop(spec.extras.insert("subnet".into(), "subnet-1".into()));
    check(subnet, &["DescribeSubnets", "InvalidSubnetID.NotFound"]).await;
    let disk = |spec: &mut Spec| spec.disk_gib = 1;
    check(disk, &["a root disk has 8 to 16384 GiB, not 1"]).await;
    let large = |spec: &mut Spec| {
        let mut dice = fastrand::Rng::with_seed(1);
        spec.user_data = (0..40_000).map(|_| dice.alphanumeric()).collect();
    };
    check(large, &["the user-data has 40000 bytes"]).await;

    let group = cloud.boto("foreign", HOME);
    let error = aws.create(&spec("bad", 1)).await.unwrap_err();
    assert!(
        told(&error).contains("has no tag mvm-ephemeral=true"),
        "{error}"
    );
    assert_eq!(cloud.counts(HOME), (0, 1));

    // Named, it is used as it is.
    let mut spec = spec("named", 2);
    let group = group.as_str().unwrap().to_owned();
    spec.extras.insert("security-group".to_owned(), group);
    let error = aws.create(&spec).await.unwrap_err();
    let said = told(&error);
    assert!(
        said.contains("SSH is to come from 198.51.100.7/32 only"),
        "{said}"
    );
    assert!(said.contains("AWS_SG_ID, or --ssh-from"), "{said}");
    spec.ssh_from.clear();
    let seen = cloud.seen(HOME);
    aws.create(&spec).await.unwrap();
    assert_eq!(cloud.seen(HOME)["groups"], seen["groups"]);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn types_say_how_they_get_kvm() {
    let cloud = Cloud::start().await;
    let aws = cloud.aws();
    let asked = async |lane: u128, kind: &str, kvm: bool| {
        let mut spec = spec("kinds", lane);
        (spec.instance_type, spec.kvm) = (kind.to_owned(), kvm);
        // Larger than EC2 takes, but not when it is compressed.
        spec.user_data = "#cloud-config\n".repeat(4_000);
        aws.create(&spec).await.unwrap();
        let mut calls = cloud.ec2.calls().into_iter();
        let run = calls.rfind(|call| call.action == "RunInstances");
        let params = run.unwrap().params;
        params.get("CpuOptions.NestedVirtualization").cloned()
    };
    assert_eq!(
        asked(1, "m8i.large", true).await.as_deref(),
        Some("enabled")
    );
    assert_eq!(asked(2, "c5.metal", true).await, None);
    assert_eq!(asked(3, "t3.micro", false).await, None);
    assert_eq!(asked(4, "c8i.2xlarge", false).await, None);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn a_preflight_names_what_is_missing() {
    let cloud = Cloud::start().await;
    let rows = async |spec: &Spec| {
        let rows = cloud.aws().preflight(spec).await.unwrap();
        let failed = rows
            .into_iter()
            .filter(|row| row.verdict == Verdict::Failed);
        let shown = failed.map(|row| {
            format!(
                "{}: {}; {}",
                row.name,
                row.message,
                row.remedy.unwrap_or_default()
            )
        });
        shown.collect::<Vec<_>>()
    };
    let mut good = spec("ahead", 1);
    // A preflight is asked for before anything is known of a lane.
    good.owner.clear();
    assert_eq!(rows(&good).await, [""; 0]);
    cloud
        .ec2
        .fail("GetCallerIdentity", Fault::Refused(403, "ExpiredToken"));
    let shown = rows(&good).await;
    assert!(
        matches!(&shown[..], [one] if one.starts_with("credentials: ") && one.contains("log in again")),
        "{shown:?}"
    );
    cloud
        .ec2
        .fail("RunInstances", Fault::Refused(403, "UnauthorizedOperation"));
    let shown = rows(&good).await;
    assert!(
        matches!(&shown[..], [one] if one.starts_with("permission: ") && one.contains("policy")),
        "{shown:?}"
    );
    let mut bad = good.clone();
    bad.region = "us-west-9".to_owned();
    let shown = rows(&bad).await;
    assert!(
        matches!(&shown[..], [one] if one.starts_with("region: ") && one.contains("us-east-1")),
        "{shown:?}"
    );
    let mut bad = good.clone();
    (bad.instance_type, bad.disk_gib) = ("t3.micro".to_owned(), 1);
    let shown = rows(&bad).await;
    assert!(
        matches!(&shown[..], [kind, disk] if kind.starts_with("instance type: ") && disk.starts_with("disk: ")),
        "{shown:?}"
    );
    cloud.ec2.limit(5.0);
    let shown = rows(&good).await;
    assert!(
        matches!(&shown[..], [one] if one.contains("quota: 5 processors may run (L-1216C47A), and 8 are needed")),
        "{shown:?}"
    );
    assert_eq!(cloud.counts(HOME), (0, 0));

    let _ = cloud.ec2.calls();
    let nobody = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("HOME", "/nonexistent"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let rows = cloud.aws_with(&nobody).preflight(&good).await.unwrap();
    assert_eq!((rows.len(), rows[0].verdict), (1, Verdict::Failed));
    assert!(rows[0].message.contains("no credentials"), "{rows:?}");
    assert_eq!(cloud.ec2.calls(), []);
}

#[tokio::test]
#[ignore = "needs moto: cargo xtask check brings it"]
async fn who_may_not_see_prices_and_quotas_gets_the_table_and_a_warning() {
    let cloud = Cloud::start().await;
    let aws = cloud.patient();
    let mut spec = spec("prices", 1);
    let denied = Fault::Refused(400, "AccessDeniedException");
    cloud.ec2.fail("GetProducts", denied);
    let quote = aws.quote(&spec).await.unwrap().unwrap();
    assert_eq!(quote.milli_usd_per_hour, 400);
    assert!(quote.source.starts_with("table of 2026-11"), "{quote:?}");
    spec.instance_type = "m8i.large".to_owned();
    cloud.ec2.fail("GetProducts", denied);
    assert_eq!(aws.quote(&spec).await.unwrap(), None);
    cloud
        .ec2
        .fail("GetProducts", Fault::Refused(400, "ThrottlingException"));
    cloud.ec2.fail("GetProducts", Fault::Cut);
    assert!(aws.quote(&spec).await.unwrap().is_some());

    cloud.ec2.fail("GetServiceQuota", denied);
    let rows = aws.preflight(&spec).await.unwrap();
    let quota = rows.iter().find(|row| row.name == "quota").unwrap();
    assert_eq!(quota.verdict, Verdict::Warning, "{quota:?}");
    assert!(cloud.ec2.mend());
}
