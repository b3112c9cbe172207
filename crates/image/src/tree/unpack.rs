//! A tar archive into a staging tree, as an ordinary user.
//!
//! Owners, setuid and setgid bits, device nodes, FIFOs and times are dropped; modes become 0755 for folders and programs, 0644 for
//! other files, because an archive made by an ordinary user has that user's umask in it. A path that would leave the tree, or
//! that passes through anything but real folders, is refused: the archive is treated as hostile.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::paths::{MERGED, matches, normalise};

/// Most entries an archive may have.
const ENTRY_LIMIT: u64 = 1_000_000;
/// Most bytes an archive's files may have together.
const BYTE_LIMIT: u64 = 16 << 30;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive itself cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// An entry could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file that was being written.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An entry's path leaves the tree, is not text, or passes through a symbolic link.
    #[error("entry {path:?} leads out of the tree")]
    Escape {
        /// The path as the archive has it.
        path: String,
    },
    /// A hard link to something that is not a file unpacked before.
    #[error("entry {path:?} is a hard link to {target:?}, which is not a file of the archive")]
    HardLink {
        /// The link.
        path: String,
        /// What it points to.
        target: String,
    },
    /// More entries or bytes than a root file system can sensibly have.
    #[error("archive exceeds {ENTRY_LIMIT} entries or {} GiB", BYTE_LIMIT >> 30)]
    TooLarge,
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Unpacks `archive` below `tree` (an existing folder that nobody else writes to), except what `keep` refuses.
pub(crate) fn unpack(
    archive: impl Read,
    tree: &Path,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker {
        tree,
        keep,
        folders: BTreeSet::new(),
        done: Unpacked::default(),
    };
    let mut archive = Archive::new(archive);
    for entry in archive.entries().map_err(UnpackError::Read)? {
        unpacker.entry(entry.map_err(UnpackError::Read)?)?;
    }
    Ok(unpacker.done)
}

/// A filter for [`unpack`]: everything but what one of the patterns matches.
pub(crate) fn except<'a>(patterns: &'a [String]) -> impl Fn(&str) -> bool + 'a {
    |path| !patterns.iter().any(|pattern| matches(pattern, path))
}

struct Unpacker<'a> {
    tree: &'a Path,
    keep: &'a dyn Fn(&str) -> bool,
    /// Folders known to be real ones, all the way up.
    folders: BTreeSet<String>,
    done: Unpacked,
}

