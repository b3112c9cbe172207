//! A source file of more than 800 lines holds two subjects.

use super::Finding;
use super::tree::Tree;

const MOST_LINES: usize = 800;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        let count = file.text.lines().count();
        if count > MOST_LINES {
            let message = format!(
                "{count} lines, more than {MOST_LINES}: which two subjects share this file?"
            );
            findings.push(Finding::new(&file.path, 0, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_source_files_are_refused() {
        let (long, short) = ("\n".repeat(MOST_LINES + 1), "\n".repeat(MOST_LINES));
        let tree = Tree::of(&[("a.rs", &long), ("b.rs", &short), ("Cargo.lock", &long)]);
        assert_eq!(check(&tree).len(), 1);
    }
}
