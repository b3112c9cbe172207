//! Credentials from each place, and what is told where there are none.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn chain(home: &Path, more: &[(&str, &str)]) -> Chain {
    let variables: BTreeMap<String, String> = [
        ("HOME", home.to_str().unwrap()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .iter()
    .chain(more)
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    let state = home.to_owned();
    Chain::new(Settings { variables, state })
}

async fn key(chain: &Chain) -> Result<String, String> {
    match chain.get().await {
        Ok(found) => Ok(format!(
            "{} {} {}",
            found.access_key_id(),
            found.secret_access_key(),
            found.session_token().unwrap_or("-")
        )),
        Err(error) => {
            let unset = error.message.starts_with("no credentials: ");
            let class = if unset {
                Class::NoCredentials
            } else {
                Class::Auth
            };
            assert_eq!(error.class, class, "{error}");
            Err(error.message.into())
        }
    }
}

#[tokio::test]
async fn the_environment_comes_first_and_half_of_it_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let file = "[default]\naws_access_key_id = F\naws_secret_access_key=S\n";
    fs::write(home.path().join(".aws/credentials"), file).unwrap();
    let check = async |more: &[(&str, &str)], expected: Result<&str, &str>| {
        let found = key(&chain(home.path(), more)).await;
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    };
    check(&[], Ok("F S -")).await;
    let id = ("AWS_ACCESS_KEY_ID", "E");
    let secret = ("AWS_SECRET_ACCESS_KEY", "T");
    check(&[id, secret], Ok("E T -")).await;
    check(&[id, secret, ("AWS_SESSION_TOKEN", "U")], Ok("E T U")).await;
    check(
        &[id],
        Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"),
    )
    .await;
}

#[tokio::test]
async fn a_profile_is_read_from_both_files() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".aws");
    fs::create_dir(&folder).unwrap();
    let config = "# mine\n[default]\nregion = eu-west-1\n\n[profile work]\nregion=eu-central-1\ns3 =\n  aws_access_key_id = no\n\
                  credential_process = printf '{\"Version\":1,\"AccessKeyId\":\"P\",\"SecretAccessKey\":\"Q\",\"SessionToken\":\"R\",\"Expiration\":\"2999-01-01T00:00:00Z\"}'\n\
                  [profile old]\ncredential_process = printf '{\"Version\":1,\"AccessKeyId\":\"P\",\"SecretAccessKey\":\"Q\",\"Expiration\":\"2001-01-01T00:00:00Z\"}'\n\
                  [profile broken]\ncredential_process = echo hush; echo went wrong >&2; exit 3\n\
                  [profile talk]\ncredential_process = echo hush\n\
                  [profile sso]\nsso_session = corp\n[work]\naws_access_key_id = wrong\n";
    fs::write(folder.join("config"), config).unwrap();
    fs::write(
        folder.join("credentials"),
        "[half]\naws_access_key_id = H\n",
    )
    .unwrap();
    let of = async |name: &str| key(&chain(home.path(), &[("AWS_PROFILE", name)])).await;
    assert_eq!(of("work").await.unwrap(), "P Q R");
    let told = async |name: &str, expected: &str| {
        let error = of(name).await.unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(!error.contains("hush"), "{name}: {error}");
    };
    told("old", "have expired").await;
    told("broken", "exit status: 3): went wrong").await;
    told("talk", "did not write JSON").await;
    told("half", "one of access key and secret").await;
    told("sso", "has sso_session, which needs a log-in").await;
    told("none", "there is no profile \"none\" in ").await;
    told("default", "the profile \"default\" has no credentials").await;
    let settings = chain(home.path(), &[("AWS_PROFILE", "work")]).settings;
    let profile = Profile::read(&settings).unwrap().unwrap();
    assert_eq!(profile.region(), Some("eu-central-1"));
}

#[tokio::test]
async fn where_there_are_none_all_places_are_named() {
    let home = tempfile::tempdir().unwrap();
    let error = chain(home.path(), &[]).get().await.unwrap_err();
    assert!(error.message.contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert!(error.message.contains(".aws/config"), "{error}");
    assert!(error.remedy.unwrap().contains("aws configure"));
}

/// A metadata service that hands out one role's credentials to who has its token.
async fn metadata() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 2048];
            let read = stream.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..read]).to_lowercase();
            let knows = asked.contains("x-aws-ec2-metadata-token: tok");
            let body = match asked.split(' ').nth(1).unwrap() {
                "/latest/api/token" if asked.starts_with("put") => "tok",
                "/latest/meta-data/iam/security-credentials/" if knows => "builder\n",
                "/latest/meta-data/iam/security-credentials/builder" if knows => {
                    r#"{"Code":"Success","AccessKeyId":"I","SecretAccessKey":"J","Token":"K","Expiration":"2999-01-01T00:00:00Z"}"#
                }
                _ => "",
            };
            let status = if body.is_empty() { "404 No" } else { "200 OK" };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn the_role_of_an_instance_is_used_last() {
    let home = tempfile::tempdir().unwrap();
    let address = metadata().await;
    let more = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str()),
    ];
    assert_eq!(key(&chain(home.path(), &more)).await.unwrap(), "I J K");
}
