//! `cargo xtask dist`: the release tarball, from the definition of the command line.
//!
//! ```text
//! target/dist/firelane/                       what is in it, laid out as below a prefix
//!   bin/firelane, bin/firelane-hostd, bin/firelane-guest, bin/firelane-bare
//!   lib/systemd/system/firelane-hostd.service, firelane.service
//!   share/firelane/providers/*.sh             scripts to begin with
//!   share/man/man1/firelane*.1
//!   share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}/
//!   share/doc/firelane/{LICENSE,README.md}
//! target/dist/firelane-<version>-x86_64-linux.tar.gz, and .sha256 beside it
//! ```
//!
//! The same programs give the same tarball: names are sorted, times and owners are fixed.

use anyhow::Result;

use crate::workspace::Workspace;

/// Without the feature, cargo is asked to run us with it.
#[cfg(not(feature = "dist"))]
pub(crate) fn run(_: &Workspace) -> Result<()> {
    let mut command = crate::workspace::cargo();
    command.args(["run", "--quiet", "--package", "xtask", "--features", "dist"]);
    crate::program::run(command.args(["--", "dist"]))
}

/// Makes the folder and the tarball.
#[cfg(feature = "dist")]
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    release::make(workspace)
}

#[cfg(feature = "dist")]
mod release {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use anyhow::{Context, Result, bail};
    use clap::CommandFactory;
    use clap_complete::Shell;
    use firelane_cli::args::Cli;

    use crate::build::{self, BARE, GUEST, HOSTD, Profile};
    use crate::program::{output, run};
    use crate::workspace::Workspace;

    const NAME: &str = "firelane";
    /// Where each shell looks for completions, below a prefix.
    const COMPLETIONS: [(Shell, &str); 3] = [
        (Shell::Bash, "share/bash-completion/completions/firelane"),
        (Shell::Zsh, "share/zsh/site-functions/_firelane"),
        (Shell::Fish, "share/fish/vendor_completions.d/firelane.fish"),
    ];

    pub(super) fn make(workspace: &Workspace) -> Result<()> {
        build::build(workspace, Profile::Release)?;
        let dist = workspace.target.join("dist");
        let folder = dist.join(NAME);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        for program in [NAME, HOSTD, GUEST, BARE] {
            copy(
                &workspace.bin("release").join(program),
                &folder.join("bin").join(program),
            )?;
        }
        for document in ["LICENSE", "README.md"] {
            copy(
                &workspace.root.join(document),
                &folder.join("share/doc/firelane").join(document),
            )?;
        }
        let unit = format!("{HOSTD}.service");
        copy(
            &workspace.root.join("crates/hostd").join(&unit),
            &folder.join("lib/systemd/system").join(&unit),
        )?;
        copy(
            &workspace
                .root
                .join("crates/lane/src/install/firelane.service"),
            &folder.join("lib/systemd/system/firelane.service"),
        )?;
        for script in ["fixed.sh", "hcloud.sh"] {
            copy(
                &workspace.root.join("providers").join(script),
                &folder.join("share/firelane/providers").join(script),
            )?;
        }
        manual_pages(&folder.join("share/man/man1"))?;
        for (shell, path) in COMPLETIONS {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            write(&folder.join(path), &script)?;
        }
        tarball(workspace, &dist)
    }

    /// One page for each command.
    fn manual_pages(folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("cannot write manual pages to {}", folder.display()))
    }

    fn tarball(workspace: &Workspace, dist: &Path) -> Result<()> {
        let cli = workspace
            .packages
            .iter()
            .find(|package| package.name == "firelane-cli");
        let Some(cli) = cli else {
            bail!("the workspace has no crate firelane-cli");
        };
        let name = format!("{NAME}-{}-x86_64-linux.tar.gz", cli.version);
        let mut command = Command::new("tar");
        command.current_dir(dist).env("LC_ALL", "C");
        command.args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ]);
        command.args([
            "--mode=u=rwX,go=rX",
            "--create",
            "--use-compress-program=gzip -9n",
            "--file",
            &name,
            NAME,
        ]);
        run(&mut command)?;
        let sum = output(Command::new("sha256sum").current_dir(dist).arg(&name))?;
        write(&dist.join(format!("{name}.sha256")), sum.as_bytes())?;
        println!("{}", workspace.shown(&dist.join(&name)));
        print!("{sum}");
        Ok(())
    }

    fn copy(from: &Path, to: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        write(to, &content)?;
        let mode = fs::metadata(from).map(|from| from.permissions());
        mode.and_then(|mode| fs::set_permissions(to, mode))
            .with_context(|| format!("cannot set the mode of {}", to.display()))
    }

    fn write(path: &Path, content: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(path, content))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
