//! `credential_process`: a program that writes credentials.
//!
//! Its output is that of "Process credential provider" (AWS SDKs and Tools reference), version 1.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use serde::Deserialize;
use tokio::process::Command;

use super::failed;
use crate::error::CloudError;

/// It may ask its user for a second factor.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the program writes, and what the metadata of an instance says. Fields that are not named
/// here are of no use.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Written {
    version: Option<u32>,
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "Token")]
    session_token: Option<String>,
    expiration: Option<String>,
}

impl Written {
    /// As credentials, if the time of their end can be read.
    pub(super) fn credentials(self, source: &'static str) -> Result<Credentials, CloudError> {
        let expiry = match &self.expiration {
            None => None,
            Some(text) => {
                let end: jiff::Timestamp = text
                    .parse()
                    .map_err(|_| failed(format!("{source} gave an expiration that is no time")))?;
                let end = SystemTime::from(end);
                if end <= SystemTime::now() {
                    return Err(
                        failed(format!("{source} gave credentials that have expired"))
                            .with_remedy("log in again, for example by `aws sso login`"),
                    );
                }
                Some(end)
            }
        };
        let Self {
            access_key_id: key,
            secret_access_key: secret,
            session_token: token,
            ..
        } = self;
        Ok(Credentials::new(key, secret, token, expiry, source))
    }
}

/// Runs it in a shell, as the AWS command line does.
pub(super) async fn credentials(command: &str) -> Result<Credentials, CloudError> {
    let program = command.split_whitespace().next().unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .map_err(|_| {
            let s = PATIENCE.as_secs();
            failed(format!(
                "the credential_process {program:?} wrote nothing within {s} s"
            ))
        })?
        .map_err(|error| failed(format!("cannot start the credential_process: {error}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        let last = stderr.trim().lines().next_back().unwrap_or_default();
        let message = format!("the credential_process {program:?} failed ({status}): {last}");
        return Err(failed(message));
    }
    // What it wrote is secret: no error has any of it.
    let written: Written = serde_json::from_slice(&output.stdout).map_err(|_| {
        failed(format!(
            "the credential_process {program:?} did not write JSON with AccessKeyId and SecretAccessKey"
        ))
    })?;
    if written.version != Some(1) {
        let message = format!("the credential_process {program:?} did not write version 1");
        return Err(failed(message));
    }
    written.credentials("credential_process")
}
