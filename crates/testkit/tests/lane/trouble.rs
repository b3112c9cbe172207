//! What is wrong with a machine, or with a wish: the step that failed is named, the end of its log is
//! shown, and nothing is left.

use firelane_lane::up::{OnError, Then, UpError};
use firelane_model::lane::Step;
use firelane_testkit::lane::Trouble;

use crate::setting::Setting;

async fn check(trouble: Trouble, step: Step, cause: &str, told: &str) {
    let setting = Setting::new();
    setting.access.set(trouble);
    let error = setting
        .up(&setting.wish("mine"))
        .await
        .unwrap()
        .unwrap_err();
    let said = error.to_string();
    let UpError::Step {
        step: failed, then, ..
    } = error
    else {
        panic!("{trouble:?}: {said}");
    };
    assert_eq!(failed, step, "{trouble:?}: {said}");
    assert!(said.contains(cause), "{trouble:?}: {said}");
    assert!(matches!(then, Then::GivenBack), "{trouble:?}: {then:?}");
    let text = setting.told.text();
    assert!(text.contains(told), "{trouble:?}: {text}");
    assert_eq!(setting.cloud.what_is_there(), [""; 0], "{trouble:?}");
    assert!(setting.labels().is_empty(), "{trouble:?}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_never_answers_ends_at_reach_with_its_console() {
    check(
        Trouble::Silent,
        Step::Reach,
        "cannot log in at 192.0.2.1:22",
        "it boots",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_another_key_is_not_logged_in_to() {
    let cause = "does not show the host key of this lane";
    check(Trouble::WrongKey, Step::Reach, cause, "remedy").await;
}

#[tokio::test(start_paused = true)]
async fn cloud_init_that_fails_ends_with_its_log() {
    let cause = "cloud-init failed: a package cannot be found";
    check(
        Trouble::CloudInitFails,
        Step::Prepare,
        cause,
        "Unable to locate",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn cloud_init_that_hangs_ends_at_its_deadline() {
    let cause = "cloud-init is not done after 1200 s";
    check(
        Trouble::CloudInitHangs,
        Step::Prepare,
        cause,
        "Unable to locate",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_kvm_is_not_taken_for_one_with_it() {
    let cause = "could not be prepared, at kvm: there is no /dev/kvm";
    check(Trouble::NoKvm, Step::Prepare, cause, "").await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_at_sync() {
    check(Trouble::DiskFull, Step::Sync, "No space left on device", "").await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_crashes_ends_at_deploy() {
    let cause = "install.sh ended with exit code 1";
    check(
        Trouble::ServiceFails,
        Step::Deploy,
        cause,
        "firelane.service has failed",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn checks_that_fail_end_at_verify() {
    check(
        Trouble::ChecksFail,
        Step::Verify,
        "8 of the checks failed",
        "",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_to_be_kept_is_there_to_look_at() {
    let setting = Setting::new();
    setting.access.set(Trouble::ServiceFails);
    let mut wish = setting.wish("mine");
    wish.on_error = OnError::Keep;
    let error = setting.up(&wish).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            UpError::Step {
                then: Then::Kept,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(setting.cloud.what_is_there().len(), 2);

    setting.access.set(Trouble::None);
    let up = setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    assert_eq!(up.lane.lane, wish.lane);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_there_before_is_not_given_back_by_a_failure() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.on_error = OnError::Keep;
    setting.access.set(Trouble::ServiceFails);
    setting.up(&wish).await.unwrap().unwrap_err();
    let error = setting
        .up(&setting.wish("mine"))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(
            error,
            UpError::Step {
                then: Then::Kept,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(setting.cloud.what_is_there().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_cannot_be_met_spends_nothing_and_leaves_nothing() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.region = Some("there".into());
    let error = setting.up(&wish).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the preflight failed: region: there is only here"
    );

    let mut wish = setting.wish("mine");
    wish.most_milli_usd = Some(1_000);
    let error = setting.up(&wish).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "it costs 1.600 USD over its 4 h, and --max-spend allows 1.000 USD"
    );
    assert!(!setting.faults.calls().contains(&"create".to_owned()));
    assert_eq!(setting.cloud.what_is_there(), [""; 0]);
    assert!(!setting.journal("mine").exists());
    assert!(setting.labels().is_empty());
}
