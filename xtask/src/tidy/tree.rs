//! The text files of the checkout, read once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders whose name starts with a dot and that hold files of ours.
const DOT_FOLDERS: [&str; 4] = [".cargo", ".ci", ".config", ".github"];
/// Folders that others fill: cargo, fuzzers, package managers.
const NOT_OURS: [&str; 5] = ["target", "corpus", "artifacts", "coverage", "node_modules"];

/// All files that are UTF-8.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) files: Vec<File>,
}

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the root.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Tree {
    /// Reads everything below `root`, in the order of names.
    pub(super) fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree {
            root: root.to_owned(),
            files: Vec::new(),
        };
        tree.read_folder(root)?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// Files with this extension.
    pub(super) fn with_extension(&self, extension: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.extension().is_some_and(|e| e == extension))
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let path = entry.path();
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot look at {}", path.display()))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() && ours(&name) {
                self.read_folder(&path)?;
            } else if kind.is_file() {
                let bytes =
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    let path = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
                    self.files.push(File { path, text });
                }
            }
        }
        Ok(())
    }
}

fn ours(folder: &str) -> bool {
    (!folder.starts_with('.') || DOT_FOLDERS.contains(&folder)) && !NOT_OURS.contains(&folder)
}

#[cfg(test)]
impl Tree {
    /// A tree of these paths and texts, not on any disk.
    pub(super) fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| File {
            path: path.into(),
            text: (*text).to_owned(),
        });
        Tree {
            root: PathBuf::new(),
            files: files.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_and_hidden_folders_are_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "a/x.rs",
            ".ci/run",
            ".git/config",
            "target/x.rs",
            "fuzz/target/y",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text\n").unwrap();
        }
        fs::write(folder.path().join("picture"), b"\xff\xfe").unwrap();
        let tree = Tree::read(folder.path()).unwrap();
        let paths: Vec<&Path> = tree.files.iter().map(|file| file.path.as_path()).collect();
        assert_eq!(paths, [Path::new(".ci/run"), Path::new("a/x.rs")]);
    }
}
