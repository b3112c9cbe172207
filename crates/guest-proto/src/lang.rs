//! The languages a run can be written in.

use core::fmt;
use core::str::FromStr;

use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};

/// A language that the guest-runner can run source code of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Python 3, or what is there of it (`python3`, `python2`, `python`).
    Python,
    /// GNU bash.
    Bash,
    /// Node.js.
    Node,
    /// Ruby.
    Ruby,
    /// Rust, compiled in the guest by `rustc`.
    Rust,
}

impl Lang {
    /// Every language, in the order in which messages list them.
    pub const ALL: [Lang; 5] = [Lang::Python, Lang::Bash, Lang::Node, Lang::Ruby, Lang::Rust];

    /// The name used on the wire, on the command line and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Lang::Python => "python",
            Lang::Bash => "bash",
            Lang::Node => "node",
            Lang::Ruby => "ruby",
            Lang::Rust => "rust",
        }
    }

    /// Extension of the source file that the guest-runner writes, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Lang::Python => "py",
            Lang::Bash => "sh",
            Lang::Node => "js",
            Lang::Ruby => "rb",
            Lang::Rust => "rs",
        }
    }

    /// The language of files with this extension (no dot), if it is one of ours.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Lang> {
        match extension {
            "py" => Some(Lang::Python),
            "sh" | "bash" => Some(Lang::Bash),
            "js" | "mjs" | "cjs" => Some(Lang::Node),
            "rb" => Some(Lang::Ruby),
            "rs" => Some(Lang::Rust),
            _ => None,
        }
    }

    /// The language that a `#!` line asks for, if it is one of ours.
    ///
    /// Reads `#!/usr/bin/python3 -u`, `#!/usr/bin/env python3` and `#!/usr/bin/env -S node --x`.
    #[must_use]
    pub fn from_shebang(source: &[u8]) -> Option<Lang> {
        let line = source.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
        let line = core::str::from_utf8(line).ok()?;
        let mut words = line.split_ascii_whitespace();
        let mut program = base_name(words.next()?);
        if program == "env" {
            program = base_name(words.find(|w| !w.starts_with('-') && !w.contains('='))?);
        }
        let stem = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        match stem {
            "python" => Some(Lang::Python),
            "bash" | "sh" => Some(Lang::Bash),
            "node" | "nodejs" => Some(Lang::Node),
            "ruby" => Some(Lang::Ruby),
            _ => None,
        }
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A language name that is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown language '{name}' (known: python, bash, node, ruby, rust)")]
pub struct UnknownLang {
    /// The name as given.
    pub name: String,
}

impl FromStr for Lang {
    type Err = UnknownLang;

    /// Accepts the names of [`Lang::name`] and the usual short forms (`py`, `sh`, `js`, `rb`, `rs`).
    fn from_str(name: &str) -> Result<Lang, UnknownLang> {
        let lower = name.to_ascii_lowercase();
        let known = Lang::ALL.into_iter().find(|lang| lang.name() == lower);
        let alias = match lower.as_str() {
            "python3" => Some(Lang::Python),
            "nodejs" | "javascript" => Some(Lang::Node),
            other => Lang::from_extension(other),
        };
        known.or(alias).ok_or_else(|| UnknownLang {
            name: name.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shebang_names_the_language() {
        let check = |source: &str, expected| {
            assert_eq!(Lang::from_shebang(source.as_bytes()), expected, "{source}");
        };
        check("#!/usr/bin/python3\n1", Some(Lang::Python));
        check("#!/usr/bin/python3.11 -u\n", Some(Lang::Python));
        check("#!/usr/bin/env node", Some(Lang::Node));
        check("#!/usr/bin/env -S A=1 ruby -w\n", Some(Lang::Ruby));
        check("#! /bin/sh\n", Some(Lang::Bash));
        check("#!/usr/bin/perl\n", None);
        check("#!\n", None);
        check("print(1)", None);
    }

    #[test]
    fn names_and_aliases_parse() {
        for lang in Lang::ALL {
            assert_eq!(lang.name().parse(), Ok(lang));
            assert_eq!(lang.extension().parse(), Ok(lang));
        }
        assert_eq!("JavaScript".parse(), Ok(Lang::Node));
        let error = "cobol".parse::<Lang>().unwrap_err();
        assert!(error.to_string().contains("'cobol'"), "{error}");
    }
}
