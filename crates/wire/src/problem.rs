//! How a request fails. Source: RFC 9457, "Problem Details for HTTP APIs".

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What kind of failure it is, for callers to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is malformed, or a value in it cannot be.
    Invalid,
    /// The template has nothing that runs the language.
    NoInterpreter,
    /// The request does not say how long its body is.
    LengthRequired,
    /// The request, or a part of it, is over its cap.
    TooLarge,
    /// The range is none, or nothing of it is there.
    BadRange,
    /// The body is not of the type that is taken here.
    WrongType,
    /// There is no API key, or it is not one of ours, or it was revoked.
    Unauthenticated,
    /// The key lacks the scope.
    Forbidden,
    /// There is no such thing, or it belongs to somebody else.
    NotFound,
    /// The path is there, and takes other methods.
    WrongMethod,
    /// The thing is in a state in which this cannot be done.
    Conflict,
    /// The idempotency key was used with another request.
    KeyReused,
    /// Too many requests of this API key in a short time, or too many at once.
    RateLimited,
    /// The API key's budget of this day is spent.
    BudgetSpent,
    /// The queue is full.
    QueueFull,
    /// The request's deadline passed before it was served.
    DeadlinePassed,
    /// A disk is full.
    StorageFull,
    /// No host can serve this now, or the service is going down.
    Unavailable,
    /// Firelane failed.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 19] = [
        Code::Invalid,
        Code::NoInterpreter,
        Code::LengthRequired,
        Code::TooLarge,
        Code::BadRange,
        Code::WrongType,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::NotFound,
        Code::WrongMethod,
        Code::Conflict,
        Code::KeyReused,
        Code::RateLimited,
        Code::BudgetSpent,
        Code::QueueFull,
        Code::DeadlinePassed,
        Code::StorageFull,
        Code::Unavailable,
        Code::Internal,
    ];

    /// The HTTP status that goes with it, and whether the same request may succeed later.
    #[must_use]
    pub const fn meaning(self) -> (u16, bool) {
        match self {
            Code::Invalid | Code::NoInterpreter => (400, false),
            Code::Unauthenticated => (401, false),
            Code::Forbidden => (403, false),
            Code::NotFound => (404, false),
            Code::WrongMethod => (405, false),
            Code::Conflict => (409, true),
            Code::LengthRequired => (411, false),
            Code::TooLarge => (413, false),
            Code::WrongType => (415, false),
            Code::BadRange => (416, false),
            Code::KeyReused => (422, false),
            Code::RateLimited | Code::BudgetSpent | Code::QueueFull => (429, true),
            Code::Internal => (500, true),
            Code::Unavailable => (503, true),
            Code::DeadlinePassed => (504, true),
            Code::StorageFull => (507, true),
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Code::Invalid => "invalid",
            Code::NoInterpreter => "no_interpreter",
            Code::LengthRequired => "length_required",
            Code::TooLarge => "too_large",
            Code::BadRange => "bad_range",
            Code::WrongType => "wrong_type",
            Code::Unauthenticated => "unauthenticated",
            Code::Forbidden => "forbidden",
            Code::NotFound => "not_found",
            Code::WrongMethod => "wrong_method",
            Code::Conflict => "conflict",
            Code::KeyReused => "key_reused",
            Code::RateLimited => "rate_limited",
            Code::BudgetSpent => "budget_spent",
            Code::QueueFull => "queue_full",
            Code::DeadlinePassed => "deadline_passed",
            Code::StorageFull => "storage_full",
            Code::Unavailable => "unavailable",
            Code::Internal => "internal",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Code::Invalid => "The request is not valid",
            Code::NoInterpreter => "The template does not run the language",
            Code::LengthRequired => "The request does not say its length",
            Code::TooLarge => "The request is too large",
            Code::BadRange => "The range cannot be given",
            Code::WrongType => "The body's type is not taken here",
            Code::Unauthenticated => "No valid API key",
            Code::Forbidden => "The API key does not allow this",
            Code::NotFound => "There is no such thing",
            Code::WrongMethod => "The method is not taken here",
            Code::Conflict => "This cannot be done now",
            Code::KeyReused => "The idempotency key belongs to another request",
            Code::RateLimited => "Too many requests",
            Code::BudgetSpent => "The day's budget is spent",
            Code::QueueFull => "The queue is full",
            Code::DeadlinePassed => "The deadline passed",
            Code::StorageFull => "The disk is full",
            Code::Unavailable => "Not available now",
            Code::Internal => "Firelane failed",
        }
    }
}

