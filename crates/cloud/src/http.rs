//! The one HTTP client of all providers.
//!
//! Each call has a deadline for its connection and one for the whole of it, and an answer has a
//! bound. Nothing is repeated and no redirect is followed: a signed request is for the host that it
//! was signed for. Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`).
//!
//! A line of log has the call, the host, the status and the time; never headers, bodies or
//! credentials.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
pub use reqwest::{Method, Url};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Class, CloudError};

/// Until there is a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Until the last byte of the answer. Creates of some providers take half a minute.
const WHOLE: Duration = Duration::from_secs(60);
/// Largest answer: a page of machines or images of any provider is far below.
pub const MOST_BYTES: usize = 8 << 20;

/// Where a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why an address is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no URL.
    #[error("{0:?} is no URL")]
    Url(String),
    /// Credentials would be sent where others can read them.
    #[error("{0:?} has to begin with https://; http:// is for 127.0.0.1, [::1] and localhost only")]
    Plain(String),
    /// More than scheme, host, port and path.
    #[error("{0:?} has a user name, a query or a fragment, which an endpoint has not")]
    TooMuch(String),
}

impl Endpoint {
    /// `https` anywhere, plain `http` on this machine only.
    pub fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let no_url = || EndpointError::Url(text.to_owned());
        let url: Url = text.parse().map_err(|_| no_url())?;
        if !url.has_host() {
            return Err(no_url());
        }
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
            return Err(EndpointError::Plain(text.to_owned()));
        }
        let named = !url.username().is_empty() || url.password().is_some();
        if named || url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::TooMuch(
                url.host_str().unwrap_or_default().to_owned(),
            ));
        }
        Ok(Endpoint(url))
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether it is on this machine: then no proxy is asked.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str().unwrap_or_default() {
        "localhost" => true,
        host => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare.parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
        }
    }
}

/// One call.
pub struct Request {
    /// Method.
    pub method: Method,
    /// Address.
    pub url: Url,
    /// Headers beside those of HTTP itself.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body. Empty: none.
    pub body: Vec<u8>,
}

/// The answer to it, whatever its status.
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// How long the provider wants to be left alone, if it says so in seconds.
    pub retry_after: Option<Duration>,
    /// How many calls an hour the provider takes, if it says so in `RateLimit-Limit`.
    pub calls_an_hour: Option<u64>,
    /// Body, complete.
    pub body: Vec<u8>,
}

impl Reply {
    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The client of one provider.
#[derive(Clone)]
pub struct Http {
    provider: &'static str,
    client: reqwest::Client,
    whole: Duration,
}

impl Http {
    /// Through the proxies of the environment.
    pub fn new(provider: &'static str) -> Result<Http, CloudError> {
        let roots = roots();
        if roots.is_empty() {
            let message = "this machine has no certificates of authorities";
            return Err(CloudError::new(provider, "open", Class::Invalid, message)
                .with_remedy("install the package ca-certificates, or set SSL_CERT_FILE"));
        }
        Self::with(provider, WHOLE, roots, reqwest::Client::builder())
    }

    /// Past all proxies: for what is on this machine, or only to be reached from it.
    pub fn direct(provider: &'static str, whole: Duration) -> Result<Http, CloudError> {
        let builder = reqwest::Client::builder().no_proxy();
        Self::with(provider, whole, roots(), builder)
    }

