//! Pages of browsers, where no API key keeps them out.
//!
//! A browser sends what any page asks for to any address that it can reach, loopback included. With
//! keys off that would be enough to drive the service: a page may post to it (CSRF), and one whose
//! name is made to point to loopback may read the answers too (DNS rebinding). So over the network
//! `Host` names this machine, and `Origin`, which browsers send with whatever a page asks for, is the
//! same as `Host`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use firelane_wire::problem::{Code, Problem};

use crate::Gateway;
use crate::failure::Failure;
use crate::listen::Peer;

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Refuses what a page of somebody else may have asked for.
pub(crate) async fn layer(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get();
    if let (false, Some(Peer::Network { to, .. })) = (gateway.config.keys, peer)
        && let Err(problem) = check(request.uri(), request.headers(), *to)
    {
        return Failure::from(problem).into_response();
    }
    next.run(request).await
}

/// Whether the request is for this service by its own name, and not of a page of another.
fn check(uri: &Uri, headers: &HeaderMap, to: SocketAddr) -> Result<(), Problem> {
    let named = headers.get_all(header::HOST).iter();
    let named = named.map(|value| value.to_str().unwrap_or_default());
    // HTTP/2 has it in the target.
    let hosts: Vec<&str> = named
        .chain(uri.authority().map(Authority::as_str))
        .collect();
    let ours = |host: &&str| is_ours(host, to);
    if hosts.is_empty() || !hosts.iter().all(ours) {
        let cause = format!("the request is for the host {}", hosts.join(", "));
        let problem = Problem::new(Code::Forbidden, cause);
        return Err(problem.with_remedy(format!(
            "without API keys the service answers as localhost and as {to}"
        )));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !hosts.iter().all(|host| is_same(origin, host)) {
            let cause = format!("the request is of a page of {origin:?}");
            let problem = Problem::new(Code::Forbidden, cause);
            return Err(
                problem.with_remedy("a page of another origin needs a service with API keys")
            );
        }
    }
    Ok(())
}

fn is_ours(host: &str, to: SocketAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if host.contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => [to.ip(), LOOPBACK_V4, LOOPBACK_V6].contains(&address),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether an origin (RFC 6454, section 6.2) is that of this host; of which scheme is the client's to
/// know.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |authority: &str| {
        let short = authority.strip_suffix(port).unwrap_or(authority);
        short.to_ascii_lowercase()
    };
    plain(authority) == plain(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "127.0.0.5:7300";

    fn checked(uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().expect("it is a name");
            map.append(name, value.parse().expect("it is a value"));
        }
        let uri = uri.parse().expect("it is a target");
        let to = TO.parse().expect("it is an address");
        check(&uri, &map, to).is_ok()
    }

    #[test]
    fn the_host_is_a_name_of_this_machine() {
        for ours in [
            "localhost",
            "LocalHost:7300",
            "127.0.0.1",
            "127.0.0.1:9",
            "[::1]:7300",
            "127.0.0.5:7300",
        ] {
            assert!(checked("/", &[("host", ours)]), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil.example:7300",
            "127.0.0.1.evil.example",
            "127.0.0.9",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost.",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!checked("/", &[("host", other)]), "{other}");
        }
        assert!(!checked("/", &[]), "no host");
        assert!(!checked(
            "/",
            &[("host", "localhost"), ("host", "evil.example")]
        ));
        // As in HTTP/2, and in requests to a proxy.
        assert!(checked("http://localhost:7300/", &[]));
        assert!(!checked("http://evil.example/", &[]));
        assert!(!checked("http://evil.example/", &[("host", "localhost")]));
    }

    #[test]
    fn a_page_is_of_the_same_origin() {
        let check = |host: &str, origin: &str, expected| {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(checked("/", &headers), expected, "{origin} at {host}");
        };
        check("localhost:7300", "http://localhost:7300", true);
        check("localhost:7300", "https://LOCALHOST:7300", true);
        check("localhost", "http://localhost:80", true);
        check("localhost:80", "http://localhost", true);
        check("localhost:7300", "http://localhost", false);
        check("localhost:7300", "http://localhost:3000", false);
        check("localhost:7300", "http://127.0.0.1:7300", false);
        check("localhost:7300", "http://evil.example", false);
        check("localhost:443", "http://localhost", false);
        check("localhost:7300", "null", false);
        check("localhost:7300", "", false);
        check("localhost:7300", "file://localhost:7300", false);
    }
}
