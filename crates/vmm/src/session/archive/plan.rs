//! What an entry of an archive asks for, if that may be done.

use firelane_guest_proto::files::{MAX_NAME_BYTES, MAX_PATH_BYTES};
use tar::EntryType;

use super::reader::RawEntry;

/// Folders that an entry may be in, one in the other.
const MAX_DEPTH: usize = 128;

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// Its path begins with `/`.
    #[error("its path is absolute")]
    Absolute,
    /// Its path leaves the folder.
    #[error("its path has '..' in it")]
    Parent,
    /// Its path, or what it says as a link, has a NUL.
    #[error("it has a NUL in its path or target")]
    Nul,
    /// Its path, or what it says as a link, is not UTF-8.
    #[error("its path or target is not UTF-8")]
    NotUtf8,
    /// Its path, a name of that, or what it says as a link, is longer than Linux allows.
    #[error("its path or target is too long")]
    TooLong,
    /// It is in too many folders.
    #[error("it is nested deeper than {MAX_DEPTH} folders")]
    TooDeep,
    /// A link that could lead out of the folder.
    #[error("it is a link that may lead out of the folder")]
    LinkLeaves,
    /// It is not a file, a folder or a symbolic link.
    #[error("it is {what}")]
    Kind {
        /// What it is.
        what: &'static str,
    },
    /// The archive has more entries than allowed.
    #[error("there are more than {cap} entries")]
    TooMany {
        /// The bound.
        cap: u64,
    },
    /// The file is larger than allowed.
    #[error("it has {bytes} bytes, the cap is {cap}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        cap: u64,
    },
    /// All files together are larger than allowed.
    #[error("with it the files have more than {cap} bytes")]
    Total {
        /// The bound.
        cap: u64,
    },
}

/// What an entry asks for. Paths are relative to the folder, in their shortest form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Folder {
        path: String,
        mode: u32,
    },
    Link {
        path: String,
        target: String,
    },
    File {
        path: String,
        mode: u32,
        size: u64,
    },
    /// The folder itself.
    Nothing,
}

pub(super) fn plan(entry: &RawEntry) -> Result<Step, EntryProblem> {
    let path = relative(&entry.name)?;
    let kind = |what| Err(EntryProblem::Kind { what });
    if entry.sparse {
        return kind("a sparse file");
    }
    match entry.kind {
        // Archives from before folders had a type of their own.
        EntryType::Regular if entry.name.ends_with(b"/") => folder(path, entry.mode),
        EntryType::Regular | EntryType::Continuous if path.is_empty() => {
            kind("a file without a name")
        }
        EntryType::Regular | EntryType::Continuous => Ok(Step::File {
            path,
            mode: entry.mode & 0o777,
            size: entry.size,
        }),
        EntryType::Directory => folder(path, entry.mode),
        EntryType::Symlink if path.is_empty() => kind("a link without a name"),
        EntryType::Symlink => {
            let target = inside(&entry.target, path.split('/').count() - 1)?;
            Ok(Step::Link { path, target })
        }
        EntryType::Link => kind("a hard link"),
        EntryType::Char | EntryType::Block => kind("a device"),
        EntryType::Fifo => kind("a pipe"),
        EntryType::GNUSparse => kind("a sparse file"),
        _ => kind("of a type that is not known"),
    }
}

fn folder(path: String, mode: u32) -> Result<Step, EntryProblem> {
    if path.is_empty() {
        return Ok(Step::Nothing);
    }
    // What is in it comes later, and must find its place.
    let mode = mode & 0o777 | 0o700;
    Ok(Step::Folder { path, mode })
}

/// A path below the folder, without what says nothing.
fn relative(name: &[u8]) -> Result<String, EntryProblem> {
    let name = text(name)?;
    if name.starts_with('/') {
        return Err(EntryProblem::Absolute);
    }
    let parts: Vec<&str> = (name.split('/'))
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err(EntryProblem::Parent);
    }
    if parts.len() > MAX_DEPTH {
        return Err(EntryProblem::TooDeep);
    }
    if parts.iter().any(|part| part.len() > MAX_NAME_BYTES) {
        return Err(EntryProblem::TooLong);
    }
    Ok(parts.join("/"))
}