impl Unpacker<'_> {
    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let raw = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
            UnpackError::Escape {
                path: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            }
        })?;
        let path = normalise(&raw).ok_or_else(|| UnpackError::Escape { path: raw.clone() })?;
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.size());
        if self.done.entries > ENTRY_LIMIT || self.done.bytes > BYTE_LIMIT {
            return Err(UnpackError::TooLarge);
        }
        // The merged links are made once the tree is complete, whether or not the archive has them.
        if path.is_empty() || MERGED.contains(&path.as_str()) || !(self.keep)(&path) {
            return Ok(());
        }
        let full = self.tree.join(&path);
        let failed = |source| UnpackError::Write {
            path: full.clone(),
            source,
        };
        self.real_parent(&path, &raw)?;
        let mode = entry.header().mode().map_err(UnpackError::Read)?;
        let file_mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.real_folder(&path, &raw)?;
                fs::set_permissions(&full, Permissions::from_mode(0o755)).map_err(failed)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                remove_old(&full).map_err(failed)?;
                let mut file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&full)
                    .map_err(failed)?;
                io::copy(&mut entry, &mut file).map_err(failed)?;
                file.set_permissions(Permissions::from_mode(file_mode))
                    .map_err(failed)?;
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()
                    .map_err(UnpackError::Read)?
                    .unwrap_or_default();
                remove_old(&full).map_err(failed)?;
                symlink(target, &full).map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry
                    .link_name()
                    .map_err(UnpackError::Read)?
                    .unwrap_or_default();
                let target = target.to_string_lossy().into_owned();
                self.hard_link(&full, &raw, &target)?;
            }
            // Device nodes and FIFOs have no place on a shared read-only root.
            _ => {}
        }
        Ok(())
    }

    fn hard_link(&self, full: &Path, raw: &str, target: &str) -> Result<(), UnpackError> {
        let refused = || UnpackError::HardLink {
            path: raw.to_owned(),
            target: target.to_owned(),
        };
        let source = normalise(target).ok_or_else(refused)?;
        let parent = source.rsplit_once('/').map_or("", |(parent, _)| parent);
        let source_path = self.tree.join(&source);
        let is_file = source_path
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_file());
        if !is_file || !(parent.is_empty() || self.folders.contains(parent)) {
            return Err(refused());
        }
        let failed = |source| UnpackError::Write {
            path: full.to_owned(),
            source,
        };
        remove_old(full).map_err(failed)?;
        fs::hard_link(&source_path, full).map_err(failed)
    }

    fn real_parent(&mut self, path: &str, raw: &str) -> Result<(), UnpackError> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.real_folder(parent, raw),
            None => Ok(()),
        }
    }

    /// Makes sure that `path` is a folder reached through folders only; creates what is missing.
    fn real_folder(&mut self, path: &str, raw: &str) -> Result<(), UnpackError> {
        if self.folders.contains(path) {
            return Ok(());
        }
        self.real_parent(path, raw)?;
        let full = self.tree.join(path);
        match full.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                return Err(UnpackError::Escape {
                    path: raw.to_owned(),
                });
            }
            Err(_) => {
                fs::create_dir(&full)
                    .map_err(|source| UnpackError::Write { path: full, source })?;
            }
        }
        self.folders.insert(path.to_owned());
        Ok(())
    }
}

