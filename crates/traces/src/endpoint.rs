//! Where spans go.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::{InvalidUri, Scheme};

/// Path of traces below a collector's own. Source: OTLP specification, "OTLP/HTTP Request".
const PATH: &str = "/v1/traces";

/// A collector, named by its URL without `/v1/traces`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

/// Why a text names no collector.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL.
    #[error("it is no URL")]
    Url(#[from] InvalidUri),
    /// It is a URL of something else.
    #[error("it is not of the form http://HOST:PORT; TLS is the business of a collector nearby")]
    Form,
}

impl Endpoint {
    /// The URL that spans are posted to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let url: Uri = text.parse()?;
        let authority = url.authority().ok_or(EndpointError::Form)?;
        let is_plain = url.scheme() == Some(&Scheme::HTTP) && url.query().is_none();
        // Names and passwords would be seen in logs; headers are what a collector asks for.
        if !is_plain || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(EndpointError::Form);
        }
        let path = url.path().trim_end_matches('/');
        Ok(Endpoint(format!("http://{authority}{path}{PATH}")))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_to_a_collectors_own() {
        let check = |text: &str, expected: Option<&str>| {
            let endpoint = text.parse::<Endpoint>().ok();
            assert_eq!(endpoint.as_ref().map(Endpoint::url), expected, "{text}");
        };
        check("http://a:4318", Some("http://a:4318/v1/traces"));
        check("http://a:4318/", Some("http://a:4318/v1/traces"));
        check(
            "http://[::1]:1/of/us/",
            Some("http://[::1]:1/of/us/v1/traces"),
        );
        check("https://a:4318", None);
        check("http://me:secret@a", None);
        check("http://a?b=c", None);
        check("a:4318", None);
        check("/v1", None);
        check("", None);
        check("http://", None);
    }
}
