//! What changes with less: an ordinary user, a full disk.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use firelane_testkit::hostd::Hostd;
use firelane_testkit::{Ended, Lab, Running};
use serde_json::Value;

const NOBODY: u32 = 65534;

/// Tests that give rights up need some first. Run by an ordinary user, every other test shows what
/// these show.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: it gives up root's rights, and is not run by root");
    }
    root
}

/// A corner of an ordinary user's, with programs and a store of the template `base` of its own.
struct Corner(Lab);

impl Corner {
    fn new() -> Corner {
        let lab = Lab::new();
        for program in ["firelane", "firelane-guest"] {
            fs::copy(lab.bin().join(program), lab.path().join(program)).unwrap();
        }
        let home = lab.path().join("home");
        let manifest = fs::read(lab.home().join("templates/base.json")).unwrap();
        let parsed: Value = serde_json::from_slice(&manifest).unwrap();
        for folder in ["", "blobs", "templates"] {
            fs::create_dir(home.join(folder)).unwrap();
            chown(home.join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        for blob in ["/rootfs", "/kernel/vmlinux", "/kernel/modules"] {
            let hash = parsed
                .pointer(&format!("{blob}/hash"))
                .unwrap()
                .as_str()
                .unwrap();
            fs::copy(
                lab.home().join("blobs").join(hash),
                home.join("blobs").join(hash),
            )
            .unwrap();
        }
        fs::write(home.join("templates/base.json"), manifest).unwrap();
        chown(lab.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        Corner(lab)
    }

    fn firelane(&self, args: &[&str]) -> Ended {
        self.with(None, args)
    }

    /// The command, for which there is this hostd.
    fn with(&self, hostd: Option<&Hostd>, args: &[&str]) -> Ended {
        let folder = self.0.path();
        let nowhere = folder.join("nowhere");
        let hostd = hostd.map_or(nowhere, Hostd::socket);
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .arg(folder.join("firelane"))
            .args(args)
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("FIRELANE_HOME", folder.join("home"))
            .env("FIRELANE_HOSTD", hostd)
            .env("FIRELANE_RUN_DIR", self.0.run_dir());
        Running::start(command, b"").end()
    }
}

#[test]
fn an_ordinary_user_runs_with_what_the_kernel_allows() {
    if !is_root("an_ordinary_user_runs_with_what_the_kernel_allows") {
        return;
    }
    let corner = Corner::new();
    let ended = corner.firelane(&[
        "run",
        "--template",
        "base",
        "--lang",
        "bash",
        "-c",
        "id -u; exit 4",
    ]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (4, "1000\n"),
        "{ended:?}"
    );
    corner.0.assert_empty();
    let doctor = corner.firelane(&["doctor", "--json", "--template", "base"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let grade = |name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap()["grade"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(grade("own user"), "impossible");
    for control in ["no capabilities", "no new privileges", "seccomp filter"] {
        assert_eq!(grade(control), "ok", "{report}");
    }
    corner.0.assert_empty();
}

#[test]
fn an_ordinary_user_runs_in_the_jail_that_hostd_makes() {
    if !is_root("an_ordinary_user_runs_in_the_jail_that_hostd_makes") {
        return;
    }
    let corner = Corner::new();
    let hostd = Hostd::start(&corner.0, &[]);
    let run = "run --template base --lang bash -c".split(' ');
    let run: Vec<&str> = run.chain(["id -u; exit 4"]).collect();
    let cold: Vec<&str> = [run[0], "--cold"]
        .iter()
        .chain(&run[1..])
        .copied()
        .collect();
    // Booted; made a snapshot of, and restored; restored.
    for args in [&cold, &run, &run] {
        let ended = corner.with(Some(&hostd), args);
        assert_eq!((ended.code, &*ended.stdout), (4, "1000\n"), "{ended:?}");
        corner.0.assert_empty();
        hostd.assert_empty();
    }
    let starts = hostd.audit();
    // Trials are beside: whether guests run on the host's KVM, which hostd's VMMs have, is found out once.
    let is_trial = |line: &Value| line["id"].as_str().is_some_and(|id| id.ends_with("-kvm"));
    let starts = starts
        .iter()
        .filter(|line| line["op"] == "start" && !is_trial(line));
    assert_eq!(starts.filter(|line| line["uid"] == NOBODY).count(), 4);
    let doctor = corner.with(Some(&hostd), &["doctor", "--json", "--template", "base"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let report: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let hostds = checks
        .iter()
        .find(|check| check["name"] == "hostd")
        .unwrap();
    assert!(
        hostds["detail"].as_str().unwrap().contains("QEMU"),
        "{hostds}"
    );
    for control in [
        "hostd",
        "own user",
        "no capabilities",
        "no new privileges",
        "seccomp filter",
        "own network namespace",
        "own PID namespace",
    ] {
        let check = checks.iter().find(|check| check["name"] == control);
        assert_eq!(check.unwrap()["grade"], "ok", "{report}");
    }
}

/// The command through a program that starts it with less.
fn with_less(lab: &Lab, wrapper: &[&str]) -> Ended {
    let (first, rest) = wrapper.split_first().unwrap();
    let inner = lab.command(&[]);
    let mut command = Command::new(first);
    command
        .args(rest)
        .arg(inner.get_program())
        .args([
            "run",
            "--template",
            "base",
            "--lang",
            "bash",
            "-c",
            "echo ran",
        ])
        .current_dir(lab.path());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    Running::start(command, b"").end()
}

#[test]
fn root_without_the_right_to_mount_runs_without_namespaces() {
    if !is_root("root_without_the_right_to_mount_runs_without_namespaces") {
        return;
    }
    let lab = Lab::new();
    let ended = with_less(&lab, &["setpriv", "--bounding-set=-sys_admin"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "ran\n"),
        "{ended:?}"
    );
    lab.assert_empty();
}

#[test]
fn a_strict_umask_does_not_lock_the_vmm_out() {
    let lab = Lab::new();
    let ended = with_less(&lab, &["sh", "-c", "umask 077; exec \"$0\" \"$@\""]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "ran\n"),
        "{ended:?}"
    );
    lab.assert_empty();
}

/// A small file system, unmounted when dropped.
struct Small<'a>(&'a Path);

impl Small<'_> {
    fn mount(path: &Path) -> Small<'_> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=20m", "small"])
            .arg(path)
            .status();
        assert!(mounted.unwrap().success());
        Small(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        assert!(
            Command::new("umount")
                .arg(self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

#[test]
fn a_disk_without_room_is_named_before_anything_is_downloaded() {
    if !is_root("a_disk_without_room_is_named_before_anything_is_downloaded") {
        return;
    }
    let lab = Lab::new();
    let home = lab.path().join("small");
    fs::create_dir(&home).unwrap();
    let small = Small::mount(&home);
    let mut command = lab.command(&["run", "--template", "base", "--lang", "bash", "-c", "true"]);
    command.env("FIRELANE_HOME", &home);
    let ended = Running::start(command, b"").end();
    assert_eq!(ended.code, 125, "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended.stderr.contains("small") && ended.stderr.contains("MiB"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("; remedy: "), "{ended:?}");
    lab.assert_empty();
    drop(small);
}