/// A failure, as HTTP tells it (`application/problem+json`) and as the Bus carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "Written", into = "Written")]
#[error("{cause}")]
pub struct Problem {
    /// For callers to branch on.
    pub code: Code,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Seconds after which the same request may succeed, where that is known.
    pub retry_after_s: Option<u64>,
    /// The request, in logs and in the answer's `X-Request-Id`.
    pub request_id: String,
}

/// A problem with all members that it is written with.
#[derive(Serialize, Deserialize, ToSchema)]
struct Written {
    /// Names the kind of problem, relative to the API.
    #[serde(rename = "type", default)]
    #[schema(example = "/problems/not_found")]
    kind: String,
    /// The same for people.
    #[serde(default)]
    title: String,
    /// The HTTP status.
    #[serde(default)]
    status: u16,
    /// For callers to branch on.
    code: Code,
    /// What is wrong.
    cause: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    retryable: bool,
    /// Seconds after which it may, where that is known; the same as in `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// The request, in logs and in the answer's `X-Request-Id`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    request_id: String,
}

impl From<Problem> for Written {
    fn from(problem: Problem) -> Written {
        let (status, retryable) = problem.code.meaning();
        Written {
            kind: format!("/problems/{}", problem.code.name()),
            title: problem.code.title().into(),
            status,
            code: problem.code,
            cause: problem.cause,
            remedy: problem.remedy,
            retryable,
            retry_after_s: problem.retry_after_s,
            request_id: problem.request_id,
        }
    }
}

impl From<Written> for Problem {
    fn from(written: Written) -> Problem {
        Problem {
            code: written.code,
            cause: written.cause,
            remedy: written.remedy,
            retry_after_s: written.retry_after_s,
            request_id: written.request_id,
        }
    }
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Written::schema()
    }
}

impl ToSchema for Problem {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Written::schemas(schemas);
    }
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(code: Code, cause: impl Into<String>) -> Problem {
        Problem {
            code,
            cause: cause.into(),
            remedy: None,
            retry_after_s: None,
            request_id: String::new(),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.meaning().0
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Problem {
        Problem {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// The same, and when to come back; at least a second, since `Retry-After` has no fractions.
    #[must_use]
    pub fn retry_after(self, wait: std::time::Duration) -> Problem {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Problem {
            retry_after_s: Some(u64::try_from(seconds).unwrap_or(u64::MAX)),
            ..self
        }
    }

    /// Something that is not there, or not yours: the same words for both.
    #[must_use]
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Problem {
        Problem::new(Code::NotFound, format!("there is no {what} {id}"))
    }
}

/// An error with its causes in one line; one that its predecessor repeats already is left out.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_they_are_written() {
        for code in Code::ALL {
            let written = serde_json::to_value(code).expect("a code is a string");
            assert_eq!(written, code.name());
        }
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let check = |ms, expected| {
            let problem = Problem::new(Code::RateLimited, "x");
            let wait = std::time::Duration::from_millis(ms);
            assert_eq!(problem.retry_after(wait).retry_after_s, Some(expected));
        };
        check(0, 1);
        check(1000, 1);
        check(1001, 2);
    }

    #[test]
    fn a_problem_has_the_members_of_the_standard_and_ours() {
        let problem = Problem::not_found("run", "run-1").with_remedy("list them: GET /v1/runs");
        let json = serde_json::to_value(problem).expect("it is JSON");
        let expected = serde_json::json!({
            "type": "/problems/not_found",
            "title": "There is no such thing",
            "status": 404,
            "code": "not_found",
            "cause": "there is no run run-1",
            "remedy": "list them: GET /v1/runs",
            "retryable": false,
        });
        assert_eq!(json, expected);
    }
}
