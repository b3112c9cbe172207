//! Sockets: TCP with and without TLS, and a Unix socket for the owner of the service.
//!
//! ```text
//!   accept ─▶ (TLS) ─▶ head by a deadline ─▶ router ─▶ … ─▶ close
//! ```
//!
//! Who connects and says nothing, or speaks a byte a second, holds one of a bounded number of places
//! for a bounded time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Most connections of one listener at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long the head of a request may take, the TLS handshake apart.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Pause after a failed accept: the host is out of descriptors or memory, and trying again at once
/// would only use up a processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Network {
        /// Their address, for logs.
        from: SocketAddr,
        /// The address that they came to.
        to: SocketAddr,
    },
    /// A process of this host, with this user number, over the Unix socket.
    Local {
        /// Its effective user.
        uid: u32,
    },
}

/// Of requests that came with TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encrypted;

/// Something that is listened on.
pub enum Listener {
    /// TCP in clear: for loopback addresses.
    Plain(TcpListener),
    /// TCP with TLS.
    Tls(TcpListener, TlsAcceptor),
    /// A Unix socket.
    Local(UnixListener),
}

/// Serves connections until `stop`, then lets those that are open end. Every connection is a task of
/// `tasks`.
pub async fn serve(
    listener: Listener,
    router: Router,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let router = match &listener {
        Listener::Tls(..) => router.layer(axum::Extension(Encrypted)),
        Listener::Plain(_) | Listener::Local(_) => router,
    };
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            // Never closed.
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((connection, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tasks.spawn(async move {
                    converse(connection, peer, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// An accepted connection; the TLS handshake is still to come.
enum Connection {
    Plain(TcpStream),
    Tls(TcpStream, TlsAcceptor),
    Local(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<(Connection, Peer)> {
    match listener {
        Listener::Plain(listener) => {
            let (stream, peer) = over_network(listener).await?;
            Ok((Connection::Plain(stream), peer))
        }
        Listener::Tls(listener, acceptor) => {
            let (stream, peer) = over_network(listener).await?;
            Ok((Connection::Tls(stream, acceptor.clone()), peer))
        }
        Listener::Local(listener) => {
            let (stream, _) = listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            Ok((Connection::Local(stream), Peer::Local { uid }))
        }
    }
}

async fn over_network(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, from) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let to = stream.local_addr()?;
    Ok((stream, Peer::Network { from, to }))
}

async fn converse(connection: Connection, peer: Peer, router: Router, stop: CancellationToken) {
    match connection {
        Connection::Plain(stream) => http(stream, peer, router, stop).await,
        Connection::Local(stream) => http(stream, peer, router, stop).await,
        Connection::Tls(stream, acceptor) => {
            match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http(stream, peer, router, stop).await,
                Ok(Err(error)) => tracing::debug!(?peer, %error, "no TLS with this peer"),
                Err(_) => tracing::debug!(?peer, "no TLS handshake in time"),
            }
        }
    }
}

async fn http<S>(stream: S, peer: Peer, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let began = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&began);
    let service = router.map_request(move |mut request: hyper::Request<Incoming>| {
        begins.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        request.map(axum::body::Body::new)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HEAD_TIMEOUT))
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX));
    let service = TowerToHyperService::new(service);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let silent = async {
        sleep(HEAD_TIMEOUT).await;
        if began.load(Ordering::Relaxed) {
            // From the first request on, the deadlines of the protocols hold.
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // Which protocol it is to be is found out without a deadline of its own.
        () = silent => {
            tracing::debug!("a connection began no request");
            return;
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Sends this and nothing more; gives what comes before the service closes.
    async fn answer_to(sent: &[u8]) -> String {
        let (mut client, service) = tokio::io::duplex(4096);
        let peer = Peer::Local { uid: 0 };
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let serving = http(service, peer, router, CancellationToken::new());
        let asking = async {
            client.write_all(sent).await.expect("it listens");
            let mut answer = String::new();
            let read = client.read_to_string(&mut answer).await;
            read.expect("text, and an end");
            answer
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test(start_paused = true)]
    async fn who_finishes_no_request_is_let_go() {
        for sent in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2",
            b"GET / HTTP/1.1\r\nHost: x",
        ] {
            let start = tokio::time::Instant::now();
            let answer = answer_to(sent).await;
            assert!(!answer.contains("here"), "{answer}");
            assert!(start.elapsed() <= 2 * HEAD_TIMEOUT, "{:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_falls_silent_is_answered_and_let_go() {
        let start = tokio::time::Instant::now();
        let answer = answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.ends_with("here"), "{answer}");
        assert!(start.elapsed() <= 2 * HEAD_TIMEOUT, "{:?}", start.elapsed());
    }
}
