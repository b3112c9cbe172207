//! Each source file opens with `//!`: what it is for. Files of tests only are left out.

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        let tests_only = file.path.file_name().is_some_and(|name| name == "tests.rs");
        if !file.text.starts_with("//!") && !tests_only {
            let message = "the file does not open with //! and what it is for";
            findings.push(Finding::new(&file.path, 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_opens_with_what_it_is_for() {
        let tree = Tree::of(&[
            ("a/one.rs", "//! One.\n"),
            ("a/two.rs", "use std::fs;\n\n//! Two.\n"),
            ("a/tests.rs", "use super::*;\n"),
        ]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].path.ends_with("two.rs"));
    }
}
