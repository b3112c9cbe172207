//! Sessions of a host that keeps to the protocol, and of some that do not.

use super::fake::Fake;
use super::*;
use crate::guest::MAX_HOLDING;
use alloc::string::String;
use alloc::vec;
use firelane_guest_proto::frame::{Channel, INITIAL_WINDOW, MAX_DATA_BYTES, MAX_STREAMS};
use firelane_guest_proto::message::{
    ExecSpec, Exit, Limits, Outcome, Program, RenewSpec, SEED_BYTES, WarmSpec,
};
use proptest::collection::vec as vec_of;
use proptest::prelude::*;

/// The host of one session.
#[derive(Default)]
struct Peer {
    session: Session,
    guest: Guest,
    machine: Fake,
    decoder: Decoder,
}

impl Peer {
    /// A session after its welcome.
    fn welcomed() -> Peer {
        let mut peer = Peer::default();
        let answers = peer.say(&to_frame(0, Kind::Hello, &Hello::ours()).unwrap());
        assert_eq!(answers[0].kind, Kind::Welcome);
        peer
    }

    /// Sends a frame; all frames that follow until nothing moves.
    fn say(&mut self, frame: &Frame) -> Vec<Frame> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.session.receive(&bytes);
        self.listen()
    }

    fn listen(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.session.work(&mut self.guest, &mut self.machine)
            || !self.session.output().is_empty()
        {
            self.decoder.push(self.session.output());
            self.session.sent(self.session.output().len());
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                frames.push(frame);
            }
            if self.session.is_over() {
                break;
            }
        }
        frames
    }

    fn exec(&mut self, id: u32, argv: &[&str]) -> Vec<Frame> {
        self.exec_within(id, argv, Limits::default())
    }

    fn exec_within(&mut self, id: u32, argv: &[&str], limits: Limits) -> Vec<Frame> {
        let argv = argv.iter().map(|word| (*word).into()).collect();
        self.say(&to_frame(id, Kind::Exec, &spec(Program::Command { argv }, limits)).unwrap())
    }

    /// Stdout, stderr and exit code of a program that ends by itself.
    fn run(&mut self, argv: &[&str]) -> (String, String, Exit) {
        let frames = self.exec(1, argv);
        assert_eq!(frames[0].kind, Kind::Started, "{argv:?}");
        let text = |channel| {
            let frames = frames.iter().filter(|frame| frame.channel == channel);
            let bytes = frames.flat_map(|frame| frame.payload.clone()).collect();
            String::from_utf8(bytes).unwrap()
        };
        let exit = outcome(frames.last().unwrap()).exit;
        (text(Channel::Stdout), text(Channel::Stderr), exit)
    }

    fn renew(&mut self, id: u32) -> Vec<Frame> {
        let renewal = RenewSpec {
            seed: vec![1; SEED_BYTES],
            realtime_ns: 1,
            hostname: "clone-1".into(),
            machine_id: [0x5a; 16],
        };
        self.say(&to_frame(id, Kind::Renew, &renewal).unwrap())
    }
}

fn spec(program: Program, limits: Limits) -> ExecSpec {
    ExecSpec {
        trace_id: "t".into(),
        program,
        env: vec![],
        cwd: None,
        limits,
        pty: None,
    }
}

fn outcome(frame: &Frame) -> Outcome {
    assert_eq!(frame.kind, Kind::Exited, "{frame:?}");
    from_frame(frame).unwrap()
}

fn kinds(frames: &[Frame]) -> Vec<Kind> {
    frames.iter().map(|frame| frame.kind).collect()
}

fn check_refused(frames: &[Frame], code: RefusedCode) {
    assert_eq!(kinds(frames), [Kind::Refused]);
    let refused: Refused = from_frame(&frames[0]).unwrap();
    assert_eq!(refused.code, code, "{refused:?}");
}

fn check_goodbye(peer: &mut Peer, frames: &[Frame]) {
    assert_eq!(frames.last().map(|frame| frame.kind), Some(Kind::Goodbye));
    assert!(peer.session.is_over());
}

#[test]
fn programs_print_and_exit() {
    let mut peer = Peer::welcomed();
    let mut check = |argv: &[&str], stdout: &str, stderr: &str, code| {
        let expected = (stdout.into(), stderr.into(), Exit::Code(code));
        assert_eq!(peer.run(argv), expected, "{argv:?}");
    };
    check(&["echo", "two", "words"], "two words\n", "", 0);
    check(&["echo"], "\n", "", 0);
    check(&["counter"], "1\n", "", 0);
    check(&["counter"], "2\n", "", 0);
    check(&["exit", "7"], "", "", 7);
    let usage = "exit: give it a code from 0 to 255\n";
    check(&["exit", "256"], "", usage, 2);
    check(&["random"], "abababababababababababababababab\n", "", 0);
    let never = "identity: this guest has never been renewed\n";
    check(&["identity"], "", never, 1);
    check(&["dirty", "17"], "", "only 16 MiB of memory are free\n", 2);
    check(&["dirty", "x"], "", "give it a number of MiB\n", 2);
}

