//! What goes on after an answer: asked about until it is over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answers::{Doing, DoingAnswer};
use super::client::{Action, Client, GET_ACTION};
use super::errors;
use crate::error::{CloudError, Effect};

/// How long one is waited for. A server is there within half a minute, usually.
const WAIT: Duration = Duration::from_secs(180);
/// Between the first two looks; each later pause is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(2);

/// How it ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is done.
    Well,
    /// What was asked for did not come about.
    Badly(CloudError),
    /// It may still go on: it took too long, or could not be looked at.
    Unknown,
}

/// Until what `of` began has ended.
pub(super) async fn ended(client: &Client, of: Action, doing: Doing) -> Ended {
    let begun = Instant::now();
    let mut doing = doing;
    let mut pause = FIRST;
    loop {
        match doing.status.as_str() {
            "success" => return Ended::Well,
            "error" => return Ended::Badly(failed(of, &doing)),
            // What this is, time will tell.
            _ => {}
        }
        if begun.elapsed() >= WAIT {
            tracing::info!(action = doing.id, command = doing.command, "takes long");
            return Ended::Unknown;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
        match client.get::<DoingAnswer>(GET_ACTION, Some(doing.id)).await {
            Ok(answer) => doing = answer.action,
            Err(error) if error.class.may_pass() => {
                tracing::info!(%error, "what goes on is asked again");
            }
            Err(error) => {
                tracing::warn!(%error, action = doing.id, "what goes on cannot be looked at");
                return Ended::Unknown;
            }
        }
    }
}

fn failed(of: Action, doing: &Doing) -> CloudError {
    let (code, message) = match &doing.error {
        Some(error) => (error.code.as_str(), error.message.as_str()),
        None => ("unknown", "no reason was given"),
    };
    let message = format!("{} failed: {message}", doing.command);
    let error = errors::coded(of, code, &message, 500);
    CloudError {
        effect: Effect::None,
        ..error
    }
}
