//! Shell scripts pass shellcheck, where it is installed.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Finding;
use super::tree::{File, Tree};
use crate::program::on_path;

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let scripts: Vec<&File> = tree.files.iter().filter(|file| is_script(file)).collect();
    if on_path("shellcheck").is_none() {
        println!("SKIP shell scripts: shellcheck is not installed (apt-get install shellcheck)");
        return Ok(Vec::new());
    }
    let mut command = Command::new("shellcheck");
    command.args(["--format=gcc", "--"]);
    command.args(scripts.iter().map(|script| &script.path));
    let output = command
        .current_dir(&tree.root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run shellcheck")?;
    Ok(findings(&String::from_utf8_lossy(&output.stdout)))
}

fn is_script(file: &File) -> bool {
    let first = file.text.lines().next().unwrap_or_default();
    let interpreter = first.rsplit(['/', ' ']).next().unwrap_or_default();
    first.starts_with("#!") && ["sh", "bash"].contains(&interpreter)
}

/// Lines of the form `path:line:column: message`.
fn findings(output: &str) -> Vec<Finding> {
    let parse = |line: &str| {
        let mut fields = line.splitn(4, ':');
        let (path, number) = (fields.next()?, fields.next()?);
        let message = fields.nth(1)?.trim();
        Some(Finding::new(path.as_ref(), number.parse().ok()?, message))
    };
    output.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_known_by_their_first_line() {
        let tree = Tree::of(&[
            ("a", "#!/usr/bin/env bash\n"),
            ("b", "#!/bin/sh\n"),
            ("c", "#!/usr/bin/python3\n"),
            ("d.md", "bash\n"),
        ]);
        let scripts: Vec<bool> = tree.files.iter().map(is_script).collect();
        assert_eq!(scripts, [true, true, false, false]);
    }

    #[test]
    fn what_shellcheck_writes_becomes_findings() {
        let found = findings("a/b:3:7: note: Double quote to prevent globbing. [SC2086]\n");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "a/b:3: note: Double quote to prevent globbing. [SC2086]"
        );
    }
}
