//! The services that speak JSON: prices and quotas. Both only say; nothing is changed by them.
//!
//! The form is "AWS JSON 1.1" (Smithy, awsJson1_1): a POST to `/` whose header `X-Amz-Target` names
//! the action.

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::Value;

use super::NAME;
use super::client::Client;
use super::errors;
use crate::error::{Class, CloudError, Effect};

/// One thing that can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Its name, for example `GetProducts`.
    pub(super) name: &'static str,
    /// First part of the service's host name.
    pub(super) host: &'static str,
    /// Name of the service in signatures.
    pub(super) service: &'static str,
    /// Value of `X-Amz-Target`.
    pub(super) target: &'static str,
}

impl Question {
    /// It failed.
    pub(super) fn error(self, class: Class, message: impl AsRef<str>) -> CloudError {
        CloudError::new(NAME, self.name, class, message)
    }

    /// The answer is not what it has to be.
    pub(super) fn senseless(self, what: &str) -> CloudError {
        self.error(Class::Transient, format!("the answer has no {what}"))
    }
}

/// Asks one thing.
pub(super) async fn ask(
    client: &Client,
    region: &str,
    question: Question,
    body: &Value,
) -> Result<Value, CloudError> {
    let form = HeaderValue::from_static("application/x-amz-json-1.1");
    let target = HeaderValue::from_static(question.target);
    let headers = vec![
        (CONTENT_TYPE, form),
        (HeaderName::from_static("x-amz-target"), target),
    ];
    let host = format!("{}.{region}", question.host);
    let body = body.to_string().into_bytes();
    let (name, service) = (question.name, question.service);
    let reply = client
        .post(name, service, &host, region, headers, body)
        .await;
    // Nothing is changed by a question.
    let reply = reply.map_err(|lost| CloudError {
        effect: Effect::None,
        ..lost
    })?;
    let answer = serde_json::from_slice::<Value>(&reply.body).ok();
    if reply.is_success() {
        return answer.ok_or_else(|| question.senseless("JSON"));
    }
    let text = |names: [&str; 2]| {
        let answer = answer.as_ref()?;
        names.iter().find_map(|name| answer.get(name)?.as_str())
    };
    // Some services write a URL in front of the code.
    let code = text(["__type", "code"]).map(|code| code.rsplit('#').next().unwrap_or(code));
    let message = text(["message", "Message"]).map(str::to_owned);
    Err(errors::error(
        |class, message| question.error(class, message),
        &reply,
        code.map(str::to_owned),
        message,
    ))
}
