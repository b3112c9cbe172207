//! Problems as answers.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use firelane_wire::problem::{Code, Problem};

/// A problem that is answered as `application/problem+json`. Who it is about and the request's id
/// are filled in by [`crate::trace`].
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

/// What every handler gives.
pub(crate) type Answer<T> = Result<T, Failure>;

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure(problem)
    }
}

impl Failure {
    pub(crate) fn new(code: Code, cause: impl Into<String>) -> Failure {
        Problem::new(code, cause).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = self.0;
        let status = StatusCode::from_u16(problem.status());
        let mut response = status
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        if let Some(seconds) = problem.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if problem.code == Code::Unauthenticated {
            // Source: RFC 6750, section 3.
            let scheme = HeaderValue::from_static("Bearer realm=\"firelane\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        // Written as a body once the request's id is in it.
        response.extensions_mut().insert(problem);
        response
    }
}

/// No such path.
pub(crate) async fn no_such_path(uri: axum::http::Uri) -> Failure {
    let problem = Problem::not_found("path", uri.path());
    problem
        .with_remedy("what there is: GET /openapi.json")
        .into()
}

/// The path takes other methods.
pub(crate) async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let cause = format!("{} does not take {method}", uri.path());
    let problem = Problem::new(Code::WrongMethod, cause);
    problem
        .with_remedy("the Allow header names those that it takes")
        .into()
}
