//! Saves a microVM that goes on: its memory and state become the files of a snapshot.
//!
//! A clone's memory is private to its VMM, and QEMU saves such memory only as a stream, together with
//! the devices. So the stream goes to a file, which is quick, and the microVM goes on. A second VMM,
//! the saver, reads it, with its memory in a file that it maps shared; then it saves its state
//! without the memory, as for any snapshot, and is ended.
//!
//! ```text
//!   source               stream         saver             files
//!     │                                 started, waits
//!   paused                                │
//!   memory, devices ───> without name     │
//!   goes on                 └──────────> loads ─────────> memory
//!                                        devices ───────> state
//!                                        ended            read-only
//! ```
//!
//! The saver has a guest's machine but never runs one. It is jailed like every VMM: what a guest that
//! took over its own VMM sends is read there, and not by us. Why it is done this way is told in
//! `docs/decisions/0006-live-snapshots-through-a-second-vmm.md`.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_launch::qemu::Origin;
use tokio::time::Instant;

use super::Qemu;
use super::boot::{self, Kept, Launched};
use super::microvm::{self, QemuVm};
use super::migration::{self, MigrationError};
use crate::driver::{Machine, MicroVm, SaveError, Saved, SnapshotFiles};
use crate::owned;
use crate::timeline::Timeline;

/// How long the memory may take to be passed on, beside what its size adds.
const PASS_ON_TIMEOUT: Duration = Duration::from_secs(30);
/// What is counted on at least, in MiB per second; the slowest disks that were met do tens.
const SLOWEST_MIB_PER_S: u32 = 16;
/// Largest state of a microVM without its memory, in bytes; it has some 50 KiB.
const MAX_STATE_BYTES: u64 = 16 << 20;
/// Free bytes of a file system below which it counts as full.
const FULL_BYTES: u64 = 1 << 20;

/// Only the owner may read a snapshot that holds what a user did.
const PRIVATE: u32 = 0o400;

impl QemuVm {
    /// Saves it to `files`; of what fails half-way nothing is left.
    pub(super) async fn save_to(&mut self, files: &SnapshotFiles) -> Result<Saved, SaveError> {
        let mut saver = Saver::start(&self.qemu, &self.machine, files).await?;
        let running = self.held.is_none();
        let begun = Instant::now();
        let passed = self.write_down(files).await;
        // Whatever came of it, the microVM goes on as it was.
        let resumed = match running {
            true => self.resume().await,
            false => Ok(()),
        };
        let stood = begun.elapsed();
        let saved = match (passed, resumed) {
            (Ok(whole), Ok(())) => saver.take_over(&whole, self.deadline()).await,
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error.into()),
        };
        saver.finish(files, saved).await?;
        Ok(Saved { stood })
    }

    /// Pauses it, and writes its memory and state to a file that has no name.
    async fn write_down(&mut self, files: &SnapshotFiles) -> Result<File, SaveError> {
        self.pause().await?;
        if !self.held.as_ref().is_some_and(|held| held.settled) {
            return Err(SaveError::Unsettled);
        }
        let whole = nameless(&files.memory).map_err(SaveError::Files)?;
        let deadline = self.deadline();
        let saved = migration::save_whole(&mut self.monitor, &whole, deadline).await;
        saved.map_err(|error| match full(&files.memory) {
            Some(path) => SaveError::NoSpace { path },
            None => failed(error),
        })?;
        Ok(whole)
    }

    fn deadline(&self) -> Instant {
        let size = Duration::from_secs((self.machine.memory_mib / SLOWEST_MIB_PER_S).into());
        Instant::now() + PASS_ON_TIMEOUT + size
    }
}

