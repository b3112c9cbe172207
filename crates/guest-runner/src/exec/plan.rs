//! From a request to everything that `spawn` needs: checked, looked up, written to disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use firelane_guest_proto::message::{
    ExecSpec, Limits, MAX_ARGS, MAX_ENV, Program, PtySize, Refused, RefusedCode,
};
use firelane_guest_proto::{Lang, MAX_CODE_BYTES};
use rustix::fs::{AtFlags, Mode, OFlags, fchown, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{USER_ID, interpreter, refused};
use crate::files;

/// What to start, where, and within which bounds.
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: OwnedFd,
    /// The path of that.
    pub(crate) folder: String,
    pub(crate) limits: Limits,
    pub(crate) pty: Option<PtySize>,
    /// The interpreter or program, for the outcome.
    pub(crate) interpreter: String,
    /// The source, if a zygote may run it in the program's place.
    pub(crate) source: Option<Source>,
    /// The language, if it is source code.
    pub(crate) lang: Option<Lang>,
    /// Files in the working directory that go with the program.
    going: Vec<String>,
}

/// What becomes of the source file of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceFile {
    /// It has the language's own name and stays: nothing else runs in the folder.
    Stays,
    /// It has the first name that is free, and goes with the program: others run in the folder too.
    Goes,
}

/// Most programs whose source files are in one folder at the same time.
const MAX_SOURCES: u32 = 99;

/// A source file in the working directory.
pub(crate) struct Source {
    pub(crate) lang: Lang,
    pub(crate) file: String,
    pub(crate) args: Vec<String>,
}

impl Plan {
    /// Checks the request, finds the interpreter and writes the source file. `number` names a
    /// fresh working directory if the request names none.
    pub(crate) fn make(
        spec: &ExecSpec,
        number: u64,
        source_file: SourceFile,
    ) -> Result<Plan, Refused> {
        let invalid = |message: &str| refused(RefusedCode::Invalid, message.into());
        if spec.env.len() > MAX_ENV {
            return Err(invalid("too many environment variables"));
        }
        let path = spec
            .cwd
            .clone()
            .unwrap_or_else(|| format!("/work/exec-{number}"));
        let place = files::Place::parse(&path)?;
        let folder = place.make_folder()?;
        let env = environment(spec, &place.path())?;
        let mut going = Vec::new();
        let (command_line, interpreter, source) = match &spec.program {
            Program::Code { lang, source, args } => {
                if source.len() > MAX_CODE_BYTES {
                    return Err(invalid("the source is over 1 MiB"));
                }
                check_args(args)?;
                let interpreter = interpreter::find(*lang).ok_or_else(|| no_interpreter(*lang))?;
                let file = write_source(&folder, *lang, source_file, source)?;
                if source_file == SourceFile::Goes {
                    going.extend(interpreter::made_of(*lang, &file));
                    going.push(file.clone());
                }
                let line =
                    interpreter::command_line(*lang, &interpreter, &place.path(), &file, args);
                let source = Source {
                    lang: *lang,
                    file,
                    args: args.clone(),
                };
                // A terminal needs a session of its own from the start.
                (line, interpreter, spec.pty.is_none().then_some(source))
            }
            Program::Command { argv } => {
                let name = argv
                    .first()
                    .ok_or_else(|| invalid("the command is empty"))?;
                check_args(argv)?;
                let program = interpreter::on_path(name).ok_or_else(|| {
                    refused(
                        RefusedCode::NoInterpreter,
                        format!("no command '{name}' in this template"),
                    )
                })?;
                (argv.clone(), program, None)
            }
        };
        let interpreter_name = interpreter.to_string_lossy().into_owned();
        let mut words = command_line.into_iter();
        let first = words
            .next()
            .ok_or_else(|| invalid("the command is empty"))?;
        // Most often the one that was just found.
        let program = if interpreter.as_os_str() == first.as_str() {
            interpreter
        } else {
            interpreter::on_path(&first).ok_or_else(|| {
                refused(
                    RefusedCode::NoInterpreter,
                    format!("no '{first}' in this template"),
                )
            })?
        };
        Ok(Plan {
            program,
            args: words.collect(),
            env,
            cwd: folder,
            folder: place.path(),
            limits: spec.limits,
            pty: spec.pty,
            interpreter: interpreter_name,
            source,
            lang: match &spec.program {
                Program::Code { lang, .. } => Some(*lang),
                Program::Command { .. } => None,
            },
            going,
        })
    }

    /// Removes what goes with the program, once that has ended.
    pub(crate) fn clear(&self) {
        for file in &self.going {
            // One that the program has removed or replaced is its own business.
            let _ = unlinkat(&self.cwd, file.as_str(), AtFlags::empty());
        }
    }
}

fn check_args(args: &[String]) -> Result<(), Refused> {
    if args.len() > MAX_ARGS || args.iter().any(|arg| arg.contains('\0')) {
        let message = format!("there are over {MAX_ARGS} arguments, or one with a NUL");
        return Err(refused(RefusedCode::Invalid, message));
    }
    Ok(())
}

fn no_interpreter(lang: Lang) -> Refused {
    let message = format!(
        "no interpreter for {lang} in this template (tried {})",
        interpreter::tried(lang)
    );
    refused(RefusedCode::NoInterpreter, message)
}

/// What every program finds in its environment.
pub(crate) fn base_environment() -> BTreeMap<String, String> {
    [
        ("PATH", interpreter::PATH),
        ("HOME", "/home/user"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

fn environment(spec: &ExecSpec, cwd: &str) -> Result<BTreeMap<String, String>, Refused> {
    let mut env = base_environment();
    env.insert("PWD".into(), cwd.into());
    env.insert("FIRELANE_TRACE_ID".into(), spec.trace_id.clone());
    if spec.pty.is_some() {
        env.insert("TERM".into(), "xterm-256color".into());
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!(
                "'{}' cannot be an environment variable",
                name.escape_debug()
            );
            return Err(refused(RefusedCode::Invalid, message));
        }
        env.insert(name.clone(), value.clone());
    }
    Ok(env)
}

/// The name of a program's source file, where no other is there.
pub(crate) fn first_source(lang: Lang) -> String {
    format!("main.{}", lang.extension())
}

/// Writes the source into the working directory, and gives the file's name. A file that is there
/// already stays.
fn write_source(
    folder: &OwnedFd,
    lang: Lang,
    source_file: SourceFile,
    source: &[u8],
) -> Result<String, Refused> {
    let extension = lang.extension();
    let first = first_source(lang);
    let mut made = make_source(folder, &first);
    let mut name = first.clone();
    if source_file == SourceFile::Goes {
        for number in 2..=MAX_SOURCES {
            if !matches!(made, Err(Errno::EXIST)) {
                break;
            }
            name = format!("main-{number}.{extension}");
            made = make_source(folder, &name);
        }
    }
    let file = made.map_err(|errno| match errno {
        Errno::EXIST => refused(
            RefusedCode::Invalid,
            format!("the working directory has a {first} already, which is the program's own name"),
        ),
        errno => refused(
            RefusedCode::Exhausted,
            format!("cannot make {name}: {errno}"),
        ),
    })?;
    let written = fchown(
        &file,
        Some(Uid::from_raw(USER_ID)),
        Some(Gid::from_raw(USER_ID)),
    )
    .map_err(std::io::Error::from)
    .and_then(|()| File::from(file).write_all(source));
    match written {
        Ok(()) => Ok(name),
        Err(error) => {
            let message = format!("cannot write {name}: {error}");
            Err(refused(RefusedCode::Exhausted, message))
        }
    }
}

fn make_source(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::from_raw_mode(0o644))
}
