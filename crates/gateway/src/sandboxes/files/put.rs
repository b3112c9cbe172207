//! `PUT /v1/sandboxes/{id}/files/{path}`: writes a file.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use firelane_guest_proto::message::MAX_FILE_BYTES;
use firelane_wire::bus::Piped;
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use serde::Deserialize;

use super::at::At;
use super::incoming::pour;
use super::pipe::Pipe;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;

/// Permission bits of a file for which none are named.
const DEFAULT_MODE: u32 = 0o644;

/// How to write a file.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PutQuery {
    /// Its permission bits, in octal.
    #[serde(default)]
    #[param(default = "0644", pattern = "^[0-7]{1,4}$")]
    mode: Option<String>,
}

/// Writes a file
///
/// It is there once all of it is, in place of one that was there. Folders above it that are missing are
/// made.
#[utoipa::path(put, path = "/v1/sandboxes/{id}/files/{path}", operation_id = "file_put", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash"),
           PutQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream",
                 description = "Its bytes, with Content-Length"),
    responses((status = 204, description = "It is there"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn put(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
    Query(query): Query<PutQuery>,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    let size = size(&headers)?;
    let mode = mode(query.mode.as_deref())?;
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let (pipe, _) = Pipe::open(place, Piped::Put { path, size, mode }).await?;
    pour(pipe, body, Some(size)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn size(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        let problem = Problem::new(Code::LengthRequired, "there is no Content-Length");
        return Err(problem.with_remedy("a file is sent with its length, and not in chunks"));
    };
    let size: Option<u64> = length.to_str().ok().and_then(|text| text.parse().ok());
    let size = size.ok_or_else(|| Problem::new(Code::Invalid, "Content-Length is no number"))?;
    if size > MAX_FILE_BYTES {
        let cause = format!("the file has {size} bytes, the most is {MAX_FILE_BYTES}");
        return Err(Problem::new(Code::TooLarge, cause));
    }
    Ok(size)
}

fn mode(text: Option<&str>) -> Result<u32, Problem> {
    let Some(text) = text else {
        return Ok(DEFAULT_MODE);
    };
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| {
        let cause = format!("mode is {text:?}, not permission bits in octal");
        Problem::new(Code::Invalid, cause).with_remedy("0644, or 0755 for a program")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal() {
        let check = |text, expected| assert_eq!(mode(text).ok(), expected, "{text:?}");
        check(None, Some(0o644));
        check(Some("0755"), Some(0o755));
        check(Some("7"), Some(7));
        for wrong in ["", "8", "0o7", "+7", "1777", "4755", "00755", "rwx"] {
            check(Some(wrong), None);
        }
    }
}
