//! What a lane asks of a provider.

use std::time::Duration;

use async_trait::async_trait;
use firelane_model::lane::{Label, LaneId};
use serde::Serialize;

use crate::error::{Class, CloudError};
use crate::machine::{Handle, Machine, Spec};
use crate::marker::Which;

/// A place where machines come from.
///
/// Each method is one or a few calls of the provider, each with a deadline of its own, and does not
/// repeat what failed: [`Retrying`](crate::retry::Retrying) does that for all. Dropping a future
/// may leave what was asked for; what carries a [marker](crate::marker) is found again.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name, as typed after `--provider`.
    fn name(&self) -> &str;

    /// What it can do and what it cannot.
    fn capabilities(&self) -> Capabilities;

    /// Where machines are got from if nobody says.
    async fn default_region(&self) -> Result<String, CloudError>;

    /// Which are got if nobody says.
    async fn default_instance_type(&self) -> Result<String, CloudError>;

    /// Looks at everything that a create needs: credentials, region, type, image, limits. Changes
    /// nothing and costs nothing. A check that fails is a row; an error is a check that could not
    /// be made for a reason that has no row.
    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError>;

    /// What it costs. None: the provider tells no price, and it is not known either.
    async fn quote(&self, spec: &Spec) -> Result<Option<Quote>, CloudError>;

    /// The calls that [`create`](Self::create) would make, without secrets. Changes nothing.
    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError>;

    /// Gets a machine, with its marker in the request itself. It may not run yet when this returns.
    /// What else was made on the way and is of no use without it is removed if this fails.
    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError>;

    /// Where a machine of this label is to be found if there is one, for a provider that does not
    /// [list](Capabilities::lists) its machines and knows them by their label. Without a lane, that of
    /// whoever has the label.
    fn handle_of(&self, label: &Label, lane: Option<LaneId>, region: &str) -> Option<Handle> {
        let _ = (label, lane, region);
        None
    }

    /// Looks at one. None: there is none, or no longer.
    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError>;

    /// Lets SSH in from where the lane's user is now, if that is not where the machine was made from.
    /// A provider without a [firewall](Capabilities::firewall) has nothing to do.
    async fn let_in(&self, handle: &Handle, spec: &Spec) -> Result<(), CloudError> {
        let _ = (handle, spec);
        Ok(())
    }

    /// Finds those with a marker, in all regions. Those that are gone are not told of; those that
    /// are [leaving](crate::MachineState::Leaving) are.
    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError>;

    /// Gives one back. One that is gone, or leaving, is fine. It may not be gone yet when this
    /// returns: [`get`](Self::get) tells.
    async fn delete(&self, handle: &Handle) -> Result<(), CloudError>;

    /// Removes what lanes left beside machines, keys and groups of rules for example, as far as no
    /// machine uses it. Tells what it removed and what it could not.
    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError>;

    /// What the machine wrote on its console, its end. None: the provider does not tell, or not yet.
    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError>;
}

/// What a provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Its machines can have KVM.
    pub kvm: bool,
    /// How it takes a cloud-init document. None: it runs no cloud-init, and the machine is as it is.
    pub user_data: Option<UserData>,
    /// It makes the machine that a lane uses, and [`delete`](Provider::delete) ends it. If not,
    /// the machine is somebody's already, and what a lane installs has to be removed from it.
    pub makes_machines: bool,
    /// Machines can be found by their marker.
    pub lists: bool,
    /// How long it may not tell of a machine that it has made.
    pub tells_late: Duration,
    /// It ends machines by itself when their time is over.
    pub native_ttl: bool,
    /// A machine that shuts itself down is given back, and costs nothing any more.
    pub shutdown_ends_billing: bool,
    /// It lets SSH in from [`Spec::ssh_from`] only. If not, the machine's own firewall has to.
    pub firewall: bool,
    /// Its machines can download from the internet.
    pub downloads: bool,
}

/// How cloud-init documents are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UserData {
    /// Largest one in bytes, as it is before any encoding.
    pub most_bytes: usize,
    /// It may be compressed by gzip first, if it is larger.
    pub gzip: bool,
    /// `{{` has a meaning in it, and is forbidden for that.
    pub templated: bool,
}

/// One row of a preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `credentials`, `region`, `instance type`, `image`, `quota` ...
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
    /// In a few words.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// A row without a remedy.
    pub fn new(name: &str, verdict: Verdict, message: impl Into<String>) -> Check {
        Check {
            name: name.to_owned(),
            verdict,
            message: message.into(),
            remedy: None,
        }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<String>) -> Check {
        Check {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it has to be.
    Ok,
    /// Something that its user should know.
    Warning,
    /// A create would fail, or get something else than was asked for.
    Failed,
}

/// A row of what was found. What may pass is no row, but tried again.
pub(crate) fn row<T>(
    name: &str,
    found: Result<T, CloudError>,
    told: impl Fn(&T) -> String,
) -> Result<Check, CloudError> {
    match found {
        Ok(found) => Ok(Check::new(name, Verdict::Ok, told(&found))),
        Err(error) if matches!(error.class, Class::Throttle | Class::Transient) => Err(error),
        Err(error) => {
            let check = Check::new(name, Verdict::Failed, error.to_string());
            Ok(match error.remedy {
                Some(remedy) => check.with_remedy(remedy),
                None => check,
            })
        }
    }
}

/// A price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// In thousandths of a US dollar for one hour, whatever the provider's currency is.
    pub milli_usd_per_hour: u64,
    /// Where the number is from: `price list of ...`, `table of 2026-11`.
    pub source: String,
}

/// One call of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// In the provider's words, for example `RunInstances`.
    pub call: String,
    /// With what, secrets left out.
    pub with: Vec<(String, String)>,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// What is gone now.
    pub removed: Vec<String>,
    /// What is still there, and why.
    pub left: Vec<(String, String)>,
    /// What is there because machines use it, where [all](Which::All) was meant.
    pub used: Vec<String>,
}

#[async_trait]
impl Provider for Box<dyn Provider> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn handle_of(&self, label: &Label, lane: Option<LaneId>, region: &str) -> Option<Handle> {
        (**self).handle_of(label, lane, region)
    }

    async fn default_region(&self) -> Result<String, CloudError> {
        (**self).default_region().await
    }

    async fn default_instance_type(&self) -> Result<String, CloudError> {
        (**self).default_instance_type().await
    }

    async fn preflight(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        (**self).preflight(spec).await
    }

    async fn quote(&self, spec: &Spec) -> Result<Option<Quote>, CloudError> {
        (**self).quote(spec).await
    }

    async fn plan(&self, spec: &Spec) -> Result<Vec<Step>, CloudError> {
        (**self).plan(spec).await
    }

    async fn create(&self, spec: &Spec) -> Result<Machine, CloudError> {
        (**self).create(spec).await
    }

    async fn get(&self, handle: &Handle) -> Result<Option<Machine>, CloudError> {
        (**self).get(handle).await
    }

    async fn let_in(&self, handle: &Handle, spec: &Spec) -> Result<(), CloudError> {
        (**self).let_in(handle, spec).await
    }

    async fn list(&self, which: &Which) -> Result<Vec<Machine>, CloudError> {
        (**self).list(which).await
    }

    async fn delete(&self, handle: &Handle) -> Result<(), CloudError> {
        (**self).delete(handle).await
    }

    async fn sweep(&self, which: &Which) -> Result<Swept, CloudError> {
        (**self).sweep(which).await
    }

    async fn console_log(&self, handle: &Handle) -> Result<Option<String>, CloudError> {
        (**self).console_log(handle).await
    }
}
