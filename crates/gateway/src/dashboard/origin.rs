//! Whether a page of ours asks, or somebody else's.
//!
//! Sources: W3C "Fetch Metadata Request Headers" (working draft of 2025-04-01) for `Sec-Fetch-Site`,
//! RFC 6454, section 7, for `Origin`.

use axum::http::request::Parts;
use axum::http::{HeaderValue, header};

use crate::listen::Encrypted;

/// Whether the browser says that a page of this service asks, or its user. Where it says neither this
/// nor the origin, the answer is no.
pub(crate) fn is_own(parts: &Parts) -> bool {
    let word = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    // A form's `Origin` is `null` under our referrer policy, so this is looked at first.
    if let Some(site) = word("sec-fetch-site") {
        return site == b"same-origin" || site == b"none";
    }
    let authority = parts.uri.authority().map(|named| named.as_str().as_bytes());
    let (Some(origin), Some(host)) = (word(header::ORIGIN.as_str()), authority.or(word("host")))
    else {
        return false;
    };
    let scheme: &[u8] = match parts.extensions.get::<Encrypted>() {
        Some(Encrypted) => b"https://",
        None => b"http://",
    };
    origin
        .strip_prefix(scheme)
        .is_some_and(|named| named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn only_our_own_pages_and_the_user_ask() {
        let check = |headers: &[(&str, &str)], expected| {
            let mut request = Request::get("/").header("host", "here:7300");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            assert_eq!(is_own(&parts), expected, "{headers:?}");
        };
        let site = "sec-fetch-site";
        check(&[(site, "same-origin")], true);
        check(&[(site, "same-origin"), ("origin", "null")], true);
        check(&[(site, "none")], true);
        check(&[(site, "same-site")], false);
        check(&[(site, "cross-site")], false);
        check(
            &[(site, "cross-site"), ("origin", "http://here:7300")],
            false,
        );
        check(&[("origin", "http://here:7300")], true);
        check(&[("origin", "https://here:7300")], false);
        check(&[("origin", "http://here:7301")], false);
        check(&[("origin", "http://elsewhere")], false);
        check(&[("origin", "null")], false);
        check(&[], false);
    }
}
