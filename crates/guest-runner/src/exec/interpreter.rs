//! Which program runs a language's source.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use firelane_guest_proto::Lang;

/// `PATH` of every program.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names to try, best first.
const fn candidates(lang: Lang) -> &'static [&'static str] {
    match lang {
        Lang::Python => &["python3", "python2", "python"],
        Lang::Bash => &["bash"],
        Lang::Node => &["node", "nodejs"],
        Lang::Ruby => &["ruby"],
        Lang::Rust => &["rustc"],
    }
}

/// The first interpreter of `lang` that the template has. Only root could change which that is, and
/// no program is root.
pub(crate) fn find(lang: Lang) -> Option<PathBuf> {
    static FOUND: Mutex<BTreeMap<Lang, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = found.get(&lang) {
        return Some(known.clone());
    }
    let path = candidates(lang).iter().find_map(|name| on_path(name))?;
    found.insert(lang, path.clone());
    Some(path)
}

/// Names tried for `lang`, for messages.
pub(crate) fn tried(lang: Lang) -> String {
    candidates(lang).join(", ")
}

/// The program that `name` means: a path if it has a slash, else the first on `PATH`. A relative
/// path is the program's working directory's, so whether it is there shows when it is started.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return Some(path).filter(|path| path.is_relative() || executable(path));
    }
    PATH.split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What a program's command line makes of its source file, in the same folder.
pub(crate) fn made_of(lang: Lang, file: &str) -> Option<String> {
    let stem = file.strip_suffix(".rs")?;
    (lang == Lang::Rust).then(|| stem.to_owned())
}

/// The command line that runs the source file `file` in the working directory, `folder`.
///
/// Rust is compiled first; what the compiler says goes to stderr, and its exit code is the
/// program's when it fails.
pub(crate) fn command_line(
    lang: Lang,
    interpreter: &Path,
    folder: &str,
    file: &str,
    args: &[String],
) -> Vec<String> {
    let interpreter = interpreter.to_string_lossy().into_owned();
    let mut line = match lang {
        Lang::Rust => {
            let script = "source=$1; shift; \"$0\" --edition 2021 -C debuginfo=0 -o \"./${source%.rs}\" \
                          \"$source\" >&2 </dev/null || exit $?; exec \"./${source%.rs}\" \"$@\"";
            ["/bin/sh", "-c", script, &interpreter, file]
                .map(String::from)
                .to_vec()
        }
        // What it knows of a program by its whole path, a zygote can tell it as well.
        Lang::Ruby => vec![interpreter, format!("{folder}/{file}")],
        _ => vec![interpreter, file.into()],
    };
    line.extend_from_slice(args);
    line
}
