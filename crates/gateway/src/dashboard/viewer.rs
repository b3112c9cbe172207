//! Who looks at a page, and what they get instead of one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use firelane_wire::problem::{Code, Problem};

use super::html;
use crate::Gateway;
use crate::auth::Who;
use crate::failure::Failure;

/// Who looks: a session, an API key, the owner over the Unix socket, or anybody where keys are off.
pub(super) struct Viewer(pub(super) Who);

impl FromRequestParts<Arc<Gateway>> for Viewer {
    type Rejection = Refused;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Viewer, Refused> {
        let who = Who::from_request_parts(parts, gateway).await?;
        Ok(Viewer(who))
    }
}

/// Why there is no page. Without a session it leads to the form that begins one.
pub(super) struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused(problem)
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused(failure.0)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.0;
        if problem.code == Code::Unauthenticated {
            return Redirect::to("/login").into_response();
        }
        let status = StatusCode::from_u16(problem.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = problem.code.name(), cause = %problem, "there is no page");
        }
        let mut response = (status, html::problem::page(&problem)).into_response();
        if let Some(seconds) = problem.retry_after_s {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
