//! Whatever is wrong with a client is told by its kind, and leaves nothing.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use firelane_host_proto::frame::{self, MAX_FRAME_BYTES};
use firelane_host_proto::message::{Code, Reply, Request, Role};
use firelane_host_proto::{CallError, Client};
use firelane_testkit::Lab;
use firelane_testkit::hostd::{Hostd, NOBODY, as_user, connect_as};
use rustix::fs::OFlags;

use crate::begun::{Given, ask, code, is_root, refusal, request, say, start};

/// The answer to bytes that are no client's.
fn answer(hostd: &Hostd, frames: &[&[u8]]) -> Vec<Reply> {
    let stream = UnixStream::connect(hostd.socket()).expect("it listens");
    for bytes in frames {
        frame::send(&stream, bytes, &[]).expect("it is read");
    }
    frames.iter().map(|_| reply(&stream)).collect()
}

fn reply(stream: &UnixStream) -> Reply {
    let answer = frame::receive(stream, None).expect("an answer");
    serde_json::from_slice(&answer.bytes).expect("an answer")
}

fn code_of(reply: &Reply) -> Code {
    match reply {
        Reply::Refused(refusal) => refusal.code,
        reply => panic!("{reply:?}"),
    }
}

const HELLO: &[u8] = br#"{"op":"hello","min":2,"max":2}"#;

