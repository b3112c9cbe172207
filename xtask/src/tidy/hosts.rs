//! No package registry, mirror or download host is named: which one is used is the user's to
//! configure, in the package clients.

use super::Finding;
use super::tree::Tree;

/// Names in pieces, so that this file does not hold one.
const HOSTS: &[&[&str]] = &[
    &["deb", "debian", "org"],
    &["security", "debian", "org"],
    &["snapshot", "debian", "org"],
    &["archive", "ubuntu", "com"],
    &["ports", "ubuntu", "com"],
    &["crates", "io"],
    &["static", "rust-lang", "org"],
    &["sh", "rustup", "rs"],
    &["pypi", "org"],
    &["files", "pythonhosted", "org"],
    &["registry", "npmjs", "org"],
    &["registry", "yarnpkg", "com"],
    &["proxy", "golang", "org"],
    &["rubygems", "org"],
    &["docker", "io"],
    &["quay", "io"],
    &["ghcr", "io"],
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let hosts: Vec<String> = HOSTS.iter().map(|pieces| pieces.join(".")).collect();
    let mut findings = Vec::new();
    for file in &tree.files {
        // Cargo writes where each package came from.
        if file
            .path
            .file_name()
            .is_some_and(|name| name == "Cargo.lock")
        {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            if let Some(host) = hosts.iter().find(|host| line.contains(host.as_str())) {
                let message = format!("names the host {host}");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::test::lines;

    #[test]
    fn a_registry_named_anywhere_is_found() {
        let host = HOSTS[0].join(".");
        let text = format!("mirror = 1\nmirror = \"https://{host}/debian\"\n");
        let tree = Tree::of(&[("a.toml", &text), ("Cargo.lock", &text)]);
        assert_eq!(lines(&check(&tree)), [2]);
    }
}
