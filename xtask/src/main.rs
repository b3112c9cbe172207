//! What the workspace does to itself: `cargo xtask COMMAND`.
//!
//! ```text
//!   build      firelane and the static guest-runner           -> build, elf
//!   test       every test, with what the tests need           -> tests
//!   tidy       our own rules                                  -> tidy, one file per rule
//!   check      everything that must hold before a commit      -> check
//!   bpf        the fence's object in crates/network        -> bpf
//!   openapi    the API's description in docs/                 -> openapi
//!   dist       the release tarball                            -> dist
//! ```

mod bpf;
mod build;
mod check;
mod dist;
mod elf;
mod openapi;
mod program;
mod python;
mod tests;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  build [--debug]      build firelane and the static guest-runner, side by side
  test [ARGS...]       build, then run every test; ARGS go to the test runner
  tidy                 check the workspace's own rules
  check [--no-tests]   format, lints, tidy, docs, licences and bans, the API's
                       description, fuzzing of the API, providers against
                       emulators of clouds, the dashboard in a browser; last
                       what `cargo xtask test` runs
  bpf                  compile the fence in crates/network/bpf anew; needs clang
  openapi              write docs/openapi.json anew
  dist                 make the release tarball in target/dist
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["build"] => with_workspace(|workspace| build::build(workspace, build::Profile::Release)),
        ["build", "--debug"] => {
            with_workspace(|workspace| build::build(workspace, build::Profile::Debug))
        }
        ["test", args @ ..] => with_workspace(|workspace| tests::run_all(workspace, args)),
        ["tidy"] => with_workspace(tidy::run),
        ["check"] => with_workspace(|workspace| check::run_all(workspace, true)),
        ["check", "--no-tests"] => with_workspace(|workspace| check::run_all(workspace, false)),
        ["bpf"] => with_workspace(bpf::write),
        ["openapi"] => with_workspace(openapi::run),
        ["dist"] => with_workspace(dist::run),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn with_workspace(command: impl FnOnce(&Workspace) -> Result<()>) -> Result<()> {
    command(&Workspace::load()?)
}
