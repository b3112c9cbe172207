//! Files that break off on their way, over connections that do.

use std::net::SocketAddr;

use axum::body::Body;
use firelane_wire::bus::MAX_PART_BYTES;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{As, Fake, head, request};
use crate::files::{at, put};

/// A connection that has sent the head of a request, with these headers, and perhaps more.
async fn connected(address: SocketAddr, method: &str, path: &str, more: &str) -> TcpStream {
    let head = head(method, path, As::Owner)
        .body(())
        .expect("it is a head");
    let key = head.headers()["authorization"]
        .to_str()
        .expect("it is text");
    let text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n{more}");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let sent = stream.write_all(text.as_bytes()).await;
    sent.expect("it is taken");
    stream
}

/// All that comes until the service closes.
async fn all_of(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A connection that is broken off may be so with an error.
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// Sends this and gives what comes until the service closes.
pub(crate) async fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(sent).await.expect("it is taken");
    all_of(stream).await
}

#[tokio::test]
async fn a_get_whose_pipe_breaks_does_not_look_whole() {
    let fake = Fake::start().await;
    let (address, _stop) = fake.listen().await;
    for (kind, path) in [
        ("files", "work/long"),
        ("files", "work/short"),
        ("archives", "work/long"),
    ] {
        let path = at(kind, path);
        let answer = fake.open(request("GET", &path, As::Owner, None)).await;
        assert_eq!(answer.status(), 200, "{path}");
        let body = answer.into_body().collect().await;
        assert!(body.is_err(), "{path}");
        // The same on a connection: too few bytes, or no last chunk.
        let stream = connected(address, "GET", &path, "connection: close\r\n\r\n").await;
        let text = all_of(stream).await;
        let end = text.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = text.split_at(end.expect("it has a head") + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        match head.split("content-length: ").nth(1) {
            Some(length) => {
                let length: usize = length
                    .lines()
                    .next()
                    .and_then(|length| length.parse().ok())
                    .expect("it is a number");
                assert!(body.len() < length, "{path}: {} of {length}", body.len());
            }
            None => {
                assert!(head.contains("chunked"), "{path}: {head}");
                assert!(!body.ends_with(b"0\r\n\r\n"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_get_closes_its_pipe() {
    let fake = Fake::start().await;
    let (address, _stop) = fake.listen().await;
    for (count, (kind, path)) in [("files", "work/slow"), ("watch", "work/slow")]
        .into_iter()
        .enumerate()
    {
        let path = at(kind, path);
        let mut stream = connected(address, "GET", &path, "\r\n").await;
        let mut some = [0; 512];
        stream
            .read_exact(&mut some[..200])
            .await
            .expect("it begins");
        assert_eq!(fake.asked.all("ClosePipe").len(), count, "{path}");
        drop(stream);
        fake.asked.until_count("ClosePipe", count + 1).await;
    }
    let opened = fake.asked.all("OpenPipe").len();
    assert_eq!(opened, fake.asked.all("ClosePipe").len());
}

#[tokio::test]
async fn a_client_that_leaves_a_put_closes_its_pipe() {
    let fake = Fake::start().await;
    let (address, _stop) = fake.listen().await;
    let parts = 2 * MAX_PART_BYTES;
    for (count, (kind, more)) in [
        ("files", format!("content-length: {}\r\n\r\n", 2 * parts)),
        (
            "archives",
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", 2 * parts),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = at(kind, "work/new");
        let mut stream = connected(address, "PUT", &path, &more).await;
        let sent = stream.write_all(&vec![7; parts]).await;
        sent.expect("it is taken");
        // Parts go on before all of it is there.
        fake.asked.until_count("WritePipe", 2 * (count + 1)).await;
        assert_eq!(fake.asked.all("ClosePipe").len(), count, "{path}");
        drop(stream);
        fake.asked.until_count("ClosePipe", count + 1).await;
    }
    assert_eq!(fake.asked.all("FinishPipe").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_falls_silent_is_ended() {
    let fake = Fake::start().await;
    let silent = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = put(&at("files", "work/new"), Body::from_stream(silent), Some(5));
    let start = tokio::time::Instant::now();
    let answer = fake.gateway.router();
    let answer = tower::ServiceExt::oneshot(answer, request).await;
    let answer = answer.unwrap_or_else(|never| match never {});
    assert_eq!(answer.status(), 400);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    fake.asked.until("ClosePipe").await;
}
