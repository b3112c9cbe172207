//! Regions: those that the account may use.

use super::client::{Client, DESCRIBE_REGIONS, check_region, is_apart};
use super::params::Params;
use crate::error::{Class, CloudError};

/// What is asked for if nobody says.
pub(super) const DEFAULT: &str = "us-east-1";
/// Regions to look through instead of all that are enabled, with commas between: for accounts that
/// are forbidden to look at others.
pub(super) const VARIABLE: &str = "FIRELANE_AWS_REGIONS";

/// Those that are enabled for this account, as the region `home` tells.
pub(super) async fn enabled(client: &Client, home: &str) -> Result<Vec<String>, CloudError> {
    let action = DESCRIBE_REGIONS;
    let answer = client.call(home, action, &Params::new()).await?;
    let mut names = Vec::new();
    for item in answer.items("regionInfo") {
        let name = action.need(item, "regionName")?;
        // There is nothing of ours.
        if !is_apart(name) {
            check_region(name)?;
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(action.senseless("the answer names no region"));
    }
    Ok(names)
}

/// Those of [`VARIABLE`].
pub(super) fn named(text: &str) -> Result<Vec<String>, CloudError> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| check_region(name).map(|()| name.to_owned()))
        .collect()
}

/// Refuses a region that is not enabled, or that there is not.
pub(super) async fn check(client: &Client, home: &str, name: &str) -> Result<(), CloudError> {
    check_region(name)?;
    let names = enabled(client, home).await?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let known = names.join(", ");
    Err(DESCRIBE_REGIONS
        .error(
            Class::Invalid,
            format!("{name} is no region, or not enabled for this account"),
        )
        .with_remedy(format!("enable it in the console, or take one of {known}")))
}
