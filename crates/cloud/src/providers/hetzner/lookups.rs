//! What is looked up before anything is made: locations and the image.

use super::answers::{Image, Location};
use super::client::{Client, IMAGES, LOCATIONS};
use crate::error::{Class, CloudError};

/// Taken if nobody says, the first that there is: those in Germany and Finland have all types.
const PREFERRED: [&str; 3] = ["fsn1", "nbg1", "hel1"];
/// The image, by its name. Each architecture has one of this name.
const IMAGE: &str = "ubuntu-24.04";

/// Names of all locations.
async fn locations(client: &Client) -> Result<Vec<String>, CloudError> {
    let locations: Vec<Location> = client.list(LOCATIONS, &[]).await?;
    Ok(locations.into_iter().map(|one| one.name).collect())
}

/// Where machines are got from if nobody says.
pub(super) async fn default_location(client: &Client) -> Result<String, CloudError> {
    let names = locations(client).await?;
    let preferred = PREFERRED
        .into_iter()
        .find(|wanted| names.iter().any(|name| name == wanted));
    preferred
        .map(str::to_owned)
        .or_else(|| names.into_iter().next())
        .ok_or_else(|| LOCATIONS.senseless("the answer names no location"))
}

/// Refuses a location that there is not.
pub(super) async fn check_location(client: &Client, name: &str) -> Result<(), CloudError> {
    let names = locations(client).await?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let message = format!("{name:?} is no location");
    Err(LOCATIONS
        .error(Class::Invalid, message)
        .with_remedy(format!("take one of {} by --region", names.join(", "))))
}

/// Hetzner's image of Ubuntu 24.04 for x86-64. A project's own snapshots do not count, whatever their name is.
pub(super) async fn image(client: &Client) -> Result<Image, CloudError> {
    let filters = [("type", "system"), ("name", IMAGE), ("architecture", "x86")];
    let images: Vec<Image> = client.list(IMAGES, &filters).await?;
    let fits = |image: &Image| {
        image.kind == "system"
            && image.name.as_deref() == Some(IMAGE)
            && image.architecture == "x86"
            && image.status == "available"
    };
    // Numbers grow: the largest one is the newest.
    let newest = images.into_iter().filter(fits).max_by_key(|image| image.id);
    newest.ok_or_else(|| {
        let message = format!("there is no image {IMAGE} for x86");
        IMAGES.error(Class::Invalid, message)
    })
}
