//! `cargo xtask openapi`: writes `docs/openapi.json` from the types and handlers of the gateway.

use anyhow::Result;

use crate::workspace::Workspace;

/// The description, from the workspace's root.
pub(crate) const FILE: &str = "docs/openapi.json";

/// Without the feature, cargo is asked to run us with it.
#[cfg(not(feature = "openapi"))]
pub(crate) fn run(_: &Workspace) -> Result<()> {
    let mut command = crate::workspace::cargo();
    command.args(["run", "--quiet", "--package", "xtask"]);
    crate::program::run(command.args(["--features", "openapi", "--", "openapi"]))
}

/// Writes the file.
#[cfg(feature = "openapi")]
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    use anyhow::Context;

    let file = workspace.root.join(FILE);
    let text = firelane_gateway::openapi::text().context("cannot write the description")?;
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}
