//! In and out: an API key's token for a session.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use firelane_wire::problem::{Code, Problem};

use super::html;
use super::viewer::Refused;
use super::{origin, session};
use crate::Gateway;
use crate::auth::{Who, by_token};
use crate::body;
use crate::failure::Failure;
use crate::listen::Encrypted;

/// Largest form, in bytes: a token and what a browser puts around it.
const MAX_FORM_BYTES: usize = 4 << 10;

/// The form; nobody who may look already has to fill it in.
pub(super) async fn form(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    match Who::from_request_parts(&mut parts, &gateway).await {
        Ok(_) => Redirect::to("/").into_response(),
        Err(Failure(problem)) if problem.code == Code::Unauthenticated => {
            html::login::page(false).into_response()
        }
        Err(failure) => Refused::from(failure).into_response(),
    }
}

/// Begins a session. Whatever is wrong with the token, the answer is the same.
pub(super) async fn login(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    own(&parts)?;
    let encrypted = parts.extensions.get::<Encrypted>().is_some();
    let bytes = body::read(body, MAX_FORM_BYTES).await?;
    let mut fields = form_urlencoded::parse(&bytes);
    let token = fields.find_map(|(name, value)| (name == "key").then_some(value));
    let found = match by_token(token.unwrap_or_default().trim(), &gateway).await {
        Ok(found) => found,
        Err(Failure(problem)) if problem.code == Code::Unauthenticated => {
            let page = html::login::page(true);
            return Ok((StatusCode::FORBIDDEN, page).into_response());
        }
        Err(failure) => return Err(failure.into()),
    };
    let token = session::fresh()?;
    gateway.sessions.begin(&token, found.key.id, gateway.now());
    tracing::info!(key = %found.key.id, "a session of the dashboard begins");
    Ok(home(&session::cookie(&token, encrypted), "/"))
}

/// Ends the session.
pub(super) async fn logout(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, _) = request.into_parts();
    own(&parts)?;
    if let Some(token) = session::token(&parts) {
        gateway.sessions.end(token);
    }
    Ok(home(&session::no_cookie(), "/login"))
}

/// Refuses a form on another site's page.
fn own(parts: &Parts) -> Result<(), Problem> {
    if origin::is_own(parts) {
        return Ok(());
    }
    let problem = Problem::new(Code::Forbidden, "the form is not on a page of this service");
    Err(problem.with_remedy("open the dashboard itself and use the form there"))
}

fn home(cookie: &str, path: &str) -> Response {
    let mut response = Redirect::to(path).into_response();
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