#[test]
fn a_machine_without_an_entropy_device_says_so() {
    let mut peer = Peer::welcomed();
    peer.machine.entropy = false;
    let missing = "random: this machine has no entropy device\n";
    let expected = (String::new(), missing.into(), Exit::Code(1));
    assert_eq!(peer.run(&["random"]), expected);
}

#[test]
fn a_page_that_changed_is_found() {
    let mut peer = Peer::welcomed();
    assert_eq!(peer.run(&["check", "1"]).2, Exit::Code(1));
    let written = ("4096\n".into(), String::new(), Exit::Code(0));
    assert_eq!(peer.run(&["dirty", "16"]), written);
    assert_eq!(peer.run(&["check", "16"]), written);
    peer.machine.pages[3000] ^= 1;
    let bad = "page 3000 is not what it was\n";
    let expected = (bad.into(), String::new(), Exit::Code(1));
    assert_eq!(peer.run(&["check", "16"]), expected);
}

#[test]
fn what_is_no_program_is_refused() {
    let mut peer = Peer::welcomed();
    check_refused(&peer.exec(1, &["bash"]), RefusedCode::NoInterpreter);
    check_refused(&peer.exec(1, &[]), RefusedCode::Invalid);
    let code = Program::Code {
        lang: firelane_guest_proto::Lang::Python,
        source: vec![],
        args: vec![],
    };
    let frame = to_frame(1, Kind::Exec, &spec(code, Limits::default())).unwrap();
    check_refused(&peer.say(&frame), RefusedCode::NoInterpreter);
    let list = Frame::new(1, Kind::List, vec![]);
    check_refused(&peer.say(&list), RefusedCode::Invalid);
    let long = "x".repeat(MAX_DATA_BYTES);
    check_refused(&peer.exec(1, &["echo", &long]), RefusedCode::Invalid);
    let huge = "x".repeat(MAX_REQUEST);
    check_refused(&peer.exec(1, &["echo", &huge]), RefusedCode::Invalid);
}

#[test]
fn cat_keeps_to_both_windows() {
    let mut peer = Peer::welcomed();
    assert_eq!(kinds(&peer.exec(1, &["cat"])), [Kind::Started]);
    let block = vec![7; MAX_DATA_BYTES];
    let data = Frame::data(1, Channel::Stdin, &block);
    let blocks = INITIAL_WINDOW as usize / MAX_DATA_BYTES;
    for _ in 0..blocks {
        let answers = peer.say(&data);
        assert_eq!(kinds(&answers), [Kind::Data, Kind::Window]);
        assert_eq!(answers[1].granted(), Ok(MAX_DATA_BYTES as u32));
    }
    // The host has granted nothing, so what comes now waits, and is granted no more.
    for _ in 0..blocks {
        assert_eq!(peer.say(&data), []);
    }
    assert_eq!(peer.say(&Frame::end(1, Channel::Stdin)), []);
    let granted = peer.say(&Frame::window(1, Channel::Stdout, 100));
    assert_eq!(granted[0].payload.len(), 100);
    assert_eq!(granted[1].granted(), Ok(100));
    let rest = peer.say(&Frame::window(1, Channel::Stdout, INITIAL_WINDOW));
    let printed: usize = rest
        .iter()
        .filter(|frame| frame.kind == Kind::Data)
        .map(|frame| frame.payload.len())
        .sum();
    assert_eq!(printed, blocks * MAX_DATA_BYTES - 100);
    assert_eq!(outcome(rest.last().unwrap()).exit, Exit::Code(0));
}

#[test]
fn more_input_than_its_window_ends_the_session() {
    let mut peer = Peer::welcomed();
    peer.exec(1, &["spin"]);
    let data = Frame::data(1, Channel::Stdin, &vec![7; MAX_DATA_BYTES]);
    for _ in 0..INITIAL_WINDOW as usize / MAX_DATA_BYTES {
        assert_eq!(peer.say(&data), []);
    }
    let answers = peer.say(&data);
    check_goodbye(&mut peer, &answers);
}

