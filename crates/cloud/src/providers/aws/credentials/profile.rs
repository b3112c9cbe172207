//! Profiles: `~/.aws/credentials` and `~/.aws/config`.
//!
//! The form is that of "Configuration and credential file settings" (AWS SDKs and Tools reference):
//! sections in brackets, `name = value`, comments after `#` or `;` at the beginning of a line.
//! Sections of `config` are `[default]` and `[profile NAME]`, those of `credentials` `[NAME]`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;

use super::{failed, process};
use crate::error::CloudError;
use crate::settings::Settings;

/// Largest file that is read.
const MOST_BYTES: u64 = 1 << 20;
/// What hands out credentials of any profile that the AWS command line can use.
const EXPORT: &str = "aws configure export-credentials";

/// What both files say of one profile; `credentials` comes first.
pub(in super::super) struct Profile {
    name: String,
    values: BTreeMap<String, String>,
}

impl Profile {
    /// The profile that is meant: `AWS_PROFILE`, or `default`. None: neither file has it.
    pub(in super::super) fn read(settings: &Settings) -> Result<Option<Profile>, CloudError> {
        let name = settings.variable("AWS_PROFILE").unwrap_or("default");
        let mut values = BTreeMap::new();
        let mut found = false;
        for (path, is_config) in paths(settings).into_iter().zip([false, true]) {
            let Some(text) = text(&path)? else { continue };
            for (section, name_of, value) in lines(&text) {
                let section = match (is_config, section) {
                    (true, "default") | (false, _) => section,
                    (true, _) => match section.strip_prefix("profile ") {
                        Some(section) => section.trim(),
                        None => continue,
                    },
                };
                if section == name {
                    found = true;
                    values
                        .entry(name_of.to_owned())
                        .or_insert_with(|| value.to_owned());
                }
            }
        }
        let name = name.to_owned();
        Ok(found.then_some(Profile { name, values }))
    }

    /// Both files, for messages.
    pub(super) fn files(settings: &Settings) -> String {
        let paths = paths(settings);
        let shown: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        shown.join(" and ")
    }

    /// Its region.
    pub(in super::super) fn region(&self) -> Option<&str> {
        self.value("region")
    }

    /// Its credentials.
    pub(super) async fn credentials(&self) -> Result<Credentials, CloudError> {
        let name = &self.name;
        let key = self.value("aws_access_key_id");
        let secret = self.value("aws_secret_access_key");
        match (key, secret) {
            (Some(key), Some(secret)) => {
                let token = self.value("aws_session_token").map(str::to_owned);
                return Ok(Credentials::new(key, secret, token, None, "profile"));
            }
            (None, None) => {}
            _ => {
                let message = format!(
                    "the profile {name:?} has one of access key and secret, and not the other"
                );
                return Err(failed(message).with_remedy("run `aws configure`"));
            }
        }
        if let Some(command) = self.value("credential_process") {
            return process::credentials(command).await;
        }
        let needs = [
            "sso_session",
            "sso_start_url",
            "role_arn",
            "web_identity_token_file",
            "login_session",
        ]
        .into_iter()
        .find(|needed| self.value(needed).is_some());
        let message = match needs {
            Some(needed) => format!(
                "the profile {name:?} has {needed}, which needs a log-in by the AWS command line"
            ),
            None => format!("the profile {name:?} has no credentials"),
        };
        Err(failed(message).with_remedy(format!(
            "run `eval \"$({EXPORT} --profile {name} --format env)\"`, or make a profile with `credential_process = {EXPORT} --profile {name}`"
        )))
    }

    fn value(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name)?;
        (!value.is_empty()).then_some(value.as_str())
    }
}

/// `credentials`, then `config`.
fn paths(settings: &Settings) -> [PathBuf; 2] {
    let home = Path::new(settings.variable("HOME").unwrap_or("/")).join(".aws");
    let of = |variable, name| {
        settings
            .variable(variable)
            .map_or_else(|| home.join(name), PathBuf::from)
    };
    [
        of("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        of("AWS_CONFIG_FILE", "config"),
    ]
}

/// None: there is no such file.
fn text(path: &Path) -> Result<Option<String>, CloudError> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(file) if file.len() > MOST_BYTES => {
            let message = format!("{shown} has more than {MOST_BYTES} bytes");
            return Err(failed(message));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("cannot read {shown}: {error}"))),
    }
    fs::read_to_string(path)
        .map(Some)
        .map_err(|error| failed(format!("cannot read {shown}: {error}")))
}

/// Section, name and value of each line that has one. A section without any counts as one with a
/// value that has no name. What is indented belongs to the value above, and is of no use here.
fn lines(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        if line.starts_with(['#', ';', ' ', '\t']) {
            return None;
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix('[') {
            section = rest.split(']').next().unwrap_or_default().trim();
            return Some((section, "", ""));
        }
        let (name, value) = line.split_once('=')?;
        Some((section, name.trim(), value.trim()))
    })
}
