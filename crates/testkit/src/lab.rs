//! One test's corner of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use firelane_sys::process::ProcessId;
use firelane_vmm::rundir::Record;
use tempfile::TempDir;

use crate::{Ended, Running};

/// Name of the folder of run directories.
const RUN_DIR: &str = "r";

/// One test's corner of the host. Whatever was left in it when it is dropped fails the test.
pub struct Lab {
    folder: TempDir,
    bin: PathBuf,
    home: PathBuf,
    records: PathBuf,
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

impl Lab {
    /// A fresh corner.
    ///
    /// # Panics
    /// If the programs are not built.
    #[must_use]
    pub fn new() -> Lab {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        let bin = named("FIRELANE_BIN_DIR").unwrap_or_else(|| target.join("debug"));
        let home = named("FIRELANE_HOME").unwrap_or_else(|| target.join("firelane-home"));
        assert!(
            bin.join("firelane").is_file(),
            "{} has no firelane: run 'cargo xtask build --debug'",
            bin.display()
        );
        // Short: sockets below it have at most 107 bytes of path.
        let folder = TempDir::with_prefix_in("flt-", "/tmp").expect("a folder in /tmp");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("our own folder");
        let records = folder.path().join(RUN_DIR);
        Lab {
            folder,
            bin,
            home,
            records,
        }
    }

    /// The command with these arguments, without standard input.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("firelane"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("FIRELANE_HOME", &self.home)
            .env("FIRELANE_RUN_DIR", self.run_dir())
            .env_remove("FIRELANE_LOG")
            .stdin(std::process::Stdio::null());
        command
    }

    /// A store of its own with what the shared one has, for tests that spoil something. Files are
    /// links as far as the file system can: replace them, do not write to them.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn with_own_store(mut self) -> Lab {
        let own = self.folder.path().join("store");
        link_tree(&self.home, &own);
        self.home = own;
        self
    }

    /// The same corner, whose microVMs are on record in another folder of run directories: somebody else
    /// starts them.
    #[must_use]
    pub fn with_records_in(self, records: PathBuf) -> Lab {
        Lab { records, ..self }
    }

    /// Runs the command to its end.
    #[must_use]
    pub fn firelane(&self, args: &[&str]) -> Ended {
        Running::start(self.command(args), b"").end()
    }

    /// Runs the command to its end with this standard input.
    #[must_use]
    pub fn firelane_with(&self, args: &[&str], stdin: &[u8]) -> Ended {
        Running::start(self.command(args), stdin).end()
    }

    /// `firelane run` of this code on the small template, as JSON.
    #[must_use]
    pub fn run_json(&self, lang: &str, code: &str, more: &[&str]) -> serde_json::Value {
        let args = [
            "run",
            "--json",
            "--template",
            "base",
            "--memory-mib",
            "256",
            "--lang",
            lang,
            "-c",
            code,
        ];
        let (head, tail) = args.split_at(6);
        let all: Vec<&str> = head.iter().chain(more).chain(tail).copied().collect();
        let ended = self.firelane(&all);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }

    /// Writes a file into the scratch folder; gives its name.
    ///
    /// # Panics
    /// If it cannot.
    pub fn file<'a>(&self, name: &'a str, content: impl AsRef<[u8]>) -> &'a str {
        fs::write(self.folder.path().join(name), content).expect("our own folder");
        name
    }

    /// The scratch folder, which is the commands' working directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// This with something behind it that no other test has: cgroups are found by a microVM's name on the
    /// whole host.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        let own = self.folder.path().file_name().unwrap_or_default();
        // The corner is `flt-` and six letters and digits.
        let own = own.to_string_lossy();
        format!("{name}-{}", own.trim_start_matches("flt-"))
    }

    /// Folder of the commands' run directories.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join(RUN_DIR)
    }

    /// The store of templates.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of the programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// What is on record of microVMs now.
    #[must_use]
    pub fn microvms(&self) -> Vec<MicroVm> {
        let Ok(entries) = fs::read_dir(&self.records) else {
            return Vec::new();
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter_map(|path| {
                let text = fs::read(path.join("owner")).ok()?;
                let record: Record = serde_json::from_slice(&text).ok()?;
                Some(MicroVm { path, record })
            })
            .collect()
    }

    /// Nothing of any microVM is left in the run directory.
    ///
    /// # Panics
    /// If something is.
    pub fn assert_empty(&self) {
        let left: Vec<PathBuf> = fs::read_dir(self.run_dir())
            .map(|entries| {
                let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
                // The lock of the folder itself stays.
                paths.filter(|path| !path.ends_with(".lock")).collect()
            })
            .unwrap_or_default();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Downloads are left out: they are large, and only builds need them.
fn link_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("our own folder");
    for entry in fs::read_dir(from).expect("the store").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.ends_with("cache") || path.ends_with("staging") {
            fs::create_dir(&target).expect("our own folder");
        } else if path.is_dir() {
            link_tree(&path, &target);
        } else if fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).expect("space for a copy of the store");
        }
    }
}

/// A microVM on record.
#[derive(Clone, Debug)]
pub struct MicroVm {
    /// Its run directory.
    pub path: PathBuf,
    /// Its record.
    pub record: Record,
}

impl MicroVm {
    /// Its process, if there is one on record.
    #[must_use]
    pub fn vmm(&self) -> Option<ProcessId> {
        self.record.vmm
    }

    /// Neither process, nor cgroup, nor file of it is left.
    ///
    /// # Panics
    /// If one is.
    pub fn assert_gone(&self) {
        assert!(
            !self.record.vmm.is_some_and(|vmm| vmm.lives()),
            "its VMM lives: {self:?}"
        );
        for folder in self.record.cgroups.folders() {
            assert!(!folder.exists(), "its cgroup is left: {}", folder.display());
        }
        assert!(
            !self.path.exists(),
            "its files are left: {}",
            self.path.display()
        );
    }
}

/// Processes whose command line names something below `folder`.
///
/// # Panics
/// Without `/proc`.
#[must_use]
pub fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc")
        .expect("every Linux has /proc")
        .flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .filter(|line| line.windows(folder.len()).any(|part| part == folder))
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}
