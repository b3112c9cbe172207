//! The whole lane for real, on a rehearsal host: systemd, cloud-init, SSH, rsync, the services and a microVM.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firelane_cloud::registry::{Settings, open};
use firelane_cloud::{Machine, Provider, Spec};
use firelane_lane::{cloudinit, identity, journal};
use firelane_model::lane::{Label, LaneId};
use firelane_testkit::clouds::hetzner::{HetznerCloud, TOKEN};
use firelane_testkit::{Ended, Lab, Running};
use rustix::process::Signal;

/// The system that rehearsal hosts share is kept beside the store of templates.
fn lanes(lab: &Lab) -> PathBuf {
    lab.home().with_file_name("firelane-lanes")
}

/// A rehearsal host is made by root, with programs that a machine may lack: then this is told by name.
fn can_rehearse(test: &str) -> bool {
    let lacks = ["systemd-nspawn", "mmdebstrap"]
        .into_iter()
        .find(|program| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        });
    let reason = match lacks {
        Some(program) => format!("{program} is not installed"),
        None if !rustix::process::geteuid().is_root() => "this is not root".into(),
        None => return true,
    };
    eprintln!("SKIP {test}: {reason}");
    false
}

fn firelane(lab: &Lab, args: &[&str]) -> Ended {
    let mut command = lab.command(args);
    command.env("FIRELANE_LANES", lanes(lab));
    Running::start(command, b"").end()
}

/// What of machines with this id is left on this machine.
fn left(lab: &Lab, id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for path in [
        lanes(lab).join("providers/local/machines").join(id),
        Path::new("/run/netns").join(id),
        Path::new("/run/systemd/nspawn/propagate").join(id),
    ] {
        left.extend(path.exists().then(|| path.display().to_string()));
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        left.extend(line.contains(id).then_some(line));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(id))
            .map(str::to_owned),
    );
    left
}

/// Ids of the machines that there are.
fn ids(lab: &Lab, label: &str) -> Vec<String> {
    let machines = lanes(lab).join("providers/local/machines");
    let Ok(entries) = fs::read_dir(machines) else {
        return Vec::new();
    };
    let of_label = |path: &Path| {
        let kept = fs::read_to_string(path.join("machine.json")).unwrap_or_default();
        kept.contains(&format!("\"{label}\""))
    };
    let entries = entries.flatten().map(|entry| entry.path());
    entries
        .filter(|path| of_label(path))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Whatever becomes of a test, its lane is given back.
struct GivenBack<'a>(&'a Lab, &'a str);

impl Drop for GivenBack<'_> {
    fn drop(&mut self) {
        let ended = firelane(self.0, &["down", "--provider", "local", "--label", self.1]);
        if ended.code != 0 && !std::thread::panicking() {
            panic!("{ended:?}");
        }
    }
}

fn verdicts(ended: &Ended) -> Vec<(String, String)> {
    let rows: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| (text(&row["check"]), text(&row["verdict"])))
        .collect()
}

fn verdict(rows: &[(String, String)], check: &str) -> String {
    let row = rows.iter().find(|(name, _)| name == check);
    row.unwrap_or_else(|| panic!("{check}: {rows:?}")).1.clone()
}

