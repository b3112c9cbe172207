//! The whole way, and the ways back.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::time::Duration;

use firelane_cloud::Class;
use firelane_cloud::registry::{self, Settings};
use firelane_lane::cloudinit::Download;
use firelane_lane::crew::Crew;
use firelane_lane::down::{self, Chosen, forget};
use firelane_lane::list::{Standing, list};
use firelane_lane::steps::verify::Verdict;
use firelane_lane::up::{Firecracker, OnError, Then, UpError, Wish, up};
use firelane_model::lane::{Stage, Step};
use firelane_testkit::lane::Trouble;

use crate::setting::Setting;

#[tokio::test(start_paused = true)]
async fn up_ends_with_a_verified_host_and_down_leaves_nothing() {
    let setting = Setting::new();
    setting
        .cloud
        .add_decoy("not-ours", &[("mvm-ephemeral", "false")]);
    let wish = setting.wish("mine");
    let up = setting.up(&wish).await.unwrap().unwrap();
    assert_eq!(up.lane.stage, Stage::Verified);
    assert!(
        up.rows.iter().all(|row| row.verdict == Verdict::Pass),
        "{:?}",
        up.rows
    );
    assert_eq!(setting.cloud.what_is_there().len(), 3);

    let down = setting
        .down(&Chosen::Label("mine".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(down.retired, ["mine".parse().unwrap()]);
    assert!(down.is_clear());
    assert_eq!(setting.cloud.what_is_there(), ["not-ours"]);
    assert!(setting.labels().is_empty());
    let retired = setting.yard.retired().unwrap();
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].stage, Stage::Retired);

    let again = setting
        .down(&Chosen::Label("mine".parse().unwrap()))
        .await
        .unwrap();
    assert!(again.is_nothing());
}

#[tokio::test(start_paused = true)]
async fn up_again_does_nothing_to_a_lane_that_is_verified() {
    let setting = Setting::new();
    let wish = setting.wish("mine");
    setting.up(&wish).await.unwrap().unwrap();
    let before = setting.cloud.what_is_there();
    let again = setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    assert_eq!((again.lane.lane, again.rows.len()), (wish.lane, 0));
    assert_eq!(setting.cloud.what_is_there(), before);
}

