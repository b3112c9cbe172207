//! Zygotes: interpreters that were started before there was a program to run.
//!
//! ```text
//!   warm      start the interpreter, as the programs' user, with what programs load in memory
//!   snapshot  (the host's business)
//!   program   the zygote forks; the child joins the exec's cgroup, and runs it
//! ```
//!
//! A zygote is no part of the guest-runner: it is the programs' user, and a hostile program can
//! signal it. What it says is checked, what it does not say in time is not waited for, and where it
//! cannot help the interpreter is started as usual.

mod process;

use std::io;
use std::sync::{Mutex, PoisonError};

use firelane_guest_proto::Lang;

use self::process::Zygote;
pub(crate) use self::process::{Child, Forked};
use crate::Guest;
use crate::console;

/// What a zygote needs to run one program.
pub(crate) struct Order<'a> {
    /// The source file, in the working directory.
    pub(crate) file: &'a str,
    /// The program's arguments.
    pub(crate) args: &'a [String],
    /// The program's whole environment.
    pub(crate) env: &'a std::collections::BTreeMap<String, String>,
}

/// The zygotes of this guest, idle ones only: one that runs a program is with its exec.
#[derive(Default)]
pub(crate) struct Zygotes(Mutex<Vec<Zygote>>);

impl Zygotes {
    /// Starts the zygote of a language, if there is one for it and the template has the
    /// interpreter. Gives whether it did.
    pub(crate) fn start(&self, guest: &Guest, lang: Lang, snippets: &[String]) -> io::Result<bool> {
        match Zygote::start(guest, lang, snippets)? {
            Some(zygote) => {
                self.put_back(zygote);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Has the zygote of `lang` run a program, if there is one that is free and can. A zygote that
    /// fails is not asked again.
    pub(crate) fn fork(&self, lang: Lang, order: &Order<'_>, child: &Child<'_>) -> Option<Forked> {
        if order.env.keys().any(|name| changes_interpreter(lang, name)) {
            return None;
        }
        let zygote = self.take(lang)?;
        match zygote.fork(order, child) {
            Ok(forked) => Some(forked),
            Err(error) => {
                console::log(&format!("the zygote of {lang} failed: {error}"));
                None
            }
        }
    }

    /// A zygote that is free again.
    pub(crate) fn put_back(&self, zygote: Zygote) {
        self.lock().push(zygote);
    }

    fn take(&self, lang: Lang) -> Option<Zygote> {
        let mut free = self.lock();
        let index = free.iter().position(|zygote| zygote.lang() == lang)?;
        Some(free.swap_remove(index))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Zygote>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the interpreter reads this variable when it starts: a zygote has started already.
fn changes_interpreter(lang: Lang, name: &str) -> bool {
    let ours = match lang {
        Lang::Python => name.starts_with("PYTHON"),
        Lang::Ruby => name.starts_with("RUBY") || name.starts_with("GEM_"),
        Lang::Node => name.starts_with("NODE_"),
        Lang::Bash | Lang::Rust => false,
    };
    // The loader's variables are read by the kernel's exec of it, not by the interpreter.
    ours || name.starts_with("LD_") || name.starts_with("LC_") || name == "GLIBC_TUNABLES"
}