#[test]
fn what_is_no_request_of_this_version_is_refused_by_its_kind() {
    if !is_root("what_is_no_request_of_this_version_is_refused_by_its_kind") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let first = |bytes: &[u8]| code_of(&answer(&hostd, &[bytes])[0]);
    assert_eq!(
        first(br#"{"op":"hello","min":3,"max":9}"#),
        Code::WrongVersion
    );
    assert_eq!(
        first(br#"{"op":"hello","min":0,"max":1}"#),
        Code::WrongVersion
    );
    assert_eq!(first(br#"{"op":"list"}"#), Code::Malformed);
    assert_eq!(first(b"GET / HTTP/1.1\r\n"), Code::Malformed);
    // Who has said hello may be wrong once, and goes on.
    let after = answer(
        &hostd,
        &[
            HELLO,
            br#"{"op":"shell"}"#,
            br#"{"op":"stop"}"#,
            HELLO,
            br#"{"op":"list"}"#,
        ],
    );
    assert_eq!(code_of(&after[1]), Code::UnknownOperation);
    assert_eq!(code_of(&after[2]), Code::Malformed);
    assert_eq!(code_of(&after[3]), Code::Malformed);
    assert_eq!(after[4], Reply::Listed { microvms: vec![] });
    let audit = hostd.audit();
    let unknown = audit
        .iter()
        .find(|line| line["op"] == "shell")
        .expect("a line");
    assert_eq!(unknown["outcome"], "unknown operation");
    assert_eq!(unknown["uid"], 0);
}

#[test]
fn a_frame_too_large_or_never_complete_ends_the_connection() {
    if !is_root("a_frame_too_large_or_never_complete_ends_the_connection") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let length = u32::try_from(MAX_FRAME_BYTES + 1).expect("a small number");
    let wrong = [
        (length.to_le_bytes().to_vec(), Code::TooLarge),
        // Half a frame, and half a length, and then silence.
        ([&9_u32.to_le_bytes(), &b"half"[..]].concat(), Code::Late),
        (vec![9], Code::Late),
        (vec![], Code::Late),
    ];
    let begun = wrong.map(|(bytes, expected)| {
        let mut stream = UnixStream::connect(hostd.socket()).expect("it listens");
        stream.write_all(&bytes).expect("it is read");
        (stream, expected)
    });
    // Nobody waits for those that are slow.
    Client::connect(&hostd.socket()).expect("it is served");
    for (mut stream, expected) in begun {
        assert_eq!(code_of(&reply(&stream)), expected);
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    }
}

#[test]
fn only_members_of_the_group_are_served_whoever_may_connect() {
    if !is_root("only_members_of_the_group_are_served_whoever_may_connect") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let mode = fs::metadata(hostd.socket())
        .expect("a socket")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o660);
    connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let error = connect_as(1, 1, &hostd.socket()).expect_err("no member");
    assert!(matches!(error, CallError::Connect { .. }), "{error:?}");
    // Also where the mode of the socket does not keep them away.
    fs::set_permissions(hostd.socket(), Permissions::from_mode(0o666)).expect("our own");
    let refused = refusal(connect_as(1, 1, &hostd.socket()));
    assert_eq!(refused.code, Code::WrongUser);
    assert!(
        refused
            .remedy
            .is_some_and(|remedy| remedy.contains("usermod"))
    );
}

#[test]
fn clients_are_counted_and_no_user_has_all_places() {
    if !is_root("clients_are_counted_and_no_user_has_all_places") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &["--clients", "4"]);
    let member = || connect_as(NOBODY, NOBODY, &hostd.socket());
    let both = [member().expect("a place"), member().expect("a place")];
    assert_eq!(code(member()), Code::Busy);
    // Places for others are left.
    Client::connect(&hostd.socket()).expect("a place for root");
    drop(both);
    firelane_testkit::hostd::wait("places are free again", || member().ok());
}

#[test]
fn ids_are_plain_and_numbers_within_bounds() {
    if !is_root("ids_are_plain_and_numbers_within_bounds") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &["--memory-mib", "512", "--vcpus", "2"]);
    let mut client = Client::connect(&hostd.socket()).expect("it listens");
    let mut refused = |id: &str, memory_mib, vcpus| {
        let given = Given::new(&lab);
        code(ask(
            &mut client,
            &request(id, memory_mib, vcpus, &given),
            &given,
        ))
    };
    for id in ["", ".", "../x", "a/b", "a b", "a\0", &"x".repeat(65)] {
        assert_eq!(refused(id, 64, 1), Code::BadId, "{id:?}");
    }
    for (memory_mib, vcpus) in [(0, 1), (15, 1), (513, 1), (u32::MAX, 1), (64, 0), (64, 3)] {
        assert_eq!(refused("vm", memory_mib, vcpus), Code::OutOfBounds);
    }
    hostd.assert_empty();
}

#[test]
fn a_users_microvms_are_bounded_in_number_and_memory() {
    if !is_root("a_users_microvms_are_bounded_in_number_and_memory") {
        return;
    }
    let lab = Lab::new();
    // Each has 64 MiB.
    for bound in [
        ["--max-microvms-per-user", "1"],
        ["--max-memory-mib-per-user", "127"],
    ] {
        let hostd = Hostd::start(&lab, &bound);
        let mut owner = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
        let mut other = connect_as(1, NOBODY, &hostd.socket()).expect("a member");
        let (first, second) = (lab.name("first"), lab.name("second"));
        start(&mut owner, &lab, &first).expect("it starts");
        // Over whichever connection.
        let mut again = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
        for client in [&mut owner, &mut again] {
            let refused = refusal(start(client, &lab, &second));
            assert_eq!(refused.code, Code::OutOfBounds, "{refused:?}");
            let remedy = refused.remedy.expect("there is one");
            assert!(remedy.contains(bound[0]), "{remedy}");
        }
        start(&mut other, &lab, &second).expect("it is another user's");
        say(&mut owner, &Request::Stop { id: first }).expect("it ends");
        start(&mut owner, &lab, &lab.name("third")).expect("there is room again");
        // hostd ends what they left before it goes.
        drop((owner, other, again));
        hostd.wait_until_empty();
    }
}

#[test]
fn a_descriptor_has_to_be_what_its_role_says() {
    if !is_root("a_descriptor_has_to_be_what_its_role_says") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let mut client = Client::connect(&hostd.socket()).expect("it listens");
    let mut refused = |given: &Given| {
        let refusal = refusal(ask(&mut client, &request("vm", 64, 1, given), given));
        assert_eq!(refusal.code, Code::BadDescriptor, "{refusal:?}");
        refusal.cause
    };
    let kernel = |file: OwnedFd| Given::new(&lab).with(Role::Kernel, file);
    let writable = lab.path().join(lab.file("writable", ""));
    let opened = |flags: OFlags| {
        let mut options = File::options();
        options.read(true).custom_flags(flags.bits().cast_signed());
        OwnedFd::from(options.open(&writable).expect("our own file"))
    };
    let both = File::options().read(true).write(true).open(&writable);
    let write = File::options().write(true).open(&writable);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let folder = File::open(lab.path()).expect("our own folder");
    for (file, cause) in [
        (folder.into(), "no plain file"),
        (opened(OFlags::PATH), "mere path"),
        (both.expect("our own file").into(), "can be written"),
        (write.expect("our own file").into(), "can be written"),
        (OwnedFd::from(reader), "no plain file"),
        (
            File::open("/dev/null").expect("a device").into(),
            "no plain file",
        ),
    ] {
        let told = refused(&kernel(file));
        assert!(told.contains(cause), "{told}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port");
    let network = TcpStream::connect(address).expect("our own port");
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().expect("sockets");
    for socket in [OwnedFd::from(network), datagram.into(), writer.into()] {
        let told = refused(&Given::new(&lab).with(Role::Monitor, socket));
        assert!(told.contains("Unix stream socket"), "{told}");
    }
    let told = refused(&Given::new(&lab).with(Role::Stderr, opened(OFlags::empty())));
    assert!(told.contains("writing end"), "{told}");
    let told = refused(&Given::new(&lab).without(Role::Link));
    assert!(told.contains("'link' is missing"), "{told}");
    let mut twice = Given::new(&lab);
    twice.roles[0] = Role::Monitor;
    assert!(refused(&twice).contains("twice"));
    let mut more = Given::new(&lab);
    more.roles.pop();
    assert!(refused(&more).contains("4 descriptors are described, and 5 came"));
    // What belongs to no operation is not kept either.
    let given = Given::new(&lab);
    assert_eq!(
        code(ask(&mut client, &Request::List {}, &given)),
        Code::BadDescriptor
    );
    assert_eq!(
        say(&mut client, &Request::List {}).expect("a list"),
        Reply::Listed { microvms: vec![] }
    );
    hostd.assert_empty();
}

#[test]
fn an_id_is_one_microvms_and_its_owners() {
    if !is_root("an_id_is_one_microvms_and_its_owners") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let id = lab.name("owned");
    let mut owner = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    // Another user of the same group.
    let mut other = connect_as(1, NOBODY, &hostd.socket()).expect("a member");
    let started = start(&mut owner, &lab, &id).expect("it starts");
    for client in [&mut owner, &mut other] {
        assert_eq!(code(start(client, &lab, &id)), Code::IdTaken);
    }
    for request in [
        Request::Stop { id: id.clone() },
        Request::Confirm { id: id.clone() },
        Request::Pause { id: id.clone() },
        Request::Resume { id: id.clone() },
        Request::Inspect { id: id.clone() },
    ] {
        assert_eq!(code(say(&mut other, &request)), Code::NotYours);
    }
    let listed = say(&mut other, &Request::List {}).expect("a list");
    assert_eq!(listed, Reply::Listed { microvms: vec![] });
    let Reply::State(state) =
        say(&mut owner, &Request::Inspect { id: id.clone() }).expect("it is there")
    else {
        panic!("no state");
    };
    assert_eq!(state.pid, Some(started.pid));
    // Over another connection of its own user, too; and then it is nobody's.
    let mut again = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let stopped = say(&mut again, &Request::Stop { id: id.clone() }).expect("it ends");
    assert_eq!(
        stopped,
        Reply::Stopped {
            status: Some("signal 9".into())
        }
    );
    for client in [&mut again, &mut other] {
        let stopped = say(client, &Request::Stop { id: id.clone() }).expect("it is gone");
        assert_eq!(stopped, Reply::Stopped { status: None });
    }
    assert_eq!(
        code(say(&mut owner, &Request::Inspect { id: id.clone() })),
        Code::NotFound
    );
    start(&mut other, &lab, &id).expect("the id is free again");
}

#[test]
fn files_of_others_are_not_opened_for_a_client() {
    if !is_root("files_of_others_are_not_opened_for_a_client") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let secret = lab.path().join(lab.file("secret", "root's"));
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("our own file");
    // All that its user can get hold of is a path that it may not read.
    let path = as_user(NOBODY, NOBODY, || {
        assert!(File::open(&secret).is_err());
        let mut options = File::options();
        options
            .read(true)
            .custom_flags(OFlags::PATH.bits().cast_signed());
        options
            .open(&secret)
            .expect("a path needs no right to read")
    });
    let mut client = connect_as(NOBODY, NOBODY, &hostd.socket()).expect("a member");
    let given = Given::new(&lab).with(Role::Kernel, path);
    let refused = code(ask(&mut client, &request("vm", 64, 1, &given), &given));
    assert_eq!(refused, Code::BadDescriptor);
}
