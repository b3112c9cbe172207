//! `unsafe` stands only where syscalls or hardware need it: in `sys`, in the guest-runner and in the bare
//! guest.

use super::Finding;
use super::rust_text::{code_only, has_word};
use super::tree::Tree;

const ALLOWED: [&str; 3] = ["crates/sys", "crates/guest-runner", "crates/bare-guest"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        if ALLOWED.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        for (index, line) in code_only(&file.text).lines().enumerate() {
            if has_word(line, "unsafe") {
                let message = "unsafe belongs to firelane-sys, behind a safe function";
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
    fn unsafe_code_is_found_where_it_may_not_be() {
        let text = "// unsafe in words\nfn f() {\n    unsafe { g() }\n}\n";
        let tree = Tree::of(&[
            ("crates/sys/src/kvm.rs", text),
            ("crates/guest-runner/src/main.rs", text),
            ("crates/cli/src/main.rs", text),
        ]);
        let findings = check(&tree);
        assert_eq!(lines(&findings), [3]);
        assert!(findings[0].path.starts_with("crates/cli"));
    }
}
