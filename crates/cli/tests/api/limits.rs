//! Who sends too much, or too little.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use firelane_gateway::listen::Listener;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant};

use crate::service::Service;

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_nothing_is_queued() {
    let service = Service::start(0, 10).await;
    let code = "#".repeat(1 << 20);
    let (status, problem) = service
        .post("/v1/runs", "", json!({"lang": "python", "code": code}))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(problem["code"], "too_large");
    // Without a length it is noticed as it comes.
    let chunks = (0..100).map(|_| Ok::<_, std::io::Error>("#".repeat(100_000)));
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let request = Request::post("/v1/runs")
        .header("content-type", "application/json")
        .body(body);
    let answer = service.ask(request.expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let queue: Value = serde_json::from_str(&service.get("/v1/queue").await).expect("JSON");
    assert_eq!(queue["queued"], 0);
}

/// Connects to a service whose clock jumps when nothing else is left to do: how long something takes is
/// exact, and takes no time.
async fn connect() -> (Service, TcpStream) {
    let service = Service::start(0, 10).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    service.listen(Listener::Plain(listener));
    let stream = TcpStream::connect(address).await.expect("it listens");
    tokio::time::pause();
    (service, stream)
}

#[tokio::test]
async fn a_head_that_drips_is_let_go() {
    let (_service, mut stream) = connect().await;
    let start = Instant::now();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nx: ")
        .await
        .expect("it is sent");
    while stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it is still taken"
        );
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let (_service, mut stream) = connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("it is sent");
    let line = format!("x: {}\r\n", "a".repeat(1000));
    let mut sent = 0;
    while stream.write_all(line.as_bytes()).await.is_ok() {
        sent += line.len();
        assert!(sent < 16 << 20, "all of it is taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused() {
    let (_service, mut stream) = connect().await;
    let start = Instant::now();
    let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}
