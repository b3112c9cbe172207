//! Calls against a listener of ours that says one thing.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::client::{Client, DESCRIBE_INSTANCES, RUN_INSTANCES, check_region};
use super::credentials::Chain;
use super::params::Params;
use crate::error::{Class, CloudError, Effect};
use crate::http::Endpoint;
use crate::settings::Settings;

/// A client of a listener that answers each request with this.
async fn client(status: u16, body: &str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
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
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hush-secret"),
        ("AWS_SESSION_TOKEN", "hush-token"),
    ];
    let variables: BTreeMap<_, _> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let settings = Settings {
        variables,
        state: "/nonexistent".into(),
    };
    assert!(!format!("{settings:?}").contains("hush"));
    let endpoint = Endpoint::parse(&address).unwrap();
    Client::new(Some(endpoint), Chain::new(settings)).unwrap()
}

async fn failed(status: u16, body: &str) -> CloudError {
    let client = client(status, body).await;
    let ran = client
        .call("us-east-1", RUN_INSTANCES, &Params::new())
        .await;
    ran.unwrap_err()
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_may_have_had_an_effect() {
    for body in [
        "",
        "Welcome",
        "<html/>",
        "<RunInstancesResponse>",
        "<DescribeInstancesResponse/>",
    ] {
        let error = failed(200, body).await;
        assert_eq!(
            (error.class, error.effect),
            (Class::Transient, Effect::Unknown),
            "{body}"
        );
        assert_eq!(&*error.call, "RunInstances");
    }
    let client = client(200, "<html/>").await;
    let error = client
        .call("us-east-1", DESCRIBE_INSTANCES, &Params::new())
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (Class::Transient, Effect::None)
    );
}

#[tokio::test]
async fn a_list_that_has_no_end_is_given_up() {
    let page = "<DescribeInstancesResponse><nextToken>more</nextToken></DescribeInstancesResponse>";
    let client = client(200, page).await;
    let error = client
        .pages("us-east-1", DESCRIBE_INSTANCES, &Params::new())
        .await
        .unwrap_err();
    assert!(error.message.contains("200 pages"), "{error}");
}

#[test]
fn a_region_is_part_of_a_host_name_and_nothing_else() {
    for good in ["us-east-1", "eu-central-2", "ap-southeast-7"] {
        check_region(good).unwrap();
    }
    for bad in [
        "",
        "us",
        "us-east",
        "us-gov-west-1",
        "cn-north-1",
        "us-east-1.evil.example",
        "us-east-1/",
        "US-EAST-1",
        "a-b-c@d",
        "--",
        "us-east-1 ",
    ] {
        let error = check_region(bad).unwrap_err();
        assert_eq!(error.class, Class::Invalid, "{bad}");
    }
}