#[test]
fn a_lane_comes_up_is_shown_to_work_breaks_where_it_is_broken_and_goes_without_a_trace() {
    if !can_rehearse("rehearsal") {
        return;
    }
    let lab = Lab::new();
    let label = label_of(&lab, "rehearsal");
    let given_back = GivenBack(&lab, &label);
    let up = [
        "up",
        "--provider",
        "local",
        "--label",
        &label,
        "--no-kvm",
        "--template",
        "base",
    ];
    let ended = firelane(&lab, &up);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.stdout.contains(&format!("lane {label} is verified")),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("FAIL"), "{ended:?}");
    let id = ids(&lab, &label).pop().unwrap();

    // A second time there is nothing to do.
    let again = firelane(&lab, &up);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(ids(&lab, &label), [id.as_str()]);

    let listed = firelane(&lab, &["list", "--json"]);
    let entries: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let entry = entries
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["label"] == label.as_str());
    assert_eq!(entry.unwrap()["standing"], "agreed", "{listed:?}");

    // By ssh, as the last lines of up say; what runs there is in a microVM of that host.
    let uname = firelane(&lab, &["ssh", &label, "--", "hostname"]);
    assert_eq!(
        uname.stdout.trim(),
        format!("firelane-{label}"),
        "{uname:?}"
    );

    // cloud-init has nothing to say against what it was given.
    let schema = firelane(
        &lab,
        &[
            "ssh",
            &label,
            "--",
            "sudo",
            "cloud-init",
            "schema",
            "--system",
        ],
    );
    assert_eq!(schema.code, 0, "{schema:?}");
    assert!(schema.stdout.contains("Valid cloud-config"), "{schema:?}");

    // Broken on purpose, each check fails as it should.
    let on_host = |command: &str| {
        let ended = firelane(&lab, &["ssh", &label, "--", command]);
        assert_eq!(ended.code, 0, "{command}: {ended:?}");
    };
    on_host("systemd-analyze verify firelane-hostd.service firelane.service");
    let verify = || {
        let ended = firelane(&lab, &["verify", &label, "--continue", "--json"]);
        assert_eq!(ended.code, 1, "{ended:?}");
        verdicts(&ended)
    };
    on_host("sudo systemctl stop firelane.service");
    let rows = verify();
    assert_eq!(verdict(&rows, "units"), "FAIL");
    assert_eq!(verdict(&rows, "a minute"), "FAIL");
    assert_eq!(verdict(&rows, "API"), "FAIL");
    // The restart has started it again.
    on_host(
        "sudo sh -c 'echo failed: by hand > /etc/firelane/deploy-status; chmod 0 /usr/local/bin/firelane-guest'",
    );
    let rows = verify();
    assert_eq!(verdict(&rows, "deploy status"), "FAIL");
    assert_eq!(verdict(&rows, "seccomp"), "FAIL");
    let first = firelane(&lab, &["verify", &label, "--json"]);
    let rows = verdicts(&first);
    assert_eq!(
        verdict(&rows, "seccomp"),
        "SKIP",
        "an earlier check failed: {rows:?}"
    );

    drop(given_back);
    assert_eq!(left(&lab, &id), [""; 0]);
    let nothing = firelane(&lab, &["down", "--provider", "local", "--label", &label]);
    assert_eq!(
        (nothing.code, nothing.stdout.trim()),
        (0, "nothing to remove")
    );
}

#[test]
fn whoever_is_killed_on_the_way_leaves_nothing_that_down_does_not_find() {
    if !can_rehearse("rehearsal, killed") {
        return;
    }
    let lab = Lab::new();
    let label = label_of(&lab, "killed");
    for wait_for in ["machine.json", "console"] {
        let given_back = GivenBack(&lab, &label);
        let mut command =
            lab.command(&["up", "--provider", "local", "--label", &label, "--no-kvm"]);
        command.env("FIRELANE_LANES", lanes(&lab));
        let running = Running::start(command, b"");
        let machines = lanes(&lab).join("providers/local/machines");
        let id = until("a machine is being made", || {
            let found = ids(&lab, &label).pop()?;
            machines
                .join(&found)
                .join(wait_for)
                .exists()
                .then_some(found)
        });
        running.signal(Signal::KILL);
        assert_eq!(running.end().code, -9);
        drop(given_back);
        assert_eq!(left(&lab, &id), [""; 0], "{wait_for}");
    }
}

