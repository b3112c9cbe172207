//! The image: Canonical's newest of Ubuntu 24.04.

use super::client::{Client, DESCRIBE_IMAGES};
use super::params::Params;
use crate::error::{Class, CloudError};

/// Canonical's account in the partitions of AWS (documentation.ubuntu.com, "Find Ubuntu images on
/// AWS"). Anybody may publish an image with the same name: the owner is what counts.
pub(super) const CANONICAL: &str = "099720109477";
const NAMES: &str = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*";

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Its id, `ami-...`.
    pub(super) id: String,
    /// Its name, which ends with its date.
    pub(super) name: String,
    /// Which device its root disk is.
    pub(super) root_device: String,
}

/// The newest one of a region.
pub(super) async fn newest(client: &Client, region: &str) -> Result<Image, CloudError> {
    let action = DESCRIBE_IMAGES;
    let params = Params::new()
        .list("Owner", [CANONICAL])
        .filter("name", [NAMES])
        .filter("architecture", ["x86_64"])
        .filter("root-device-type", ["ebs"])
        .filter("state", ["available"]);
    let pages = client.pages(region, action, &params).await?;
    let newest = pages
        .iter()
        .flat_map(|page| page.items("imagesSet"))
        .filter(|image| image.text("imageOwnerId") == Some(CANONICAL))
        // Dates of this form are in order as texts: 2026-10-01T00:00:00.000Z.
        .max_by_key(|image| image.text("creationDate"));
    let Some(newest) = newest else {
        let message = format!("{region} has no image of Ubuntu 24.04 by Canonical");
        return Err(action
            .error(Class::Invalid, message)
            .with_remedy("take another region"));
    };
    Ok(Image {
        id: action.need(newest, "imageId")?.to_owned(),
        name: action.need(newest, "name")?.to_owned(),
        root_device: action.need(newest, "rootDeviceName")?.to_owned(),
    })
}
