//! Signature Version 4: a request says who sent it, and is of use for a few minutes only.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::header::{HeaderName, HeaderValue};

use crate::http::Url;

/// What a request is signed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// Name of the region, for example `us-east-1`.
    pub(super) region: &'a str,
    /// Name of the service, for example `ec2`.
    pub(super) service: &'a str,
    /// Now.
    pub(super) time: SystemTime,
}

/// Why a request could not be signed: something in it is not what HTTP allows.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    #[error("the request cannot be signed: {0}")]
    Sign(#[from] aws_sigv4::http_request::SigningError),
    #[error("the credentials have characters that no header has")]
    Header,
    #[error("the request cannot be signed: {0}")]
    Params(#[from] v4::signing_params::BuildError),
}

/// The headers that sign a POST of `body`; `headers` are signed too, and have to be sent as they are.
pub(super) fn headers(
    credentials: &Credentials,
    scope: Scope<'_>,
    url: &Url,
    headers: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.time)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let signed = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let body = SignableBody::Bytes(body);
    let request = SignableRequest::new("POST", url.as_str(), signed, body)?;
    let (instructions, _signature) = sign(request, &params)?.into_parts();
    let (made, _query) = instructions.into_parts();
    made.iter()
        .map(|header| {
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| SignError::Header)?;
            // Nothing that prints requests shows it.
            value.set_sensitive(true);
            Ok((HeaderName::from_static(header.name()), value))
        })
        .collect()
}
