//! Zygotes: interpreters that were started before there was a program to run.
//!
//! ```text
//!   warm      start the interpreter, as the programs' user, with what programs load in memory
//!   snapshot  (the host's business)
//!   program   the zygote forks; the child joins the exec's cgroup, and runs it
//! ```
//!
//! A parked interpreter becomes the one program that it waits for: a child that a zygote forked before
//! there was a program, which saves the fork, or an interpreter like Node, which cannot fork, or a shell that has started.
//!
//! A zygote is no part of the guest-runner: it is the programs' user, and a hostile program can
//! signal it. What it says is checked, what it does not say in time is not waited for, and where it
//! cannot help the interpreter is started as usual.

mod forking;
mod parked;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firelane_guest_proto::Lang;

use self::forking::Zygote;
pub(crate) use self::forking::{Child, Forked};
use self::parked::Parked;
use crate::Guest;
use crate::cgroup::Bounds;
use crate::console;
use crate::exec::{self, Running};
use crate::wake::Wake;

/// What a zygote needs to run one program.
pub(crate) struct Order<'a> {
    pub(crate) lang: Lang,
    /// The working directory.
    pub(crate) folder: &'a str,
    /// The source file in it.
    pub(crate) file: &'a str,
    /// The program's arguments.
    pub(crate) args: &'a [String],
    /// The program's whole environment.
    pub(crate) env: &'a BTreeMap<String, String>,
}

/// The zygotes of this guest, idle ones only: one that runs a program is with its exec.
#[derive(Default)]
pub(crate) struct Zygotes {
    forking: Mutex<Vec<Zygote>>,
    parked: Mutex<Vec<Parked>>,
}

impl Zygotes {
    /// Starts the zygote of a language and parks an interpreter, unless they are there, if the language
    /// has such things and the template the interpreter.
    pub(crate) fn start(
        &self,
        guest: &Guest,
        lang: Lang,
        snippets: &[String],
        env: &[(String, String)],
    ) -> io::Result<()> {
        let mut whole = exec::base_environment();
        whole.extend(env.iter().cloned());
        let zygote = match take(&self.forking, |zygote| zygote.lang() == lang) {
            Some(zygote) => Some(zygote),
            None => Zygote::start(guest, lang, snippets, &whole)?,
        };
        if !lock(&self.parked)
            .iter()
            .any(|parked| parked.lang() == lang)
            && let Some(parked) = Parked::start(guest, lang, zygote.as_ref(), snippets, &whole)?
        {
            lock(&self.parked).push(parked);
        }
        if let Some(zygote) = zygote {
            self.put_back(zygote);
        }
        Ok(())
    }

    /// Has the parked interpreter of the language become the program, if there is one that can.
    pub(crate) fn unpark(
        &self,
        order: &Order<'_>,
        bounds: Bounds,
        wake: &Arc<Wake>,
    ) -> Option<Running> {
        let parked = take(&self.parked, |parked| {
            order.suits(parked.lang(), parked.env())
        })?;
        said(order, parked.unpark(order, bounds, wake))
    }

    /// Has the zygote of the language run the program, if there is one that is free and can. A
    /// zygote that fails is not asked again.
    pub(crate) fn fork(&self, order: &Order<'_>, child: &Child<'_>) -> Option<Forked> {
        let zygote = take(&self.forking, |zygote| {
            order.suits(zygote.lang(), zygote.env())
        })?;
        said(order, zygote.fork(order, child))
    }

    /// A zygote that is free again.
    pub(crate) fn put_back(&self, zygote: Zygote) {
        lock(&self.forking).push(zygote);
    }
}

impl Order<'_> {
    /// Whether a zygote of that language, which started with that environment, can run this.
    fn suits(&self, lang: Lang, started_with: &BTreeMap<String, String>) -> bool {
        let names = self.env.keys().chain(started_with.keys());
        self.lang == lang
            && (lang != Lang::Bash || self.suits_shell())
            && names
                .filter(|name| read_at_start(lang, name))
                .all(|name| self.env.get(name) == started_with.get(name))
    }

    /// A shell that has started has the name of its program and its arguments already.
    fn suits_shell(&self) -> bool {
        self.args.is_empty() && self.file == exec::first_source(Lang::Bash)
    }
}

/// Whether the interpreter, or the loader before it, reads this variable when it starts.
fn read_at_start(lang: Lang, name: &str) -> bool {
    let prefixes: &[&str] = match lang {
        Lang::Python => &["PYTHON"],
        Lang::Ruby => &["RUBY", "GEM_"],
        Lang::Node => &["NODE_", "UV_"],
        Lang::Bash => &SHELL_VARIABLES,
        Lang::Rust => &[],
    };
    let common = [
        "LD_", "LC_", "LANG", "GLIBC_", "MALLOC_", "OPENSSL_", "HOME",
    ];
    prefixes
        .iter()
        .chain(&common)
        .any(|prefix| name.starts_with(prefix))
        || (lang == Lang::Bash && !is_identifier(name))
}

/// Beginnings of the names that have a meaning to Bash, so that to set one is more than to set a
/// variable; `PWD` is set by the change of the directory. Source: bash(1), 5.2, "Shell Variables".
const SHELL_VARIABLES: [&str; 49] = [
    "BASH",
    "CDPATH",
    "CHILD_MAX",
    "COLUMNS",
    "COMP",
    "COPROC",
    "DIRSTACK",
    "EMACS",
    "ENV",
    "EPOCH",
    "EUID",
    "EXECIGNORE",
    "FCEDIT",
    "FIGNORE",
    "FUNC",
    "GLOB",
    "GROUPS",
    "HIST",
    "HOST",
    "IFS",
    "IGNOREEOF",
    "INPUTRC",
    "INSIDE_EMACS",
    "LINENO",
    "LINES",
    "MACHTYPE",
    "MAIL",
    "MAPFILE",
    "OLDPWD",
    "OPT",
    "OSTYPE",
    "PIPESTATUS",
    "POSIX",
    "PPID",
    "PROMPT",
    "PS",
    "RANDOM",
    "READLINE",
    "REPLY",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "TEXTDOMAIN",
    "TIMEFORMAT",
    "TMOUT",
    "UID",
    "_",
    "auto_resume",
];

/// Whether a shell can have a variable of this name.
fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What came of it; a failure is told on the console, and the program starts as usual.
fn said<T>(order: &Order<'_>, result: io::Result<T>) -> Option<T> {
    result
        .map_err(|error| console::log(&format!("the zygote of {} failed: {error}", order.lang)))
        .ok()
}

fn take<T>(list: &Mutex<Vec<T>>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    let mut list = lock(list);
    let index = list.iter().position(wanted)?;
    Some(list.swap_remove(index))
}

fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
