//! Everything before the first record: what is wanted is completed, looked at, and its price compared. Spends nothing.

use std::path::Path;
use std::time::Duration;

use firelane_cloud::Spec;
use firelane_cloud::marker::Which;
use firelane_cloud::provider::{Capabilities, Quote, Verdict};
use firelane_model::lane::{Lane, Record, Terms};

use super::error::UpError;
use super::wish::{Firecracker, USUAL_TTL, Wish};
use crate::cloudinit::{self, Download, DownloadError};
use crate::crew::Crew;
use crate::identity;
use crate::journal::{Journal, now};
use crate::progress::Event;

/// What would be asked for: what `--dry-run` shows, and every `up` begins with. Spends nothing.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The request.
    pub spec: Spec,
    /// Its price.
    pub quote: Option<Quote>,
    /// What the lane is to be; of one that exists, with what was not said as it is.
    pub terms: Terms,
    /// What it downloads.
    pub(super) firecracker: Option<Download>,
}

/// Completes a wish by the provider's defaults, and makes keys and document for it.
pub async fn prepare_spec(
    crew: &Crew<'_>,
    wish: &Wish,
    lane: Option<&Lane>,
    folder: &Path,
) -> Result<Prepared, UpError> {
    let (region, instance_type) = match lane {
        // What is not said stays as it is.
        Some(lane) => (lane.terms.region.clone(), lane.terms.instance_type.clone()),
        None => (
            crew.provider.default_region().await?,
            crew.provider.default_instance_type().await?,
        ),
    };
    let label = wish.label.clone();
    let identity = identity::make(folder, &label)
        .map_err(|error| UpError::Document(firelane_cloud::causes(&error)))?;
    let capabilities = crew.provider.capabilities();
    can_have(wish, crew.provider.name(), &capabilities)?;
    let has = lane.map(|lane| &lane.terms);
    let ttl = wish.ttl.map(|ttl| ttl.as_secs());
    let ttl_s = ttl.or_else(|| has.map_or(Some(USUAL_TTL.as_secs()), |has| has.ttl_s));
    let ssh_keys = if wish.ssh_keys.is_empty() {
        has.map_or_else(|| Some(Vec::new()), |has| has.ssh_keys.clone())
    } else {
        Some(wish.ssh_keys.clone())
    };
    let downloads = capabilities.downloads && wish.kvm;
    let firecracker = downloaded(wish, has, downloads)?;
    let created = lane.map_or_else(now, |lane| lane.created);
    let expires = lane.map_or_else(
        || created + wish.ttl.unwrap_or(USUAL_TTL),
        |lane| lane.expires,
    );
    let mut spec = Spec {
        label,
        lane: lane.map_or(wish.lane, |lane| lane.lane),
        owner: wish.owner.clone(),
        region: wish.region.clone().unwrap_or(region),
        instance_type: wish.instance_type.clone().unwrap_or(instance_type),
        disk_gib: wish.disk_gib,
        kvm: wish.kvm,
        user_data: String::new(),
        ssh_key: identity.public.trim().to_owned(),
        ssh_from: wish.ssh_from.clone(),
        created,
        expires,
        extras: wish.extras.clone(),
    };
    if capabilities.user_data.is_some() {
        spec.user_data = cloudinit::document(
            &spec,
            &identity,
            ssh_keys.as_deref().unwrap_or_default(),
            firecracker.as_ref(),
            &capabilities,
        )
        .map_err(|error| UpError::Document(firelane_cloud::causes(&error)))?;
    }
    let quote = crew.provider.quote(&spec).await?;
    let terms = Terms {
        provider: crew.provider.name().to_owned(),
        region: spec.region.clone(),
        instance_type: spec.instance_type.clone(),
        disk_gib: spec.disk_gib,
        kvm: spec.kvm,
        extras: spec.extras.clone(),
        ttl_s,
        ssh_keys,
        firecracker: match (&wish.firecracker, has) {
            (Firecracker::Usual, Some(has)) => has.firecracker.clone(),
            _ => Some(
                firecracker
                    .as_ref()
                    .map_or_else(String::new, Download::to_string),
            ),
        },
    };
    Ok(Prepared {
        spec,
        quote,
        terms,
        firecracker,
    })
}

