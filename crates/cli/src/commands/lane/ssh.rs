//! `firelane ssh`: becomes the system's ssh, with the lane's settings.

use std::os::unix::process::CommandExt;
use std::process::Command;

use firelane_lane::{identity, ssh as settings};

use super::place::{known, yard};
use crate::args::SshArgs;
use crate::failure::Failure;

pub(in crate::commands) fn ssh(args: &SshArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    known(&yard, &args.label)?;
    let config = yard.folder(&args.label).join(settings::CONFIG);
    if !config.exists() {
        let message = format!("nobody has logged in to the lane {} yet", args.label);
        return Err(
            Failure::usage(message).with_remedy("firelane up with its label goes on with it")
        );
    }
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(config)
        .arg(identity::alias(&args.label));
    if !args.command.is_empty() {
        command.arg("--").args(&args.command);
    }
    let error = command.exec();
    Err(Failure::platform(
        anyhow::Error::from(error).context("cannot start ssh"),
    ))
}
