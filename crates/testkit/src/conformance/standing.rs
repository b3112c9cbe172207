//! VMMs that wait for a snapshot.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::time::Duration;

use firelane_sys::process::ProcessId;
use firelane_vmm::driver::{BootError, SnapshotFiles, StandBy};
use firelane_vmm::rundir;
use firelane_vmm::timeline::{Phase, Timeline};
use tokio::time::{sleep, timeout};

use super::cases::{PATIENCE, snapshot};
use super::subject::Subject;

async fn stand_by(subject: &Subject, files: &SnapshotFiles, id: &str) -> Box<dyn StandBy> {
    let (machine, mut timeline) = (subject.named(id), Timeline::start());
    let standing = subject.driver.stand_by(&machine, files, &mut timeline);
    let standing = standing.await.unwrap();
    assert!(standing.lives());
    assert!(timeline.at(Phase::Spawned).is_some() && timeline.at(Phase::Loaded).is_none());
    let on_record = subject.lab.microvms();
    assert_eq!(on_record.len(), 1);
    assert_eq!(on_record[0].vmm().map(|vmm| vmm.pid), Some(standing.pid()));
    standing
}

/// A VMM that waits restores its snapshot without being started again; one that is not wanted leaves nothing.
///
/// # Panics
/// If not.
pub async fn a_vmm_that_waits_restores_or_leaves_nothing(subject: Subject) {
    let files = snapshot(&subject).await;
    let standing = stand_by(&subject, &files, "waits").await;
    let (pid, mut timeline) = (standing.pid(), Timeline::start());
    let vm = standing.restore(&mut timeline).await.unwrap();
    assert_eq!(vm.pid(), pid);
    assert!(timeline.at(Phase::Spawned).is_none() && timeline.at(Phase::Loaded).is_some());
    assert_eq!(subject.count(&*vm).await, 3);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();

    let unwanted = stand_by(&subject, &files, "unwanted").await;
    unwanted.discard().await.unwrap();
    subject.lab.assert_empty();
}

/// One that was killed while it waited is known to be dead, restores nothing, and leaves nothing; so does one that is
/// dropped, after a sweep.
///
/// # Panics
/// If not.
pub async fn a_vmm_that_dies_while_it_waits_is_told(subject: Subject) {
    let files = snapshot(&subject).await;
    let standing = stand_by(&subject, &files, "killed").await;
    ProcessId::of(standing.pid()).unwrap().kill().unwrap();
    let dead = async {
        while standing.lives() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, dead).await.expect("it was killed");
    let restored = standing.restore(&mut Timeline::start()).await;
    let error = restored.err().expect("there is no VMM");
    assert!(matches!(error, BootError::Died(_)), "{error:?}");
    subject.lab.assert_empty();

    let dropped = stand_by(&subject, &files, "dropped").await;
    let on_record = subject.lab.microvms();
    drop(dropped);
    let gone = async {
        while on_record[0].vmm().is_some_and(|vmm| vmm.lives()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it was dropped");
    assert_eq!(rundir::sweep(&subject.lab.run_dir()).len(), 1);
    // Its record may be another's to remove, who does it a moment later.
    let removed = async {
        while on_record[0].path.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, removed).await.expect("it was swept");
    on_record[0].assert_gone();
    subject.lab.assert_empty();
}
