//! The `firelane` command.
//!
//! ```text
//!   args      what was typed
//!   commands  one file each: what it means, and doing it
//!   host      what this machine has: store, template, guest-runner
//!   drivers   which driver runs guests here
//!   run       one run, from input to outcome
//!   failure   exit codes, and the one line that says what is wrong and the remedy
//!   say       data on stdout
//!   signals   what asks for the end
//!   progress  bars and spinners, on a terminal only
//! ```
//!
//! Data goes to stdout, everything else to stderr. The library exists for the tools that make man
//! pages and completions out of [`args::Cli`].

pub mod args;
mod commands;
mod drivers;
mod failure;
mod host;
mod hostd;
mod progress;
mod run;
mod say;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // Started as a microVM's jail, this program is something else: it becomes the VMM.
    if let Err(error) = firelane_sys::jail::enter_if_asked() {
        return Failure::platform(error).report();
    }
    let cli = args::Cli::parse();
    if let Err(failure) = start_log(&cli.command) {
        return failure.report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::platform(error).report(),
    };
    let ended = runtime.block_on(commands::dispatch(cli.command));
    // A read of a terminal's input cannot be cancelled, and must not keep us.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// Logs to stderr what `FIRELANE_LOG` asks for; of a service also each run, if it asks for nothing.
fn start_log(command: &args::Command) -> Result<(), Failure> {
    let (default, format) = match command {
        args::Command::Serve(serve) => ("warn,firelane::run=info", serve.log_format),
        _ => ("warn", args::LogFormat::Text),
    };
    let wanted = std::env::var("FIRELANE_LOG").unwrap_or_else(|_| default.into());
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        Failure::usage(format!(
            "FIRELANE_LOG is '{wanted}', which is no filter ({error}); write warn, info or debug"
        ))
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        args::LogFormat::Text => log.init(),
        args::LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
