//! The client against answers that make no sense, and tokens that are none.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::answers::{Location, Made};
use super::client::{CREATE_SERVER, Client, LOCATIONS};
use super::open;
use crate::error::{Class, CloudError, Effect};
use crate::http::Endpoint;
use crate::settings::Settings;

/// A client of a listener that answers each request with this.
async fn client(status: u16, body: &str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 8192];
            let _ = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let endpoint = Endpoint::parse(&address).unwrap();
    Client::new(Some(&endpoint), Some("hush")).unwrap()
}

async fn failed(status: u16, body: &str) -> CloudError {
    let client = client(status, body).await;
    let body = serde_json::json!({});
    let made = client.call::<Made>(CREATE_SERVER, None, Some(&body)).await;
    made.err().unwrap()
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_may_have_had_an_effect() {
    for body in ["", "Welcome", "<html/>", "{}", r#"{"server":{"id":1}}"#] {
        let error = failed(201, body).await;
        let expected = (Class::Transient, Effect::Unknown);
        assert_eq!((error.class, error.effect), expected, "{body}");
        assert_eq!(&*error.call, "POST /servers");
    }
    let client = client(200, "<html/>").await;
    let error = client.list::<Location>(LOCATIONS, &[]).await.err().unwrap();
    let expected = (Class::Transient, Effect::None);
    assert_eq!((error.class, error.effect), expected);
}

#[tokio::test]
async fn a_list_that_has_no_end_is_given_up() {
    let page = |next: &str| {
        format!(r#"{{"locations":[],"meta":{{"pagination":{{"next_page":{next}}}}}}}"#)
    };
    let asked = async |body: String| {
        let client = client(200, &body).await;
        client.list::<Location>(LOCATIONS, &[]).await
    };
    assert_eq!(asked(page("null")).await.unwrap().len(), 0);
    let error = asked(page("2")).await.err().unwrap();
    assert!(error.message.contains("an earlier one"), "{error}");
}

#[tokio::test]
async fn without_a_token_nobody_is_asked_and_a_wrong_one_is_not_repeated() {
    let provider = |token: &str| {
        let variables = [
            ("HCLOUD_TOKEN", token),
            // Nobody listens there.
            ("FIRELANE_HETZNER_ENDPOINT", "http://127.0.0.1:1/v1"),
        ];
        let variables: BTreeMap<_, _> = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        open(&Settings {
            variables,
            state: "/nonexistent".into(),
        })
    };
    let error = provider("").unwrap().default_region().await.unwrap_err();
    let unset = (Class::NoCredentials, Effect::None);
    assert_eq!((error.class, error.effect), unset);
    assert_eq!(
        error.to_string(),
        "hetzner: GET /locations: HCLOUD_TOKEN is not set"
    );
    assert!(error.remedy.unwrap().contains("Read & Write"));
    for bad in ["hush hush", "hush\nhush", "hush:"] {
        let error = provider(bad).err().unwrap();
        assert_eq!(error.class, Class::Auth);
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    let error = provider("hush")
        .unwrap()
        .default_region()
        .await
        .unwrap_err();
    assert_eq!(error.class, Class::Transient, "{error}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}
