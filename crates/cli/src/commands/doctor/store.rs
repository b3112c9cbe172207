//! The store: its room, its seals, and what of the host makes its files quick to use.
//!
//! Sources: ioctl_ficlone(2); proc(5), `meminfo`.

use std::fs::File;
use std::io;
use std::path::Path;

use firelane_image::Store;

use super::host::System;
use super::report::{Grade, Report};
use crate::failure::Failure;
use crate::host::open_store;

/// Free space below which templates cannot be built, in MiB.
const LEAST_SPACE_MIB: u64 = 4096;

pub(super) fn check(system: &System, report: &mut Report) -> Result<(), Failure> {
    let store = open_store()?;
    check_space(&store, report)?;
    check_reflink(&store, report)?;
    check_page_cache(system, &store, report)?;
    check_seals(&store, report)
}

fn check_space(store: &Store, report: &mut Report) -> Result<(), Failure> {
    let root = store.root().display();
    let stat = rustix::fs::statvfs(store.root())
        .map_err(|errno| Failure::platform(io::Error::from(errno)))?;
    let free_mib = (stat.f_bavail * stat.f_frsize) >> 20;
    let detail = format!("{root}: {free_mib} MiB free");
    if free_mib < LEAST_SPACE_MIB {
        let remedy =
            format!("free {LEAST_SPACE_MIB} MiB, or set FIRELANE_HOME to a folder with more");
        report.add("store", Grade::Warning, detail, Some(&remedy));
    } else {
        report.add("store", Grade::Ok, detail, None);
    }
    Ok(())
}

/// Whether copies of files share their blocks here. Firelane maps and links files, and copies none.
fn check_reflink(store: &Store, report: &mut Report) -> Result<(), Failure> {
    const NAME: &str = "reflink";
    if shares_copies(store.root()).map_err(Failure::platform)? {
        report.add(NAME, Grade::Ok, "copies in the store share blocks", None);
    } else {
        let detail = "none: a copy of a template takes its whole size again";
        report.add(NAME, Grade::Impossible, detail, None);
    }
    Ok(())
}

fn shares_copies(folder: &Path) -> io::Result<bool> {
    // Unnamed, so that nothing is left whatever happens.
    let from: File = tempfile::tempfile_in(folder)?;
    let to: File = tempfile::tempfile_in(folder)?;
    from.set_len(4096)?;
    Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
}

/// Whether all snapshots' pages fit into the host's memory beside what it uses: clones share them there.
fn check_page_cache(system: &System, store: &Store, report: &mut Report) -> Result<(), Failure> {
    const NAME: &str = "page cache";
    let wanted_mib = store.snapshots_bytes()? >> 20;
    let Some(available_mib) = system.available_mib() else {
        report.add(NAME, Grade::Impossible, "this kernel does not tell", None);
        return Ok(());
    };
    let detail = format!("snapshots take {wanted_mib} MiB of {available_mib} MiB available");
    if wanted_mib <= available_mib {
        report.add(NAME, Grade::Ok, detail, None);
    } else {
        let detail = format!("{detail}: clones wait for the disk");
        let remedy = "remove templates that nobody uses (firelane template rm), or add memory";
        report.add(NAME, Grade::Warning, detail, Some(remedy));
    }
    Ok(())
}

/// The keys that are believed, and what was refused.
fn check_seals(store: &Store, report: &mut Report) -> Result<(), Failure> {
    let keys = match store.signing().keys().list() {
        Ok(keys) => keys,
        Err(error) => {
            let remedy = error.remedy();
            let detail = format!("{:#}", anyhow::Error::from(error));
            report.add("signing", Grade::Warning, detail, remedy.as_deref());
            return Ok(());
        }
    };
    let own = keys.iter().find(|key| key.own);
    let others = keys.iter().filter(|key| !key.own).count();
    let own = own.map_or("no key yet".to_owned(), |key| format!("key {}", key.id));
    let detail = format!("{own}, {others} others are trusted");
    match store.quarantined()?.pop() {
        None => report.add("signing", Grade::Ok, detail, None),
        Some(last) => {
            let detail = format!("{detail}; refused: {}", last.reason);
            let remedy = format!(
                "find out who changed it, then remove {}",
                last.folder.display()
            );
            report.add("signing", Grade::Warning, detail, Some(&remedy));
        }
    }
    Ok(())
}
