//! The first login.

use firelane_model::lane::{Lane, Step};
use tokio::time::{Instant, sleep};

use super::create::show_console;
use crate::access::{Command, Door, Host, HostError, Keys};
use crate::crew::{Crew, StepError};
use crate::progress::Event;

/// User that cloud-init makes.
pub(crate) const LOGIN: &str = "firelane";

/// Where a lane's machine lets us in. None: it has no address yet.
pub(crate) fn door(crew: &Crew<'_>, lane: &Lane) -> Option<Door> {
    let (address, port) = lane.address.clone()?;
    // What somebody says of a machine that is there already.
    let own = |name| lane.terms.extras.get(name).cloned();
    let (login, keys) = if crew.provider.capabilities().user_data.is_some() {
        (Some(LOGIN.to_owned()), Keys::Planted)
    } else {
        let keys = Keys::Own {
            identity: own("identity"),
            known_hosts: own("known-hosts"),
        };
        (own("login"), keys)
    };
    Some(Door {
        label: lane.label.clone(),
        folder: crew.yard.folder(&lane.label),
        address,
        port,
        login,
        keys,
    })
}

/// Logs in, again and again while the machine boots or boots once more.
pub(crate) async fn log_in(
    crew: &Crew<'_>,
    lane: &Lane,
    step: Step,
) -> Result<Box<dyn Host>, StepError> {
    let door = door(crew, lane).ok_or_else(|| StepError::Machine("it has no address".into()))?;
    let begun = Instant::now();
    let mut other_key = None;
    let mut said = String::new();
    loop {
        let error = match attempt(crew, &door).await {
            Ok(host) => return Ok(host),
            Err(error) => error,
        };
        let given_up = match error {
            HostError::WrongKey { .. } => {
                let since: &Instant = other_key.get_or_insert_with(Instant::now);
                since.elapsed() >= crew.timing.other_key
            }
            // A program that is missing here does not appear.
            HostError::Failed { .. } => true,
            HostError::Unreachable { .. } | HostError::Late { .. } => false,
        };
        if given_up || begun.elapsed() >= crew.timing.reach {
            if let Some(handle) = &lane.handle {
                show_console(crew.provider, crew, handle, step).await;
            }
            return Err(error.into());
        }
        let message = error.to_string();
        if message != said {
            crew.progress.tell(&Event::Note {
                step,
                message: format!("not yet: {message}"),
            });
            said = message;
        }
        sleep(crew.timing.poll).await;
    }
}

/// Logs in to a machine that is there, or is not.
pub(crate) async fn log_in_once(crew: &Crew<'_>, lane: &Lane) -> Result<Box<dyn Host>, StepError> {
    let door = door(crew, lane).ok_or_else(|| StepError::Machine("it has no address".into()))?;
    Ok(attempt(crew, &door).await?)
}

async fn attempt(crew: &Crew<'_>, door: &Door) -> Result<Box<dyn Host>, HostError> {
    let host = crew.access.open(door).await?;
    host.run(&Command::new(["true"])).await?;
    Ok(host)
}

/// A command that has to succeed; gives what it wrote.
pub(crate) async fn must(
    host: &dyn Host,
    what: &str,
    command: &Command,
) -> Result<String, StepError> {
    let output = host.run(command).await?;
    if output.code == 0 {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(StepError::Command {
        what: what.to_owned(),
        code: output.code,
        said: super::create::tail(&String::from_utf8_lossy(&said)),
    })
}
