//! `cargo xtask tidy`: rules of this workspace that no other tool holds us to. One file per rule.

mod crates;
mod hosts;
mod links;
mod module_docs;
mod notes;
mod rust_text;
mod shell;
mod size;
mod tree;
mod unsafe_code;
mod whitespace;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    /// From 1; 0 is about the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &Path, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

/// Checks all rules and prints what breaks them.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tree = Tree::read(&workspace.root)?;
    let mut findings = crates::check(&workspace.packages);
    findings.extend(unsafe_code::check(&tree));
    findings.extend(notes::check(&tree));
    findings.extend(module_docs::check(&tree));
    findings.extend(size::check(&tree));
    findings.extend(whitespace::check(&tree));
    findings.extend(hosts::check(&tree));
    findings.extend(links::check(&tree));
    findings.extend(shell::check(&tree)?);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} places break the workspace's rules", findings.len());
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::Finding;

    /// The lines of the findings.
    pub(super) fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }
}
