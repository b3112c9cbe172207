//! A tree into an erofs image. The same tree gives the same bytes: fixed time, identifier and owners, no extended
//! attributes. Uncompressed, so that all guests share the host's page cache and none pays for decompression.

use std::path::Path;
use std::time::Duration;

use crate::tool::{Tool, ToolError};

/// Time for writing an image.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The time of every file, in seconds since 1970: 2000-01-01.
const TIME: &str = "946684800";
/// Identifies nothing; a random one would make every image different.
const UUID: &str = "66697265-6c61-6e65-0000-000000000001";

/// Writes `image` from the files below `tree`.
pub(crate) fn make_image(tree: &Path, image: &Path) -> Result<(), ToolError> {
    let mut tool = Tool::new("mkfs.erofs");
    tool.command
        .args(["--quiet", "--all-root", "-x-1", "-E", "force-inode-compact"]);
    tool.command
        .args([&format!("-T{TIME}"), &format!("-U{UUID}")]);
    tool.command
        .arg(image)
        .arg(tree)
        .env("LC_ALL", "C")
        .env_remove("SOURCE_DATE_EPOCH");
    tool.run(TIMEOUT)
}
