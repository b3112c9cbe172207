//! Requests that a page in a browser may have made, to a service without API keys.

use axum::body::Body;
use axum::http::Request;
use firelane_gateway::listen::Peer;

use crate::fake::{As, Fake, head};

/// A request over the network that makes a sandbox.
fn posted(host: &str, origin: Option<&str>) -> Request<Body> {
    let mut head = Request::post("/v1/sandboxes")
        .header("content-type", "application/json")
        .header("host", host);
    if let Some(origin) = origin {
        head = head.header("origin", origin);
    }
    let request = head.body(Body::from("{}"));
    over_network(request.expect("it is a request"))
}

fn over_network(mut request: Request<Body>) -> Request<Body> {
    let address = |text: &str| text.parse().expect("it is an address");
    request.extensions_mut().insert(Peer::Network {
        from: address("127.0.0.1:50000"),
        to: address("127.0.0.1:7300"),
    });
    request
}

#[tokio::test]
async fn a_page_of_another_origin_makes_nothing_where_keys_are_off() {
    let fake = Fake::start_with(false).await;
    for (host, origin) in [
        ("evil.example", None),
        ("evil.example:7300", Some("http://evil.example:7300")),
        ("localhost:7300", Some("http://evil.example")),
        ("localhost:7300", Some("null")),
        ("localhost:7300", Some("http://localhost:3000")),
    ] {
        let told = fake.send(posted(host, origin)).await;
        assert_eq!(told.code(403), "forbidden", "{host} {origin:?}");
    }
    assert_eq!(fake.asked.all("CreateSandbox").len(), 0);
    for origin in [None, Some("http://localhost:7300")] {
        let told = fake.send(posted("localhost:7300", origin)).await;
        assert_eq!(told.status, 201, "{origin:?}: {}", told.json());
    }
    // A page cannot name another type without asking first.
    let mut request = posted("localhost:7300", None);
    let plain = "text/plain".parse().expect("it is a value");
    request.headers_mut().insert("content-type", plain);
    assert_eq!(fake.send(request).await.code(415), "wrong_type");
}

#[tokio::test]
async fn the_connection_says_where_it_came_to() {
    let fake = Fake::start_with(false).await;
    let (address, _stop) = fake.listen().await;
    for (host, status) in [
        (address.to_string(), "200"),
        (format!("localhost:{}", address.port()), "200"),
        ("evil.example".into(), "403"),
    ] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = crate::broken::exchange(address, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn with_keys_or_over_the_socket_any_host_is_taken() {
    let fake = Fake::start().await;
    let request = head("GET", "/v1/sandboxes", As::Owner)
        .header("host", "firelane.example")
        .header("origin", "http://elsewhere.example")
        .body(Body::empty());
    let request = over_network(request.expect("it is a request"));
    assert_eq!(fake.send(request).await.status, 200);

    let fake = Fake::start_with(false).await;
    let request = Request::get("/v1/sandboxes")
        .header("host", "anything")
        .body(Body::empty());
    let mut request = request.expect("it is a request");
    request.extensions_mut().insert(Peer::Local { uid: 7 });
    assert_eq!(fake.send(request).await.status, 200);
}
