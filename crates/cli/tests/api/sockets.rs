//! Real sockets: who is at the other end of a Unix socket, and TLS.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use firelane_client::{Client, Target};
use firelane_gateway::listen::Listener;
use firelane_gateway::tls;
use firelane_wire::key::Scope;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::child;
use crate::service::{Service, Setup};

/// Owns no file that matters here, and nothing else.
const SOMEBODY: u32 = 54_321;

/// A socket that everybody may connect to.
async fn local(owner: u32) -> (Service, PathBuf, TempDir) {
    let setup = Setup {
        keys: true,
        owner,
        ..Setup::default()
    };
    let service = Service::with(setup).await;
    let folder = TempDir::with_prefix_in("fls-", "/tmp").expect("a folder");
    let path = folder.path().join("sock");
    service.listen(Listener::Local(
        UnixListener::bind(&path).expect("a socket"),
    ));
    for (path, mode) in [(folder.path(), 0o711), (&path, 0o777)] {
        set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    }
    (service, path, folder)
}

/// Asks as whoever this process is, and tells the status.
#[test]
fn asks_as_somebody() {
    let Some(path) = child::role("asker") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = Client::new(Target::Unix(path), None);
    let asked =
        runtime.block_on(client.send("GET".parse().expect("a method"), "/v1/keys", None, &[]));
    println!("status {}", asked.expect("an answer").status.as_u16());
}

async fn status_as(uid: u32, path: &Path) -> Option<u16> {
    let mut command = child::command("sockets::asks_as_somebody", "asker", path);
    command.uid(uid).current_dir("/");
    let asking = tokio::task::spawn_blocking(move || command.output());
    let asked = asking.await.expect("no panic");
    // Somebody else may not even see this program.
    let Output { stdout, .. } = asked.ok()?;
    let text = String::from_utf8_lossy(&stdout);
    let (_, status) = text.split_once("status ")?;
    status.lines().next()?.parse().ok()
}

#[tokio::test]
async fn only_the_owner_of_the_service_and_root_need_no_key_at_its_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP(not root): other users at the Unix socket");
        return;
    }
    let (_service, path, _folder) = local(u32::MAX - 1).await;
    let Some(status) = status_as(SOMEBODY, &path).await else {
        eprintln!("SKIP(other users cannot run this program): other users at the Unix socket");
        return;
    };
    assert_eq!(status, 401, "who is neither");
    assert_eq!(status_as(0, &path).await, Some(200), "root");
    let (_service, path, _folder) = local(SOMEBODY).await;
    assert_eq!(status_as(SOMEBODY, &path).await, Some(200), "its owner");
    assert_eq!(
        status_as(SOMEBODY + 1, &path).await,
        Some(401),
        "another one"
    );
}

/// Asks over TLS, trusting one certificate.
async fn over_tls(
    address: std::net::SocketAddr,
    trusted: &Path,
    name: &str,
    token: &str,
) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(trusted).expect("a certificate");
    roots.add(certificate).expect("it can be trusted");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let request = format!(
        "GET /v1/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_certificate_that_the_service_made_is_one_to_trust() {
    let setup = Setup {
        keys: true,
        ..Setup::default()
    };
    let service = Service::with(setup).await;
    let token = service.key_of("a", &[Scope::Run]).await.token;
    let files = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    let names = ["firelane.test".to_owned(), "127.0.0.1".to_owned()];
    let own = tls::own(files.path(), &names).expect("a certificate");
    let again = tls::own(files.path(), &names).expect("the same");
    assert_eq!(own.certificate, again.certificate);
    let others = tls::own(other.path(), &names).expect("a certificate");
    // As for an address that others reach.
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let mut address = listener.local_addr().expect("an address");
    address.set_ip([127, 0, 0, 1].into());
    let acceptor = tls::acceptor(&own).expect("it can be used");
    service.listen(Listener::Tls(listener, acceptor));

    for name in ["firelane.test", "127.0.0.1"] {
        let answer = over_tls(address, &own.certificate, name, &token).await;
        let answer = answer.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let refused = over_tls(address, &own.certificate, "firelane.test", "x.y").await;
    assert!(refused.expect("an answer").starts_with("HTTP/1.1 401 "));
    for (trusted, name) in [
        (&others.certificate, "firelane.test"),
        (&own.certificate, "else.test"),
    ] {
        let failed = over_tls(address, trusted, name, &token).await;
        assert!(failed.is_err(), "{name}: {failed:?}");
    }
    // In clear it says nothing of use.
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream
        .write_all(b"GET /v1/queue HTTP/1.1\r\n\r\n")
        .await
        .expect("it is sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
}
