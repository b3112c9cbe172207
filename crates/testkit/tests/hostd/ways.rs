//! A VMM's life with hostd: how it is confined, and every way in which it ends.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use firelane_host_proto::Client;
use firelane_host_proto::message::{Code, Reply, Request, State};
use firelane_sys::process::ProcessId;
use firelane_testkit::Lab;
use firelane_testkit::hostd::{Hostd, NOBODY, connect_as, wait};

use crate::begun::{code, is_root, say, start};

/// A line of a process's status.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("the kernel tells it").trim().to_owned()
}

fn confirmed(client: &mut Client, id: &str) -> State {
    match say(client, &Request::Confirm { id: id.into() }) {
        Ok(Reply::State(state)) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ordinary_users_vmm_is_confined_as_roots_are() {
    if !is_root("an_ordinary_users_vmm_is_confined_as_roots_are") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let id = lab.name("confined");
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let mut started = start(&mut client, &lab, &id).expect("it starts");
    // QEMU greets: it runs, and hears its client.
    let mut greeting = String::new();
    let mut monitor = BufReader::new(&started.given.monitor);
    monitor.read_line(&mut greeting).expect("a greeting");
    assert!(greeting.contains("QMP"), "{greeting}");
    let pid = started.pid;
    let state = confirmed(&mut client, &id);
    assert_eq!(state.pid, Some(pid));
    assert!(state.controls.iter().all(|control| control.on), "{state:?}");
    let names: HashSet<&str> = state
        .controls
        .iter()
        .map(|control| &*control.name)
        .collect();
    for name in [
        "own user",
        "own network namespace",
        "own PID namespace",
        "seccomp filter",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    // What the kernel says, and not hostd.
    let user = state.user.expect("a user of its own").to_string();
    assert_eq!(status(pid, "Uid"), [&*user; 4].join("\t"));
    assert_eq!(status(pid, "Gid"), [&*user; 4].join("\t"));
    assert_eq!(status(pid, "Groups"), "");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    let root = format!("/proc/{pid}/root");
    let seen = |path: &str| Path::new(&root).join(path).exists();
    assert!(seen("vm/kernel") && seen("usr/bin"));
    assert!(!seen("etc/passwd") && !seen("tmp") && !seen("proc"));
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    assert!(groups.contains(&format!("/firelane/{id}")), "{groups}");
    // Its record has it, so that it is found whatever becomes of hostd.
    assert_eq!(hostd.record(&id).vmm.map(|vmm| vmm.pid), Some(pid));
    say(&mut client, &Request::Stop { id: id.clone() }).expect("it ends");
    assert_eq!(started.life.read(&mut [0]).expect("an end"), 0);
    hostd.assert_empty();
    let line = hostd.audit().into_iter().find(|line| line["op"] == "start");
    let line = line.expect("a line");
    assert_eq!(
        (&line["uid"], &line["outcome"]),
        (&NOBODY.into(), &"ok".into())
    );
    assert_eq!(line["id"], id);
}

#[test]
fn no_two_vmms_have_one_user() {
    if !is_root("no_two_vmms_have_one_user") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let mut client = Client::connect(&hostd.socket()).expect("it listens");
    let mut users = HashSet::new();
    let started: Vec<_> = (0..4)
        .map(|number| {
            start(&mut client, &lab, &lab.name(&format!("user-{number}"))).expect("it starts")
        })
        .collect();
    for started in &started {
        assert!(users.insert(status(started.pid, "Uid")));
    }
    let Reply::Listed { microvms } = say(&mut client, &Request::List {}).expect("a list") else {
        panic!("no list");
    };
    assert_eq!(microvms.len(), 4);
}

#[test]
fn what_a_client_leaves_ends_with_its_connection() {
    if !is_root("what_a_client_leaves_ends_with_its_connection") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let mut both = ["left-1", "left-2"].map(|name| {
        let id = lab.name(name);
        let started = start(&mut client, &lab, &id).expect("it starts");
        (started, hostd.record(&id))
    });
    drop(client);
    for (started, record) in &mut both {
        assert_eq!(started.life.read(&mut [0]).expect("an end"), 0);
        assert!(!record.vmm.expect("a process").lives());
        for group in record.cgroups.folders() {
            assert!(!group.exists(), "{}", group.display());
        }
    }
    hostd.assert_empty();
}

#[test]
fn a_vmm_that_ends_by_itself_leaves_nothing_and_its_end_is_told() {
    if !is_root("a_vmm_that_ends_by_itself_leaves_nothing_and_its_end_is_told") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let id = lab.name("dies");
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let mut started = start(&mut client, &lab, &id).expect("it starts");
    ProcessId::of(started.pid)
        .expect("it runs")
        .kill()
        .expect("we are root");
    assert_eq!(started.life.read(&mut [0]).expect("an end"), 0);
    hostd.assert_empty();
    let stopped = say(&mut client, &Request::Stop { id }).expect("it has ended");
    assert_eq!(
        stopped,
        Reply::Stopped {
            status: Some("signal 9".into())
        }
    );
}

#[test]
fn a_hostd_that_is_killed_takes_its_vmms_along_and_the_next_one_removes_the_rest() {
    if !is_root("a_hostd_that_is_killed_takes_its_vmms_along_and_the_next_one_removes_the_rest") {
        return;
    }
    let lab = Lab::new();
    let mut hostd = Hostd::start(&lab, &[]);
    let id = lab.name("orphan");
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let mut started = start(&mut client, &lab, &id).expect("it starts");
    let record = hostd.record(&id);
    let vmm = record.vmm.expect("a process");
    hostd.kill();
    assert_eq!(started.life.read(&mut [0]).expect("an end"), 0);
    wait("the VMM ends with hostd", || (!vmm.lives()).then_some(()));
    assert!(hostd.run_dir().join(&id).exists(), "nobody could remove it");
    hostd.restart();
    // It removes before it answers anybody.
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    hostd.assert_empty();
    for group in record.cgroups.folders() {
        assert!(!group.exists(), "{}", group.display());
    }
    let swept = hostd.audit().into_iter().find(|line| line["op"] == "swept");
    assert_eq!(swept.expect("a line")["id"], id);
    let swept = say(&mut client, &Request::Sweep {}).expect("nothing is left");
    assert_eq!(
        swept,
        Reply::Swept {
            removed: 0,
            left: vec![]
        }
    );
    start(&mut client, &lab, &id).expect("the id is free again");
}

#[test]
fn a_hostd_that_is_told_to_end_leaves_nothing() {
    if !is_root("a_hostd_that_is_told_to_end_leaves_nothing") {
        return;
    }
    let lab = Lab::new();
    let mut hostd = Hostd::start(&lab, &[]);
    let mut client = Client::connect(&hostd.socket()).expect("it listens");
    let id = lab.name("drained");
    let started = start(&mut client, &lab, &id).expect("it starts");
    let vmm = ProcessId::of(started.pid).expect("it runs");
    hostd.end();
    assert!(!vmm.lives());
    assert!(!hostd.socket().exists());
    hostd.assert_empty();
}

#[test]
fn a_vmm_of_another_user_stands_still_and_goes_on_for_its_client() {
    if !is_root("a_vmm_of_another_user_stands_still_and_goes_on_for_its_client") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let id = lab.name("still");
    let started = start(&mut client, &lab, &id).expect("it starts");
    let stands = || status(started.pid, "State").starts_with('T').then_some(());
    let pause = Request::Pause { id: id.clone() };
    let resume = Request::Resume { id: id.clone() };
    for _ in 0..2 {
        say(&mut client, &pause).expect("it is its own");
        wait("it stands still", stands);
    }
    for _ in 0..2 {
        say(&mut client, &resume).expect("it is its own");
        wait("it goes on", || stands().is_none().then_some(()));
    }
    // One that stands still can be ended.
    say(&mut client, &pause).expect("it is its own");
    say(&mut client, &Request::Stop { id }).expect("it ends");
    assert_eq!(code(say(&mut client, &resume)), Code::NotFound);
}
