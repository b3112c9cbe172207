//! Whether a create would go well: one row for each thing that it needs.

use super::create::{check_extras, check_user_data};
use super::{Hetzner, MOST_USER_DATA, kinds, lookups, price, sources};
use crate::error::{Class, CloudError};
use crate::machine::Spec;
use crate::provider::{Check, Quote, Verdict, row};

impl Hetzner {
    /// All rows. Without credentials there is nothing else to be asked.
    pub(super) async fn look_ahead(&self, spec: &Spec) -> Result<Vec<Check>, CloudError> {
        let location = lookups::check_location(&self.client, &spec.region).await;
        // The first call is also the one that shows whether the token is taken.
        let (taken, location) = match location {
            Err(error) if matches!(error.class, Class::NoCredentials | Class::Auth) => {
                (Err(error), None)
            }
            location => (Ok(()), Some(location)),
        };
        let mut rows = vec![row("credentials", taken, |()| {
            "the token is taken; whether it may write is not told".to_owned()
        })?];
        let Some(location) = location else {
            return Ok(rows);
        };
        rows.push(row("region", location.clone(), |()| spec.region.clone())?);
        rows.push(row("KVM", kinds::check_kvm(spec), |()| {
            "none, and none is asked for".to_owned()
        })?);
        if let Err(error) = check_extras(spec) {
            rows.push(row("extras", Err::<(), _>(error), |()| String::new())?);
        }
        let all = kinds::all(&self.client).await?;
        if location.is_ok() {
            rows.push(row("instance type", kinds::check(&all, spec), |kind| {
                let (cores, memory, disk) = (kind.cores, kind.memory, kind.disk);
                format!(
                    "{}: {cores} processors, {memory} GiB of memory, {disk} GiB of disk",
                    kind.name
                )
            })?);
        }
        rows.push(row("image", lookups::image(&self.client).await, |image| {
            format!("{}, {}", image.id, image.description)
        })?);
        rows.push(row("user-data", check_user_data(spec), |size| {
            format!("{size} bytes of {MOST_USER_DATA}")
        })?);
        let from = sources::find(&self.client, spec).await;
        rows.push(row("ssh from", from, |from| from.join(", "))?);
        rows.push(
            Check::new(
                "quota",
                Verdict::Warning,
                "not looked at: the API does not tell it",
            )
            .with_remedy("look at Limits in the console"),
        );
        let quote = price::quote(&self.client, &all, &spec.region, &spec.instance_type).await?;
        rows.push(priced(quote));
        Ok(rows)
    }
}

/// Not to know a price is no reason to stop.
fn priced(quote: Option<Quote>) -> Check {
    match quote {
        Some(Quote {
            milli_usd_per_hour: price,
            source,
        }) => {
            let (whole, rest) = (price / 1000, price % 1000);
            let message = format!("{whole}.{rest:03} USD for one hour: {source}");
            Check::new("price", Verdict::Ok, message)
        }
        None => Check::new(
            "price",
            Verdict::Warning,
            "not known, so --max-spend cannot be kept",
        ),
    }
}
