//! The commands, one file each.

mod audit;
mod bench;
mod completions;
mod doctor;
pub(crate) mod key;
mod lane;
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
        Command::Verify(args) => interruptible(verify::verify(args)).await,
        Command::Up(args) => lane::up(args).await,
        Command::Down(args) => lane::down(args).await,
        Command::List(args) => interruptible(lane::list(args)).await,
        Command::Reap => lane::reap().await,
        Command::Ssh(args) => lane::ssh(&args),
        Command::Logs(args) => interruptible(lane::logs(&args)).await,
        Command::Preflight(args) => interruptible(lane::preflight(args)).await,
        Command::Bench(command) => bench::bench(command).await,
        Command::Completions { shell } => completions::completions(shell),
    }
}