#[tokio::test(start_paused = true)]
async fn up_with_other_terms_is_refused_with_the_difference() {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    let mut other = setting.wish("mine");
    other.instance_type = Some("larger".into());
    let refused = setting.up(&other).await.unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"the lane mine exists and is another one: its instance type is "large", and "larger" is asked for"#
    );
    // What is not said is not another wish.
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_machine_has_from_its_beginning_is_not_passed_over_later() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.ttl = Some(Duration::from_secs(90 * 60));
    wish.ssh_keys = vec!["ssh-ed25519 AAAA one".into()];
    wish.firecracker = Firecracker::Nothing;
    setting.up(&wish).await.unwrap().unwrap();
    let before = setting.cloud.what_is_there();
    // The same, said or not said.
    setting.up(&wish).await.unwrap().unwrap();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();

    let refused = async |change: fn(&mut Wish), said: &str| {
        let mut other = wish.clone();
        change(&mut other);
        let error = setting.up(&other).await.unwrap().unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    };
    let ttl = |wish: &mut Wish| wish.ttl = Some(Duration::from_secs(4 * 3600));
    refused(ttl, r#"its time to live is "90m", and "4h" is asked for"#).await;
    let key = |wish: &mut Wish| wish.ssh_keys = vec!["ssh-ed25519 BBBB two".into()];
    let said = r#"its SSH key is "ssh-ed25519 AAAA one", and "ssh-ed25519 BBBB two" is asked for"#;
    refused(key, said).await;
    let firecracker = |wish: &mut Wish| wish.firecracker = Firecracker::This(Download::pinned());
    refused(firecracker, r#"its Firecracker is "", and "https://"#).await;
    let most = |wish: &mut Wish| wish.most_milli_usd = Some(1);
    refused(most, "and --max-spend allows 0.001 USD").await;
    assert_eq!(setting.cloud.what_is_there(), before);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_at_the_beginning_counts_when_a_create_is_made_again() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.ssh_keys = vec!["ssh-ed25519 AAAA one".into()];
    wish.on_error = OnError::Keep;
    let after = tokio::time::sleep(Duration::from_secs(4));
    up(&setting.crew(), &wish, &setting.release(), after)
        .await
        .unwrap_err();
    setting.cloud.lose_machines();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    assert!(setting.cloud.user_data()[0].contains("ssh-ed25519 AAAA one"));
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_cannot_keep_is_refused() {
    let setting = Setting::new();
    let settings = Settings {
        variables: BTreeMap::new(),
        state: setting.path().to_owned(),
    };
    let existing = registry::open("existing", &settings).unwrap();
    let crew = Crew {
        provider: &*existing,
        ..setting.crew()
    };
    let release = setting.release();
    let refused = async |wish: &Wish, said: &str| {
        let error = up(&crew, wish, &release, pending()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(setting.labels().is_empty());
    };
    let mut wish = setting.wish("mine");
    wish.extras.insert("host".into(), "192.0.2.1".into());
    refused(&wish, "existing has no firewall").await;
    wish.ssh_from.clear();
    wish.ssh_keys = vec!["ssh-ed25519 AAAA one".into()];
    refused(&wish, "leave --ssh-pubkey out").await;
}

/// A provider that cannot be looked at is told of, and is no machine that is left.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_is_told_as_that() {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    setting.cloud.lock_out(true);
    let down = setting.down(&Chosen::Expired).await.unwrap();
    assert!(down.left.is_empty() && !down.is_nothing(), "{down:?}");
    let unseen = down.unseen.unwrap();
    assert_eq!(unseen.class, Class::Auth);
    assert!(!setting.told.text().contains("is left"));
    setting.cloud.lock_out(false);
    let down = setting.down(&Chosen::Expired).await.unwrap();
    assert!(down.is_nothing(), "{down:?}");
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_gives_back_what_was_begun() {
    let setting = Setting::new();
    let wish = setting.wish("mine");
    // While the machine is waited for.
    let after = tokio::time::sleep(Duration::from_secs(4));
    let ended = up(&setting.crew(), &wish, &setting.release(), after)
        .await
        .unwrap_err();
    assert_eq!(ended.to_string(), "create: interrupted");
    assert_eq!(setting.cloud.what_is_there(), [""; 0]);
    assert!(setting.labels().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_lane_that_is_kept_goes_on() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.on_error = OnError::Keep;
    let after = tokio::time::sleep(Duration::from_secs(4));
    up(&setting.crew(), &wish, &setting.release(), after)
        .await
        .unwrap_err();
    assert_eq!(setting.cloud.what_is_there().len(), 2);
    let up = setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    assert_eq!(up.lane.lane, wish.lane);
    assert_eq!(setting.cloud.what_is_there().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_lanes_live_side_by_side_and_down_takes_the_one_that_is_named() {
    let setting = Setting::new();
    setting.up(&setting.wish("one")).await.unwrap().unwrap();
    setting.up(&setting.wish("two")).await.unwrap().unwrap();
    setting
        .down(&Chosen::Label("one".parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(setting.labels(), ["two".parse().unwrap()]);
    assert_eq!(setting.cloud.what_is_there().len(), 2);
    let all = setting.down(&Chosen::All).await.unwrap();
    assert_eq!(all.retired, ["two".parse().unwrap()]);
    assert_eq!(setting.cloud.what_is_there(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn two_processes_do_not_act_on_one_lane() {
    let setting = Setting::new();
    let label = "mine".parse().unwrap();
    let _taken = setting.yard.take(&label).unwrap();
    let refused = setting
        .up(&setting.wish("mine"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "another firelane acts on the lane mine"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lane_of_another_computer_is_seen_and_given_back() {
    let there = Setting::new();
    there.up(&there.wish("mine")).await.unwrap().unwrap();
    // The journal is lost with the computer; the machines are not.
    fs::remove_dir_all(there.path().join("state")).unwrap();
    let (entries, error) = list(&there.yard, there.crew().provider).await.unwrap();
    assert_eq!((entries.len(), error), (1, None));
    assert_eq!(entries[0].standing, Standing::Orphan);
    let refused = there.up(&there.wish("mine")).await.unwrap().unwrap_err();
    assert!(matches!(refused, UpError::Foreign { .. }), "{refused}");
    let down = there.down(&Chosen::All).await.unwrap();
    assert_eq!(down.machines.len(), 1);
    assert_eq!(there.cloud.what_is_there(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_went_by_itself_is_told_as_drift_and_down_is_fine() {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    setting.cloud.lose_machines();
    let (entries, error) = list(&setting.yard, setting.crew().provider).await.unwrap();
    assert_eq!(error, None);
    assert_eq!(entries[0].standing, Standing::Drift);
    let down = setting.down(&Chosen::All).await.unwrap();
    assert_eq!(down.retired.len(), 1);
    assert_eq!(setting.cloud.what_is_there(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_lost_its_label_is_ours_to_remove_but_not_to_reap() {
    let setting = Setting::new();
    setting
        .cloud
        .add_decoy("no-label", &[("mvm-ephemeral", "true")]);
    setting.down(&Chosen::Expired).await.unwrap();
    assert_eq!(setting.cloud.what_is_there(), ["no-label"]);
    let all = setting.down(&Chosen::All).await.unwrap();
    assert_eq!(all.machines.len(), 1);
    assert_eq!(setting.cloud.what_is_there(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_keeps_no_machine() {
    for step in [Step::Reach, Step::Deploy, Step::Verify] {
        let setting = Setting::new();
        setting.told.spoil_at(step, setting.journal("mine"));
        let error = setting
            .up(&setting.wish("mine"))
            .await
            .unwrap()
            .unwrap_err();
        let then = |error: &UpError| {
            matches!(
                error,
                UpError::Step {
                    then: Then::GivenBack,
                    ..
                }
            )
        };
        assert!(then(&error), "{step}: {error:?}");
        assert_eq!(setting.cloud.what_is_there(), [""; 0], "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_time_is_over_does_not_go_on() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    wish.ttl = Some(Duration::ZERO);
    setting.up(&wish).await.unwrap().unwrap();
    let refused = setting
        .up(&setting.wish("mine"))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.to_string(), "the time of the lane mine is over");
    setting.down(&Chosen::Expired).await.unwrap();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_what_is_over_is_reaped() {
    let setting = Setting::new();
    let mut short = setting.wish("short");
    short.ttl = Some(Duration::ZERO);
    setting.up(&short).await.unwrap().unwrap();
    setting.up(&setting.wish("long")).await.unwrap().unwrap();
    let reaped = setting.down(&Chosen::Expired).await.unwrap();
    assert_eq!(reaped.retired, ["short".parse().unwrap()]);
    assert_eq!(setting.labels(), ["long".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_cut_off_in_a_line_goes_on() {
    let setting = Setting::new();
    let wish = setting.wish("mine");
    setting.up(&wish).await.unwrap().unwrap();
    let path = setting.journal("mine");
    let mut text = fs::read_to_string(&path).unwrap();
    let whole = text.clone();
    text.push_str(r#"{"at_ms":1,"rec"#);
    fs::write(&path, text).unwrap();
    let again = setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    assert_eq!(again.lane.stage, Stage::Verified);
    setting.down(&Chosen::All).await.unwrap();
    let retired = setting
        .path()
        .join("state/retired")
        .join(wish.lane.to_string());
    assert!(fs::read_to_string(retired).unwrap().starts_with(&whole));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_named_with_its_line_and_left_as_it_is() {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    let path = setting.journal("mine");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replacen("begun", "began", 1);
    fs::write(&path, &text).unwrap();
    let refused = setting
        .up(&setting.wish("mine"))
        .await
        .unwrap()
        .unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("line 2 of") && said.contains("journal"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test(start_paused = true)]
async fn up_again_lets_its_user_in_from_elsewhere() {
    let setting = Setting::new();
    let mut wish = setting.wish("mine");
    setting.up(&wish).await.unwrap().unwrap();
    assert_eq!(setting.cloud.open_to(), ["192.0.2.7/32"]);
    wish.ssh_from = vec!["203.0.113.9/32".into()];
    setting.up(&wish).await.unwrap().unwrap();
    assert_eq!(setting.cloud.open_to(), ["203.0.113.9/32"]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_may_cost_money_is_not_forgotten() {
    let setting = Setting::new();
    setting.up(&setting.wish("mine")).await.unwrap().unwrap();
    let label = "mine".parse().unwrap();
    let refused = forget(&setting.crew(), &label).await.unwrap_err();
    assert!(refused.to_string().contains("may cost money"), "{refused}");
    assert_eq!(setting.labels(), [label]);
    assert_eq!(setting.cloud.what_is_there().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_on_a_machine_that_lets_nobody_in_any_more_can_be_given_up() {
    let setting = Setting::new();
    let settings = Settings {
        variables: BTreeMap::new(),
        state: setting.path().to_owned(),
    };
    let existing = registry::open("existing", &settings).unwrap();
    let crew = Crew {
        provider: &*existing,
        ..setting.crew()
    };
    let mut wish = setting.wish("mine");
    wish.extras.insert("host".into(), "192.0.2.1".into());
    // Who may come there is not ours to say.
    wish.ssh_from.clear();
    let release = setting.release();
    up(&crew, &wish, &release, pending()).await.unwrap();
    setting.access.set(Trouble::Silent);
    let down = down::down(&crew, &Chosen::All).await.unwrap();
    assert_eq!(down.left.len(), 1, "{down:?}");
    assert_eq!(setting.labels(), [wish.label.clone()]);

    let down = forget(&crew, &wish.label).await.unwrap();
    assert_eq!(down.retired, [wish.label.clone()]);
    assert!(setting.labels().is_empty());
    let told = setting.told.text();
    assert!(told.contains("what was installed stays"), "{told}");
    // The label can be used again.
    setting.access.set(Trouble::None);
    up(&crew, &wish, &release, pending()).await.unwrap();
}
