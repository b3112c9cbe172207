//! From where SSH may come: what was said, or the address that this machine has for AWS.

use std::net::IpAddr;

use super::NAME;
use super::client::Client;
use super::rules;
use crate::error::{Class, CloudError, Effect};
use crate::machine::Spec;

/// AWS's service that tells who asks, and nothing else.
pub(super) const CHECK_IP: &str = "https://checkip.amazonaws.com/";
const CALL: &str = "checkip";

/// Networks as EC2 writes them.
pub(super) async fn find(client: &Client, spec: &Spec) -> Result<Vec<String>, CloudError> {
    if !spec.ssh_from.is_empty() {
        return rules::networks(&spec.ssh_from);
    }
    let failed = |class, message: String| {
        CloudError::new(NAME, CALL, class, message)
            .with_remedy("name it by --ssh-from, for example 198.51.100.7/32")
    };
    let reply = client.own_address(CALL).await.map_err(|lost| {
        let error = failed(
            lost.class,
            format!("this machine's address is not known: {}", lost.message),
        );
        CloudError {
            effect: Effect::None,
            ..error
        }
    })?;
    let text = String::from_utf8_lossy(&reply.body);
    let address: Option<IpAddr> = text.trim().parse().ok().filter(|_| reply.is_success());
    let length = match address {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
        None => {
            let message = "AWS did not tell which address this machine has";
            return Err(failed(Class::Invalid, message.to_owned()));
        }
    };
    rules::networks(&[format!("{}/{length}", text.trim())])
}
