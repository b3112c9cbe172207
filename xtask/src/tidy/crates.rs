//! Arrows between crates go one way, as ARCHITECTURE.md draws them:
//!
//! ```text
//! guest-proto | model <- wire <- sys <- launch <- host-proto <- network | vmm | image | store | client | cloud <- lane
//!     <- agent | coordinator | gateway <- cli | hostd | guest-runner | bare-guest <- testkit | xtask
//! ```
//!
//! Programs never import each other. The guest-runner is loaded into every microVM, and hostd is root, so the
//! crates that they may depend on directly are listed one by one.

use std::path::Path;

use super::Finding;
use crate::workspace::{Dependency, Package};

/// Each crate with those of ours that it may depend on. A new crate is added here first.
const ARROWS: &[(&str, &[&str])] = &[
    ("firelane-guest-proto", &[]),
    ("firelane-model", &[]),
    ("firelane-wire", &["firelane-guest-proto", "firelane-model"]),
    ("firelane-sys", &["firelane-guest-proto"]),
    (
        "firelane-image",
        &["firelane-guest-proto", "firelane-sys", "firelane-network"],
    ),
    (
        "firelane-network",
        &["firelane-guest-proto", "firelane-sys"],
    ),
    ("firelane-launch", &["firelane-guest-proto", "firelane-sys"]),
    ("firelane-host-proto", &["firelane-launch", "firelane-sys"]),
    (
        "firelane-hostd",
        &["firelane-host-proto", "firelane-launch", "firelane-sys"],
    ),
    (
        "firelane-vmm",
        &[
            "firelane-guest-proto",
            "firelane-host-proto",
            "firelane-launch",
            "firelane-sys",
        ],
    ),
    ("firelane-traces", &[]),
    ("firelane-cloud", &["firelane-model"]),
    ("firelane-lane", &["firelane-cloud", "firelane-model"]),
    ("firelane-store", SHARED),
    ("firelane-client", SHARED),
    ("firelane-guest-runner", &["firelane-guest-proto"]),
    ("firelane-bare-guest", &["firelane-guest-proto"]),
    (
        "firelane-agent",
        &[
            "firelane-guest-proto",
            "firelane-model",
            "firelane-wire",
            "firelane-image",
            "firelane-vmm",
            "firelane-network",
            "firelane-store",
        ],
    ),
    (
        "firelane-coordinator",
        &[
            "firelane-guest-proto",
            "firelane-model",
            "firelane-wire",
            "firelane-store",
            "firelane-traces",
        ],
    ),
    ("firelane-gateway", GATEWAY),
    ("firelane-cli", LIBRARIES),
    ("firelane-testkit", AND_PROGRAMS),
    ("xtask", AND_PROGRAMS),
];
/// What everybody talks in.
const SHARED: &[&str] = &["firelane-guest-proto", "firelane-model", "firelane-wire"];
/// It touches no microVM.
const GATEWAY: &[&str] = &[
    "firelane-guest-proto",
    "firelane-model",
    "firelane-wire",
    "firelane-store",
    "firelane-traces",
];
const LIBRARIES: &[&str] = &[
    "firelane-cloud",
    "firelane-lane",
    "firelane-guest-proto",
    "firelane-host-proto",
    "firelane-model",
    "firelane-wire",
    "firelane-sys",
    "firelane-image",
    "firelane-vmm",
    "firelane-network",
    "firelane-store",
    "firelane-traces",
    "firelane-client",
    "firelane-agent",
    "firelane-coordinator",
    "firelane-gateway",
];
const AND_PROGRAMS: &[&str] = &[
    "firelane-cloud",
    "firelane-lane",
    "firelane-bare-guest",
    "firelane-guest-proto",
    "firelane-host-proto",
    "firelane-hostd",
    "firelane-launch",
    "firelane-model",
    "firelane-wire",
    "firelane-sys",
    "firelane-image",
    "firelane-vmm",
    "firelane-network",
    "firelane-store",
    "firelane-traces",
    "firelane-client",
    "firelane-cloud",
    "firelane-agent",
    "firelane-coordinator",
    "firelane-gateway",
    "firelane-cli",
];
/// Tests of every crate may use it.
const TESTKIT: &str = "firelane-testkit";
/// What the guest-runner may depend on from outside the workspace: nothing that brings a runtime along.
const GUEST_RUNNER: &[&str] = &["libc", "rustix", "serde", "thiserror"];
/// What its build script may use: nothing of that is in the guest.
const GUEST_RUNNER_BUILD: &[&str] = &["seccompiler", "serde_json"];
/// What hostd, which is root, may depend on from outside: no runtime, no network.
const HOSTD: &[&str] = &["command-fds", "rustix", "serde", "serde_json", "thiserror"];

pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let manifest = manifest(&package.name);
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            let message = "this crate has no place in the crate graph: give it one in xtask/src/tidy/crates.rs";
            findings.push(Finding::new(Path::new(&manifest), 0, message));
            continue;
        };
        for dependency in &package.dependencies {
            if let Some(message) = refuse(&package.name, allowed, dependency) {
                findings.push(Finding::new(Path::new(&manifest), 0, message));
            }
        }
    }
    findings
}

/// Why this crate may not depend on that one, if it may not.
fn refuse(package: &str, allowed: &[&str], dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    let for_tests = dependency.kind.as_deref() == Some("dev");
    let refused = match dependency.path {
        Some(_) => !(allowed.contains(&name) || for_tests && name == TESTKIT),
        None if for_tests => false,
        None if package == "firelane-hostd" => !HOSTD.contains(&name),
        None if package != "firelane-guest-runner" => false,
        None if dependency.kind.as_deref() == Some("build") => !GUEST_RUNNER_BUILD.contains(&name),
        None => !GUEST_RUNNER.contains(&name),
    };
    refused.then(|| format!("{package} must not depend on {name}"))
}

fn manifest(package: &str) -> String {
    match package.strip_prefix("firelane-") {
        Some(folder) => format!("crates/{folder}/Cargo.toml"),
        None => format!("{package}/Cargo.toml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>, bool)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, kind, ours)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: ours.then(|| "somewhere".into()),
        });
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            dependencies: dependencies.collect(),
        }
    }

    fn check_one(name: &str, dependency: (&str, Option<&str>, bool), allowed: bool) {
        let found = check(&[package(name, &[dependency])]);
        assert_eq!(
            found.is_empty(),
            allowed,
            "{name} -> {dependency:?}: {found:?}"
        );
    }

    #[test]
    fn arrows_go_one_way() {
        check_one("firelane-vmm", ("firelane-sys", None, true), true);
        check_one("firelane-sys", ("firelane-vmm", None, true), false);
        check_one("firelane-guest-proto", ("firelane-sys", None, true), false);
        check_one("firelane-agent", ("firelane-model", None, true), true);
        check_one("firelane-model", ("firelane-agent", None, true), false);
        check_one("firelane-cli", ("firelane-guest-runner", None, true), false);
        check_one("firelane-guest-runner", ("firelane-cli", None, true), false);
        check_one("firelane-cli", ("xtask", Some("dev"), true), false);
    }

    #[test]
    fn tests_may_use_the_testkit_and_nothing_else_may() {
        check_one(
            "firelane-vmm",
            ("firelane-testkit", Some("dev"), true),
            true,
        );
        check_one("firelane-vmm", ("firelane-testkit", None, true), false);
    }

    #[test]
    fn the_guest_runner_stays_lean() {
        check_one("firelane-guest-runner", ("rustix", None, false), true);
        check_one("firelane-guest-runner", ("tokio", None, false), false);
        check_one(
            "firelane-guest-runner",
            ("tokio", Some("build"), false),
            false,
        );
        check_one(
            "firelane-guest-runner",
            ("seccompiler", Some("build"), false),
            true,
        );
        check_one("firelane-guest-runner", ("seccompiler", None, false), false);
        check_one(
            "firelane-guest-runner",
            ("proptest", Some("dev"), false),
            true,
        );
    }

    #[test]
    fn hostd_stays_lean() {
        check_one("firelane-hostd", ("rustix", None, false), true);
        check_one("firelane-hostd", ("tokio", None, false), false);
        check_one("firelane-hostd", ("tempfile", Some("dev"), false), true);
        check_one("firelane-hostd", ("firelane-vmm", None, true), false);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        assert_eq!(check(&[package("firelane-new", &[])]).len(), 1);
    }
}
