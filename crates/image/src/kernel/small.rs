//! The small kernel: Debian's kernel source, compiled with just what a guest needs and everything built in.
//!
//! ```text
//! linux-source-6.1 ─ unpack ─ make tinyconfig ─ + small.config, make olddefconfig ─ check ─ make vmlinux ─ strip
//! ```
//!
//! Kconfig drops an option whose dependencies are not met without a word, so the configuration that comes out is held against
//! every line of `small.config`. The build depends on the source package, on `small.config` and on the compiler, not on
//! when, where or by whom it is made.
//!
//! Compiling takes 5 to 30 minutes, so no test of the suite does it. It is verified by hand, with a fresh `FIRELANE_HOME`:
//! `firelane template build base --kernel small`, then the tests of hostile programs and `firelane bench boot` against that store.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use liblzma::read::XzDecoder;

use super::{KernelError, Parts};
use crate::cpio::Archive;
use crate::digest::blake3_bytes;
use crate::file::{at, make_folder, put, read};
use crate::progress::Progress;
use crate::tool::{Job, Tool, on_path};
use crate::tree::unpack::unpack;

/// The package that carries the source, as [`SOURCE`].
pub(crate) const PACKAGE: &str = "linux-source-6.1";
/// The source in its package: one archive with everything in a folder of the package's name.
const SOURCE: &str = "usr/src/linux-source-6.1.tar.xz";
/// The options asked for.
const FRAGMENT: &str = include_str!("small.config");
/// Disk space for the source, unpacked and compiled, in MiB.
pub(crate) const SPACE_MIB: u64 = 3072;

/// Changes whenever the same source and options would give another kernel.
const RECIPE: u32 = 1;
/// Time for making a configuration; a small part of it is the compilation of kconfig.
const CONFIG_TIMEOUT: Duration = Duration::from_secs(600);
/// Time for compiling: many times what a slow machine with two busy processors needs.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Time for everything else.
const SHORT_TIMEOUT: Duration = Duration::from_secs(120);
/// Steps of make between two messages.
const STEPS_PER_MESSAGE: usize = 25;

/// The programs that compile a kernel, and the packages they are in on Debian and Ubuntu.
const TOOLS: &[(&str, &str)] = &[
    ("bc", "bc"),
    ("bison", "bison"),
    ("flex", "flex"),
    ("gcc", "gcc"),
    ("make", "make"),
    ("perl", "perl"),
    ("strip", "binutils"),
];
/// Headers of the programs that the build compiles for its own use, and their packages.
const HEADERS: &[(&str, &str)] = &[("stdio.h", "libc6-dev"), ("libelf.h", "libelf-dev")];

/// What the kernel tells of its build; the host's own would differ from one build to the next.
/// Source: Linux, Documentation/kbuild/reproducible-builds.rst.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("KBUILD_BUILD_HOST", "firelane"),
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_USER", "firelane"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("LC_ALL", "C"),
];

/// Identifies the options and the way they are compiled.
pub(crate) fn recipe() -> String {
    recipe_of(FRAGMENT)
}

fn recipe_of(fragment: &str) -> String {
    let settings: Vec<_> = directives(fragment).collect();
    blake3_bytes(format!("{RECIPE} {ENVIRONMENT:?} {settings:?}").as_bytes())
}

/// Which files of the source's package are worth unpacking.
pub(crate) fn keep(path: &str) -> bool {
    path == SOURCE
}

/// Looks for everything that [`compile`] runs.
pub(crate) fn check_tools() -> Result<(), KernelError> {
    let mut lacking: Vec<_> = TOOLS
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .copied()
        .collect();
    if on_path("gcc").is_some() {
        let absent = HEADERS.iter().filter(|(header, _)| !has_header(header));
        lacking.extend(absent.copied());
    } else {
        // Nobody to ask for headers: name them all, so that one installation is enough.
        lacking.extend(HEADERS);
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let (names, packages) = lacking.into_iter().unzip();
    Err(KernelError::Tools { names, packages })
}

fn has_header(header: &str) -> bool {
    let mut gcc = Tool::new("gcc");
    gcc.command
        .args(["-fsyntax-only", "-include", header, "-x", "c", "/dev/null"]);
    gcc.run(SHORT_TIMEOUT).is_ok()
}

/// Compiles the source whose package is unpacked below `tree`, in `scratch`.
pub(crate) fn compile(
    tree: &Path,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<Parts, KernelError> {
    let archive = tree.join(SOURCE);
    if !archive.is_file() {
        return Err(KernelError::NoSource);
    }
    progress.message("unpacking the kernel's source");
    make_folder(scratch)?;
    let packed = std::fs::File::open(&archive).map_err(at("read", &archive))?;
    unpack(XzDecoder::new(packed), scratch, &|_| true)?;
    let source = scratch.join(PACKAGE);

    progress.message("configuring the kernel");
    configure(&source)?;
    make_vmlinux(&source, progress)?;
    let release = source.join("include/config/kernel.release");
    let version = String::from_utf8_lossy(&read(&release)?).trim().to_owned();
    let vmlinux = source.join("vmlinux");
    let mut strip = Tool::new("strip");
    strip.command.arg("--strip-all").arg(&vmlinux);
    strip.run(SHORT_TIMEOUT).map_err(KernelError::Compile)?;
    let modules = Archive::default()
        .finish()
        .map_err(at("pack modules of", &source))?;
    Ok(Parts {
        version,
        vmlinux: read(&vmlinux)?,
        modules,
    })
}

fn configure(source: &Path) -> Result<(), KernelError> {
    let run = |target| {
        make(source, &[target])
            .run(CONFIG_TIMEOUT)
            .map_err(KernelError::Compile)
    };
    run("tinyconfig")?;
    let path = source.join(".config");
    // Of two lines about an option kconfig takes the later one.
    let wanted = [read(&path)?, FRAGMENT.into()].concat();
    put(&path, &wanted, 0o644)?;
    run("olddefconfig")?;
    let config = String::from_utf8_lossy(&read(&path)?).into_owned();
    let options = unmet(FRAGMENT, &config);
    if options.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Options { options })
    }
}

