//! Every fault at every call of the whole way, and of the way back: there is one machine or none, the
//! call that failed is named, and what is left is found and removed.

use std::collections::BTreeMap;
use std::time::Duration;

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
            // A provider that takes a request twice makes two: both are found again.
            let most = if fault == Fault::Twice { 2 } else { 1 };
            assert!(machines(&setting) <= most, "{context}");
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
            assert!(down.is_clear(), "{context}: {down:?}");
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

/// Whatever goes wrong, and however often, in whatever is asked for next: somebody else's machine
/// stays, and once the provider works again all of ours goes.
#[tokio::test(start_paused = true)]
async fn many_faults_at_random_leave_nothing_either() {
    let mut ends = BTreeMap::<&str, u32>::new();
    for seed in 0..150 {
        let context = format!("seed {seed}");
        let mut dice = fastrand::Rng::with_seed(seed);
        let setting = Setting::seeded(seed);
        let decoy = [("firelane-label", "mine"), ("firelane-owner", "alice")];
        setting.cloud.add_decoy("not-ours", &decoy);
        let mut wish = setting.wish("mine");
        // By its end, or by the end of its time.
        let (chosen, ttl) = match dice.bool() {
            true => (Chosen::All, wish.ttl),
            false => (Chosen::Expired, Some(Duration::from_millis(1))),
        };
        wish.ttl = ttl;
        setting.faults.roll(seed, dice.u32(3..12));
        for _ in 0..dice.u8(1..6) {
            let ended = match dice.u8(..3) {
                0 => "down",
                _ => "up",
            };
            let ended = match ended {
                "down" => tokio::select! {
                    down = setting.down(&chosen) => match down {
                        Ok(down) if down.is_clear() => "down",
                        _ => "down, with something left",
                    },
                    () = setting.faults.killed() => "down, killed",
                },
                _ => match setting.up(&wish).await {
                    Some(Ok(_)) => "up",
                    Some(Err(_)) => "up, failed",
                    None => "up, killed",
                },
            };
            *ends.entry(ended).or_default() += 1;
            let there = setting.cloud.what_is_there();
            assert!(there.contains(&"not-ours".to_owned()), "{context}");
        }
        setting.faults.set(None);
        let down = setting.down(&chosen).await.unwrap();
        assert!(down.is_clear(), "{context}: {down:?}");
        assert_eq!(setting.cloud.what_is_there(), ["not-ours"], "{context}");
        assert!(setting.labels().is_empty(), "{context}");
    }
    // Every way to end was come to.
    assert_eq!(ends.len(), 6, "{ends:?}");
}
