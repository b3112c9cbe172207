//! Scripts as providers: the contract, and what becomes of those that do not keep it.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where its setting cannot be made"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firelane_cloud::registry::{OpenError, Settings, open};
use firelane_cloud::{Class, CloudError, Effect, Handle, Provider, Spec};
use firelane_model::lane::LaneId;
use firelane_model::time::Moment;

/// A folder with one script that logs what is called, below `log`.
struct Place {
    folder: tempfile::TempDir,
    script: PathBuf,
    variables: BTreeMap<String, String>,
}

/// The functions of a script that works; a test replaces some.
const DOWN: &str = r#"provider_down() { echo "down [$1]" >> "$LOG"; }"#;
const UP: &str = r#"provider_up() { echo "up $1 $REGION $(cat "$2")" >> "$LOG"; echo 192.0.2.9; }"#;
const REST: &str = "provider_default_instance_type() { echo small; }
provider_default_region() { echo here; }";

impl Place {
    fn new(functions: &[&str]) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("mine.sh");
        fs::write(
            &script,
            format!("# environment: LOG\n{}\n", functions.join("\n")),
        )
        .unwrap();
        let mut variables = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        let log = folder.path().join("log").to_string_lossy().into_owned();
        variables.insert("LOG".into(), log);
        variables.insert("SECRET".into(), "of its user".into());
        Place {
            folder,
            script,
            variables,
        }
    }

    fn provider(&self) -> Box<dyn Provider> {
        open(&self.script.to_string_lossy(), &self.settings()).unwrap()
    }

    fn settings(&self) -> Settings {
        Settings {
            variables: self.variables.clone(),
            state: self.folder.path().join("state"),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn spec() -> Spec {
    Spec {
        label: "mine".parse().unwrap(),
        lane: LaneId::from_bits(1),
        owner: "alice".into(),
        region: "here".into(),
        instance_type: "small".into(),
        disk_gib: 50,
        kvm: true,
        user_data: "#cloud-config {}".into(),
        ssh_key: "ssh-ed25519 AAAA".into(),
        ssh_from: vec!["192.0.2.7/32".into()],
        created: Moment::ORIGIN,
        expires: Moment::ORIGIN + Duration::from_secs(60),
        extras: BTreeMap::new(),
    }
}

/// An `up` of a script that does not keep to the contract: its error, after a `down`.
async fn refused(up: &str) -> CloudError {
    let place = Place::new(&[REST, up, DOWN]);
    let error = place.provider().create(&spec()).await.unwrap_err();
    assert_eq!(place.log(), "down [mine]\n", "{up}");
    assert_eq!(error.effect, Effect::None, "{up}");
    error
}

#[tokio::test]
async fn a_function_may_wait_for_what_it_began_and_reads_nothing() {
    let up = r#"provider_up() { echo one > "$LOG" & wait; read -r || echo 192.0.2.9; }"#;
    let place = Place::new(&[REST, up, DOWN]);
    let machine = place.provider().create(&spec()).await.unwrap();
    assert_eq!(machine.address.as_deref(), Some("192.0.2.9"));
    assert_eq!(place.log(), "one\n");
}

#[tokio::test]
async fn the_four_functions_are_called_with_what_they_are_promised() {
    let place = Place::new(&[REST, UP, DOWN]);
    let provider = place.provider();
    assert_eq!(provider.default_instance_type().await.unwrap(), "small");
    assert_eq!(provider.default_region().await.unwrap(), "here");
    let machine = provider.create(&spec()).await.unwrap();
    assert_eq!(machine.address.as_deref(), Some("192.0.2.9"));
    assert_eq!(place.log(), "up mine here #cloud-config {}\n");

    let handle = provider
        .handle_of(&spec().label, Some(spec().lane), "here")
        .unwrap();
    assert_eq!(handle, machine.handle);
    provider.delete(&handle).await.unwrap();
    assert!(place.log().ends_with("down [mine]\n"));
}

#[tokio::test]
async fn a_script_that_lacks_a_function_is_refused_with_its_name_before_anything_is_called() {
    for (functions, missing) in [
        (vec![UP, DOWN], "provider_default_instance_type"),
        (vec![REST, DOWN], "provider_up"),
        (vec![REST, UP], "provider_down"),
    ] {
        let place = Place::new(&functions);
        let error = place.provider().create(&spec()).await.unwrap_err();
        assert_eq!(
            &*error.message,
            format!("the script does not define {missing}")
        );
        assert_eq!(place.log(), "");
    }
}

#[tokio::test]
async fn anything_but_an_address_on_stdout_is_an_error_and_is_cleaned_up() {
    for up in [
        "provider_up() { :; }",
        "provider_up() { echo creating; echo 192.0.2.9; }",
        "provider_up() { echo -oProxyCommand=x; }",
        "provider_up() { echo '192.0.2.9; rm -rf /'; }",
    ] {
        let error = refused(up).await;
        assert!(
            error.message.contains("which is no address"),
            "{up}: {error}"
        );
        assert!(error.remedy.is_some());
    }
}

#[tokio::test]
async fn a_function_that_fails_half_way_is_a_failure_and_is_cleaned_up() {
    let error = refused("provider_up() { false; echo 192.0.2.9; }").await;
    assert_eq!(&*error.message, "it ended with exit status: 1");
    assert_eq!(error.class, Class::Invalid);
    let error = refused("provider_up() { echo \"$NEVER_SET\"; }").await;
    assert!(error.message.contains("it ended with"), "{error}");
}

#[tokio::test]
async fn a_script_sees_only_what_it_asked_for() {
    let show =
        r#"provider_up() { env | cut -d= -f1 | sort | tr '\n' ' ' >> "$LOG"; echo 192.0.2.9; }"#;
    let place = Place::new(&[REST, show, DOWN]);
    place.provider().create(&spec()).await.unwrap();
    let said = place.log();
    assert!(
        said.contains("LOG ") && said.contains("SSH_PUBKEY "),
        "{said}"
    );
    assert!(!said.contains("SECRET"), "{said}");
}

#[tokio::test]
async fn what_a_script_leaves_in_the_background_ends_with_it() {
    let up = r#"provider_up() { sleep 1000 >/dev/null 2>&1 & echo $! >> "$LOG"; echo 192.0.2.9; }"#;
    let place = Place::new(&[REST, up, DOWN]);
    place.provider().create(&spec()).await.unwrap();
    let process = PathBuf::from("/proc").join(place.log().trim());
    // Killed, and gone as soon as its new parent has collected it.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        assert!(Instant::now() < deadline, "it still runs: {stat}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_script_that_is_not_there_or_no_shell_is_told() {
    let place = Place::new(&["provider_up() {"]);
    let error = place.provider().default_region().await.unwrap_err();
    assert_eq!(&*error.message, "bash cannot read the script");
    let missing = open("./nowhere.sh", &place.settings())
        .map(drop)
        .unwrap_err();
    assert!(matches!(missing, OpenError::Provider(_)), "{missing}");
    let unknown = open("nowhere", &place.settings()).map(drop).unwrap_err();
    assert!(unknown.to_string().contains("existing"), "{unknown}");
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../providers")
        .join(name)
}

#[tokio::test]
async fn the_example_with_a_fixed_machine_works() {
    let mut place = Place::new(&[]);
    place.script = example("fixed.sh");
    place
        .variables
        .insert("MACHINE".into(), "box.example:2222".into());
    let machine = place.provider().create(&spec()).await.unwrap();
    assert_eq!(machine.address.as_deref(), Some("box.example"));
    assert_eq!(machine.ssh_port, 2222);
    place.provider().delete(&machine.handle).await.unwrap();
}

/// A command in place of hcloud that keeps its servers in a file.
const HCLOUD: &str = r#"#!/bin/sh
servers=$(dirname "$0")/servers
case "$1 $2" in
'server create')
    echo "$*" >> "$servers"
    echo 'Server 1 created'
    ;;
'server ip') echo 192.0.2.10 ;;
'server list') grep -c . "$servers" 2>/dev/null || : ;;
'server delete') rm "$servers" ;;
esac
"#;

#[tokio::test]
async fn the_example_with_a_cloud_s_own_command_makes_marks_and_deletes() {
    let mut place = Place::new(&[]);
    place.script = example("hcloud.sh");
    let bin = place.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let hcloud = bin.join("hcloud");
    fs::write(&hcloud, HCLOUD).unwrap();
    fs::set_permissions(&hcloud, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), place.variables["PATH"]);
    place.variables.insert("PATH".into(), path);

    let machine = place.provider().create(&spec()).await.unwrap();
    assert_eq!(machine.address.as_deref(), Some("192.0.2.10"));
    let asked = fs::read_to_string(bin.join("servers")).unwrap();
    assert!(
        asked.contains("--label mvm-ephemeral=true --label firelane-label=mine"),
        "{asked}"
    );
    let handle = Handle {
        id: "mine".into(),
        ..machine.handle
    };
    place.provider().delete(&handle).await.unwrap();
    assert!(!bin.join("servers").exists());
    // What is gone is fine.
    place.provider().delete(&handle).await.unwrap();
}
