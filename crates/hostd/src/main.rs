//! The program: configuration, start, drain.

use std::process::ExitCode;

use firelane_hostd::config::{Config, USAGE};
use firelane_hostd::{ServeError, Server};
use firelane_sys::jail;
use firelane_sys::signals::Ending;

fn main() -> ExitCode {
    // Started by itself to become a VMM.
    if let Err(error) = jail::enter_if_asked() {
        tell(&error);
        return ExitCode::FAILURE;
    }
    let mut args = std::env::args().skip(1).peekable();
    match args.peek().map(String::as_str) {
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some("--version" | "-V") => {
            println!("firelane-hostd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let config = match Config::parse(args) {
        Ok(config) => config,
        Err(error) => {
            tell(&error);
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            if let Some(remedy) = error.remedy() {
                eprintln!("  remedy: {remedy}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), ServeError> {
    let ending = Ending::hold_back().map_err(ServeError::Signals)?;
    let server = Server::start(config)?;
    ending.wait().map_err(ServeError::Signals)?;
    server.drain();
    Ok(())
}

fn tell(error: &dyn std::error::Error) {
    eprint!("firelane-hostd: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
}
