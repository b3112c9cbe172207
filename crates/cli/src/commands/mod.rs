//! The commands, one file each.

mod audit;
mod bench;
mod completions;
mod doctor;
pub(crate) mod key;
mod run;
mod serve;
mod shell;
mod template;
mod verify;

use crate::args::Command;
use crate::failure::Failure;
use crate::run::interruptible;

/// Does what was asked; gives the exit code.
pub(crate) async fn dispatch(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Key(command) => key::key(command).await,
        Command::Audit(command) => audit::audit(command).await,
        Command::Shell(args) => interruptible(shell::shell(args)).await,
        Command::Template(command) => interruptible(template::template(command)).await,
        Command::Doctor(args) => interruptible(doctor::doctor(args)).await,
        Command::Verify(command) => interruptible(verify::verify(command)).await,
        Command::Bench(command) => bench::bench(command).await,
        Command::Completions { shell } => completions::completions(shell),
    }
}
