//! The role of the instance that this runs on, by its metadata service, version 2.
//!
//! "Use the Instance Metadata Service to access instance metadata" (EC2 user guide): a token by
//! PUT, then the name of the role, then its credentials.

use std::time::Duration;

use aws_credential_types::Credentials;
use reqwest::header::{HeaderName, HeaderValue};

use super::process::Written;
use super::{NAME, failed};
use crate::error::CloudError;
use crate::http::{Http, Method, Reply, Request, Url};
use crate::settings::Settings;

const ADDRESS: &str = "http://169.254.169.254/";
/// It is on the machine itself: it answers at once, or there is none.
const PATIENCE: Duration = Duration::from_secs(2);
const ROLES: &str = "latest/meta-data/iam/security-credentials/";

/// None: this is no instance, or it has no role.
pub(super) async fn of_instance(settings: &Settings) -> Result<Option<Credentials>, CloudError> {
    let off = settings.variable("AWS_EC2_METADATA_DISABLED");
    if off.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let address = settings
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        .unwrap_or(ADDRESS);
    let Ok(base) = address.parse::<Url>() else {
        let message = "AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL";
        return Err(failed(message));
    };
    let http = Http::direct(NAME, PATIENCE)?;
    let seconds = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
    let seconds = (seconds, HeaderValue::from_static("60"));
    let token = match ask(&http, &base, Method::PUT, "latest/api/token", seconds).await {
        Ok(reply) if reply.is_success() => reply.body,
        // Elsewhere nobody has this address, or somebody who knows nothing of it.
        Ok(_) | Err(_) => return Ok(None),
    };
    let Ok(mut token) = HeaderValue::from_bytes(&token) else {
        return Ok(None);
    };
    token.set_sensitive(true);
    let token = (HeaderName::from_static("x-aws-ec2-metadata-token"), token);
    let roles = ask(&http, &base, Method::GET, ROLES, token.clone()).await?;
    let names = String::from_utf8_lossy(&roles.body).into_owned();
    let Some(name) = names.lines().next().filter(|_| roles.is_success()) else {
        return Ok(None);
    };
    let path = format!("{ROLES}{name}");
    let reply = ask(&http, &base, Method::GET, &path, token).await?;
    let written: Written = serde_json::from_slice(&reply.body)
        .map_err(|_| failed("the metadata of this instance has no credentials of its role"))?;
    written
        .credentials("the metadata of this instance")
        .map(Some)
}

async fn ask(
    http: &Http,
    base: &Url,
    method: Method,
    path: &str,
    header: (HeaderName, HeaderValue),
) -> Result<Reply, CloudError> {
    let url = base
        .join(path)
        .map_err(|_| failed("the metadata of this instance names a role that is no path"))?;
    let request = Request {
        method,
        url,
        headers: vec![header],
        body: Vec::new(),
    };
    http.send("instance metadata", request).await
}
