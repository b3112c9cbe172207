use firelane_guest_proto::message::Exit;

use super::*;
use crate::exec::{self, Local};

/// An exec that runs, and the end of it that its program's pump has.
fn running(registry: &Registry, id: &str) -> (Arc<Detached>, Local) {
    let (remote, local) = exec::control().unwrap();
    let exec = registry.reserve(id, remote).unwrap();
    let launched = &mut || {};
    let mut buffers = Buffers {
        exec: &exec,
        launched,
    };
    buffers.started(7).unwrap();
    (exec, local)
}

fn write(exec: &Detached, bytes: &[u8]) {
    let launched = &mut || {};
    let mut buffers = Buffers { exec, launched };
    buffers.output(Channel::Stdout, bytes).unwrap();
}

fn attach(exec: &Detached, from: Option<u64>) -> Result<(Position, Attached, Local), Refused> {
    let (remote, local) = exec::control().unwrap();
    let spec = AttachSpec {
        stdout_from: from,
        ..AttachSpec::default()
    };
    let (position, attached) = exec.attach(&spec, remote)?;
    Ok((position, attached, local))
}

fn sent(exec: &Detached, position: &mut Position) -> Vec<u8> {
    match exec.turn(position, 1 << 16) {
        Turn::Output(Channel::Stdout, bytes) => bytes,
        _ => panic!("no output"),
    }
}

/// What the pump was allowed to read more.
fn granted(local: &Local) -> u32 {
    let mut sum = 0;
    while let Some(command) = local.pending_command() {
        if let Command::Grant(Channel::Stdout, bytes) = command {
            sum += bytes;
        }
    }
    sum
}

fn outcome() -> Outcome {
    Outcome {
        exit: Exit::Code(3),
        timed_out: false,
        out_of_memory: false,
        stdout_truncated: false,
        stderr_truncated: false,
        interpreter: String::new(),
        wall_us: 0,
        cpu_us: 0,
        peak_memory_bytes: 0,
    }
}

#[test]
fn what_a_lost_reader_did_not_confirm_is_sent_again() {
    let registry = Registry::default();
    let (exec, pump) = running(&registry, "a");
    write(&exec, b"0123456789");
    let (mut first, _, _wait) = attach(&exec, None).unwrap();
    assert_eq!(sent(&exec, &mut first), b"0123456789");
    exec.confirm(&mut first, Channel::Stdout, 4);
    assert_eq!(granted(&pump), 4);
    exec.detach(&first);

    // A host that knows what it has goes on there; one that does not gets what is kept.
    let (mut knows, attached, _wait) = attach(&exec, Some(7)).unwrap();
    assert_eq!(attached.stdout_at, 7);
    assert_eq!(sent(&exec, &mut knows), b"789");
    assert_eq!(granted(&pump), 3);
    let (mut new, attached, _wait) = attach(&exec, None).unwrap();
    assert_eq!(attached.stdout_at, 7);
    assert_eq!(sent(&exec, &mut new), b"789");
    let refused = attach(&exec, Some(6)).err().unwrap();
    assert_eq!(refused.code, RefusedCode::Invalid);
}

#[test]
fn a_host_confirms_no_more_than_it_was_sent() {
    let registry = Registry::default();
    let (exec, pump) = running(&registry, "a");
    write(&exec, b"0123456789");
    let (mut reader, _, _wait) = attach(&exec, None).unwrap();
    exec.confirm(&mut reader, Channel::Stdout, 1000);
    assert_eq!(granted(&pump), 0);
    assert_eq!(sent(&exec, &mut reader), b"0123456789");
}

#[test]
fn a_second_reader_takes_over_and_the_first_is_told() {
    let registry = Registry::default();
    let (exec, _pump) = running(&registry, "a");
    let (mut first, _, waits) = attach(&exec, None).unwrap();
    assert!(matches!(exec.turn(&mut first, 10), Turn::Wait));
    let (mut second, _, _wait) = attach(&exec, None).unwrap();
    assert!(matches!(waits.pending_command(), Some(Command::Look)));
    assert!(matches!(exec.turn(&mut first, 10), Turn::TakenOver));
    // It can no longer do anything.
    exec.detach(&first);
    assert_eq!(exec.feed(&first, b"x".to_vec()), b"x");
    write(&exec, b"now");
    assert_eq!(sent(&exec, &mut second), b"now");
}

#[test]
fn input_that_waits_is_bounded_over_all_readers() {
    let registry = Registry::default();
    let (exec, _pump) = running(&registry, "a");
    let window = INITIAL_WINDOW as usize;
    let (first, _, _wait) = attach(&exec, None).unwrap();
    assert!(exec.feed(&first, vec![1; window - 1]).is_empty());
    let (mut second, attached, _wait) = attach(&exec, None).unwrap();
    assert_eq!(attached.stdin_at, window as u64 - 1);
    assert_eq!(exec.feed(&second, vec![2; 10]).len(), 9);
    let launched = &mut || {};
    let mut buffers = Buffers {
        exec: &exec,
        launched,
    };
    // The first reader's bytes give the second nothing.
    buffers.stdin_taken(window - 1).unwrap();
    assert!(matches!(exec.turn(&mut second, 10), Turn::Wait));
    buffers.stdin_taken(1).unwrap();
    assert!(matches!(exec.turn(&mut second, 10), Turn::InputTaken(1)));
}

#[test]
fn a_reader_is_told_once_until_it_looks() {
    let registry = Registry::default();
    let (exec, _pump) = running(&registry, "a");
    let (mut reader, _, waits) = attach(&exec, None).unwrap();
    for _ in 0..1000 {
        write(&exec, b".");
    }
    assert!(waits.pending_command().is_some());
    assert!(waits.pending_command().is_none());
    assert_eq!(sent(&exec, &mut reader).len(), 1000);
    assert!(matches!(exec.turn(&mut reader, 10), Turn::Wait));
    write(&exec, b".");
    assert!(waits.pending_command().is_some());
}

#[test]
fn an_outcome_follows_the_output_and_is_kept_until_it_is_forgotten() {
    let registry = Registry::default();
    let (exec, _pump) = running(&registry, "a");
    write(&exec, b"last words");
    assert_eq!(registry.forget("a").unwrap_err().code, RefusedCode::Invalid);
    exec.end(Ok(outcome()));
    for _ in 0..2 {
        let (mut reader, _, _wait) = attach(&exec, None).unwrap();
        assert_eq!(sent(&exec, &mut reader), b"last words");
        assert!(matches!(exec.turn(&mut reader, 10), Turn::Ended(Ok(_))));
    }
    assert_eq!(registry.list().execs[0].state, DetachedState::Ended);
    registry.forget("a").unwrap();
    assert!(registry.list().execs.is_empty());
    assert_eq!(registry.get("a").err().unwrap().code, RefusedCode::NotFound);
}

#[test]
fn names_are_taken_once_and_their_number_is_bounded() {
    let registry = Registry::default();
    let refusal = |id: &str| {
        let (remote, _local) = exec::control().unwrap();
        registry
            .reserve(id, remote)
            .err()
            .map(|refused| refused.code)
    };
    assert_eq!(refusal("no/path"), Some(RefusedCode::Invalid));
    for number in 0..MAX_DETACHED {
        assert_eq!(refusal(&number.to_string()), None);
    }
    assert_eq!(refusal("0"), Some(RefusedCode::Invalid));
    assert_eq!(refusal("more"), Some(RefusedCode::Exhausted));
    // One that never started is not there for anybody.
    assert!(registry.list().execs.is_empty());
    registry.release("0");
    assert_eq!(refusal("more"), None);
}
