//! `cargo xtask bpf`: compiles the fence of `crates/network/bpf`, and writes its hashes beside it.
//!
//! The object is committed, so that nobody needs clang to build Firelane. `cargo xtask check` compiles it
//! again where the same compiler is, and compares.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::program::{on_path, output, run};
use crate::workspace::Workspace;

const FOLDER: &str = "crates/network/bpf";
const SOURCE: &str = "fence.c";
const OBJECT: &str = "fence.o";
const SUMS: &str = "SHA256SUMS";
/// Start of the line of the sums that names the compiler.
const COMPILER: &str = "# ";

/// How a new object and the committed one compare.
pub(crate) enum Compared {
    /// They are the same.
    Same,
    /// There is no compiler here that could tell.
    OtherCompiler(String),
}

/// Writes object and sums.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let folder = workspace.root.join(FOLDER);
    compile(&folder, &folder.join(OBJECT))?;
    let mut sums = format!("{COMPILER}{}\n", compiler()?);
    for file in [SOURCE, OBJECT] {
        writeln!(sums, "{}  {file}", hash(&folder.join(file))?)?;
    }
    let file = folder.join(SUMS);
    std::fs::write(&file, sums).with_context(|| format!("cannot write {}", file.display()))
}

/// Compiles the source again, if the compiler is the one that made the object.
pub(crate) fn compare(workspace: &Workspace) -> Result<Compared> {
    let folder = workspace.root.join(FOLDER);
    let file = folder.join(SUMS);
    let sums = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let wanted = sums
        .lines()
        .find_map(|line| line.strip_prefix(COMPILER))
        .unwrap_or_default();
    if on_path("clang").is_none() {
        return Ok(Compared::OtherCompiler(format!(
            "there is no {wanted} here (apt-get install clang)"
        )));
    }
    let found = compiler()?;
    if found != wanted {
        return Ok(Compared::OtherCompiler(format!(
            "the object is of {wanted}; here is {found}"
        )));
    }
    let built = workspace.target.join("fence.o");
    compile(&folder, &built)?;
    if hash(&built)? != hash(&folder.join(OBJECT))? {
        bail!("{FOLDER}/{OBJECT} is not what {SOURCE} compiles to: run `cargo xtask bpf`");
    }
    Ok(Compared::Same)
}

/// The first line that clang says about itself.
fn compiler() -> Result<String> {
    let text = output(Command::new("clang").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The same bytes wherever it is done: no path of this machine, no header of its kernel.
fn compile(folder: &Path, object: &Path) -> Result<()> {
    let mut clang = Command::new("clang");
    clang
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    clang.args([
        "--target=bpf",
        "-mcpu=v2",
        "-O2",
        "-g",
        "-nostdinc",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]);
    clang.arg(format!("-fdebug-prefix-map={}=.", folder.display()));
    clang.args(["-c", SOURCE, "-o"]).arg(object);
    run(&mut clang)
}

fn hash(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
