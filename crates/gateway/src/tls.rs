//! Certificates: the user's own, or one that the service makes for itself.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} is not PEM of what is asked for")]
    Pem {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not go together.
    #[error("the certificate and its key cannot be used")]
    Unusable(#[from] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// Where a certificate and its key are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate and those that vouch for it, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// The certificate that the service makes for itself in this folder, if there is none yet: for these
/// names, valid until it is removed. Who trusts it, trusts the file.
///
/// # Errors
/// [`TlsError`].
pub fn own(folder: &Path, names: &[String]) -> Result<Files, TlsError> {
    let files = Files {
        certificate: folder.join("tls-cert.pem"),
        key: folder.join("tls-key.pem"),
    };
    if files.certificate.exists() && files.key.exists() {
        return Ok(files);
    }
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
    write(&files.key, 0o600, &signing_key.serialize_pem())?;
    write(&files.certificate, 0o644, &cert.pem())?;
    Ok(files)
}

/// Written whole or not at all.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), TlsError> {
    let named = |source| TlsError::File {
        path: path.into(),
        source,
    };
    let aside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&aside)
        .map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)?;
    file.sync_all().map_err(named)?;
    fs::rename(&aside, path).map_err(named)
}

/// What accepts TLS connections with this certificate.
///
/// # Errors
/// [`TlsError`].
pub fn acceptor(files: &Files) -> Result<TlsAcceptor, TlsError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| match source {
            pem::Error::Io(source) => TlsError::File { path, source },
            source => TlsError::Pem { path, source },
        }
    };
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect)
            .map_err(pem(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