fn make_vmlinux(source: &Path, progress: &dyn Progress) -> Result<(), KernelError> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut job = Job::start(
        make(source, &[&format!("-j{jobs}"), "vmlinux"]),
        Stdio::piped(),
        COMPILE_TIMEOUT,
    )
    .map_err(KernelError::Compile)?;
    let stdout = job.stdout();
    // The other thread minds the deadline: make's end, or its death there, ends the lines.
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || job.finish());
        let lines = stdout
            .into_iter()
            .flat_map(|out| BufReader::new(out).split(b'\n'));
        for (done, _) in lines.map_while(Result::ok).enumerate() {
            if done % STEPS_PER_MESSAGE == 0 {
                progress.message(&format!(
                    "compiling the kernel, 10 to 30 minutes: step {done}"
                ));
            }
        }
        waiter.join().expect("waiting for a program does not panic")
    })
    .map(drop)
    .map_err(KernelError::Compile)
}

/// `make` in an environment of our own: the kernel's build obeys dozens of variables, those of an outer make among them.
fn make(source: &Path, arguments: &[&str]) -> Tool {
    let mut tool = Tool::new("make");
    let command = &mut tool.command;
    command.args(arguments).current_dir(source).env_clear();
    for name in ["HOME", "PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(ENVIRONMENT.iter().copied());
    tool
}

/// An option and the value it is to have; none where it is to be off.
type Directive<'a> = (&'a str, Option<&'a str>);

/// The options that a configuration or fragment speaks of, by kconfig's syntax.
fn directives(text: &str) -> impl Iterator<Item = Directive<'_>> {
    text.lines().filter_map(|line| {
        let off = line
            .strip_prefix("# ")
            .and_then(|line| line.strip_suffix(" is not set"));
        let (name, value) = match off {
            Some(name) => (name, None),
            None => line
                .split_once('=')
                .map(|(name, value)| (name, Some(value)))?,
        };
        name.starts_with("CONFIG_").then_some((name, value))
    })
}

/// The lines of `fragment` that are not so in `config`. What a configuration does not speak of is off.
fn unmet(fragment: &str, config: &str) -> Vec<String> {
    let found: std::collections::BTreeMap<_, _> = directives(config).collect();
    directives(fragment)
        .filter(|(name, wanted)| found.get(name).copied().flatten() != *wanted)
        .map(|(name, wanted)| format!("{name}={}", wanted.unwrap_or("n")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_kconfig_dropped_or_changed_are_named() {
        fn check(fragment: &str, config: &str, expected: &[&str]) {
            assert_eq!(unmet(fragment, config), expected, "{fragment:?} {config:?}");
        }
        check("CONFIG_A=y", "CONFIG_A=y\nCONFIG_B=y\n", &[]);
        check("CONFIG_A=y", "# CONFIG_A is not set\n", &["CONFIG_A=y"]);
        check("CONFIG_A=y", "CONFIG_AB=y\n", &["CONFIG_A=y"]);
        check("CONFIG_A=32", "CONFIG_A=64\n", &["CONFIG_A=32"]);
        check("CONFIG_A=\"x=y\"", "CONFIG_A=\"x=y\"\n", &[]);
        check("# CONFIG_A is not set", "", &[]);
        check("# CONFIG_A is not set", "# CONFIG_A is not set", &[]);
        check("# CONFIG_A is not set", "CONFIG_A=y", &["CONFIG_A=n"]);
        check("# Some words.\n\nCONFIG_A=y", "CONFIG_A=y", &[]);
    }

    #[test]
    fn every_line_of_the_fragment_is_a_comment_or_a_sorted_option() {
        for group in FRAGMENT.split("\n\n") {
            let names: Vec<&str> = directives(group).map(|(name, _)| name).collect();
            let comments = group
                .lines()
                .filter(|line| line.starts_with("# ") && !line.starts_with("# CONFIG_"))
                .count();
            assert_eq!(names.len() + comments, group.lines().count(), "{group}");
            assert!(comments > 0 && names.is_sorted(), "{group}");
        }
        let mut names: Vec<&str> = directives(FRAGMENT).map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_recipe_changes_with_options_but_not_with_comments() {
        let one = recipe_of("# Words.\nCONFIG_A=y\n");
        assert_eq!(one, recipe_of("# Other words.\n\nCONFIG_A=y\n"));
        assert_ne!(one, recipe_of("# CONFIG_A is not set\n"));
        assert_ne!(one, recipe_of("CONFIG_A=y\nCONFIG_B=y\n"));
    }

    #[test]
    fn a_package_without_the_source_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = compile(folder.path(), &folder.path().join("x"), &crate::Silent)
            .map(|parts| parts.version)
            .unwrap_err();
        assert!(matches!(error, KernelError::NoSource), "{error}");
    }
}