/// What a link says that is in `depth` folders. It stays inside: up only at its beginning, where the
/// folders are known, and no further than there are.
fn inside(target: &[u8], depth: usize) -> Result<String, EntryProblem> {
    let target = text(target)?;
    let parts = target.split('/').filter(|part| !matches!(*part, "" | "."));
    let up = parts.clone().take_while(|part| *part == "..").count();
    let back = parts.skip(up).any(|part| part == "..");
    if target.is_empty() || target.starts_with('/') || back || up > depth {
        return Err(EntryProblem::LinkLeaves);
    }
    Ok(target.into())
}

fn text(bytes: &[u8]) -> Result<&str, EntryProblem> {
    if bytes.contains(&0) {
        return Err(EntryProblem::Nul);
    }
    if bytes.len() >= MAX_PATH_BYTES {
        return Err(EntryProblem::TooLong);
    }
    str::from_utf8(bytes).map_err(|_| EntryProblem::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: EntryType, target: &str) -> RawEntry {
        RawEntry {
            name: name.into(),
            kind,
            mode: 0o6755,
            size: 3,
            target: target.into(),
            sparse: false,
        }
    }

    #[test]
    fn paths_stay_in_the_folder() {
        let check = |name: &str, expected: Result<&str, EntryProblem>| {
            let found = plan(&entry(name, EntryType::Regular, ""));
            let expected = expected.map(|path| Step::File {
                path: path.into(),
                mode: 0o755,
                size: 3,
            });
            assert_eq!(found, expected, "{name}");
        };
        check("a", Ok("a"));
        check("./a//b/./c", Ok("a/b/c"));
        check("a/...", Ok("a/..."));
        check("/etc/passwd", Err(EntryProblem::Absolute));
        check("..", Err(EntryProblem::Parent));
        check("a/../../b", Err(EntryProblem::Parent));
        check("a\0b", Err(EntryProblem::Nul));
        check(&"n".repeat(256), Err(EntryProblem::TooLong));
        check(&"a/".repeat(3000), Err(EntryProblem::TooLong));
        check(
            &format!("{}a", "a/".repeat(128)),
            Err(EntryProblem::TooDeep),
        );
        let what = "a file without a name";
        check(".", Err(EntryProblem::Kind { what }));
        let mut bad = entry("", EntryType::Regular, "");
        bad.name = vec![b'a', 0xff];
        assert_eq!(plan(&bad), Err(EntryProblem::NotUtf8));
    }

    #[test]
    fn links_stay_in_the_folder() {
        let check = |name: &str, target: &str, stays: bool| {
            let found = plan(&entry(name, EntryType::Symlink, target));
            let expected = if stays {
                Ok(Step::Link {
                    path: name.into(),
                    target: target.into(),
                })
            } else {
                Err(EntryProblem::LinkLeaves)
            };
            assert_eq!(found, expected, "{name} -> {target}");
        };
        check("l", "a", true);
        check("l", "./a/b", true);
        check("d/l", "../a", true);
        check("a/b/l", "../../c/d", true);
        check("l", "..", false);
        check("d/l", "../..", false);
        check("l", "/etc/passwd", false);
        check("l", "", false);
        // Through another link, which may lead up, this would be outside.
        check("l", "a/b/..", false);
        check("l", "a/../b", false);
    }

    #[test]
    fn only_files_folders_and_links_are_known() {
        let folder = |path: &str, mode| Step::Folder {
            path: path.into(),
            mode,
        };
        assert_eq!(
            plan(&entry("d/", EntryType::Directory, "")),
            Ok(folder("d", 0o755))
        );
        assert_eq!(
            plan(&entry("d/", EntryType::Regular, "")),
            Ok(folder("d", 0o755))
        );
        assert_eq!(
            plan(&entry("./", EntryType::Directory, "")),
            Ok(Step::Nothing)
        );
        let closed = RawEntry {
            mode: 0o4055,
            ..entry("d", EntryType::Directory, "")
        };
        assert_eq!(plan(&closed), Ok(folder("d", 0o755)));
        for kind in [
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::GNUSparse,
            EntryType::new(b'?'),
        ] {
            let refused = plan(&entry("x", kind, "x"));
            assert!(
                matches!(refused, Err(EntryProblem::Kind { .. })),
                "{refused:?}"
            );
        }
        let sparse = RawEntry {
            sparse: true,
            ..entry("x", EntryType::Regular, "")
        };
        let what = "a sparse file";
        assert_eq!(plan(&sparse), Err(EntryProblem::Kind { what }));
    }
}