/// Refuses what this provider would leave out without a word.
fn can_have(wish: &Wish, name: &str, capabilities: &Capabilities) -> Result<(), UpError> {
    let refused = |message| Err(UpError::Unfit(message));
    if !wish.ssh_from.is_empty() && !capabilities.firewall {
        return refused(format!(
            "{name} has no firewall that would let SSH in from {} only: leave --ssh-from out, and FIRELANE_SSH_FROM unset",
            wish.ssh_from.join(", ")
        ));
    }
    if !wish.ssh_keys.is_empty() && capabilities.user_data.is_none() {
        return refused(format!(
            "who may log in to a machine of {name} is its owner's to say: leave --ssh-pubkey out, and SSH_PUBKEY unset"
        ));
    }
    Ok(())
}

/// Which Firecracker is downloaded: as is said, as it was, or the usual one.
fn downloaded(
    wish: &Wish,
    has: Option<&Terms>,
    downloads: bool,
) -> Result<Option<Download>, UpError> {
    match (
        &wish.firecracker,
        has.and_then(|has| has.firecracker.as_deref()),
    ) {
        (Firecracker::Nothing, _) | (Firecracker::Usual, Some("")) => Ok(None),
        (Firecracker::This(download), _) => Ok(Some(download.clone())),
        (Firecracker::Usual, Some(text)) => {
            let download = text.parse();
            download.map(Some).map_err(|error: DownloadError| {
                UpError::Document(format!("Firecracker as the journal has it: {error}"))
            })
        }
        (Firecracker::Usual, None) => Ok(downloads.then(Download::pinned)),
    }
}

/// Looks at everything that can be looked at for nothing, and writes down what is wanted.
pub(super) async fn plan(
    crew: &Crew<'_>,
    wish: &Wish,
    prepared: &Prepared,
    journal: &mut Journal,
) -> Result<(), UpError> {
    let Prepared {
        spec, quote, terms, ..
    } = prepared;
    let price = quote.as_ref().map(|quote| quote.milli_usd_per_hour);
    affordable(price, spec.expires.since(spec.created), wish)?;
    let checks = crew.provider.preflight(spec).await?;
    if checks.iter().any(|check| check.verdict == Verdict::Failed) {
        return Err(UpError::Preflight { checks });
    }
    if crew.provider.capabilities().lists {
        let which = Which::Label(spec.label.clone());
        let machines = crew.provider.list(&which).await?;
        if let Some(machine) = machines.iter().find(|machine| !machine.is_going()) {
            return Err(UpError::Foreign {
                label: spec.label.clone(),
                owner: machine
                    .mark
                    .as_ref()
                    .map_or_else(|| "somebody".into(), |mark| mark.owner.clone()),
                handle: machine.handle.to_string(),
            });
        }
    }
    crew.progress.tell(&Event::Planned {
        label: spec.label.clone(),
        provider: terms.provider.clone(),
        region: spec.region.clone(),
        instance_type: spec.instance_type.clone(),
        milli_usd_per_hour: price,
        expires: spec.expires.since_origin().as_secs(),
    });
    journal.write(Record::Planned {
        lane: spec.lane,
        label: spec.label.clone(),
        owner: spec.owner.clone(),
        terms: terms.clone(),
        expires: spec.expires,
        milli_usd_per_hour: price,
    })?;
    Ok(())
}

/// Whether its price over its whole life is within what its user allows.
pub(super) fn affordable(price: Option<u64>, life: Duration, wish: &Wish) -> Result<(), UpError> {
    let Some(most) = wish.most_milli_usd else {
        return Ok(());
    };
    let dollars = |milli: u128| format!("{}.{:03} USD", milli / 1000, milli % 1000);
    let Some(price) = price else {
        let message = "its price is not known, and --max-spend is given".to_owned();
        return Err(UpError::TooDear(message));
    };
    let whole = (u128::from(price) * life.as_millis()).div_ceil(3_600_000);
    if whole <= u128::from(most) {
        return Ok(());
    }
    Err(UpError::TooDear(format!(
        "it costs {} over its {} h, and --max-spend allows {}",
        dollars(whole),
        life.as_secs_f64() / 3600.0,
        dollars(u128::from(most)),
    )))
}
