//! What the API says when it refuses, and what it means.
//!
//! Codes are those of the API reference ("Errors", and "Operation specific errors" of single calls). The
//! answer is `{"error": {"code", "message", "details"}}`.

use std::time::Duration;

use serde::Deserialize;

use super::client::{Action, TOKEN};
use crate::error::{Class, CloudError};
use crate::http::Reply;

/// Calls that an account has in one hour if the answer does not say.
const CALLS_AN_HOUR: u64 = 3_600;

#[derive(Deserialize)]
struct Answer {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
    details: Option<Details>,
}

/// Of `invalid_input`: what is wrong with which field.
#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(default)]
    messages: Vec<String>,
}

/// A refusal as an error.
pub(super) fn refused(action: Action, reply: &Reply) -> CloudError {
    let Ok(Answer { error: said }) = serde_json::from_slice(&reply.body) else {
        let class = class_of_status(reply.status);
        let error = action.error(class, format!("status {}", reply.status));
        return finished(action, error, reply);
    };
    let fields = said.details.into_iter().flat_map(|details| details.fields);
    let message = fields.fold(said.message, |message, field| {
        format!("{message}; {}: {}", field.name, field.messages.join(", "))
    });
    finished(
        action,
        coded(action, &said.code, &message, reply.status),
        reply,
    )
}

/// An error with a code, of an answer or of something that went on after it.
pub(super) fn coded(action: Action, code: &str, message: &str, status: u16) -> CloudError {
    let class = class(code).unwrap_or_else(|| class_of_status(status));
    let error = action.error(class, message).with_code(code);
    match remedy(code) {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    }
}

fn finished(action: Action, error: CloudError, reply: &Reply) -> CloudError {
    let refused = error
        .code
        .as_deref()
        .is_some_and(|code| BUSY.contains(&code));
    if error.class == Class::Throttle {
        // Calls come back one by one over the hour (API reference, "Rate Limiting"). The time at which
        // all of them are back, RateLimit-Reset, is of no use to who needs one.
        let calls = reply.calls_an_hour.unwrap_or(CALLS_AN_HOUR).max(1);
        let one = Duration::from_secs(3_600_u64.div_ceil(calls));
        return error.with_retry_after(reply.retry_after.unwrap_or(one));
    }
    let error = match reply.retry_after {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    };
    // A server that failed may have done it before.
    if error.class == Class::Transient && action.changes() && !refused {
        error.with_unknown_effect()
    } else {
        error
    }
}

/// Something else is being done with it just now. It passes, and nothing was changed.
const BUSY: [&str; 4] = ["conflict", "locked", "resource_locked", "maintenance"];

/// None: a code that is not known here.
fn class(code: &str) -> Option<Class> {
    Some(match code {
        "unauthorized" | "forbidden" | "token_readonly" => Class::Auth,
        "resource_limit_exceeded" => Class::Quota,
        "resource_unavailable" | "placement_error" => Class::Capacity,
        "rate_limit_exceeded" => Class::Throttle,
        "uniqueness_error" | "resource_in_use" => Class::Conflict,
        "not_found" => Class::NotFound,
        "server_error" | "service_error" | "unavailable" | "timeout" => Class::Transient,
        _ if BUSY.contains(&code) => Class::Transient,
        "invalid_input"
        | "json_error"
        | "protected"
        | "unsupported_error"
        | "method_not_allowed"
        | "deprecated_api_endpoint" => Class::Invalid,
        _ => return None,
    })
}

fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Auth,
        404 => Class::NotFound,
        409 => Class::Conflict,
        429 => Class::Throttle,
        // What is no JSON and tells of success or of another place is not from the API.
        ..=399 | 408 | 423 | 500.. => Class::Transient,
        _ => Class::Invalid,
    }
}

