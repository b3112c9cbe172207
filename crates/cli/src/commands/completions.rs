//! `firelane completions`.

use clap::CommandFactory;

use crate::args::Cli;
use crate::failure::Failure;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "firelane",
        &mut std::io::stdout(),
    );
    Ok(0)
}
