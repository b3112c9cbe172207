//! What prepares a machine: one cloud-init document for all providers.
//!
//! It is made as data and written as JSON, which is YAML, so that nothing is ever spliced into text
//! and no key comes twice. It does what concerns the system only: user, keys, folders, packages, the
//! question whether KVM works. Programs and services come later, over SSH.
//!
//! The work is a script, [`prepare_script`], which the document carries and runs, and which is run
//! over SSH where there is no cloud-init. It writes what it came to into a file that the lane reads.
//!
//! Source: cloud-init 24.4, "Cloud config examples" and "Module reference"; modules `users_groups`,
//! `ssh`, `set_hostname`, `write_files`, `runcmd`.
//!
//! | File | Holds |
//! | --- | --- |
//! | `document.rs` | the document |
//! | `firecracker.rs` | the archive that it downloads |
//! | `check.rs` | what providers do not take |
//! | `prepare.sh` | the script |

mod check;
mod document;
mod firecracker;

use std::time::Duration;

use firelane_cloud::Spec;
use firelane_cloud::provider::Capabilities;
use firelane_model::time::Moment;

pub use check::DocumentError;
pub use firecracker::{Download, DownloadError};

use crate::identity::Identity;

const PREPARE: &str = include_str!("prepare.sh");

/// The document for one machine. `others`: keys that may log in beside the lane's own. `firecracker`: what
/// it downloads, if it is not brought.
pub fn document(
    spec: &Spec,
    identity: &Identity,
    others: &[String],
    firecracker: Option<&Download>,
    capabilities: &Capabilities,
) -> Result<String, DocumentError> {
    let ends = capabilities.shutdown_ends_billing || capabilities.native_ttl;
    let script = prepare_script(&Preparation {
        kvm: spec.kvm,
        ends: ends.then_some(spec.expires),
        root_key: Some(&spec.ssh_key),
        firecracker,
    });
    let text = document::document(spec, identity, others, script);
    if let Some(limits) = &capabilities.user_data {
        check::check(&text, limits)?;
    }
    Ok(text)
}

/// How a machine is prepared.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    /// It has to have KVM.
    pub kvm: bool,
    /// When it shuts itself down, since the Unix epoch; only where that gives the machine back.
    pub ends: Option<Moment>,
    /// Who may log in as root, in place of what an image put there.
    pub root_key: Option<&'a str>,
    /// The Firecracker that it downloads.
    pub firecracker: Option<&'a Download>,
}

/// The script that prepares a machine.
pub fn prepare_script(preparation: &Preparation<'_>) -> String {
    let ends = preparation.ends;
    let seconds = ends.map(|ends| ends.since_origin().max(Duration::from_secs(1)).as_secs());
    let seconds = seconds.map_or_else(String::new, |seconds| seconds.to_string());
    format!(
        "WANT_KVM={} ENDS='{seconds}' ROOT_KEY='{}' {}\n{PREPARE}",
        u8::from(preparation.kvm),
        preparation.root_key.unwrap_or_default(),
        Download::settings(preparation.firecracker),
    )
}