/// The lane of a cloud, with a machine that reads what the cloud was given for it.
#[test]
fn a_lane_at_hetzner_comes_up_and_goes_and_its_token_stays_here() {
    if !can_rehearse("hetzner") {
        return;
    }
    let lab = Lab::new();
    let label = label_of(&lab, "hetzner");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cloud = runtime.block_on(HetznerCloud::start());
    // Its server is not there before its address is.
    cloud.go_on(false);
    let at_cloud = |args: &[&str]| {
        let mut command = lab.command(args);
        command
            .env("FIRELANE_LANES", lab.path().join("lanes"))
            .env("FIRELANE_HETZNER_ENDPOINT", cloud.url())
            .env("HCLOUD_TOKEN", TOKEN)
            .env_remove("SSH_PUBKEY");
        Running::start(command, b"")
    };
    let up = at_cloud(&[
        "up",
        "--provider",
        "hetzner",
        "--no-kvm",
        "--label",
        &label,
        "--template",
        "base",
        "--ssh-from",
        "198.51.100.7/32",
    ]);
    let user_data = until("a server is asked for", || {
        let said = cloud.said();
        let asked = said.iter().find(|one| one.call() == "POST /servers")?;
        Some(asked.request["user_data"].as_str().unwrap().to_owned())
    });
    let provider = local(&lab);
    let spec = Spec {
        user_data,
        ..spec_of(label.parse().unwrap(), "")
    };
    let machine = runtime.block_on(provider.create(&spec)).unwrap();
    cloud.servers_are_at(machine.address.as_deref().unwrap());
    cloud.go_on(true);
    let up = up.end();
    let environments =
        "sudo sh -c 'cat /proc/[0-9]*/environ' | tr '\\0' '\\n' | cut -d= -f1 | sort -u";
    let environments = at_cloud(&["ssh", &label, "--", environments]).end();
    // Not the token itself: the machine's journal tells what sudo was asked for.
    let pattern = TOKEN.replacen('h', "[h]", 1);
    let files = format!("sudo grep -rl {pattern} /etc /run /var /root /home");
    let files = at_cloud(&["ssh", &label, "--", &files]).end();
    let here = Command::new("grep")
        .args(["-rlF", TOKEN])
        .arg(lab.path().join("lanes"))
        .output()
        .unwrap();
    let down = at_cloud(&["down", "--label", &label]).end();
    runtime.block_on(provider.delete(&machine.handle)).unwrap();
    assert_eq!(up.code, 0, "{up:?}");
    assert!(
        up.stdout.contains(&format!("lane {label} is verified")),
        "{up:?}"
    );
    assert!(environments.stdout.contains("PATH"), "{environments:?}");
    assert!(!environments.stdout.contains("HCLOUD"), "{environments:?}");
    assert_eq!((files.code, &*files.stdout), (1, ""), "{files:?}");
    assert_eq!(String::from_utf8_lossy(&here.stdout), "");
    for said in [&up.stdout, &up.stderr, &down.stdout, &down.stderr] {
        assert!(!said.contains(TOKEN), "{said}");
    }
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!(cloud.counts(), (0, 0, 0));
}

fn local(lab: &Lab) -> Box<dyn Provider> {
    let settings = Settings {
        variables: BTreeMap::new(),
        state: lanes(lab).join("providers"),
    };
    open("local", &settings).unwrap()
}

/// A machine of `local` with this key.
fn spec_of(label: Label, key: &str) -> Spec {
    Spec {
        label,
        lane: LaneId::from_bits(fastrand::u128(..)),
        owner: "somebody".into(),
        region: "here".into(),
        instance_type: "nspawn".into(),
        disk_gib: 50,
        kvm: false,
        user_data: String::new(),
        ssh_key: key.to_owned(),
        ssh_from: Vec::new(),
        created: journal::now(),
        expires: journal::now() + Duration::from_secs(3600),
        extras: BTreeMap::new(),
    }
}

/// A machine of somebody's: made without the lane's command, with a key of its own.
async fn somebodys_machine(lab: &Lab, label: &str) -> (Box<dyn Provider>, Machine, PathBuf) {
    let provider = local(lab);
    let keys = lab.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let label = label.parse().unwrap();
    let identity = identity::make(&keys, &label).unwrap();
    let mut spec = spec_of(label, identity.public.trim());
    spec.user_data =
        cloudinit::document(&spec, &identity, &[], None, &provider.capabilities()).unwrap();
    let machine = provider.create(&spec).await.unwrap();
    let known = fs::read_to_string(keys.join("known_hosts")).unwrap();
    let address = machine.address.clone().unwrap();
    let (_, key) = known.split_once(' ').unwrap();
    fs::write(keys.join("known_hosts"), format!("{address} {key}")).unwrap();
    (provider, machine, keys)
}

/// What a command on the machine writes. None: it failed, or nobody let us in.
fn on(address: &str, keys: &Path, command: &str) -> Option<String> {
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
    ]);
    ssh.arg(format!(
        "UserKnownHostsFile={}",
        keys.join("known_hosts").display()
    ));
    ssh.arg("-i").arg(keys.join("id"));
    ssh.arg(format!("firelane@{address}")).arg(command);
    let output = ssh.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    output.status.success().then_some(said)
}

/// Every file that an installation could change, with what is in it; but for the copies that programs
/// for accounts leave of their files, and the numbers that they count up.
fn files(address: &str, keys: &Path) -> String {
    let find = "sudo sh -c \"cd / && find usr opt srv -xdev ! -path 'usr/local/*' -printf '%M %U:%G %s %l %p\\n'
                find etc usr/local var/lib/firelane var/tmp -xdev ! -name '*-' ! -path 'etc/sub?id' \
                ! -path 'var/tmp/systemd-private*' > /run/these 2>/dev/null
                while read -r path; do stat -c '%A %u:%g %N' \\$path; done < /run/these
                grep -v '^var/tmp$' /run/these | xargs sha256sum 2>/dev/null\" | sort";
    on(address, keys, find).unwrap()
}

