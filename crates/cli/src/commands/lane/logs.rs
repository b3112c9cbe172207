//! `firelane logs`: what became of a lane, from here and from its machine.

use std::fs;
use std::time::Duration;

use firelane_lane::install::UNITS;
use firelane_lane::journal::LOG;
use firelane_lane::{identity, ssh as settings};
use tokio::process::Command;
use tokio::time::timeout;

use super::place::{known, yard};
use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::say::say;

/// How long a machine may take to tell.
const DEADLINE: Duration = Duration::from_secs(60);

pub(in crate::commands) async fn logs(args: &LogsArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    known(&yard, &args.label)?;
    let folder = yard.folder(&args.label);
    match fs::read_to_string(folder.join(LOG)) {
        Ok(text) => say(text.trim_end())?,
        Err(error) => eprintln!("firelane: {}: {error}", folder.join(LOG).display()),
    }
    let config = folder.join(settings::CONFIG);
    if !config.exists() {
        return Ok(0);
    }
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(config)
        .arg(identity::alias(&args.label));
    command.args(["--", "sudo", "-n", "journalctl", "--no-pager", "-n", "200"]);
    for unit in UNITS {
        command.args(["-u", unit.name]);
    }
    let why = match timeout(DEADLINE, command.kill_on_drop(true).status()).await {
        Ok(Ok(ended)) if ended.success() => return Ok(0),
        Ok(Ok(ended)) => format!("ssh ended with {ended}"),
        Ok(Err(error)) => format!("ssh cannot be started: {error}"),
        Err(_) => format!("the machine did not tell it in {} s", DEADLINE.as_secs()),
    };
    eprintln!("firelane: the machine's log cannot be read: {why}");
    Ok(0)
}
