//! A microVM that runs, is frozen, saved and goes on, as a sandbox that is forked does.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use firelane_guest_proto::message::{RefusedCode, RenewSpec, SEED_BYTES, ThawSpec};
use firelane_vmm::driver::{MicroVm, SaveError, SnapshotFiles};
use firelane_vmm::session::{Session, SessionError};

use super::subject::{Program, Subject, open};

/// How long programs may take to stand still.
const FREEZE: Duration = Duration::from_secs(10);

fn files(subject: &Subject, name: &str) -> SnapshotFiles {
    let path = |part: &str| subject.lab.path().join(format!("{name}.{part}"));
    SnapshotFiles::new(path("memory"), path("state"))
}

async fn count(subject: &Subject, session: &Session) -> String {
    subject.said(session, &Program::Count).await
}

/// Freezes it, saves it, and has it go on over a new connection, with which this comes back.
async fn save_frozen(
    vm: &mut dyn MicroVm,
    files: &SnapshotFiles,
) -> (Result<(), SaveError>, Session) {
    let before = open(vm).await;
    before.freeze(FREEZE).await.unwrap();
    let saved = vm.save(files).await;
    drop(before);
    let session = open(vm).await;
    let thaw = ThawSpec {
        seed: vec![1; SEED_BYTES],
        realtime_ns: 1,
    };
    session.thaw(&thaw).await.unwrap();
    (saved.map(drop), session)
}

/// Takes up a clone: it does nothing before it is renewed.
async fn take_up(subject: &Subject, vm: &dyn MicroVm) -> Session {
    let session = open(vm).await;
    match session.freeze(FREEZE).await {
        Err(SessionError::Refused(refused)) if refused.code == RefusedCode::Stale => {}
        other => panic!("a clone that was not renewed answers {other:?}"),
    }
    let renew = RenewSpec {
        seed: vec![2; SEED_BYTES],
        realtime_ns: 1,
        hostname: "clone".into(),
        machine_id: [3; 16],
    };
    session.renew(&renew).await.unwrap();
    assert_eq!(count(subject, &session).await, "3\n");
    session
}

/// A microVM that was booted is forked while it runs: it goes on over a new connection, and each fork goes on from the
/// same instant by itself. Then it goes back to that.
///
/// # Panics
/// If not.
pub async fn a_microvm_that_runs_is_forked_and_rolled_back(subject: Subject) {
    let mut vm = subject.boot("original").await.unwrap();
    assert_eq!(subject.count(&*vm).await, 1);
    assert_eq!(subject.count(&*vm).await, 2);
    let first = files(&subject, "first");
    let (saved, session) = save_frozen(&mut *vm, &first).await;
    saved.unwrap();
    assert_eq!(count(&subject, &session).await, "3\n");

    let mut forks = Vec::new();
    for name in ["one", "two", "three"] {
        let fork = subject.restore(name, &first).await.unwrap();
        let session = take_up(&subject, &*fork).await;
        forks.push((fork, session));
    }
    for (_, session) in &forks {
        assert_eq!(count(&subject, session).await, "4\n");
    }
    assert_eq!(count(&subject, &session).await, "4\n");

    // A fork is saved as well as what was booted, paused ones too; over and over.
    let (mut fork, before) = forks.remove(0);
    drop(before);
    let second = files(&subject, "second");
    let (saved, again) = save_frozen(&mut *fork, &second).await;
    saved.unwrap();
    assert_eq!(count(&subject, &again).await, "5\n");
    drop(again);
    fork.pause().await.unwrap();
    fork.save(&files(&subject, "third")).await.unwrap();
    fork.resume().await.unwrap();
    assert_eq!(subject.count(&*fork).await, 6);
    fork.destroy().await.unwrap();
    for (fork, session) in forks {
        drop(session);
        fork.destroy().await.unwrap();
    }

    // Back, under its own name.
    drop(session);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
    let vm = subject.restore("original", &first).await.unwrap();
    drop(take_up(&subject, &*vm).await);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// A VMM that cannot write a snapshot, by its own account: the microVM goes on, over a new connection, and is saved when
/// nothing is in the way any more.
///
/// # Panics
/// If not.
pub async fn a_save_that_its_vmm_refuses_leaves_the_microvm_usable(subject: Subject) {
    let mut vm = subject.boot("refused").await.unwrap();
    assert_eq!(subject.count(&*vm).await, 1);
    // Where Firecracker would write the memory: beside its socket, which we have open.
    let socket = fs::read_link(vm.vsock_path()).unwrap();
    let in_the_way: PathBuf = socket.with_file_name("memory");
    fs::create_dir(&in_the_way).unwrap();
    let files = files(&subject, "refused");
    let (saved, session) = save_frozen(&mut *vm, &files).await;
    let error = saved.unwrap_err();
    assert!(matches!(error, SaveError::Refused(_)), "{error:?}");
    assert!(!files.memory.exists() && !files.state.exists());
    assert_eq!(count(&subject, &session).await, "2\n");
    drop(session);
    assert_eq!(subject.count(&*vm).await, 3);

    fs::remove_dir(&in_the_way).unwrap();
    let (saved, session) = save_frozen(&mut *vm, &files).await;
    saved.unwrap();
    assert_eq!(count(&subject, &session).await, "4\n");
    drop(session);
    let clone = subject.restore("clone", &files).await.unwrap();
    let session = open(&*clone).await;
    drop(session);
    clone.destroy().await.unwrap();
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}
