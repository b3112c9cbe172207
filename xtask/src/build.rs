//! `cargo xtask build`: firelane and firelane-hostd, and what boots in microVMs beside them: the guest-runner
//! and the bare guest.
//!
//! The guest-runner is PID 1 of a guest that has no libc of ours: it is linked statically, against
//! musl if the toolchain has that target, else against glibc, and refused if it is not static. The bare
//! guest has no libc at all and is linked by a script of its own, for the target that every toolchain has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::elf;
use crate::program::{output, run};
use crate::workspace::{Workspace, cargo};

/// The privileged program's file name.
pub(crate) const HOSTD: &str = "firelane-hostd";
/// The guest-runner's file name.
pub(crate) const GUEST: &str = "firelane-guest";
/// The bare guest's.
pub(crate) const BARE: &str = "firelane-bare";
/// Targets the guest-runner can be linked for, the smaller result first.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"];

/// How firelane itself is built; the guest-runner has a profile of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For users.
    Release,
    /// For tests.
    Debug,
}

/// Builds all and says where they are.
pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    // Each by itself: together they would share features of crates, and hostd get what it does not need.
    for package in ["firelane-cli", "firelane-hostd"] {
        let mut command = cargo();
        command.args(["build", "--package", package]);
        if profile == Profile::Release {
            command.arg("--release");
        }
        run(&mut command)?;
    }
    let guest = build_guest(workspace)?;
    let bare = build_bare(workspace)?;
    // Tests may run either, so the guests go beside both.
    for folder in [workspace.bin("release"), workspace.bin("debug")] {
        place(&guest, &folder.join(GUEST))?;
        place(&bare, &folder.join(BARE))?;
    }
    let folder = workspace.bin(match profile {
        Profile::Release => "release",
        Profile::Debug => "debug",
    });
    for program in ["firelane", HOSTD, GUEST, BARE] {
        let program = folder.join(program);
        println!("{}  {}", workspace.shown(&program), size(&program)?);
    }
    Ok(())
}

/// Builds the guest-runner; its path below the target it was linked for.
fn build_guest(workspace: &Workspace) -> Result<PathBuf> {
    let Some(target) = TARGETS.into_iter().find(|target| has_std(target)) else {
        bail!(
            "the Rust toolchain has no standard library for {}",
            TARGETS.join(" or ")
        );
    };
    let flags = "-C target-feature=+crt-static";
    link(workspace, target, flags, &["firelane-guest-runner"], GUEST)
}

/// Builds the bare guest, at the addresses that its script says.
fn build_bare(workspace: &Workspace) -> Result<PathBuf> {
    let flags =
        "-C relocation-model=static -C target-feature=+crt-static -C force-unwind-tables=no";
    let package = ["firelane-bare-guest", "--features", "machine"];
    link(workspace, TARGETS[1], flags, &package, BARE)
}

/// Builds a program of a package for a target; its path, once it is known to need no other file.
fn link(
    workspace: &Workspace,
    target: &str,
    flags: &str,
    package: &[&str],
    program: &str,
) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--profile", "guest", "--target", target]);
    command.arg("--package").args(package);
    // For this target only: build scripts and macros of the same build stay as they are.
    let variable = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    command.env(variable, flags);
    // These would take the place of ours.
    command.env_remove("RUSTFLAGS");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut command)?;
    let built = workspace.target.join(target).join("guest").join(program);
    let file = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let linked =
        elf::is_static(&file).with_context(|| format!("cannot check {}", built.display()))?;
    if !linked {
        bail!(
            "{} is dynamically linked and would not start in a guest",
            built.display()
        );
    }
    Ok(built)
}

/// Whether the toolchain can build programs for `target`.
fn has_std(target: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", target]);
    let Ok(folder) = output(&mut command) else {
        return false;
    };
    let Ok(entries) = fs::read_dir(folder.trim_end()) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// Copies a program in one step: no one sees half of it, and a running one keeps its file. Cargo's
/// programs are hard links, so writing into the old file would change cargo's copy too.
fn place(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    let half = to.with_extension(format!("new-{}", std::process::id()));
    let placed = fs::create_dir_all(folder)
        .and_then(|()| fs::copy(from, &half))
        .and_then(|_| fs::rename(&half, to));
    if placed.is_err() {
        let _ = fs::remove_file(&half);
    }
    placed.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn size(path: &Path) -> Result<String> {
    let bytes = path
        .metadata()
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    Ok(format!("{} KiB", bytes.div_ceil(1024)))
}
