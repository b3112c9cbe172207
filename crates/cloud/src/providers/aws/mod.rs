//! Amazon Web Services: EC2 by its Query API (version 2016-11-15), with requests of our own.
//!
//! A machine is one instance with one disk that ends with it, in a security group that all machines
//! of a region share. Its marker is in the request that makes it, and its lane is the request's
//! token: EC2 makes one machine for one token. Instances terminate when they shut themselves down.
//!
//! | File | Holds |
//! | --- | --- |
//! | `client.rs`, `params.rs`, `sign.rs`, `xml.rs`, `errors.rs` | one call: request, signature, answer, refusal |
//! | `credentials` | who we are |
//! | `regions.rs`, `kinds.rs`, `images.rs`, `networks.rs` | what is looked up before |
//! | `groups.rs`, `rules.rs`, `sources.rs` | the security group, its rules, and who is let in |
//! | `instances.rs`, `user_data.rs` | machines |
//! | `json.rs`, `price.rs`, `quota.rs` | services that speak JSON |
//! | `create.rs`, `preflight.rs` | what is put together of those |
//!
//! docs/providers/aws.md is for those who use it.

mod client;
#[cfg(test)]
mod client_tests;
mod create;
mod credentials;
mod errors;
mod groups;
mod images;
mod instances;
mod json;
mod kinds;
mod networks;
mod params;
mod preflight;
mod price;
mod quota;
mod regions;
mod rules;
mod sign;
#[cfg(test)]
mod sign_vectors;
mod sources;
mod user_data;
mod xml;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};

use self::client::{Client, check_region};
use self::credentials::{Chain, Profile};
use self::instances::Seen;
use crate::error::{Class, CloudError};
use crate::http::Endpoint;
use crate::machine::{Handle, Machine, Spec};
use crate::marker::Which;
use crate::provider::{Capabilities, Check, Provider, Quote, Step, Swept, UserData};
use crate::settings::Settings;

/// As typed after `--provider`.
pub(crate) const NAME: &str = "aws";
/// Another address for all services, for tests.
const ENDPOINT: &str = "FIRELANE_AWS_ENDPOINT";
/// Regions that are asked at once.
const AT_ONCE: usize = 4;

/// The provider.
pub(crate) struct Aws {
    client: Client,
    settings: Settings,
}

/// Makes it, and asks nobody.
pub(crate) fn open(settings: &Settings) -> Result<Box<dyn Provider>, CloudError> {
    Ok(Box::new(Aws::open(settings)?))
}

impl Aws {
    /// Makes it, and asks nobody.
    fn open(settings: &Settings) -> Result<Aws, CloudError> {
        let endpoint = settings
            .variable(ENDPOINT)
            .map(Endpoint::parse)
            .transpose()
            .map_err(|error| {
                let message = format!("{ENDPOINT}: {error}");
                CloudError::new(NAME, "open", Class::Invalid, message)
            })?;
        let credentials = Chain::new(settings.clone());
        Ok(Aws {
            client: Client::new(endpoint, credentials)?,
            settings: settings.clone(),
        })
    }

    /// The region that is asked for what is not of a region.
    fn home(&self) -> Result<String, CloudError> {
        let named = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| self.settings.variable(name));
        let region = match named {
            Some(region) => region.to_owned(),
            None => Profile::read(&self.settings)?
                .and_then(|profile| profile.region().map(str::to_owned))
                .unwrap_or_else(|| regions::DEFAULT.to_owned()),
        };
        check_region(&region)?;
        Ok(region)
    }

    /// All that may have machines of ours.
    async fn regions(&self) -> Result<Vec<String>, CloudError> {
        match self.settings.variable(regions::VARIABLE) {
            Some(names) => regions::named(names),
            None => regions::enabled(&self.client, &self.home()?).await,
        }
    }

    fn check_handle(handle: &Handle) -> Result<(), CloudError> {
        if handle.provider != NAME {
            let message = format!("{handle} is not of {NAME}");
            return Err(CloudError::new(NAME, "open", Class::Invalid, message));
        }
        check_region(&handle.region)
    }
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kvm: true,
            user_data: Some(UserData {
                most_bytes: user_data::MOST_BYTES,
                gzip: true,
                templated: false,
            }),
            makes_machines: true,
            lists: true,
            // EC2 is consistent in the end: what RunInstances has answered may be unknown to others for a while.
            tells_late: Duration::from_secs(120),
            native_ttl: false,
            shutdown_ends_billing: true,
            firewall: true,
            downloads: true,
        }
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        self.home()
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        Ok(kinds::DEFAULT.to_owned())
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        self.look_ahead(spec).await
    }

    async fn quote(&self, spec: &Spec) -> Result<Option<Quote>, CloudError> {
        price::quote(&self.client, &spec.region, &spec.instance_type).await
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        self.steps(spec).await
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        self.make(spec).await
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        Self::check_handle(handle)?;
        match instances::look(&self.client, &handle.region, &handle.id).await? {
            Seen::There(machine) => Ok(Some(*machine)),
            Seen::Nothing => Ok(None),
            Seen::Gone(reason) => {
                tracing::info!(%handle, reason, "terminated");
                Ok(None)
            }
        }
    }

    async fn let_in(&self, _: &Handle, spec: &Spec) -> Result<(), CloudError> {
        self.refresh(spec).await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        let regions = self.regions().await?;
        // One region that does not answer makes the list unknown: what is not told of is not removed.
        let lists: Vec<Vec<Machine>> = futures_util::stream::iter(regions)
            .map(|region| async move { instances::list(&self.client, &region, which).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(lists.into_iter().flatten().collect())
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        Self::check_handle(handle)?;
        instances::terminate(&self.client, &handle.region, &handle.id).await
    }

    /// Groups are of nobody alone: those go that no machine uses, whichever lane it is about. That
    /// others use one is worth a word only where everything should go.
    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        let regions = self.regions().await?;
        let found: Vec<Vec<(String, String)>> = futures_util::stream::iter(regions)
            .map(|region| async move {
                let groups = groups::ours(&self.client, &region).await?;
                Ok::<_, CloudError>(groups.into_iter().map(|id| (region.clone(), id)).collect())
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut swept = Swept::default();
        for (region, id) in found.into_iter().flatten() {
            let name = format!("security group {id} in {region}");
            match groups::delete(&self.client, &region, &id).await {
                Ok(()) => swept.removed.push(name),
                Err(error) if error.class == Class::Conflict => {
                    if *which == Which::All {
                        swept.used.push(name);
                    }
                }
                Err(error) if error.class.may_pass() => return Err(error),
                Err(error) => swept.left.push((name, error.to_string())),
            }
        }
        Ok(swept)
    }

    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError> {
        Self::check_handle(handle)?;
        instances::console(&self.client, &handle.region, &handle.id).await
    }
}
