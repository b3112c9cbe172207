//! What maintainer scripts would have done, and what the guest-runner needs, in small steps on an unpacked tree.
//!
//! The guest's own identity (host name, machine id, resolver) stays empty or neutral here: the guest-runner writes it
//! on the overlay, per microVM. All files are root's in the image; `/home/user` and `/work` get their owner in the guest.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::paths::MERGED;
use super::unpack::remove_old;
use crate::file::{FileError, at, make_folder, put, read};
use crate::recipe::resolve::Resolved;

/// Paths of the archive that make no sense in a template, or that hold traces of the building host.
pub(crate) const NEVER: &[&str] = &[
    "boot",
    "dev",
    "etc/apt",
    "etc/fstab",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];

/// Folders of the finished root with their modes: mount points, and what programs expect to exist.
const FOLDERS: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("home/user", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("work", 0o755),
];

const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\n\
         user:x:1000:1000:user:/home/user:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n",
    ),
    ("etc/hostname", "firelane\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost firelane\n::1 localhost ip6-localhost\n",
    ),
    ("etc/machine-id", ""),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    ),
    ("etc/resolv.conf", ""),
    ("etc/shells", "/bin/sh\n/bin/bash\n"),
];

/// A step and its name.
type Step = (&'static str, fn(&Path, &Resolved) -> Result<(), FileError>);

/// The steps in their order. A user's own files come last: they replace anything before.
pub(crate) const STEPS: &[Step] = &[
    ("merged-usr links", merged_usr),
    ("folders", |tree, _| folders(tree)),
    ("accounts and network names", files),
    ("certificates", certificates),
    ("links", links),
    ("files of the definition", definition_files),
];

fn merged_usr(tree: &Path, _: &Resolved) -> Result<(), FileError> {
    for name in MERGED {
        if tree.join("usr").join(name).is_dir() {
            let link = tree.join(name);
            remove_old(&link).map_err(at("replace", &link))?;
            symlink(format!("usr/{name}"), &link).map_err(at("link", &link))?;
        }
    }
    Ok(())
}

fn folders(tree: &Path) -> Result<(), FileError> {
    for (name, mode) in FOLDERS {
        let path = tree.join(name);
        make_folder(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(*mode))
            .map_err(at("set the mode of", &path))?;
    }
    Ok(())
}

fn files(tree: &Path, _: &Resolved) -> Result<(), FileError> {
    FILES
        .iter()
        .try_for_each(|(name, content)| put(&tree.join(name), content.as_bytes(), 0o644))
}

/// The bundle that `update-ca-certificates` would write: all of Mozilla's, one after the other.
fn certificates(tree: &Path, _: &Resolved) -> Result<(), FileError> {
    let folder = tree.join("usr/share/ca-certificates/mozilla");
    if !folder.is_dir() {
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
        names.push(entry.map_err(at("list", &folder))?.file_name());
    }
    names.sort();
    let mut bundle = Vec::new();
    for name in names {
        bundle.extend(read(&folder.join(name))?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    put(
        &tree.join("etc/ssl/certs/ca-certificates.crt"),
        &bundle,
        0o644,
    )
}

fn links(tree: &Path, resolved: &Resolved) -> Result<(), FileError> {
    for (path, target) in &resolved.links {
        let link = tree.join(path);
        real_parents(tree, path)?;
        remove_old(&link).map_err(at("replace", &link))?;
        symlink(target, &link).map_err(at("link", &link))?;
    }
    Ok(())
}

fn definition_files(tree: &Path, resolved: &Resolved) -> Result<(), FileError> {
    for (path, file) in &resolved.files {
        real_parents(tree, path)?;
        put(&tree.join(path), &file.content, file.mode)?;
    }
    Ok(())
}

/// Gives what was made here its final mode, whatever umask the build ran with: folders and byte-code. Other files have
/// theirs since they were unpacked.
pub(crate) fn final_modes(tree: &Path) -> Result<(), FileError> {
    fn walk(folder: &Path) -> Result<(), FileError> {
        let set = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(at("set the mode of", path))
        };
        set(folder, 0o755)?;
        for entry in fs::read_dir(folder).map_err(at("list", folder))? {
            let entry = entry.map_err(at("list", folder))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(at("read", folder))?);
            if kind.is_dir() {
                walk(&path)?;
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "pyc")
            {
                set(&path, 0o644)?;
            }
        }
        Ok(())
    }
    walk(tree)?;
    folders(tree)
}

/// Makes the folders above `path`, refusing to pass through a link: it might lead out of the tree.
pub(crate) fn real_parents(tree: &Path, path: &str) -> Result<(), FileError> {
    let Some((parents, _)) = path.rsplit_once('/') else {
        return Ok(());
    };
    let mut folder = tree.to_owned();
    for name in parents.split('/') {
        folder.push(name);
        match folder.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
                return Err(FileError {
                    action: "pass through",
                    path: folder,
                    source,
                });
            }
            Err(_) => fs::create_dir(&folder).map_err(at("create", &folder))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve::PlacedFile;

    fn run(tree: &Path, resolved: &Resolved) -> Result<(), FileError> {
        STEPS.iter().try_for_each(|(_, step)| step(tree, resolved))
    }

    #[test]
    fn an_empty_tree_gets_accounts_mount_points_and_links() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("usr/lib64")).unwrap();
        let mut resolved = Resolved::default();
        resolved
            .links
            .insert("usr/bin/awk".to_owned(), "mawk".to_owned());
        run(tree.path(), &resolved).unwrap();
        // Twice gives the same: nothing stumbles over what is there.
        run(tree.path(), &resolved).unwrap();
        assert!(
            fs::read_to_string(tree.path().join("etc/passwd"))
                .unwrap()
                .contains("user:x:1000:1000:")
        );
        assert_eq!(
            fs::read_link(tree.path().join("lib64")).unwrap(),
            Path::new("usr/lib64")
        );
        assert_eq!(
            fs::read_link(tree.path().join("usr/bin/awk")).unwrap(),
            Path::new("mawk")
        );
        assert!(!tree.path().join("bin").exists() || tree.path().join("usr/bin").is_dir());
        let mode = |path: &str| {
            tree.path()
                .join(path)
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!(
            (mode("tmp"), mode("work"), mode("root")),
            (0o1777, 0o755, 0o700)
        );
    }

    #[test]
    fn certificates_are_joined_in_order() {
        let tree = tempfile::tempdir().unwrap();
        put(
            &tree.path().join("usr/share/ca-certificates/mozilla/b.crt"),
            b"B",
            0o644,
        )
        .unwrap();
        put(
            &tree.path().join("usr/share/ca-certificates/mozilla/a.crt"),
            b"A\n",
            0o644,
        )
        .unwrap();
        run(tree.path(), &Resolved::default()).unwrap();
        assert_eq!(
            fs::read(tree.path().join("etc/ssl/certs/ca-certificates.crt")).unwrap(),
            b"A\nB\n"
        );
    }

    #[test]
    fn a_definition_cannot_write_through_a_link() {
        let tree = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), tree.path().join("opt")).unwrap();
        let mut resolved = Resolved::default();
        resolved.files.insert(
            "opt/x".to_owned(),
            PlacedFile {
                content: Vec::new(),
                mode: 0o644,
            },
        );
        assert_eq!(
            run(tree.path(), &resolved).unwrap_err().action,
            "pass through"
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
