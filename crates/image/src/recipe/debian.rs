//! Debian packages, resolved, fetched and verified by `mmdebstrap` (and apt behind it), unpacked by us.
//!
//! mmdebstrap runs with `--variant=extract`: packages are unpacked, no maintainer script runs, so neither a chroot nor root is
//! needed (`--mode=chrootless`, for root too: nothing is mounted). apt's index and its downloads live in the
//! store's cache: a second build downloads nothing again, an interrupted one resumes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::digest::sha256_file;
use crate::store::lock::Lock;
use crate::tool::{Job, Tool, ToolError};
use crate::tree::unpack::{UnpackError, unpack};

/// The Debian release templates are made of.
pub(crate) const SUITE: &str = "bookworm";
/// Keys that sign Debian's archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Time for resolving, downloading and unpacking all packages of a template.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Most bytes of packages kept in the cache beside those of the last build.
const CACHE_LIMIT: u64 = 2 << 30;

/// A package that went into a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Version as the archive has it.
    pub version: String,
    /// Hash of the package file, in hex.
    pub sha256: String,
}

/// Why packages could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The archive has no packages of these names.
    #[error("no such Debian package in {SUITE}: {}", names.join(", "))]
    UnknownPackages {
        /// The names.
        names: Vec<String>,
    },
    /// The program that fetches failed.
    #[error("cannot fetch Debian packages")]
    Tool(#[source] ToolError),
    /// The packages could not be unpacked.
    #[error("cannot unpack Debian packages")]
    Unpack(#[from] UnpackError),
    /// The package cache could not be used.
    #[error("cannot use the package cache at {}", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Where packages come from and where they are kept.
pub(crate) struct Archive<'a> {
    /// Folder of the cache; made when missing.
    pub(crate) cache: &'a Path,
    /// A mirror or a sources line in place of mmdebstrap's own default.
    pub(crate) mirror: Option<&'a str>,
    /// Folder for temporary files.
    pub(crate) scratch: &'a Path,
}

impl Archive<'_> {
    /// Fetches `packages` with everything they depend on and unpacks what `keep` accepts below `tree`.
    pub(crate) fn fetch(
        &self,
        packages: &BTreeSet<String>,
        tree: &Path,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Package>, FetchError> {
        let cache_error = |path: &Path| {
            let path = path.to_owned();
            |source| FetchError::Cache { path, source }
        };
        let (debs, lists) = (self.cache.join("debs"), self.cache.join("lists"));
        for folder in [&debs, &lists] {
            fs::create_dir_all(folder.join("partial")).map_err(cache_error(folder))?;
        }
        // apt refuses a second user of the same cache; we wait instead.
        let lock_path = self.cache.join("lock");
        let _lock = Lock::exclusive(&lock_path).map_err(cache_error(&lock_path))?;
        let used_list = self.scratch.join("packages");
        let names: Vec<&str> = packages.iter().map(String::as_str).collect();
        let mut job = Job::start(
            self.tool(&names, &debs, &lists, &used_list),
            Stdio::piped(),
            TIMEOUT,
        )
        .map_err(FetchError::Tool)?;
        let Some(mut stdout) = job.stdout() else {
            return Ok(Vec::new());
        };
        let unpacked = unpack(&mut stdout, tree, keep);
        if unpacked.is_ok() {
            // Past the end-of-archive mark: let the writer end rather than break its pipe.
            let _ = io::copy(&mut stdout.by_ref(), &mut io::sink());
        }
        drop(stdout);
        job.finish().map_err(tool_failed)?;
        unpacked?;
        let used = fs::read_to_string(&used_list).map_err(cache_error(&used_list))?;
        let files: BTreeSet<String> = used
            .lines()
            .filter_map(|line| line.rsplit('/').next())
            .map(str::to_owned)
            .collect();
        let mut list = Vec::new();
        for file in &files {
            let path = debs.join(file);
            let Some((name, version)) = parse_file_name(file) else {
                continue;
            };
            let sha256 = sha256_file(&path).map_err(cache_error(&path))?;
            list.push(Package {
                name,
                version,
                sha256,
            });
        }
        list.sort();
        prune(&debs, &files).map_err(cache_error(&debs))?;
        Ok(list)
    }

    fn tool(&self, packages: &[&str], debs: &Path, lists: &Path, used_list: &Path) -> Tool {
        let link = |target: &Path, at: &str| {
            format!(
                "rm -rf \"$1{at}\" && mkdir -p \"$1{at}\" && rmdir \"$1{at}\" && ln -s {} \"$1{at}\"",
                quoted(target)
            )
        };
        let mut tool = Tool::new("mmdebstrap");
        let command = &mut tool.command;
        command.args(["--variant=extract", "--mode=chrootless", "--format=tar"]);
        command.arg("--skip=check/chrootless,cleanup/apt,output/dev");
        command.arg(format!("--include={}", packages.join(",")));
        command.arg(format!(
            "--setup-hook={}",
            link(debs, "/var/cache/apt/archives")
        ));
        command.arg(format!(
            "--setup-hook={}",
            link(lists, "/var/lib/apt/lists")
        ));
        // The hook sees the packages of this run, by file name.
        command.arg(format!(
            "--extract-hook=printf '%s\\n' $MMDEBSTRAP_ESSENTIAL > {}",
            quoted(used_list)
        ));
        // On a host of another distribution apt does not trust these keys by itself, and mmdebstrap
        // adds them only where gpg is installed. Who names a mirror answers for its keys.
        if self.mirror.is_none() && Path::new(KEYRING).is_file() {
            command.arg(format!("--keyring={KEYRING}"));
        }
        command.args([SUITE, "-"]);
        command.args(self.mirror);
        command
            .env("TMPDIR", self.scratch)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.env_remove("SOURCE_DATE_EPOCH");
        tool
    }
}

/// A path as one word of a shell command.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn tool_failed(error: ToolError) -> FetchError {
    let names = unknown_packages(error.stderr());
    if names.is_empty() {
        FetchError::Tool(error)
    } else {
        FetchError::UnknownPackages { names }
    }
}

