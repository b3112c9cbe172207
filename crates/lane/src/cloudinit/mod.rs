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
//! | `check.rs` | what providers do not take |
//! | `prepare.sh` | the script |

mod check;
mod document;

use std::time::Duration;

use firelane_cloud::Spec;
use firelane_cloud::provider::Capabilities;
use firelane_model::time::Moment;

pub use check::DocumentError;

use crate::identity::Identity;

const PREPARE: &str = include_str!("prepare.sh");

/// The document for one machine. `others`: keys that may log in beside the lane's own.
pub fn document(
    spec: &Spec,
    identity: &Identity,
    others: &[String],
    capabilities: &Capabilities,
) -> Result<String, DocumentError> {
    let ends = capabilities.shutdown_ends_billing || capabilities.native_ttl;
    let script = prepare_script(spec.kvm, ends.then_some(spec.expires), Some(&spec.ssh_key));
    let text = document::document(spec, identity, others, script);
    if let Some(limits) = &capabilities.user_data {
        check::check(&text, limits)?;
    }
    Ok(text)
}

/// The script that prepares a machine. `kvm`: it has to have KVM. `ends`: when it shuts itself down,
/// since the Unix epoch; only where that gives the machine back. `key`: who may log in as root, in
/// place of what an image put there.
pub fn prepare_script(kvm: bool, ends: Option<Moment>, key: Option<&str>) -> String {
    let seconds = ends.map(|ends| ends.since_origin().max(Duration::from_secs(1)).as_secs());
    let seconds = seconds.map_or_else(String::new, |seconds| seconds.to_string());
    format!(
        "WANT_KVM={} ENDS='{seconds}' ROOT_KEY='{}'\n{PREPARE}",
        u8::from(kvm),
        key.unwrap_or_default(),
    )
}
