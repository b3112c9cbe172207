//! The folder that is sent.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::release::Release;
use super::sources;
use super::units::UNITS;

const BUILD: &str = include_str!("build.sh");
const INSTALL: &str = include_str!("install.sh");
const REMOVE: &str = super::REMOVE;
const SERVE_ENV: &str = include_str!("serve.env");

/// Why the folder could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub(crate) struct StageError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Fills an empty folder with what is to be installed.
pub(crate) fn stage(release: &Release, folder: &Path) -> Result<(), StageError> {
    let mut plan = String::new();
    let bin = make(&folder.join("bin"))?;
    for (name, program) in release.programs() {
        if let Some(program) = program {
            let to = bin.join(name);
            fs::copy(&program, &to).map_err(error("copy", &program))?;
            set_mode(&to, 0o755)?;
        }
        plan.push_str(&format!("program {name}\n"));
    }
    if let Some(sources) = release.sources() {
        let copied = sources::copy(sources, &folder.join("sources"));
        copied.map_err(|(path, source)| error("copy", &path)(source))?;
        write(&folder.join("build.sh"), BUILD, 0o755)?;
    }
    let units = make(&folder.join("units"))?;
    for unit in UNITS {
        write(&units.join(unit.name), unit.text, 0o644)?;
        plan.push_str(&format!("unit {}\n", unit.name));
    }
    let etc = make(&folder.join("etc"))?;
    let mut settings = SERVE_ENV.to_owned();
    if let Some((name, store)) = release.template() {
        settings.push_str(&format!("FIRELANE_TEMPLATE={name}\n"));
        link_tree(store, &folder.join("store"))?;
    }
    write(&etc.join("serve.env"), &settings, 0o640)?;
    plan.push_str("setting serve.env\n");
    write(&folder.join("plan"), &plan, 0o644)?;
    write(&folder.join("install.sh"), INSTALL, 0o755)?;
    write(&folder.join("remove.sh"), REMOVE, 0o755)
}

/// The same folder, with links to its files where that can be.
fn link_tree(from: &Path, to: &Path) -> Result<(), StageError> {
    make(to)?;
    for entry in fs::read_dir(from).map_err(error("read", from))? {
        let entry = entry.map_err(error("read", from))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            link_tree(&path, &copy)?;
        } else if fs::hard_link(&path, &copy).is_err() {
            fs::copy(&path, &copy).map_err(error("copy", &path))?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<PathBuf, StageError> {
    fs::create_dir_all(folder).map_err(error("make", folder))?;
    Ok(folder.to_owned())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), StageError> {
    fs::write(path, text).map_err(error("write", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StageError> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(error("set the mode of", path))
}

fn error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StageError + use<> {
    let path = path.to_owned();
    move |source| StageError {
        doing,
        path,
        source,
    }
}
