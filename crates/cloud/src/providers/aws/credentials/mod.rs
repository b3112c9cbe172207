//! Where credentials come from, in the order of the tools of AWS: the environment, a profile in
//! `~/.aws`, the metadata of the instance that this runs on.
//!
//! | File | Holds |
//! | --- | --- |
//! | `profile.rs` | the files of profiles |
//! | `process.rs` | `credential_process` of a profile, and the JSON that it writes |
//! | `metadata.rs` | the role of an instance |
//!
//! What needs a log-in of its own (SSO, roles that are assumed, web identity) is the business of
//! the AWS command line, which hands out what it got: the remedy says how.
//! docs/decisions/0013-credentials-of-aws.md says why.

mod metadata;
mod process;
mod profile;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;

use super::NAME;
use crate::error::{Class, CloudError};
use crate::settings::Settings;
pub(super) use profile::Profile;

/// Credentials are renewed that long before they expire.
const AHEAD: Duration = Duration::from_secs(300);

/// Finds credentials, and keeps them until they expire.
pub(super) struct Chain {
    settings: Settings,
    kept: Mutex<Option<Credentials>>,
}

impl Chain {
    /// Asks nobody yet.
    pub(super) fn new(settings: Settings) -> Chain {
        let kept = Mutex::new(None);
        Chain { settings, kept }
    }

    /// Credentials that can be used now.
    pub(super) async fn get(&self) -> Result<Credentials, CloudError> {
        if let Some(credentials) = self.kept() {
            return Ok(credentials);
        }
        let found = self.find().await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(found.clone());
        Ok(found)
    }

    fn kept(&self) -> Option<Credentials> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = kept.as_ref()?;
        let until = credentials.expiry();
        let lasts = until.is_none_or(|until| SystemTime::now() + AHEAD < until);
        lasts.then(|| credentials.clone())
    }

    async fn find(&self) -> Result<Credentials, CloudError> {
        if let Some(credentials) = from_environment(&self.settings)? {
            return Ok(credentials);
        }
        match Profile::read(&self.settings)? {
            Some(profile) => return profile.credentials().await,
            None if self.settings.variable("AWS_PROFILE").is_some() => {
                let name = self.settings.variable("AWS_PROFILE").unwrap_or_default();
                let files = Profile::files(&self.settings);
                let message = format!("there is no profile {name:?} in {files}");
                return Err(failed(message).with_remedy(
                    "set AWS_PROFILE to one that `aws configure list-profiles` shows",
                ));
            }
            None => {}
        }
        if let Some(credentials) = metadata::of_instance(&self.settings).await? {
            return Ok(credentials);
        }
        let files = Profile::files(&self.settings);
        let message = format!(
            "no credentials: AWS_ACCESS_KEY_ID is not set, there is no profile in {files}, and this is no instance with a role"
        );
        Err(CloudError::new(NAME, "credentials", Class::NoCredentials, message)
        .with_remedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`: docs/providers/aws.md"))
    }
}

/// A key without its secret is a mistake, and nothing else is looked at then.
fn from_environment(settings: &Settings) -> Result<Option<Credentials>, CloudError> {
    let of = |name| settings.variable(name).map(str::to_owned);
    let half = |has: &str, lacks: &str| {
        Err(failed(format!("{has} is set and {lacks} is not")).with_remedy(format!("set {lacks}")))
    };
    match (of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => {
            let token = of("AWS_SESSION_TOKEN");
            Ok(Some(Credentials::new(
                key,
                secret,
                token,
                None,
                "environment",
            )))
        }
        (Some(_), None) => half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        (None, Some(_)) => half("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        (None, None) => Ok(None),
    }
}

/// There are none. Nothing was asked for with them.
fn failed(message: impl AsRef<str>) -> CloudError {
    CloudError::new(NAME, "credentials", Class::Auth, message)
}

#[cfg(test)]
mod tests;