fn remedy(code: &str) -> Option<String> {
    Some(match code {
        "unauthorized" => {
            format!("{TOKEN} is wrong, or was removed: make a new token in the console")
        }
        "forbidden" | "token_readonly" => {
            format!("{TOKEN} may only read: make one with Read & Write in the console")
        }
        "resource_limit_exceeded" => {
            "remove what is not needed, or ask for a higher limit in the console (Limits)"
                .to_owned()
        }
        "resource_unavailable" | "placement_error" => {
            "take another location by --region, or another type by --instance-type".to_owned()
        }
        "protected" => "take its protection away in the console, then run it again".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::{CREATE_SERVER, SERVERS};
    use super::*;
    use crate::error::Effect;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            retry_after: None,
            calls_an_hour: None,
            body: body.as_bytes().to_vec(),
        }
    }

    fn said(status: u16, code: &str) -> CloudError {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"no","details":null}}}}"#);
        refused(CREATE_SERVER, &reply(status, &body))
    }

    #[test]
    fn codes_are_classes_and_tell_whether_something_may_have_changed() {
        for (status, code, class, effect) in [
            (401, "unauthorized", Class::Auth, Effect::None),
            (403, "forbidden", Class::Auth, Effect::None),
            (403, "token_readonly", Class::Auth, Effect::None),
            (403, "resource_limit_exceeded", Class::Quota, Effect::None),
            (412, "resource_unavailable", Class::Capacity, Effect::None),
            (412, "placement_error", Class::Capacity, Effect::None),
            (429, "rate_limit_exceeded", Class::Throttle, Effect::None),
            (409, "uniqueness_error", Class::Conflict, Effect::None),
            (422, "resource_in_use", Class::Conflict, Effect::None),
            (409, "conflict", Class::Transient, Effect::None),
            (423, "locked", Class::Transient, Effect::None),
            (503, "maintenance", Class::Transient, Effect::None),
            (404, "not_found", Class::NotFound, Effect::None),
            (422, "invalid_input", Class::Invalid, Effect::None),
            (403, "protected", Class::Invalid, Effect::None),
            (500, "server_error", Class::Transient, Effect::Unknown),
            (503, "service_error", Class::Transient, Effect::Unknown),
            (502, "of_tomorrow", Class::Transient, Effect::Unknown),
            (418, "of_tomorrow", Class::Invalid, Effect::None),
        ] {
            let error = said(status, code);
            assert_eq!((error.class, error.effect), (class, effect), "{code}");
            assert_eq!(error.code.as_deref(), Some(code));
        }
    }

    #[test]
    fn what_is_wrong_with_which_field_is_told() {
        let body = r#"{"error":{"code":"invalid_input","message":"invalid input in field 'name'",
            "details":{"fields":[{"name":"name","messages":["is too long"]}]}}}"#;
        let error = refused(CREATE_SERVER, &reply(422, body));
        assert_eq!(
            error.to_string(),
            "hetzner: POST /servers: invalid input in field 'name'; name: is too long (invalid_input)"
        );
    }

    #[test]
    fn a_limit_of_calls_is_waited_for_as_long_as_one_call_takes_to_come_back() {
        let body = r#"{"error":{"code":"rate_limit_exceeded","message":"no"}}"#;
        let wait = |calls_an_hour, retry_after: Option<u64>| {
            let retry_after = retry_after.map(Duration::from_secs);
            let reply = Reply {
                calls_an_hour,
                retry_after,
                ..reply(429, body)
            };
            refused(SERVERS, &reply).retry_after.unwrap().as_secs()
        };
        assert_eq!(wait(None, None), 1);
        assert_eq!(wait(Some(3_600), None), 1);
        assert_eq!(wait(Some(100), None), 36);
        assert_eq!(wait(Some(0), None), 3_600);
        assert_eq!(wait(Some(100), Some(7)), 7);
    }

    #[test]
    fn what_is_not_of_the_api_is_known_by_its_status() {
        let error = refused(CREATE_SERVER, &reply(502, "<html>bad gateway</html>"));
        let expected = (Class::Transient, Effect::Unknown, "status 502");
        assert_eq!((error.class, error.effect, &*error.message), expected);
        assert_eq!(refused(SERVERS, &reply(502, "")).effect, Effect::None);
    }
}
