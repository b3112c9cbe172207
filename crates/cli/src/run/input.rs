//! What the program is: its source, its language, its input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use firelane_guest_proto::{Lang, MAX_CODE_BYTES};

use crate::args::RunArgs;
use crate::failure::Failure;

/// A program, checked.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) lang: Lang,
    pub(crate) source: Vec<u8>,
    pub(crate) args: Vec<String>,
    /// The source came from standard input, so the program cannot have it.
    pub(crate) stdin_used: bool,
}

/// Where the program's standard input comes from.
pub(crate) enum StdinSource {
    /// Nowhere.
    Empty,
    /// Ours.
    Inherited,
    /// A file.
    File(File),
}

impl Input {
    /// Reads the source and finds its language.
    pub(crate) fn read(args: &RunArgs) -> Result<Input, Failure> {
        let (name, source, words) = match (&args.code, args.words.split_first()) {
            (Some(code), _) => (None, code.clone().into_bytes(), args.words.clone()),
            (None, Some((name, words))) => {
                (Some(name.as_str()), read_source(name)?, words.to_vec())
            }
            (None, None) => {
                return Err(Failure::usage(
                    "no code: name a file, or - for standard input, or use -c CODE",
                ));
            }
        };
        if source.is_empty() {
            return Err(Failure::usage(format!(
                "{} is empty",
                name.map_or("the code of -c", |name| name)
            )));
        }
        if source.len() > MAX_CODE_BYTES {
            let name = name.unwrap_or("the code of -c");
            return Err(Failure::usage(format!(
                "{name} is over 1 MiB; put what is large in with --file"
            )));
        }
        let lang = args
            .lang
            .or_else(|| by_extension(name))
            .or_else(|| Lang::from_shebang(&source));
        let lang = lang.ok_or_else(|| {
            let what = match name {
                None => "code of -c has no language",
                Some("-") => "standard input has no #! line of a known language",
                Some(_) => "neither the file's extension nor a #! line tells the language",
            };
            let known = Lang::ALL.map(Lang::name).join(", ");
            Failure::usage(format!("{what}; give --lang with one of {known}"))
        })?;
        Ok(Input {
            lang,
            source,
            args: words,
            stdin_used: name == Some("-"),
        })
    }
}

fn by_extension(name: Option<&str>) -> Option<Lang> {
    Lang::from_extension(Path::new(name?).extension()?.to_str()?)
}

/// Reads the file, but no more than is needed to see that it is too large.
fn read_source(name: &str) -> Result<Vec<u8>, Failure> {
    let mut source = Vec::new();
    let limit = MAX_CODE_BYTES as u64 + 1;
    let read = if name == "-" {
        std::io::stdin().take(limit).read_to_end(&mut source)
    } else {
        File::open(name).and_then(|file| file.take(limit).read_to_end(&mut source))
    };
    match read {
        Ok(_) => Ok(source),
        Err(error) => Err(Failure::usage(format!("cannot read {name}: {error}"))),
    }
}
