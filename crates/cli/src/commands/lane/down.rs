//! `firelane down`.

use firelane_cloud::CloudError;
use firelane_lane::down::{Chosen, Down, down as take_down, forget};

use super::LEFT;
use super::place::{crew, known, provider, yard};
use super::stages::Stages;
use crate::args::DownArgs;
use crate::failure::Failure;
use crate::say::say;

pub(in crate::commands) async fn down(args: DownArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    let name = match (&args.provider, &args.label) {
        (Some(name), _) => name.clone(),
        (None, Some(label)) => known(&yard, label)?.terms.provider,
        (None, None) => {
            let message =
                "say --provider NAME, or --label LABEL of a lane that firelane list names";
            return Err(Failure::usage(message));
        }
    };
    let provider = provider(&name)?;
    let stages = Stages::new(false, None);
    let crew = crew(&provider, &yard, &stages);
    if let (true, Some(label)) = (args.forget, &args.label) {
        // One that is not there is not given up.
        known(&yard, label)?;
        return told(&forget(&crew, label).await.map_err(Failure::platform)?);
    }
    let chosen = match (args.label, args.older_than) {
        (Some(label), _) => Chosen::Label(label),
        (None, Some(age)) => Chosen::Older(age),
        (None, None) => Chosen::All,
    };
    let down = take_down(&crew, &chosen).await;
    told(&down.map_err(Failure::platform)?)
}

/// Says what is gone, what is left and what could not be looked for; gives the exit code.
fn told(down: &Down) -> Result<u8, Failure> {
    if down.is_nothing() {
        say("nothing to remove")?;
    }
    given_back(down)?;
    if let Some(error) = &down.unseen {
        let remedy = remedy(error);
        eprintln!(
            "firelane: there may be machines that cost money, which cannot be looked for: {error}{remedy}"
        );
    }
    Ok(if down.is_clear() { 0 } else { LEFT })
}

/// Says what is gone and what is left.
pub(super) fn given_back(down: &Down) -> Result<(), Failure> {
    for label in &down.retired {
        say(format_args!("lane {label} is given back"))?;
    }
    for handle in &down.machines {
        say(format_args!("machine {handle} is given back"))?;
    }
    for (what, error) in &down.left {
        eprintln!("firelane: {what} is left, and may cost money: {error}");
    }
    Ok(())
}

/// What its user can do about it, to be appended.
pub(super) fn remedy(error: &CloudError) -> String {
    let remedy = error.remedy.as_deref();
    remedy.map_or_else(String::new, |remedy| format!("; remedy: {remedy}"))
}
