//! A note of work to be done names the issue that will do it: `#` and a number on the same line.

use super::Finding;
use super::rust_text::has_word;
use super::tree::Tree;

/// Put together here, so that this file has none of them.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            let marked = MARKS.iter().find(|mark| has_word(line, mark));
            if let Some(mark) = marked
                && !names_an_issue(line)
            {
                let message = format!("{mark} without the issue that will do it (#number)");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
        }
    }
    findings
}

fn names_an_issue(line: &str) -> bool {
    line.split('#')
        .skip(1)
        .any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::test::lines;

    #[test]
    fn a_note_names_its_issue() {
        let mark = MARKS[0];
        let text = format!("// {mark}: later\n// {mark} #12: then\n// {mark}S is no note\n");
        assert_eq!(lines(&check(&Tree::of(&[("a.rs", &text)]))), [1]);
    }
}
