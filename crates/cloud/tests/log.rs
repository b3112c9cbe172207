//! What providers log. A test by itself: whether anything is logged is a matter of the whole process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use firelane_cloud::registry::{self, Settings};
use firelane_cloud::{Class, Handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Everything that is logged, by whomever.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().expect("nobody panicked");
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_however_much_is_asked_for() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 8192];
        let read = stream.read(&mut asked).await.unwrap();
        let body =
            "<TerminateInstancesResponse><note>hush-reply</note></TerminateInstancesResponse>";
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-note: hush-header\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    let variables = [
        ("FIRELANE_AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hush-secret"),
        ("AWS_SESSION_TOKEN", "hush-token"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings {
        variables: BTreeMap::from(variables),
        state: "/nonexistent".into(),
    };
    assert!(!format!("{settings:?}").contains("hush"));
    let aws = registry::open("aws", &settings).unwrap();
    let handle = Handle {
        provider: "aws".to_owned(),
        region: "us-east-1".to_owned(),
        id: "hush-body".to_owned(),
    };
    let error = aws.delete(&handle).await.unwrap_err();
    assert_eq!(
        error.class,
        Class::Transient,
        "the answer names no machine: {error}"
    );

    let sent = heard.await.unwrap();
    for sent_only in ["hush-token", "hush-body", "Signature="] {
        assert!(sent.contains(sent_only), "{sent}");
    }
    assert!(!sent.contains("hush-secret"));
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line =
        "answered provider=\"aws\" call=\"TerminateInstances\" host=\"127.0.0.1\" status=200";
    assert!(logged.contains(line), "{logged}");
    assert!(!logged.contains("hush"), "{logged}");
}
