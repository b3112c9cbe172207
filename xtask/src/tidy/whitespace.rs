//! No tabs but a Makefile's, nothing after the last character of a line, a line end at the end.

use super::Finding;
use super::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    // What a program printed, byte for byte.
    if file.path.extension().is_some_and(|e| e == "snap") {
        return Vec::new();
    }
    let tabs_allowed = file.path.file_name().is_some_and(|name| name == "Makefile");
    let mut findings = Vec::new();
    for (index, line) in file.text.split('\n').enumerate() {
        let mut find = |message| findings.push(Finding::new(&file.path, index + 1, message));
        if line.contains('\t') && !tabs_allowed {
            find("tab");
        }
        if line.ends_with([' ', '\t', '\r']) {
            find("white space at the end of the line");
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(Finding::new(
            &file.path,
            0,
            "no line end at the end of the file",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::test::lines;

    #[test]
    fn stray_white_space_is_found() {
        let check = |path: &str, text: &str, expected: &[usize]| {
            let findings = check(&Tree::of(&[(path, text)]));
            assert_eq!(lines(&findings), expected, "{path}: {text:?}");
        };
        check("a.rs", "a\n\tb\nc \nd\r\n", &[2, 3, 4]);
        check("a.rs", "a", &[0]);
        check("Makefile", "a:\n\tb\n", &[]);
        check("a.snap", "a \n", &[]);
        check("a.rs", "", &[]);
    }
}
