//! The lane's commands against a Hetzner Cloud of ours: killed on the way, and what is found afterwards.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use firelane_cloud::Spec;
use firelane_cloud::registry::{Settings, open};
use firelane_model::lane::LaneId;
use firelane_model::time::Moment;
use firelane_testkit::clouds::Fault;
use firelane_testkit::clouds::hetzner::{HetznerCloud, TOKEN};
use firelane_testkit::{Ended, Lab, Running};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

/// An address of this machine at which nothing shows the key of a lane.
const NOBODY: &str = "127.77.0.1";
const UP: [&str; 6] = [
    "up",
    "--provider",
    "hetzner",
    "--no-kvm",
    "--label",
    "killed",
];

/// Somebody with an account at Hetzner and at no other cloud.
struct User {
    lab: Lab,
    cloud: HetznerCloud,
    runtime: Runtime,
    token: &'static str,
}

impl User {
    fn new() -> User {
        let runtime = Runtime::new().unwrap();
        let cloud = runtime.block_on(HetznerCloud::start());
        cloud.servers_are_at(NOBODY);
        User {
            lab: Lab::new(),
            cloud,
            runtime,
            token: TOKEN,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        let own = [
            "PROVIDER",
            "LABEL",
            "REGION",
            "INSTANCE_TYPE",
            "SSH_PUBKEY",
            "FIRELANE_SSH_FROM",
        ];
        let aws = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"];
        for name in own.into_iter().chain(aws) {
            command.env_remove(name);
        }
        command
            .env("FIRELANE_LANES", self.lab.path().join("lanes"))
            .env("FIRELANE_HETZNER_ENDPOINT", self.cloud.url())
            .env("HCLOUD_TOKEN", self.token)
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    fn firelane(&self, args: &[&str]) -> Ended {
        Running::start(self.command(args), b"").end()
    }

    /// What became of the lane, as its log has it.
    fn log(&self) -> String {
        let log = self.lab.path().join("lanes/lanes/killed/log");
        fs::read_to_string(log).unwrap_or_default()
    }

    /// `up`, killed as soon as it is so far.
    fn killed_when(&self, so_far: impl Fn(&User) -> bool) {
        let mut up = Running::start(self.command(&UP), b"");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !so_far(self) {
            if up.is_over() {
                panic!("it ended by itself: {:?}", up.end());
            }
            assert!(Instant::now() < deadline, "not in time: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        up.signal(Signal::KILL);
        assert_eq!(up.end().code, -9);
    }

    /// What is listed.
    fn listed(&self) -> Vec<Value> {
        let listed = self.firelane(&["list", "--json"]);
        assert_eq!(listed.code, 0, "{listed:?}");
        serde_json::from_str(&listed.stdout).unwrap()
    }

    /// Nothing is left, here and there.
    fn has_nothing(&self, context: &str) {
        assert_eq!(self.cloud.counts(), (0, 0, 0), "{context}");
        assert_eq!(self.listed(), [Value::Null; 0], "{context}");
        let again = self.firelane(&["down", "--provider", "hetzner"]);
        let said = (again.code, again.stdout.trim());
        assert_eq!(said, (0, "nothing to remove"), "{context}: {again:?}");
    }

    /// A server that was made somewhere else, with so much time left.
    fn of_another_computer(&self, left: i64) {
        let variables = [
            ("FIRELANE_HETZNER_ENDPOINT", self.cloud.url()),
            ("HCLOUD_TOKEN", TOKEN.to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let settings = Settings {
            variables: BTreeMap::from(variables),
            state: "/nonexistent".into(),
        };
        let provider = open("hetzner", &settings).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let expires = now.as_secs().checked_add_signed(left).unwrap();
        let spec = Spec {
            label: "elsewhere".parse().unwrap(),
            lane: LaneId::from_bits(fastrand::u128(..)),
            owner: "somebody".into(),
            region: "fsn1".into(),
            instance_type: "cx33".into(),
            disk_gib: 50,
            kvm: false,
            user_data: String::new(),
            ssh_key: "ssh-ed25519 AAAA somebody".into(),
            ssh_from: vec!["198.51.100.7/32".into()],
            created: Moment::ORIGIN,
            expires: Moment::after_origin(Duration::from_secs(expires)),
            extras: BTreeMap::new(),
        };
        self.runtime.block_on(provider.create(&spec)).unwrap();
    }
}

#[test]
fn whoever_is_killed_at_the_first_login_finds_the_machine_with_and_without_the_journal() {
    let user = User::new();
    user.killed_when(|user| user.log().contains("not yet: "));
    let entries = user.listed();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let entry = &entries[0];
    assert_eq!(entry["standing"], "agreed", "{entry}");
    assert_eq!(
        (&entry["stage"], &entry["address"]),
        (&"created".into(), &NOBODY.into())
    );

    // Its time is not over.
    let reaped = user.firelane(&["reap"]);
    assert_eq!(reaped.code, 0, "{reaped:?}");
    assert!(
        reaped
            .stdout
            .contains("hetzner: looked at, nothing is overdue"),
        "{reaped:?}"
    );
    assert_eq!(user.cloud.counts(), (1, 1, 1));

    // Other terms are not passed over.
    for (more, said) in [
        (
            ["--ttl", "8h"],
            r#"its time to live is "4h", and "8h" is asked for"#,
        ),
        (["--ssh-pubkey", "ssh-ed25519 AAAA me"], "its SSH key is"),
        (["--instance-type", "cx43"], "its instance type is"),
    ] {
        let refused = user.firelane(&[&UP[..], &more].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }

    let kept = fs::read_dir(user.lab.path().join("lanes/lanes/killed")).unwrap();
    for file in kept.flatten() {
        let text = fs::read(file.path()).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(TOKEN), "{file:?}");
    }

    let down = user.firelane(&["down", "--label", "killed"]);
    assert_eq!(down.code, 0, "{down:?}");
    user.has_nothing("down");

    user.killed_when(|user| user.log().contains("not yet: "));
    fs::remove_dir_all(user.lab.path().join("lanes")).unwrap();
    let entries = user.listed();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["standing"], "orphan", "{entries:?}");
    let refused = user.firelane(&UP);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("which was not made from here"),
        "{refused:?}"
    );
    let down = user.firelane(&["down", "--provider", "hetzner", "--label", "killed"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert!(down.stdout.contains("machine hetzner/"), "{down:?}");
    user.has_nothing("down, without the journal");
}

#[test]
fn whoever_is_killed_at_a_call_leaves_nothing_that_down_does_not_find() {
    let user = User::new();
    user.killed_when(|user| user.log().contains("not yet: "));
    let calls = user.cloud.calls();
    let down = user.firelane(&["down", "--provider", "hetzner"]);
    assert_eq!(down.code, 0, "{down:?}");
    user.has_nothing("the first");
    let first = calls
        .iter()
        .position(|call| call.starts_with("POST "))
        .unwrap();
    let mut made = Vec::new();
    for (at, call) in calls.iter().enumerate().skip(first) {
        for fault in [Fault::Unheard, Fault::Unanswered] {
            let context = format!("{call}, {fault:?}");
            let before = user.cloud.unanswered();
            user.cloud.fail_nth(at, fault);
            user.killed_when(|user| user.cloud.unanswered() > before);
            assert!(user.cloud.mend(), "{context}");
            made.push(user.cloud.counts());
            for labels in user.cloud.labels() {
                assert_eq!(labels["mvm-ephemeral"], "true", "{context}");
                assert_eq!(labels["firelane-label"], "killed", "{context}");
            }
            let entries = user.listed();
            assert_eq!(entries.len(), 1, "{context}: {entries:?}");
            let is_seen = !entries[0]["machine"].is_null();
            assert_eq!(
                is_seen,
                user.cloud.counts().0 == 1,
                "{context}: {entries:?}"
            );
            let down = user.firelane(&["down", "--label", "killed"]);
            assert_eq!(down.code, 0, "{context}: {down:?}");
            user.has_nothing(&context);
        }
    }
    // With nothing, with a key, with a firewall too, and with a server.
    made.sort_unstable();
    made.dedup();
    assert_eq!(made, [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)]);
}

#[test]
fn reap_gives_back_what_is_overdue_and_says_where_it_could_not_look() {
    let mut user = User::new();
    user.of_another_computer(3_600);
    let reaped = user.firelane(&["reap"]);
    assert_eq!(reaped.code, 0, "{reaped:?}");
    for said in [
        "hetzner: looked at, nothing is overdue",
        "local: looked at, nothing is overdue",
        "existing: does not list its machines; the lanes of this machine were looked at, nothing is overdue",
        "aws: not looked at, and no lane here is of it: aws: credentials: no credentials: ",
    ] {
        assert!(reaped.stdout.contains(said), "{said}: {reaped:?}");
    }
    assert_eq!(reaped.stderr, "");
    assert_eq!(user.cloud.counts(), (1, 1, 1));

    // A token that is not taken may have machines behind it.
    user.token = "hushOther";
    let reaped = user.firelane(&["reap"]);
    assert_eq!(reaped.code, 1, "{reaped:?}");
    let said = "hetzner cannot be looked at, and no lane here is of it: ";
    assert!(reaped.stderr.contains(said), "{reaped:?}");
    assert!(!reaped.stderr.contains("may cost money"), "{reaped:?}");
    assert!(!reaped.stdout.contains("hetzner: looked at"), "{reaped:?}");
    let listed = user.firelane(&["list"]);
    assert_eq!(listed.code, 1, "{listed:?}");
    let down = user.firelane(&["down", "--provider", "hetzner"]);
    assert_eq!(down.code, 3, "{down:?}");
    assert!(!down.stdout.contains("nothing to remove"), "{down:?}");

    user.token = TOKEN;
    let down = user.firelane(&["down", "--provider", "hetzner"]);
    assert_eq!(down.code, 0, "{down:?}");
    user.of_another_computer(-1);
    let journal = user.lab.path().join("lanes/lanes/damaged/journal");
    fs::create_dir_all(journal.parent().unwrap()).unwrap();
    fs::write(&journal, "nothing\n").unwrap();
    let reaped = user.firelane(&["reap"]);
    assert_eq!(reaped.code, 1, "{reaped:?}");
    let said = "whether the time of the lane damaged is over is not known: line 1 of";
    assert!(reaped.stderr.contains(said), "{reaped:?}");
    assert!(reaped.stdout.contains("machine hetzner/"), "{reaped:?}");
    assert_eq!(user.cloud.counts(), (0, 0, 0));
}
