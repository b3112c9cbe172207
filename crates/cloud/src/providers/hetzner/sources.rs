//! From where SSH may come: what was said, or the address that this machine has for Hetzner.

use std::net::IpAddr;

use super::NAME;
use super::client::Client;
use crate::error::{Class, CloudError, Effect};
use crate::machine::Spec;
use crate::networks::network;

const CALL: &str = "ip.hetzner.com";

/// Networks in CIDR notation, without doubles.
pub(super) async fn find(client: &Client, spec: &Spec) -> Result<Vec<String>, CloudError> {
    if spec.ssh_from.is_empty() {
        return own(client).await.map(|network| vec![network]);
    }
    let mut networks = Vec::new();
    for text in &spec.ssh_from {
        let network = network(text)
            .map_err(|why| failed(Class::Invalid, format!("SSH from {text:?}: {why}")))?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

fn failed(class: Class, message: impl AsRef<str>) -> CloudError {
    CloudError::new(NAME, CALL, class, message)
        .with_remedy("name it by --ssh-from, for example 198.51.100.7/32")
}

async fn own(client: &Client) -> Result<String, CloudError> {
    let reply = client.own_address(CALL).await.map_err(|lost| {
        let message = format!("this machine's address is not known: {}", lost.message);
        CloudError {
            effect: Effect::None,
            ..failed(lost.class, message)
        }
    })?;
    let text = String::from_utf8_lossy(&reply.body);
    let text = text.trim();
    let address: Option<IpAddr> = text.parse().ok().filter(|_| reply.is_success());
    let length = match address {
        Some(IpAddr::V4(_)) => 32,
        // It tells the network only.
        Some(IpAddr::V6(_)) => 64,
        None => {
            let message = "Hetzner did not tell which address this machine has";
            return Err(failed(Class::Invalid, message));
        }
    };
    network(&format!("{text}/{length}")).map_err(|why| failed(Class::Invalid, why))
}
