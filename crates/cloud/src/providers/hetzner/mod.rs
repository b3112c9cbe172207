//! Hetzner Cloud: virtual machines without KVM, by its API (version 1), with requests of our own.
//!
//! A machine is one server with the disk of its type, a firewall and a key of its own. All three have
//! the marker in the request that makes them, and a name made of the lane's id: a project has each name
//! once, so one lane has one server. Nothing there ends by time, and a server that is off is paid for all
//! the same: lanes end by `firelane down` and `firelane reap`.
//!
//! | File | Holds |
//! | --- | --- |
//! | `client.rs`, `answers.rs`, `errors.rs` | one call: request, answer, refusal |
//! | `actions.rs` | what goes on after an answer |
//! | `kinds.rs`, `lookups.rs`, `price.rs` | what is looked up before |
//! | `beside.rs`, `sources.rs` | firewall and key, and who is let in |
//! | `servers.rs` | machines |
//! | `create.rs`, `preflight.rs` | what is put together of those |
//!
//! docs/providers/hetzner.md is for those who use it.

mod actions;
mod answers;
mod beside;
mod client;
#[cfg(test)]
mod client_tests;
mod create;
mod errors;
mod kinds;
mod lookups;
mod preflight;
mod price;
mod servers;
mod sources;

use std::time::Duration;

use async_trait::async_trait;

use self::client::{Client, SERVERS};
use crate::error::{Class, CloudError};
use crate::http::Endpoint;
use crate::machine::{Handle, Machine, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept, UserData};
use crate::settings::Settings;

/// As typed after `--provider`.
pub(crate) const NAME: &str = "hetzner";
/// Another address for the API, for tests.
const ENDPOINT: &str = "FIRELANE_HETZNER_ENDPOINT";
/// Most bytes of user-data (API reference, "Create a Server": "This field is limited to 32KiB").
const MOST_USER_DATA: usize = 32 << 10;

/// The provider.
pub(crate) struct Hetzner {
    client: Client,
}

/// Makes it, and asks nobody.
pub(crate) fn open(settings: &Settings) -> Result<Box<dyn Provider>, CloudError> {
    let endpoint = settings
        .variable(ENDPOINT)
        .map(Endpoint::parse)
        .transpose()
        .map_err(|error| {
            let message = format!("{ENDPOINT}: {error}");
            CloudError::new(NAME, "open", Class::Invalid, message)
        })?;
    let client = Client::new(endpoint.as_ref(), settings.variable(client::TOKEN))?;
    Ok(Box::new(Hetzner { client }))
}

/// The server's number in a handle of ours.
fn id_of(handle: &Handle) -> Result<u64, CloudError> {
    let refused = |message| Err(SERVERS.error(Class::Invalid, message));
    if handle.provider != NAME {
        return refused(format!("{handle} is not of {NAME}"));
    }
    let Ok(id) = handle.id.parse() else {
        return refused(format!("{:?} is no number of a server", handle.id));
    };
    Ok(id)
}

#[async_trait]
impl Provider for Hetzner {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: false,
            user_data: Some(UserData {
                most_bytes: MOST_USER_DATA,
                gzip: false,
                templated: false,
            }),
            makes_machines: true,
            lists: true,
            // What was answered is told to everybody at once.
            tells_late: Duration::ZERO,
            native_ttl: false,
            // A server that is off keeps its place, and is paid for.
            shutdown_ends_billing: false,
            firewall: true,
            downloads: true,
        }
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        lookups::default_location(&self.client).await
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        let location = lookups::default_location(&self.client).await?;
        kinds::default(&kinds::all(&self.client).await?, &location)
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        self.look_ahead(spec).await
    }

    async fn quote(&self, spec: &Spec) -> Result<Option<Quote>, CloudError> {
        let kinds = kinds::all(&self.client).await?;
        price::quote(&self.client, &kinds, &spec.region, &spec.instance_type).await
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        self.steps(spec).await
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        self.make(spec).await
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        servers::look(&self.client, id_of(handle)?).await
    }

    async fn let_in(&self, _: &Handle, spec: &Spec) -> Result<(), CloudError> {
        let from = sources::find(&self.client, spec).await?;
        beside::let_in(&self.client, spec, &from).await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        servers::list(&self.client, which).await
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        servers::delete(&self.client, id_of(handle)?).await
    }

    /// Firewalls and keys go whose lane has no server any more.
    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        beside::sweep(&self.client, which).await
    }

    /// The API has no text of consoles, only a picture.
    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError> {
        id_of(handle).map(|_| None)
    }
}
