//! Every fault at every call of the whole way, and of the way back: there is one machine or none, the
//! call that failed is named, and what is left is found and removed.

use firelane_cloud::Class;
use firelane_lane::crew::StepError;
use firelane_lane::down::Chosen;
use firelane_lane::up::{Then, UpError};
use firelane_model::lane::Stage;
use firelane_testkit::lane::Fault;

use crate::setting::Setting;

/// The calls of a way up without faults, or of a way back.
async fn calls(back: bool) -> Vec<String> {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    if back {
        setting.faults.set(None);
        setting.down(&Chosen::All).await.unwrap();
    }
    setting.faults.calls()
}

/// What has our marker.
fn machines(setting: &Setting) -> usize {
    let there = setting.cloud.what_is_there();
    there.iter().filter(|id| id.starts_with("machine-")).count()
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_on_the_way_up_nothing_is_left_without_an_owner() {
    let calls = calls(false).await;
    assert!(calls.len() > 20, "{calls:?}");
    for (at, call) in calls.iter().enumerate() {
        for fault in Fault::ALL {
            let context = format!("{fault:?} at call {at}, {call}");
            let setting = Setting::seeded(at as u64);
            setting
                .cloud
                .add_decoy("not-ours", &[("firelane-label", "mine")]);
            setting.faults.set(Some((at, fault)));
            let wish = setting.wish("mine");
            let ended = setting.up(&wish).await;
            assert_eq!(ended.is_none(), fault.kills(), "{context}");
            assert!(machines(&setting) <= 1, "{context}");
            setting.faults.set(None);
            match ended {
                Some(Ok(up)) => assert_eq!(up.lane.stage, Stage::Verified, "{context}"),
                Some(Err(error)) => explained(&setting, &error, &context),
                None => {
                    // The next process finds it, and goes on with it.
                    let again = setting.up(&setting.wish("mine")).await.unwrap();
                    let up = again.unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert_eq!(up.lane.stage, Stage::Verified, "{context}");
                    assert_eq!(machines(&setting), 1, "{context}");
                }
            }
            let down = setting.down(&Chosen::All).await.unwrap();
            assert!(down.left.is_empty(), "{context}: {:?}", down.left);
            assert_eq!(setting.cloud.what_is_there(), ["not-ours"], "{context}");
            assert!(setting.labels().is_empty(), "{context}");
        }
    }
}

/// A failure is not for lack of trying, and leaves nothing.
fn explained(setting: &Setting, error: &UpError, context: &str) {
    match error {
        UpError::Step { then, cause, .. } => {
            assert!(
                matches!(then, Then::GivenBack),
                "{context}: {error}: {then:?}"
            );
            let passing = matches!(cause, StepError::Cloud(cause) if cause.class.may_pass());
            assert!(
                !passing,
                "{context}: {error} may pass, and was not tried again"
            );
        }
        UpError::Cloud(cause) => assert_eq!(cause.class, Class::Invalid, "{context}: {error}"),
        _ => panic!("{context}: {error}"),
    }
    assert_eq!(setting.cloud.what_is_there(), ["not-ours"], "{context}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_killed_on_the_way_up_can_be_followed_by_down() {
    for (at, call) in calls(false).await.iter().enumerate() {
        for fault in [Fault::KilledBefore, Fault::KilledAfter] {
            let setting = Setting::seeded(at as u64);
            setting.faults.set(Some((at, fault)));
            assert!(setting.up(&setting.wish("mine")).await.is_none());
            setting.faults.set(None);
            setting.down(&Chosen::All).await.unwrap();
            let there = setting.cloud.what_is_there();
            assert_eq!(there, [""; 0], "{fault:?} at call {at}, {call}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_on_the_way_back_the_next_down_ends_it() {
    let calls = calls(true).await;
    assert!(calls.len() > 3, "{calls:?}");
    for (at, call) in calls.iter().enumerate() {
        for fault in Fault::ALL {
            let context = format!("{fault:?} at call {at}, {call}");
            let setting = Setting::seeded(at as u64);
            setting.up(&setting.wish("mine")).await.unwrap().unwrap();
            setting.faults.set(Some((at, fault)));
            tokio::select! {
                ended = setting.down(&Chosen::All) => assert!(!fault.kills(), "{context}: {ended:?}"),
                () = setting.faults.killed() => assert!(fault.kills(), "{context}"),
            }
            setting.faults.set(None);
            setting.down(&Chosen::All).await.unwrap();
            assert_eq!(setting.cloud.what_is_there(), [""; 0], "{context}");
            assert!(setting.labels().is_empty(), "{context}");
        }
    }
}