/// A file beside `path` that is gone when nobody has it open any more.
fn nameless(path: &Path) -> io::Result<File> {
    let path = path.with_extension("stream");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn failed(error: MigrationError) -> SaveError {
    match error {
        MigrationError::Refused(source) => SaveError::Refused(source.into()),
        MigrationError::Failed { reason } => SaveError::Failed { reason },
    }
}

/// The VMM that writes a snapshot down.
struct Saver {
    starting: boot::Starting,
    launched: Launched,
    kept: Kept,
}

impl Saver {
    async fn start(
        qemu: &Qemu,
        source: &Machine,
        files: &SnapshotFiles,
    ) -> Result<Saver, SaveError> {
        let machine = Machine {
            // Names have 64 bytes at most, and the source's may have all of them.
            id: format!("save-{:016x}", owned::hash(&source.id)),
            snapshot: None,
            ..source.clone()
        };
        let kept = Kept::create(files.clone(), machine.memory_mib).map_err(SaveError::Saver)?;
        let launched = async {
            let mut starting = boot::Starting::new(qemu, &machine, Origin::Saver)?;
            let deadline = Instant::now() + machine.boot_timeout;
            let mut timeline = Timeline::start();
            let memory = Some(&kept.memory);
            match starting
                .launch(qemu, &machine, memory, deadline, &mut timeline)
                .await
            {
                Ok(launched) => Ok((starting, launched)),
                Err(error) => {
                    starting.owned.give_up().await;
                    Err(error)
                }
            }
        };
        match launched.await {
            Ok((starting, launched)) => Ok(Saver {
                starting,
                launched,
                kept,
            }),
            Err(error) => {
                remove(files);
                Err(SaveError::Saver(error))
            }
        }
    }

    /// Takes the microVM's memory into the file, and writes down what is not in it.
    async fn take_over(&mut self, whole: &File, deadline: Instant) -> Result<(), SaveError> {
        let mut whole = whole.try_clone().map_err(SaveError::Files)?;
        whole.rewind().map_err(SaveError::Files)?;
        let monitor = &mut self.launched.monitor;
        migration::load_whole(monitor, &whole, deadline)
            .await
            .map_err(failed)?;
        let saved = migration::save(monitor, &self.kept.state);
        saved.await.map_err(failed)
    }

    /// Ends it, and completes the files or removes them.
    async fn finish(
        mut self,
        files: &SnapshotFiles,
        saved: Result<(), SaveError>,
    ) -> Result<(), SaveError> {
        // If it has died, that is the error and not what followed from it.
        let died = match &saved {
            Err(SaveError::Refused(_) | SaveError::Failed { .. }) => {
                let Launched {
                    stderr, console, ..
                } = &mut self.launched;
                self.starting.owned.died(stderr, console).await
            }
            _ => None,
        };
        // It maps the memory, and could change it until it is gone.
        self.starting.owned.give_up().await;
        let saved = match (saved, died) {
            (Err(_), Some(death)) => Err(SaveError::Died(death)),
            (saved, _) => saved,
        };
        let made = saved.and_then(|()| complete(files));
        made.map_err(|error| {
            let full = full(&files.memory).or_else(|| full(&files.state));
            remove(files);
            match full {
                Some(path) => SaveError::NoSpace { path },
                None => error,
            }
        })
    }
}

fn complete(files: &SnapshotFiles) -> Result<(), SaveError> {
    let state = fs::metadata(&files.state).map_err(SaveError::Files)?;
    if state.len() > MAX_STATE_BYTES {
        let reason = format!("its state has {} bytes", state.len());
        return Err(SaveError::Failed { reason });
    }
    for path in [&files.memory, &files.state] {
        microvm::close_to_writing(path, PRIVATE).map_err(SaveError::Files)?;
    }
    Ok(())
}

/// The path, if its file system has no space left.
fn full(path: &Path) -> Option<PathBuf> {
    let stat = rustix::fs::statvfs(path).ok()?;
    (stat.f_bavail.saturating_mul(stat.f_frsize) < FULL_BYTES).then(|| path.to_owned())
}

fn remove(files: &SnapshotFiles) {
    for path in [&files.memory, &files.state] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove half a snapshot");
            }
            _ => {}
        }
    }
}
