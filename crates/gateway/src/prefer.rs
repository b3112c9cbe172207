//! `Prefer: respond-async`: callers that do not wait for an outcome.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;

use crate::created::locate;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Whether the caller does not wait.
///
/// Source: RFC 7240, section 4.1.
pub(crate) fn respond_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all(PREFER).iter();
    let preferences = preferences.filter_map(|value| value.to_str().ok());
    let mut words = preferences.flat_map(|value| value.split([',', ';']));
    words.any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
}

/// 202 with the thing as it is now.
pub(crate) fn accepted(location: &str, thing: &impl Serialize) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(thing)).into_response();
    apply(&mut response);
    locate(&mut response, location);
    response
}

/// Says that the caller's preference was followed.
pub(crate) fn apply(response: &mut Response) {
    let applied = HeaderValue::from_static("respond-async");
    response.headers_mut().insert(PREFERENCE_APPLIED, applied);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_words_among_others() {
        let check = |value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_static(value));
            assert_eq!(respond_async(&headers), expected, "{value}");
        };
        check("respond-async", true);
        check("wait=10, Respond-Async", true);
        check("respond-asyncx", false);
        check("wait=10", false);
    }
}
