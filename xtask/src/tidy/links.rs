//! Links in Markdown files that point into the checkout lead somewhere: to a file that exists and, after
//! `#`, to a heading that is in it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let pages: BTreeMap<&Path, Vec<String>> = tree
        .with_extension("md")
        .map(|file| (file.path.as_path(), anchors(&file.text)))
        .collect();
    let mut findings = Vec::new();
    for file in tree.with_extension("md") {
        for (line, link) in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if target.is_empty() {
                file.path.clone()
            } else {
                normal(&file.path.parent().unwrap_or(Path::new("")).join(target))
            };
            let message = match pages.get(target.as_path()) {
                Some(anchors) if anchor.is_empty() || anchors.iter().any(|a| a == anchor) => {
                    continue;
                }
                Some(_) => format!("{} has no heading #{anchor}", target.display()),
                None if exists(tree, &target) => continue,
                None => format!("the link leads nowhere: {link}"),
            };
            findings.push(Finding::new(&file.path, line, message));
        }
    }
    findings
}

fn exists(tree: &Tree, path: &Path) -> bool {
    let read = tree.files.iter().any(|file| file.path.starts_with(path));
    read || (!tree.root.as_os_str().is_empty() && tree.root.join(path).exists())
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Lines that are not inside a code block, from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_block = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        (!in_block && !fence).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)`, with their lines. Code spans hold none.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (at, _) in outside.match_indices("](") {
            let rest = &outside[at + 2..];
            if let Some(end) = rest.find(')') {
                let target = rest[..end].split_whitespace().next().unwrap_or_default();
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// What headings are called after `#`: lower case, spaces as `-`, punctuation gone.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let slug: String = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        // The second heading of a name gets a number.
        let again = anchors
            .iter()
            .filter(|known| **known == slug || known.starts_with(&format!("{slug}-")))
            .count();
        anchors.push(slug.clone());
        if again > 0 {
            anchors.push(format!("{slug}-{again}"));
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::test::lines;

    #[test]
    fn links_lead_to_files_and_headings() {
        let tree = Tree::of(&[
            ("docs/a.md", "# One word\n\n## And `two`: words\n"),
            (
                "README.md",
                "[a](docs/a.md)\n[b](docs/b.md)\n[c](docs/a.md#one-word)\n[d](docs/a.md#other)\n\
                 [e](https://example.org/x) [f](docs) `[g](nowhere)`\n```\n[h](nowhere)\n```\n\
                 [i](docs/a.md#and-two-words)\n",
            ),
            (
                "docs/c.md",
                "[up](../README.md) [out](../gone.md)\n[here](#gone)\n",
            ),
        ]);
        assert_eq!(lines(&check(&tree)), [2, 4, 1, 2]);
    }
}