#[test]
fn output_over_the_limit_is_dropped() {
    let mut peer = Peer::welcomed();
    let limits = Limits {
        output_bytes: 5,
        ..Limits::default()
    };
    let check = |frames: &[Frame]| {
        let data = frames.iter().filter(|frame| frame.kind == Kind::Data);
        let bytes: Vec<u8> = data.flat_map(|frame| frame.payload.clone()).collect();
        assert_eq!(bytes, b"0123 ");
        assert!(outcome(frames.last().unwrap()).stdout_truncated);
    };
    check(&peer.exec_within(1, &["echo", "0123", "456"], limits));
    peer.exec_within(1, &["cat"], limits);
    let mut frames = peer.say(&Frame::data(1, Channel::Stdin, b"0123 456"));
    frames.extend(peer.say(&Frame::end(1, Channel::Stdin)));
    check(&frames);
}

#[test]
fn signals_and_deadlines_end_a_program() {
    let mut peer = Peer::welcomed();
    assert_eq!(kinds(&peer.exec(1, &["spin"])), [Kind::Started]);
    for ignored in [0, 17, 200] {
        assert_eq!(peer.say(&Frame::new(1, Kind::Signal, vec![ignored])), []);
    }
    let killed = peer.say(&Frame::new(1, Kind::Signal, vec![15]));
    assert_eq!(outcome(&killed[0]).exit, Exit::Signal(15));
    let limits = Limits {
        timeout_ms: 300,
        ..Limits::default()
    };
    peer.exec_within(1, &["spin"], limits);
    peer.machine.now_us = 299_999;
    assert_eq!(peer.listen(), []);
    peer.machine.now_us = 300_000;
    let late = outcome(&peer.listen()[0]);
    assert!(late.timed_out);
    assert_eq!(late.wall_us, 300_000);
}

#[test]
fn a_warmed_guest_runs_nothing_until_it_is_renewed() {
    let mut peer = Peer::welcomed();
    let warm = WarmSpec {
        snippets: vec![],
        env: vec![],
    };
    let warm = to_frame(1, Kind::Warm, &warm).unwrap();
    assert_eq!(kinds(&peer.say(&warm)), [Kind::Done]);
    check_refused(&peer.exec(1, &["counter"]), RefusedCode::Stale);
    check_refused(&peer.say(&warm), RefusedCode::Stale);
    assert_eq!(kinds(&peer.renew(1)), [Kind::Done]);
    let names = "clone-1 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\n";
    let expected = (names.into(), String::new(), Exit::Code(0));
    assert_eq!(peer.run(&["identity"]), expected);
}

#[test]
fn a_frozen_guest_stands_still_until_it_is_thawed() {
    let mut peer = Peer::welcomed();
    let limits = Limits {
        timeout_ms: 1,
        ..Limits::default()
    };
    peer.exec_within(1, &["spin"], limits);
    let freeze = message::FreezeSpec { timeout_ms: 1 };
    let frozen = peer.say(&to_frame(2, Kind::Freeze, &freeze).unwrap());
    assert_eq!(kinds(&frozen), [Kind::Done]);
    peer.machine.now_us = 5000;
    assert_eq!(peer.listen(), []);
    let thaw = message::ThawSpec {
        seed: vec![1; SEED_BYTES],
        realtime_ns: 1,
    };
    let thaw = to_frame(2, Kind::Thaw, &thaw).unwrap();
    assert_eq!(kinds(&peer.say(&thaw)), [Kind::Done, Kind::Exited]);
    check_refused(&peer.say(&thaw), RefusedCode::Invalid);
}

#[test]
fn a_session_that_is_full_refuses_one_more_stream_and_goes_on() {
    let mut peer = Peer::welcomed();
    for id in 1..=MAX_STREAMS as u32 {
        assert_eq!(kinds(&peer.exec(id, &["spin"])), [Kind::Started]);
    }
    check_refused(&peer.exec(1000, &["spin"]), RefusedCode::Exhausted);
    peer.say(&Frame::new(1, Kind::Signal, vec![9]));
    assert_eq!(peer.run(&["counter"]).0, "1\n");
}

#[test]
fn programs_that_hold_input_are_bounded_in_the_whole_guest() {
    let mut peer = Peer::welcomed();
    for id in 1..=MAX_HOLDING as u32 {
        assert_eq!(kinds(&peer.exec(id, &["cat"])), [Kind::Started]);
    }
    check_refused(&peer.exec(100, &["cat"]), RefusedCode::Exhausted);
    peer.session.end(&mut peer.guest);
    peer.session = Session::default();
    peer.say(&to_frame(0, Kind::Hello, &Hello::ours()).unwrap());
    assert_eq!(kinds(&peer.exec(1, &["cat"])), [Kind::Started]);
}

