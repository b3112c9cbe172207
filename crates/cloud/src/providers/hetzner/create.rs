//! A machine from nothing, and what would be asked for it.

use super::actions::{Ended, ended};
use super::answers::{Image, Made};
use super::client::{CREATE_FIREWALL, CREATE_KEY, CREATE_SERVER, DELETE_SERVER};
use super::{Hetzner, MOST_USER_DATA, beside, kinds, lookups, servers, sources};
use crate::error::{Class, CloudError, Effect};
use crate::machine::{Machine, Spec};
use crate::marker;
use crate::provider::Step;

/// Refuses what only other providers know.
pub(super) fn check_extras(spec: &Spec) -> Result<(), CloudError> {
    match spec.extras.keys().next() {
        None => Ok(()),
        Some(name) => {
            let message = format!("hetzner knows no {name:?}, and nothing else of its own");
            Err(CREATE_SERVER.error(Class::Invalid, message))
        }
    }
}

/// Refuses a document that the API would refuse.
pub(super) fn check_user_data(spec: &Spec) -> Result<usize, CloudError> {
    let size = spec.user_data.len();
    if size <= MOST_USER_DATA {
        return Ok(size);
    }
    let message = format!("the user-data has {size} bytes, and Hetzner takes {MOST_USER_DATA}");
    Err(CREATE_SERVER
        .error(Class::Invalid, message)
        .with_remedy("move files out of the cloud-init document"))
}

impl Hetzner {
    /// Looks up what a request needs, and refuses what is known to fail.
    async fn find(&self, spec: &Spec) -> Result<(Image, Vec<String>), CloudError> {
        check_extras(spec)?;
        check_user_data(spec)?;
        kinds::check_kvm(spec)?;
        lookups::check_location(&self.client, &spec.region).await?;
        kinds::check(&kinds::all(&self.client).await?, spec)?;
        let image = lookups::image(&self.client).await?;
        let from = sources::find(&self.client, spec).await?;
        Ok((image, from))
    }

    /// Makes it.
    pub(super) async fn make(&self, spec: &Spec) -> Result<Machine, CloudError> {
        let (image, from) = self.find(spec).await?;
        let beside = beside::ready(&self.client, spec, &from).await?;
        let request = servers::request(spec, &image, &beside);
        let made = self
            .client
            .call::<Made>(CREATE_SERVER, None, Some(&request))
            .await;
        let error = match made {
            Ok(made) => match self.settle(made).await {
                Ok(machine) => return Ok(machine),
                Err(error) => error,
            },
            Err(error) if error.code.as_deref() == Some("uniqueness_error") => {
                match self.of_name(spec, error).await {
                    Ok(machine) => return Ok(machine),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.effect == Effect::None {
            beside::give_up(&self.client, &beside).await;
        }
        // Somebody's sweep was between us and the firewall or the key, because all else was there just
        // now: they are made again.
        if error.class == Class::NotFound {
            let class = Class::Transient;
            return Err(CloudError { class, ..error });
        }
        Err(error)
    }

    /// Until it runs. One that does not come about is removed.
    async fn settle(&self, made: Made) -> Result<Machine, CloudError> {
        let Made {
            server,
            action,
            next_actions,
        } = made;
        for doing in std::iter::once(action).chain(next_actions) {
            match ended(&self.client, CREATE_SERVER, doing).await {
                Ended::Well => {}
                Ended::Badly(error) => return Err(self.remove(server.id, error).await),
                Ended::Unknown => break,
            }
        }
        match servers::look(&self.client, server.id).await {
            Ok(Some(machine)) => Ok(machine),
            Ok(None) => {
                let message = format!("server {} is gone as soon as it was made", server.id);
                Err(CREATE_SERVER.error(Class::Capacity, message))
            }
            Err(error) => {
                tracing::info!(%error, server = server.id, "made, and not seen yet");
                servers::read(CREATE_SERVER, &server)
            }
        }
    }

    /// Removes a server that is of no use, and tells why it was not.
    async fn remove(&self, id: u64, error: CloudError) -> CloudError {
        let gone = match servers::remove(&self.client, id).await {
            Ok(None) => true,
            Ok(Some(doing)) => {
                matches!(
                    ended(&self.client, DELETE_SERVER, doing).await,
                    Ended::Well | Ended::Unknown
                )
            }
            Err(second) => {
                tracing::warn!(%second, server = id, "a server that is of no use is left");
                false
            }
        };
        if gone {
            error
        } else {
            error.with_unknown_effect()
        }
    }

    /// The server that has the lane's name already.
    async fn of_name(&self, spec: &Spec, error: CloudError) -> Result<Machine, CloudError> {
        let name = servers::name(spec);
        let found = servers::named(&self.client, &name).await;
        // It may be ours, and use what is beside it.
        let found = found.map_err(CloudError::with_unknown_effect)?;
        let lane = Some(spec.lane);
        let trouble = match found {
            Some(machine) if machine.mark.as_ref().and_then(|mark| mark.lane) != lane => {
                format!("there is a server {name}, and it is not of this lane")
            }
            Some(machine) if machine.is_going() => {
                format!("the machine of {} is being given back", spec.lane)
            }
            Some(machine) => return Ok(machine),
            // It has just gone.
            None => return Err(error),
        };
        Err(CloudError {
            class: Class::Invalid,
            message: trouble.into(),
            ..error
        })
    }

    /// What [`make`](Self::make) would ask for. The user-data is told of by its size.
    pub(super) async fn steps(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        let (image, from) = self.find(spec).await?;
        let name = servers::name(spec);
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>()
        };
        let key = of(&[("name", &name), ("public_key", spec.ssh_key.trim())]);
        let firewall = of(&[
            ("name", &name),
            ("port", "22/tcp"),
            ("source_ips", &from.join(", ")),
        ]);
        let mut server = of(&[
            ("name", &name),
            ("server_type", &spec.instance_type),
            ("location", &spec.region),
            ("image", &format!("{} ({})", image.id, image.description)),
        ]);
        let tags = marker::tags(spec).into_iter();
        server.extend(tags.map(|(key, value)| (format!("labels.{key}"), value)));
        if !spec.user_data.is_empty() {
            let size = format!("{} bytes", spec.user_data.len());
            server.push(("user_data".to_owned(), size));
        }
        let steps = [
            (CREATE_KEY, key),
            (CREATE_FIREWALL, firewall),
            (CREATE_SERVER, server),
        ];
        let steps = steps.into_iter().map(|(action, with)| Step {
            call: action.name.to_owned(),
            with,
        });
        Ok(steps.collect())
    }
}
