//! Everything before the first record: what is wanted is completed, looked at, and its price compared. Spends nothing.

use std::path::Path;

use firelane_cloud::Spec;
use firelane_cloud::marker::Which;
use firelane_cloud::provider::{Quote, Verdict};
use firelane_model::lane::{Lane, Record, Terms};

use super::error::UpError;
use super::wish::Wish;
use crate::cloudinit;
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
    let created = lane.map_or_else(now, |lane| lane.created);
    let expires = lane.map_or(created + wish.ttl, |lane| lane.expires);
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
    let capabilities = crew.provider.capabilities();
    if capabilities.user_data.is_some() {
        spec.user_data = cloudinit::document(
            &spec,
            &identity,
            &wish.ssh_keys,
            wish.firecracker.as_ref(),
            &capabilities,
        )
        .map_err(|error| UpError::Document(firelane_cloud::causes(&error)))?;
    }
    let quote = crew.provider.quote(&spec).await?;
    Ok(Prepared { spec, quote })
}

/// Looks at everything that can be looked at for nothing, and writes down what is wanted.
pub(super) async fn plan(
    crew: &Crew<'_>,
    wish: &Wish,
    prepared: &Prepared,
    terms: Terms,
    journal: &mut Journal,
) -> Result<(), UpError> {
    let Prepared { spec, quote } = prepared;
    let price = quote.as_ref().map(|quote| quote.milli_usd_per_hour);
    affordable(price, wish)?;
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
        terms,
        expires: spec.expires,
        milli_usd_per_hour: price,
    })?;
    Ok(())
}

/// Whether its price over its whole life is within what its user allows.
fn affordable(price: Option<u64>, wish: &Wish) -> Result<(), UpError> {
    let Some(most) = wish.most_milli_usd else {
        return Ok(());
    };
    let dollars = |milli: u128| format!("{}.{:03} USD", milli / 1000, milli % 1000);
    let Some(price) = price else {
        let message = "its price is not known, and --max-spend is given".to_owned();
        return Err(UpError::TooDear(message));
    };
    let whole = (u128::from(price) * wish.ttl.as_millis()).div_ceil(3_600_000);
    if whole <= u128::from(most) {
        return Ok(());
    }
    Err(UpError::TooDear(format!(
        "it costs {} over its {} h, and --max-spend allows {}",
        dollars(whole),
        wish.ttl.as_secs_f64() / 3600.0,
        dollars(u128::from(most)),
    )))
}
