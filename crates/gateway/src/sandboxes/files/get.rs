//! `GET /v1/sandboxes/{id}/files/{path}`: the bytes of a file, or a range of them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firelane_guest_proto::message::MAX_FILE_BYTES;
use firelane_wire::bus::Piped;
use firelane_wire::file::Entry;
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use jiff::Timestamp;

use super::at::At;
use super::outgoing;
use super::pipe::Pipe;
use super::range::{self, Wanted};
use crate::Gateway;
use crate::auth::Who;
use crate::failure::{Answer, Failure};

/// A file's bytes
///
/// One range of them with `Range`. An answer that breaks off is not the whole file. `HEAD` tells its
/// length and when it was changed.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/files/{path}", operation_id = "file_get", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash"),
           ("Range" = Option<String>, Header, description = "`bytes=0-99`, `bytes=100-` or `bytes=-100`")),
    responses((status = 200, description = "All of it", body = Vec<u8>,
               content_type = "application/octet-stream"),
              (status = 206, description = "The range", body = Vec<u8>,
               content_type = "application/octet-stream"),
              (status = 416, description = "Nothing of the range is there: Content-Range tells the length",
               body = Problem, content_type = "application/problem+json"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    method: Method,
    headers: HeaderMap,
    At { sandbox, path }: At,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let file = File {
        gateway,
        tenant: who.caller.tenant,
        sandbox,
        path,
    };
    if method == Method::HEAD {
        let (_, entry) = file.open(0, 0).await?;
        return Ok(told(StatusCode::OK, &entry, entry.size, Body::empty()));
    }
    match range::wanted(&headers)? {
        Wanted::All => file.all().await,
        Wanted::From { first, last } => {
            let length = last.map_or(u64::MAX, |last| (last - first).saturating_add(1));
            file.part(first, length).await
        }
        Wanted::Last(count) => {
            let (_, entry) = file.open(0, 0).await?;
            if count == 0 {
                return Ok(outside(entry.size));
            }
            if entry.size == 0 {
                // No range can say that there is nothing.
                return file.all().await;
            }
            let count = count.min(entry.size).min(MAX_FILE_BYTES);
            file.part(entry.size - count, count).await
        }
    }
}

struct File {
    gateway: Arc<Gateway>,
    tenant: String,
    sandbox: firelane_model::id::SandboxId,
    path: String,
}

impl File {
    /// A pipe out of a part of it, and what it is in all.
    async fn open(&self, offset: u64, length: u64) -> Result<(Pipe, Entry), Problem> {
        let place = self.gateway.place(self.tenant.clone(), self.sandbox);
        let what = Piped::Get {
            path: self.path.clone(),
            offset,
            length,
        };
        let (pipe, entry) = Pipe::open(place.await?, what).await?;
        let entry = entry.ok_or_else(|| {
            let cause = "the agent opened a file and did not say which";
            Problem::new(Code::Internal, cause)
        })?;
        Ok((pipe, entry))
    }

    async fn all(&self) -> Answer<Response> {
        let (pipe, entry) = self.open(0, MAX_FILE_BYTES).await?;
        let size = entry.size;
        if size > MAX_FILE_BYTES {
            let cause = format!("the file has {size} bytes, at most {MAX_FILE_BYTES} go at once");
            let problem = Problem::new(Code::TooLarge, cause);
            return Err(problem.with_remedy("ask for ranges of it").into());
        }
        let body = outgoing::body(pipe, Some(size));
        Ok(told(StatusCode::OK, &entry, size, body))
    }

    async fn part(&self, first: u64, length: u64) -> Answer<Response> {
        let length = length.min(MAX_FILE_BYTES);
        let (pipe, entry) = self.open(first, length).await?;
        let Some(there) = entry.size.checked_sub(first).filter(|there| *there > 0) else {
            return Ok(outside(entry.size));
        };
        let count = there.min(length);
        let body = outgoing::body(pipe, Some(count));
        let mut response = told(StatusCode::PARTIAL_CONTENT, &entry, count, body);
        let range = format!("bytes {first}-{}/{}", first + count - 1, entry.size);
        let headers = response.headers_mut();
        insert(headers, header::CONTENT_RANGE, &range);
        Ok(response)
    }
}

fn told(status: StatusCode, entry: &Entry, length: u64, body: Body) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    insert(headers, header::CONTENT_TYPE, "application/octet-stream");
    // What a guest wrote is never a page of ours.
    insert(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(headers, header::ACCEPT_RANGES, "bytes");
    if let Some(date) = http_date(&entry.modified_at) {
        insert(headers, header::LAST_MODIFIED, &date);
    }
    response
}

/// Nothing of the range is there.
fn outside(size: u64) -> Response {
    let cause = format!("the file has {size} bytes, and the range none of them");
    let mut response = Failure::new(Code::BadRange, cause).into_response();
    let range = format!("bytes */{size}");
    insert(response.headers_mut(), header::CONTENT_RANGE, &range);
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A date as HTTP has it (RFC 9110, section 5.6.7).
fn http_date(rfc3339: &str) -> Option<String> {
    let time: Timestamp = rfc3339.parse().ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_standard() {
        let check = |text, expected| assert_eq!(http_date(text).as_deref(), expected, "{text}");
        let example = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        check("1994-11-06T08:49:37Z", example);
        check("1994-11-06T10:49:37.9+02:00", example);
        check("yesterday", None);
    }
}