#[test]
fn violations_end_the_session() {
    let check = |frame: &Frame| {
        let mut peer = Peer::welcomed();
        peer.exec(1, &["spin"]);
        let answers = peer.say(frame);
        check_goodbye(&mut peer, &answers);
    };
    check(&to_frame(0, Kind::Hello, &Hello::ours()).unwrap());
    check(&Frame::new(1, Kind::List, vec![]));
    check(&Frame::new(0, Kind::List, vec![]));
    check(&Frame::new(2, Kind::Exec, vec![1]));
    check(&Frame::new(1, Kind::Exited, vec![]));
    let mut early = Peer::default();
    let answers = early.say(&Frame::new(0, Kind::Ping, vec![]));
    check_goodbye(&mut early, &answers);
}

#[test]
fn an_older_host_gets_its_version_and_nothing_newer() {
    let mut peer = Peer::default();
    let hello = Hello {
        max_version: 1,
        ..Hello::ours()
    };
    let answers = peer.say(&to_frame(0, Kind::Hello, &hello).unwrap());
    let welcome: Welcome = from_frame(&answers[0]).unwrap();
    assert_eq!(welcome.version, 1);
    let answers = peer.say(&Frame::new(1, Kind::List, vec![]));
    check_goodbye(&mut peer, &answers);
}

#[test]
fn a_silent_session_takes_everything_and_says_nothing() {
    let mut peer = Peer::welcomed();
    peer.exec(1, &["silent"]);
    let ping = Frame::new(0, Kind::Ping, vec![1]);
    assert_eq!(peer.say(&ping), []);
    assert!(peer.session.wants_bytes());
    assert!(!peer.session.is_over());
}

#[test]
fn pings_are_answered_and_a_flood_of_them_waits() {
    let mut peer = Peer::welcomed();
    let ping = Frame::new(0, Kind::Ping, b"firelane".to_vec());
    let answers = peer.say(&ping);
    assert_eq!(answers, [Frame::new(0, Kind::Pong, b"firelane".to_vec())]);
    let mut flood = Vec::new();
    (0..20_000).for_each(|_| ping.encode(&mut flood));
    peer.session.receive(&flood);
    while peer.session.work(&mut peer.guest, &mut peer.machine) {}
    assert!(!peer.session.wants_bytes());
    assert!(peer.session.output().len() < MAX_OUTPUT + 100);
    assert_eq!(peer.listen().len(), 20_000);
    assert!(peer.session.wants_bytes());
}

/// Frames that are whole, and often make sense.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        Just(0x03_u8),
        Just(0x10),
        0x13..0x18_u8,
        0x30..0x3a_u8,
        any::<u8>()
    ];
    let command = prop_oneof![
        Just(&["cat"][..]),
        Just(&["spin"][..]),
        Just(&["dirty", "1"][..]),
        Just(&["silent"][..]),
        Just(&["counter"][..]),
    ];
    let exec = (1..4_u32, command).prop_map(|(id, argv)| {
        let argv = argv.iter().map(|word| (*word).into()).collect();
        let spec = spec(Program::Command { argv }, Limits::default());
        to_frame(id, Kind::Exec, &spec).unwrap()
    });
    let plain = (kind, 0..4_u32, 0..5_u8, vec_of(0..6_u8, 0..12)).prop_map(
        |(kind, stream, channel, payload)| {
            let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
            bytes.extend(stream.to_be_bytes());
            bytes.extend([kind, channel, 0, 0]);
            bytes.extend(payload);
            bytes
        },
    );
    let exec = exec.prop_map(|frame| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    });
    prop_oneof![3 => exec, 3 => plain, 1 => vec_of(any::<u8>(), 0..40)]
}

proptest! {
    #[test]
    fn fuzz_a_session_survives_what_comes_and_stays_small(
        greeted in any::<bool>(),
        parts in vec_of(frames(), 0..40),
        cut in 1..50_usize,
    ) {
        let mut peer = if greeted { Peer::welcomed() } else { Peer::default() };
        let bytes: Vec<u8> = parts.concat();
        for part in bytes.chunks(cut) {
            peer.machine.now_us += 1000;
            for _ in 0..20 {
                peer.session.work(&mut peer.guest, &mut peer.machine);
            }
            if peer.session.wants_bytes() {
                peer.session.receive(part);
            }
            prop_assert!(peer.session.output().len() < 2 * MAX_OUTPUT);
            let half = peer.session.output().len() / 2;
            peer.session.sent(half);
        }
        peer.session.end(&mut peer.guest);
        // Nothing that it held is lost.
        for _ in 0..MAX_HOLDING {
            prop_assert_eq!(peer.guest.hold(), Ok(()));
        }
    }
}
