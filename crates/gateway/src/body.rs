//! JSON bodies and query strings, with errors that say what is wrong and where.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use firelane_wire::problem::{Code, Problem};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::failure::Failure;

/// Largest JSON body, in bytes. Less than a message of the Bus carries.
pub(crate) const MAX_BODY_BYTES: usize = 900 << 10;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Json<T>, Failure> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let essence = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
        match essence {
            Some(essence) if essence.eq_ignore_ascii_case("application/json") => {}
            _ => {
                let given = essence.unwrap_or("none");
                let problem = Problem::new(Code::WrongType, format!("the body's type is {given}"));
                return Err(problem
                    .with_remedy("send JSON, with Content-Type: application/json")
                    .into());
            }
        }
        let bytes = read(request.into_body(), MAX_BODY_BYTES).await?;
        parse(&bytes).map(Json)
    }
}

/// All of a body, up to a cap.
pub(crate) async fn read(body: Body, cap: usize) -> Result<Bytes, Failure> {
    let mut stream = body.into_data_stream();
    let all = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| {
                Failure::new(Code::Invalid, format!("the body broke off: {error}"))
            })?;
            if bytes.len() + chunk.len() > cap {
                let cause = format!("the body is over {cap} bytes");
                return Err(Failure::new(Code::TooLarge, cause));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    timeout(BODY_TIMEOUT, all).await.unwrap_or_else(|_| {
        let cause = format!("the body did not arrive within {BODY_TIMEOUT:?}");
        Err(Failure::new(Code::Invalid, cause))
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // An array of values would be taken as the fields in order, and mean something else with the next
    // field.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        let problem = Problem::new(Code::Invalid, "the body is no JSON object");
        return Err(problem
            .with_remedy("send {...}, with a name for each value: GET /openapi.json")
            .into());
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let cause = format!("the body is not what is asked for: {error}");
        let problem = Problem::new(Code::Invalid, cause);
        problem
            .with_remedy("the fields and their types: GET /openapi.json")
            .into()
    })
}

/// The query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, Failure> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(error) => {
                let cause = format!("the query is not what is asked for: {}", error.body_text());
                Err(Failure::new(Code::Invalid, cause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_object() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Size {
            rows: u16,
        }
        let check = |text: &str, expected: Result<u16, &str>| {
            let parsed = parse::<Size>(text.as_bytes()).map(|size| size.rows);
            let parsed = parsed.map_err(|failure| failure.0.cause);
            match expected {
                Ok(rows) => assert_eq!(parsed, Ok(rows), "{text}"),
                Err(wrong) => {
                    let cause = parsed.expect_err("it is refused");
                    assert!(cause.starts_with(wrong), "{text}: {cause}");
                }
            }
        };
        check(r#"{"rows":3}"#, Ok(3));
        check(" \n\t{\"rows\":3} ", Ok(3));
        let other = "the body is no JSON object";
        for text in ["[3]", "  [3]", "3", "\"x\"", "null"] {
            check(text, Err(other));
        }
        check("", Err("the body is not what is asked for: EOF"));
        check("{", Err("the body is not what is asked for: EOF"));
    }
}
