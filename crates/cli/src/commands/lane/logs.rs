//! `firelane logs`: what became of a lane, from here and from its machine.

use std::fs;
use std::process::Command;

use firelane_lane::install::UNITS;
use firelane_lane::journal::LOG;
use firelane_lane::{identity, ssh as settings};

use super::place::{known, yard};
use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::say::say;

pub(in crate::commands) fn logs(args: &LogsArgs) -> Result<u8, Failure> {
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
    let ended = command.status().map_err(Failure::platform)?;
    if !ended.success() {
        eprintln!("firelane: the machine's log cannot be read: ssh ended with {ended}");
    }
    Ok(0)
}
