//! Refusals, put together in one way everywhere.

use std::error::Error;

use firelane_host_proto::message::{Code, Refusal};

/// A refusal without a remedy.
pub(crate) fn refuse(code: Code, cause: impl Into<String>) -> Refusal {
    Refusal {
        code,
        cause: cause.into(),
        remedy: None,
    }
}

/// A refusal with a remedy.
pub(crate) fn refuse_with(
    code: Code,
    cause: impl Into<String>,
    remedy: impl Into<String>,
) -> Refusal {
    Refusal {
        remedy: Some(remedy.into()),
        ..refuse(code, cause)
    }
}

/// A step failed: what, and why.
pub(crate) fn failed<E: Error>(step: &str) -> impl FnOnce(E) -> Refusal {
    move |error| refuse(Code::Failed, format!("cannot {step}: {}", chain(&error)))
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