/// Names that apt could not find, from its messages.
fn unknown_packages(stderr: &str) -> Vec<String> {
    let marks = ["Unable to locate package ", "has no installation candidate"];
    let mut names: Vec<String> = stderr
        .lines()
        .filter_map(|line| {
            if let Some((_, name)) = line.split_once(marks[0]) {
                return Some(name.trim().to_owned());
            }
            let (before, _) = line.split_once(marks[1])?;
            before.split('\'').nth(1).map(str::to_owned)
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// `name_version_architecture.deb`, with `:` of the version written as `%3a`.
fn parse_file_name(file: &str) -> Option<(String, String)> {
    let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
    let (name, version, _architecture) = (parts.next()?, parts.next()?, parts.next()?);
    Some((name.to_owned(), version.replace("%3a", ":")))
}

/// Drops superseded versions of the packages in `used`, then the oldest others until the rest is small enough.
fn prune(debs: &Path, used: &BTreeSet<String>) -> io::Result<()> {
    let current: BTreeSet<String> = used
        .iter()
        .filter_map(|file| parse_file_name(file))
        .map(|(name, _)| name)
        .collect();
    let mut others: BTreeMap<(SystemTime, PathBuf), u64> = BTreeMap::new();
    for entry in fs::read_dir(debs)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some((name, _)) = parse_file_name(&file) else {
            continue;
        };
        if used.contains(&file) {
            continue;
        }
        if current.contains(&name) {
            fs::remove_file(entry.path())?;
        } else {
            let meta = entry.metadata()?;
            others.insert((meta.modified()?, entry.path()), meta.len());
        }
    }
    let mut total: u64 = others.values().sum();
    for ((_, path), size) in others {
        if total <= CACHE_LIMIT {
            break;
        }
        fs::remove_file(path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_files_are_named_by_name_and_version() {
        fn check(file: &str, expected: Option<(&str, &str)>) {
            let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
            assert_eq!(parse_file_name(file), expected, "{file}");
        }
        check("ruby_1%3a3.1_amd64.deb", Some(("ruby", "1:3.1")));
        check(
            "libstdc++6_12.2.0-14+deb12u1_amd64.deb",
            Some(("libstdc++6", "12.2.0-14+deb12u1")),
        );
        check("lock", None);
        check("odd.deb", None);
    }

    #[test]
    fn unknown_packages_are_named_once() {
        let stderr = "I: downloading\nE: Unable to locate package nope\nE: Unable to locate package nope\n\
                      E: Package 'gone' has no installation candidate\n";
        assert_eq!(unknown_packages(stderr), ["gone", "nope"]);
        assert_eq!(unknown_packages("E: something else"), [""; 0]);
    }

    #[test]
    fn superseded_versions_leave_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        for file in ["a_1_amd64.deb", "a_2_amd64.deb", "b_1_amd64.deb", "lock"] {
            fs::write(cache.path().join(file), "x").unwrap();
        }
        prune(cache.path(), &BTreeSet::from(["a_2_amd64.deb".to_owned()])).unwrap();
        let mut left: Vec<_> = fs::read_dir(cache.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a_2_amd64.deb", "b_1_amd64.deb", "lock"]);
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