/// Waits for a state.
fn until<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        if let Some(reached) = reached() {
            return reached;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A label that no other test has.
fn label_of(lab: &Lab, name: &str) -> String {
    lab.name(name).to_ascii_lowercase()
}

/// Sources whose programs are built already: the host has no network to build others. Everything around that is real.
fn sources_of_what_is_built(lab: &Lab) -> String {
    let sources = lab.path().join("sources");
    let built = sources.join("built");
    fs::create_dir_all(&built).unwrap();
    for name in [
        "firelane",
        "firelane-hostd",
        "firelane-guest",
        "firelane-bare",
    ] {
        fs::copy(lab.bin().join(name), built.join(name)).unwrap();
    }
    fs::write(sources.join("Cargo.toml"), "[workspace]\n").unwrap();
    let makefile = "dist:\n\tmkdir -p $(CARGO_TARGET_DIR)/dist/firelane/bin\n\tcp built/* $(CARGO_TARGET_DIR)/dist/firelane/bin/\n\
        check:\n\t@test -x $(CARGO_TARGET_DIR)/dist/firelane/bin/firelane\n\t@echo 'checks: 1 passed, 0 failed, 0 skipped'\n";
    fs::write(sources.join("Makefile"), makefile).unwrap();
    sources.to_str().unwrap().to_owned()
}

/// Makes on a machine an archive that is laid out as Firecracker's releases are; writes its SHA-256.
const ARCHIVE: &str = "sudo sh -c 'cd /run && mkdir release-v1.16.1-x86_64 && cd release-v1.16.1-x86_64 &&
    cp /bin/true firecracker-v1.16.1-x86_64 && cp /bin/false jailer-v1.16.1-x86_64 && touch LICENSE &&
    cd .. && tar -czf archive.tgz release-v1.16.1-x86_64 && sha256sum < archive.tgz | cut -c1-64'";

#[tokio::test]
async fn on_a_machine_that_was_there_down_removes_exactly_what_up_installed() {
    if !can_rehearse("existing") {
        return;
    }
    let lab = Lab::new();
    let label = label_of(&lab, "somebodys");
    let (provider, machine, keys) = somebodys_machine(&lab, &label).await;
    let address = machine.address.clone().unwrap();
    let host = format!("firelane@{address}");
    let identity = format!("identity={}", keys.join("id").display());
    let known_hosts = format!("known-hosts={}", keys.join("known_hosts").display());
    let lane = label_of(&lab, "existing");
    let sources = sources_of_what_is_built(&lab);
    let up = [
        "up",
        "--provider",
        "existing",
        "--host",
        &host,
        "--set",
        &identity,
        "--set",
        &known_hosts,
        "--label",
        &lane,
        "--no-kvm",
        "--template",
        "base",
        "--build-on-host",
        "--sources",
        &sources,
        "--firecracker",
    ];
    let ready = "sudo cat /run/firelane/prepare.json";
    until("it is prepared", || {
        on(&address, &keys, ready).filter(|said| said.contains("ready"))
    });
    let archive = on(&address, &keys, ARCHIVE).unwrap();
    let url = "file:///run/archive.tgz#sha256=";
    let before = files(&address, &keys);
    // Something else than what was asked for is not used.
    let other = format!("{url}{}", "0".repeat(64));
    let refused = firelane(&lab, &[&up[..], &[&other]].concat());
    let nothing = files(&address, &keys);
    let reached = firelane(
        &lab,
        &[&up[..], &[&format!("{url}{}", archive.trim())]].concat(),
    );
    let installed =
        "cmp /bin/true /usr/local/bin/firecracker && cmp /bin/false /usr/local/bin/jailer";
    let is_installed = on(&address, &keys, installed).is_some();
    let changed = files(&address, &keys);
    let down = firelane(&lab, &["down", "--label", &lane]);
    let after = files(&address, &keys);
    provider.delete(&machine.handle).await.unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("it is not used"), "{refused:?}");
    assert_eq!(nothing, before);
    assert_eq!(reached.code, 0, "{reached:?}");
    assert!(is_installed, "{reached:?}");
    let of_sources = reached.stdout.lines().find(|line| line.contains("sources"));
    let checked = of_sources.is_some_and(|row| row.contains("PASS") && row.contains("1 passed"));
    assert!(checked, "{reached:?}");
    assert_eq!(down.code, 0, "{down:?}");
    assert_ne!(changed, before);
    assert_eq!(after, before);
}
