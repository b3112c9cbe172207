//! Definitions of others: their text comes over a network, so what they can make a build do is bounded, and
//! nothing of the host gets in.

use super::definition::{Definition, DefinitionError};
use super::resolve::resolve;

/// Most entries of a list or table.
const ENTRIES: usize = 256;
/// Most patterns of what is left out: each is tried for each path of each package.
const PATTERNS: usize = 64;
/// Longest of those, in bytes.
const PATTERN_BYTES: usize = 256;
/// Most `*` of one of those: with each one more, a path can be taken apart in many times as many ways.
const STARS: usize = 3;
/// Most guest memory, in MiB.
const MEMORY_MIB: u32 = 8192;

impl Definition {
    /// The definition of somebody else, for a template of this name: it includes only built-in ones, has no wheels
    /// no network and no files of the host, and is bounded.
    ///
    /// # Errors
    /// [`DefinitionError::Syntax`], or [`DefinitionError::Value`] with what is not taken.
    pub fn foreign(name: &str, text: &str) -> Result<Self, DefinitionError> {
        let definition = Self::parse(name, text, name, None)?;
        let refuse = |field, value: &str, reason| {
            Err(DefinitionError::Value {
                origin: name.to_owned(),
                field,
                value: value.to_owned(),
                reason,
            })
        };
        if Self::builtin_names().contains(&name) {
            return refuse("name", name, "is that of a built-in template");
        }
        let spec = &definition.spec;
        if let Some(wheel) = spec.wheel.first() {
            return refuse(
                "wheel",
                &wheel.name,
                "cannot be had by a definition from elsewhere",
            );
        }
        if spec.network.is_some() {
            return refuse(
                "table",
                "network",
                "cannot be had by a definition from elsewhere: what leaves a host is its owner's to say",
            );
        }
        for (path, file) in &spec.files {
            if file.source.is_some() {
                return refuse("source of", path, "would be a file of the host");
            }
        }
        let counted = [
            ("include", spec.include.len()),
            ("packages", spec.packages.len()),
            ("links", spec.links.len()),
            ("files", spec.files.len()),
            ("env", spec.env.len()),
            (
                "warmup",
                spec.warmup
                    .values()
                    .map(|snippets| snippets.len() + 1)
                    .sum(),
            ),
        ];
        for (field, count) in counted {
            if count > ENTRIES {
                return refuse(field, &count.to_string(), "are more than 256 entries");
            }
        }
        if spec.exclude.len() > PATTERNS {
            let count = spec.exclude.len().to_string();
            return refuse("exclude", &count, "are more than 64 patterns");
        }
        for pattern in &spec.exclude {
            if pattern.len() > PATTERN_BYTES || pattern.matches('*').count() > STARS {
                return refuse("exclude", pattern, "has over 256 bytes or over three stars");
            }
        }
        if spec.memory_mib.is_some_and(|memory| memory > MEMORY_MIB) {
            let memory = spec.memory_mib.unwrap_or_default().to_string();
            return refuse("memory_mib", &memory, "is over 8192");
        }
        // What is wrong with a value is told now, and not by the build.
        resolve(&definition)?;
        Ok(definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_definition_from_elsewhere_may_not_have_is_named() {
        let many = |line: &str| line.repeat(PATTERNS + 1);
        let check = |text: &str, field: &str| {
            let error = Definition::foreign("mine", text).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        check(
            "[[wheel]]\nname='a'\nversion='1'\nsha256=''\nfiles={}",
            "wheel",
        );
        check("[network]\nallow=['203.0.113.1:80']", "table \"network\"");
        check(
            "[files.'etc/x']\nsource='/etc/shadow'",
            "source of \"etc/x\"",
        );
        check("exclude=['a*b*c*d*']", "exclude");
        check(&format!("exclude=[{}]", many("'a',")), "exclude \"65\"");
        check(
            &format!("packages=[{}]", many("'aa','bb','cc','dd',")),
            "packages \"260\"",
        );
        check("memory_mib=8193", "memory_mib");
        check("packages = 3", "mine");
        assert!(Definition::foreign("base", "").is_err());
        let fine =
            "include=['base']\npackages=['jq']\nmemory_mib=512\n[files.'etc/x']\ncontent='x'";
        assert_eq!(Definition::foreign("mine", fine).unwrap().name(), "mine");
    }

    #[test]
    fn it_includes_no_files() {
        assert!(Definition::foreign("mine", "include=['/etc/passwd']").is_err());
    }
}
