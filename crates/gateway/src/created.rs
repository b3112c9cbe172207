//! Answers that say where the thing that was made is.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;

/// 201 with the thing, and its path as `Location`.
pub(crate) fn created(location: &str, thing: &impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, Json(thing)).into_response();
    locate(&mut response, location);
    response
}

/// Names the path of what an answer is about.
pub(crate) fn locate(response: &mut Response, location: &str) {
    // Paths are made of ids: they are header values.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
}
