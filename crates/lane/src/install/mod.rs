//! What is brought to a machine, and how it gets into place.
//!
//! ```text
//!   staged here, sent by rsync to INCOMING, put into place by install.sh, which writes MANIFEST:
//!     bin/          programs                        -> /usr/local/bin
//!     sources/      if the machine builds those     -> bin/, by build.sh
//!     units/        systemd units                   -> /etc/systemd/system
//!     etc/          settings, made anew each time   -> /etc/firelane
//!     store/        templates, if any are brought   -> /var/lib/firelane/store
//!     install.sh, remove.sh, plan
//! ```
//!
//! `plan` lists what is to be installed, one line each, and is all that the scripts know. The manifest
//! has a line for each file, folder, user and group that was not there before: `remove.sh` takes away
//! exactly those.
//!
//! | File | Holds |
//! | --- | --- |
//! | `release.rs` | which programs, from where |
//! | `stage.rs` | the folder that is sent |
//! | `sources.rs` | what of sources is sent |
//! | `units.rs` | the services, as data |
//! | `build.sh`, `install.sh`, `remove.sh` | the part that runs on the machine |

mod release;
mod sources;
mod stage;
mod units;

use std::time::Duration;

pub use release::{Release, ReleaseError};
pub(crate) use stage::stage;
pub use units::{UNITS, Unit};

use crate::access::{Command, Host};
use crate::crew::StepError;
use crate::steps::reach::must;

/// Folder on the machine that is sent to: root's alone, below a folder in which nobody else can make one, because root runs
/// what is in it.
pub const INCOMING: &str = "/var/lib/firelane-incoming";
/// What the last deploy came to: `ready`, or `failed: STEP`.
pub const DEPLOY_STATUS: &str = "/etc/firelane/deploy-status";
/// What was not there before, on the machine.
pub const MANIFEST: &str = "/etc/firelane/manifest";

const REMOVE: &str = include_str!("remove.sh");

/// Builds the programs of the sources that were sent.
pub(crate) async fn build(host: &dyn Host, deadline: Duration) -> Result<(), StepError> {
    let script = format!("{INCOMING}/build.sh");
    let command = Command::new(["sh", &script, INCOMING])
        .as_root()
        .within(deadline);
    must(host, "build.sh", &command).await.map(drop)
}

/// Puts what was sent into place and starts the services.
pub(crate) async fn install(host: &dyn Host, deadline: Duration) -> Result<(), StepError> {
    let script = format!("{INCOMING}/install.sh");
    let command = Command::new(["sh", &script, INCOMING])
        .as_root()
        .within(deadline);
    must(host, "install.sh", &command).await.map(drop)
}

/// Removes what [`install`] put there, and nothing else.
pub(crate) async fn remove(host: &dyn Host, deadline: Duration) -> Result<(), StepError> {
    let command = Command::new(["sh", "-s"])
        .as_root()
        .reading(REMOVE)
        .within(deadline);
    must(host, "remove.sh", &command).await.map(drop)
}