    fn with(
        provider: &'static str,
        whole: Duration,
        roots: RootCertStore,
        builder: reqwest::ClientBuilder,
    ) -> Result<Http, CloudError> {
        let unusable = |message: String| CloudError::new(provider, "open", Class::Invalid, message);
        let tls = tls(roots).map_err(|error| unusable(error.to_string()))?;
        let client = builder
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(whole)
            .user_agent(concat!("firelane/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unusable(told(&error)))?;
        Ok(Http {
            provider,
            client,
            whole,
        })
    }

    /// Sends one request and reads its answer. An error may have had an effect unless no connection
    /// came about.
    pub async fn send(&self, call: &str, request: Request) -> Result<Reply, CloudError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let begun = Instant::now();
        let outcome = self.exchange(call, request).await;
        let elapsed = begun.elapsed();
        match &outcome {
            Ok(reply) => tracing::debug!(
                provider = self.provider,
                call,
                host,
                status = reply.status,
                ?elapsed,
                "answered"
            ),
            Err(error) => {
                tracing::debug!(provider = self.provider, call, host, %error, ?elapsed, "no answer");
            }
        }
        outcome
    }

    async fn exchange(&self, call: &str, request: Request) -> Result<Reply, CloudError> {
        let lost = |error: &reqwest::Error| {
            let message = if error.is_timeout() {
                format!("no answer within {} s", self.whole.as_secs())
            } else {
                told(error)
            };
            let lost = CloudError::new(self.provider, call, Class::Transient, message);
            if error.is_connect() || error.is_builder() {
                lost
            } else {
                lost.with_unknown_effect()
            }
        };
        let headers: HeaderMap = request.headers.into_iter().collect();
        let mut response = self
            .client
            .request(request.method, request.url)
            .headers(headers)
            .body(request.body)
            .send()
            .await
            .map_err(|error| lost(&error))?;
        let number = |name: &HeaderName| {
            let value = response.headers().get(name)?;
            value.to_str().ok()?.trim().parse().ok()
        };
        let retry_after = number(&RETRY_AFTER).map(Duration::from_secs);
        let calls_an_hour = number(&HeaderName::from_static("ratelimit-limit"));
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| lost(&error))? {
            if body.len() + piece.len() > MOST_BYTES {
                let message = format!("an answer of more than {MOST_BYTES} bytes");
                return Err(
                    CloudError::new(self.provider, call, Class::Invalid, message)
                        .with_unknown_effect(),
                );
            }
            body.extend_from_slice(&piece);
        }
        Ok(Reply {
            status,
            retry_after,
            calls_an_hour,
            body,
        })
    }
}

/// The authorities that this machine believes.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // What is wrong with single certificates of the host is the host's matter.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// TLS with the provider of cryptography that the rest of Firelane has.
fn tls(roots: RootCertStore) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// An error with its causes. The address is left out: it may hold what is secret.
fn told(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if causes.is_empty() {
        "the request could not be sent".to_owned()
    } else {
        causes.join(": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Effect;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in [
            "https://ec2.us-east-1.amazonaws.com",
            "http://127.0.0.1:5000",
            "http://[::1]:1/x",
            "http://localhost",
        ] {
            Endpoint::parse(good).unwrap();
        }
        for (bad, expected) in [
            ("x", "\"x\" is no URL"),
            ("mailto:a@b", "\"mailto:a@b\" is no URL"),
            (
                "http://192.0.2.1",
                "\"http://192.0.2.1\" has to begin with https://; http:// is for 127.0.0.1, [::1] and localhost only",
            ),
            (
                "http://localhost.example.com",
                "\"http://localhost.example.com\" has to begin with https://; http:// is for 127.0.0.1, [::1] and localhost only",
            ),
            (
                "https://me:secret@example.com",
                "\"example.com\" has a user name, a query or a fragment, which an endpoint has not",
            ),
        ] {
            assert_eq!(Endpoint::parse(bad).unwrap_err().to_string(), expected);
        }
    }

    /// Answers one request with these bytes, and ends the connection.
    async fn answering(bytes: Vec<u8>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await.unwrap();
            // A client that has heard enough hangs up.
            let _ = stream.write_all(&bytes).await;
        });
        format!("http://127.0.0.1:{port}/").parse().unwrap()
    }

    async fn asked(url: Url) -> Result<Reply, CloudError> {
        let http = Http::direct("test", Duration::from_secs(30)).unwrap();
        let request = Request {
            method: Method::POST,
            url,
            headers: Vec::new(),
            body: b"secret".to_vec(),
        };
        http.send("Ask", request).await
    }

    #[tokio::test]
    async fn what_was_not_sent_had_no_effect_and_what_was_lost_may_have_had_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let nobody = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let error = asked(nobody).await.err().unwrap();
        assert_eq!(
            (error.class, error.effect),
            (Class::Transient, Effect::None)
        );

        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec();
        let error = asked(answering(cut).await).await.err().unwrap();
        assert_eq!(
            (error.class, error.effect),
            (Class::Transient, Effect::Unknown)
        );
        let error = asked(answering(Vec::new()).await).await.err().unwrap();
        assert_eq!(
            (error.class, error.effect),
            (Class::Transient, Effect::Unknown)
        );
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_a_wish_to_be_left_alone_is_heard() {
        let there = b"HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:1/\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno";
        let reply = asked(answering(there.to_vec()).await).await.unwrap();
        assert_eq!((reply.status, reply.is_success()), (307, false));
        assert_eq!(reply.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(reply.body, b"no");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let mut much = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        much.resize(MOST_BYTES + 4096, b'x');
        let error = asked(answering(much).await).await.err().unwrap();
        assert_eq!(error.class, Class::Invalid);
        assert!(error.message.contains("8388608"), "{error}");
    }

    /// Answers over TLS, as `localhost`, with a certificate that nobody vouches for but itself.
    async fn secure() -> (Url, RootCertStore) {
        let name = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(name).unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not believe us hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        });
        (format!("https://localhost:{port}/").parse().unwrap(), roots)
    }

    #[tokio::test]
    async fn who_is_not_vouched_for_is_sent_nothing() {
        let (url, roots) = secure().await;
        let asked = async |roots| {
            let builder = reqwest::Client::builder().no_proxy();
            let http = Http::with("test", Duration::from_secs(30), roots, builder).unwrap();
            let request = Request {
                method: Method::POST,
                url: url.clone(),
                headers: Vec::new(),
                body: b"secret".to_vec(),
            };
            http.send("Ask", request).await
        };
        assert_eq!(asked(roots).await.unwrap().body, b"ok");
        let error = asked(super::roots()).await.err().unwrap();
        assert!(error.message.contains("certificate"), "{error}");
        assert_eq!(error.effect, Effect::None, "{error}");
    }
}
