//! How a call of a provider fails.

use std::fmt;
use std::time::Duration;

/// What callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nobody has set any credentials: nothing was asked.
    NoCredentials,
    /// Credentials are wrong, expired, half there, or may not do this.
    Auth,
    /// The account's limits forbid it. More of the same does not help; a request for more may.
    Quota,
    /// The provider has none left, here and now.
    Capacity,
    /// Asked too often.
    Throttle,
    /// Something else is being done with it, or something with this name exists.
    Conflict,
    /// There is none.
    NotFound,
    /// The request is wrong, and stays wrong.
    Invalid,
    /// The provider or the way to it failed: the same call may work soon.
    Transient,
}

impl Class {
    /// Whether the same call may succeed without anybody changing anything.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Throttle | Self::Transient)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoCredentials => "no credentials",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::Capacity => "capacity",
            Self::Throttle => "throttle",
            Self::Conflict => "conflict",
            Self::NotFound => "not found",
            Self::Invalid => "invalid",
            Self::Transient => "transient",
        })
    }
}

/// Whether a call that failed may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The provider refused it, or never got it.
    None,
    /// The answer was lost, or came too late, or told of a failure half-way.
    Unknown,
}

/// A call of a provider that failed.
///
/// The message is the provider's own words, without control characters and never with a secret:
/// each provider cuts those out before it makes one of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {call}: {message}{}", code.as_ref().map_or_else(String::new, |code| format!(" ({code})")))]
pub struct CloudError {
    /// Who was asked, for example `aws`.
    pub provider: Box<str>,
    /// What was asked, in the provider's words, for example `RunInstances`.
    pub call: Box<str>,
    /// What it means.
    pub class: Class,
    /// Whether something may have changed.
    pub effect: Effect,
    /// The provider's code, for example `InsufficientInstanceCapacity`.
    pub code: Option<Box<str>>,
    /// What went wrong.
    pub message: Box<str>,
    /// What its user can do about it, where that is known.
    pub remedy: Option<Box<str>>,
    /// How long to wait before the next call, where the provider says so.
    pub retry_after: Option<Duration>,
}

impl CloudError {
    /// A call that failed without effect.
    pub fn new(provider: &str, call: &str, class: Class, message: impl AsRef<str>) -> CloudError {
        CloudError {
            provider: provider.into(),
            call: call.into(),
            class,
            effect: Effect::None,
            code: None,
            message: printable(message.as_ref()).into(),
            remedy: None,
            retry_after: None,
        }
    }

    /// The same, which may have changed something.
    #[must_use]
    pub fn with_unknown_effect(self) -> CloudError {
        CloudError {
            effect: Effect::Unknown,
            ..self
        }
    }

    /// The same with the provider's code.
    #[must_use]
    pub fn with_code(self, code: impl AsRef<str>) -> CloudError {
        CloudError {
            code: Some(printable(code.as_ref()).into()),
            ..self
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> CloudError {
        CloudError {
            remedy: Some(remedy.into().into()),
            ..self
        }
    }

    /// The same with the provider's wish to be left alone.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> CloudError {
        CloudError {
            retry_after: Some(wait),
            ..self
        }
    }
}

/// Longest message that is kept, in characters.
const LONGEST: usize = 2_000;

/// What may be shown on a terminal: somebody else worded it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_provider_call_message_and_code() {
        let error = CloudError::new("aws", "RunInstances", Class::Capacity, "no\x1b[2J room")
            .with_code("InsufficientInstanceCapacity");
        assert_eq!(
            error.to_string(),
            "aws: RunInstances: no [2J room (InsufficientInstanceCapacity)"
        );
        assert_eq!(error.effect, Effect::None);
    }

    #[test]
    fn a_page_of_html_is_cut() {
        let error = CloudError::new("aws", "RunInstances", Class::Transient, "<".repeat(100_000));
        assert_eq!(error.message.len(), LONGEST);
    }
}