/// Makes way for a file; a folder in its place stays, and the write then fails.
pub(crate) fn remove_old(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tar::{Builder, Header};

    use super::*;

    fn add(
        builder: &mut Builder<Vec<u8>>,
        kind: EntryType,
        path: &str,
        link: &str,
        mode: u32,
        content: &[u8],
    ) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // Written raw: the builder itself refuses hostile paths.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn run(
        entries: &[(EntryType, &str, &str, u32)],
    ) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
        let mut builder = Builder::new(Vec::new());
        for (kind, path, link, mode) in entries {
            let content: &[u8] = if *kind == EntryType::Regular {
                b"content"
            } else {
                b""
            };
            add(&mut builder, *kind, path, link, *mode, content);
        }
        let tree = tempfile::tempdir().unwrap();
        let result = unpack(
            builder.into_inner().unwrap().as_slice(),
            tree.path(),
            &|_| true,
        );
        (tree, result)
    }

    #[test]
    fn files_folders_and_links_land_merged_without_setuid() {
        let (tree, result) = run(&[
            (EntryType::Directory, "./bin/", "", 0o755),
            (EntryType::Regular, "./bin/su", "", 0o6755),
            (EntryType::Symlink, "./lib64/ld.so", "/lib/x/ld.so", 0o777),
            (EntryType::Link, "usr/bin/su2", "./bin/su", 0o755),
            (EntryType::Directory, "var/mail", "", 0o2775),
            (EntryType::Regular, "etc/closed", "", 0o600),
            (EntryType::Char, "dev/null", "", 0o666),
            (EntryType::Fifo, "run/fifo", "", 0o666),
        ]);
        result.unwrap();
        let meta = |path: &str| tree.path().join(path).symlink_metadata().unwrap();
        assert_eq!(meta("usr/bin/su").mode() & 0o7777, 0o755);
        assert_eq!(meta("usr/bin/su").nlink(), 2);
        assert_eq!(meta("var/mail").mode() & 0o7777, 0o755);
        assert_eq!(meta("etc/closed").mode() & 0o7777, 0o644);
        assert_eq!(
            fs::read_link(tree.path().join("usr/lib64/ld.so")).unwrap(),
            Path::new("/lib/x/ld.so")
        );
        assert!(!tree.path().join("bin").exists());
        assert!(!tree.path().join("dev/null").exists());
        assert!(!tree.path().join("run/fifo").exists());
    }

    #[test]
    fn entries_that_lead_out_of_the_tree_are_refused() {
        fn check(entries: &[(EntryType, &str, &str, u32)]) {
            let (_tree, result) = run(entries);
            assert!(
                matches!(result, Err(UnpackError::Escape { .. })),
                "{entries:?}: {result:?}"
            );
        }
        check(&[(EntryType::Regular, "../outside", "", 0o644)]);
        check(&[(EntryType::Regular, "a/../../outside", "", 0o644)]);
        check(&[
            (EntryType::Symlink, "a", "/etc", 0o777),
            (EntryType::Regular, "a/passwd", "", 0o644),
        ]);
        check(&[
            (EntryType::Symlink, "a", "..", 0o777),
            (EntryType::Directory, "a/b", "", 0o755),
        ]);
        check(&[
            (EntryType::Symlink, "a", "/tmp", 0o777),
            (EntryType::Directory, "a", "", 0o755),
        ]);
    }

    #[test]
    fn an_absolute_path_stays_inside() {
        let (tree, result) = run(&[(EntryType::Regular, "/etc/passwd", "", 0o644)]);
        result.unwrap();
        assert_eq!(
            fs::read(tree.path().join("etc/passwd")).unwrap(),
            b"content"
        );
    }

    #[test]
    fn a_file_replaces_a_link_of_the_same_name_instead_of_following_it() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let target = outside.path().to_str().unwrap();
        let (tree, result) = run(&[
            (EntryType::Symlink, "x", target, 0o777),
            (EntryType::Regular, "x", "", 0o644),
        ]);
        result.unwrap();
        assert_eq!(fs::read(tree.path().join("x")).unwrap(), b"content");
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    }

    #[test]
    fn hard_links_reach_only_files_of_the_archive() {
        fn check(entries: &[(EntryType, &str, &str, u32)]) {
            let (_tree, result) = run(entries);
            assert!(
                matches!(result, Err(UnpackError::HardLink { .. })),
                "{entries:?}: {result:?}"
            );
        }
        check(&[(EntryType::Link, "x", "/etc/passwd", 0o644)]);
        check(&[(EntryType::Link, "x", "../../etc/passwd", 0o644)]);
        check(&[
            (EntryType::Symlink, "s", "/etc", 0o777),
            (EntryType::Link, "x", "s/passwd", 0o644),
        ]);
        check(&[
            (EntryType::Symlink, "s", "/etc/passwd", 0o777),
            (EntryType::Link, "x", "s", 0o644),
        ]);
    }

    #[test]
    fn a_cut_off_archive_is_an_error() {
        let mut builder = Builder::new(Vec::new());
        add(&mut builder, EntryType::Regular, "x", "", 0o644, &[7; 4096]);
        let bytes = builder.into_inner().unwrap();
        let tree = tempfile::tempdir().unwrap();
        assert!(unpack(&bytes[..1024], tree.path(), &|_| true).is_err());
    }

    #[test]
    fn excluded_paths_are_left_out() {
        let mut builder = Builder::new(Vec::new());
        add(
            &mut builder,
            EntryType::Regular,
            "usr/share/doc/x",
            "",
            0o644,
            b"x",
        );
        add(
            &mut builder,
            EntryType::Regular,
            "usr/share/y",
            "",
            0o644,
            b"y",
        );
        let tree = tempfile::tempdir().unwrap();
        let patterns = ["usr/share/doc".to_owned()];
        unpack(
            builder.into_inner().unwrap().as_slice(),
            tree.path(),
            &except(&patterns),
        )
        .unwrap();
        assert!(!tree.path().join("usr/share/doc").exists());
        assert!(tree.path().join("usr/share/y").exists());
    }
}
