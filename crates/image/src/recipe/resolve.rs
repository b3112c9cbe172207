//! A definition with its includes folded in and every value checked: all that a build depends on.

use std::collections::{BTreeMap, BTreeSet};

use firelane_guest_proto::Tier;
use firelane_network::policy::{Policy, Settings};
use serde::Serialize;

use super::definition::{Definition, DefinitionError, Spec, WheelSpec};
use crate::digest::blake3_bytes;
use crate::file::read;
use crate::store::is_usual;
use crate::tree::paths::normalise;

/// Changes whenever the same definition would give another image: templates of an older recipe are built again.
const RECIPE: u32 = 2;
/// Guest memory where no definition says otherwise, in MiB.
const MEMORY_MIB: u32 = 256;
/// Least and most guest memory a definition may ask for, in MiB.
const MEMORY_RANGE: std::ops::RangeInclusive<u32> = 64..=1 << 20;

/// A file to be put into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlacedFile {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// A resolved definition. Guest paths are normalised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Resolved {
    pub(crate) packages: BTreeSet<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) memory_mib: u32,
    // The usual one changes no hash: what was built before there were tiers has it.
    #[serde(skip_serializing_if = "is_usual")]
    pub(crate) seccomp: Tier,
    /// Whether a definition names that tier.
    #[serde(skip)]
    tier_is_named: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Settings>,
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, PlacedFile>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) warmup: BTreeMap<String, Vec<String>>,
    pub(crate) wheels: Vec<WheelSpec>,
}

impl Resolved {
    /// Identifies everything in here and the recipe that makes an image of it.
    pub(crate) fn hash(&self) -> String {
        blake3_bytes(
            &serde_json::to_vec(&(RECIPE, self)).expect("strings and numbers always serialise"),
        )
    }
}

/// Folds the includes of `definition` in, depth first; what stands later, or further out, wins.
/// Memory is the definition's own, or else the largest of those it includes. With a network, and no tier of system calls
/// named, programs may make those of networks.
pub(crate) fn resolve(definition: &Definition) -> Result<Resolved, DefinitionError> {
    let mut resolved = Resolved::default();
    let memory_mib = fold(definition, &mut resolved, &mut Vec::new())?;
    resolved.memory_mib = memory_mib.unwrap_or(MEMORY_MIB);
    if let Some(network) = &resolved.network {
        let origin = definition.origin.clone();
        Policy::new(network).map_err(|source| DefinitionError::Network { origin, source })?;
        let tier = &mut resolved.seccomp;
        let sockets = matches!(tier, Tier::Network | Tier::Unrestricted);
        if !sockets && resolved.tier_is_named {
            let reason = "has no sockets for [network]: name network or unrestricted, or no tier";
            let origin = &definition.origin;
            return Err(Check { origin }.wrong("seccomp", tier.name(), reason));
        }
        if !sockets {
            *tier = Tier::Network;
        }
    }
    Ok(resolved)
}

fn fold(
    definition: &Definition,
    resolved: &mut Resolved,
    chain: &mut Vec<String>,
) -> Result<Option<u32>, DefinitionError> {
    let origin = &definition.origin;
    if let Some(start) = chain.iter().position(|open| open == origin) {
        let mut chain = chain.split_off(start);
        chain.push(origin.clone());
        return Err(DefinitionError::Cycle { chain });
    }
    chain.push(origin.clone());
    let mut memory_mib = None;
    for include in &definition.spec.include {
        memory_mib = memory_mib.max(fold(&definition.included(include)?, resolved, chain)?);
    }
    chain.pop();
    let Spec {
        packages,
        exclude,
        links,
        env,
        warmup,
        wheel,
        ..
    } = &definition.spec;
    let check = Check { origin };
    for package in packages {
        check.that(
            is_package_name(package),
            "packages",
            package,
            "is not a Debian package name",
        )?;
        resolved.packages.insert(package.clone());
    }
    for pattern in exclude {
        check.that(
            normalise(pattern).is_some_and(|path| !path.is_empty()),
            "exclude",
            pattern,
            "is not a pattern of paths",
        )?;
        if !resolved.exclude.contains(pattern) {
            resolved.exclude.push(pattern.clone());
        }
    }
    for (path, target) in links {
        check.that(
            !target.is_empty() && !target.contains('\0'),
            "links",
            target,
            "is not a link target",
        )?;
        resolved
            .links
            .insert(check.guest_path("links", path)?, target.clone());
    }
    for (name, value) in env {
        let named = !name.is_empty() && !name.contains(['=', '\0']);
        check.that(
            named && !value.contains('\0'),
            "env",
            name,
            "is not an environment variable",
        )?;
        resolved.env.insert(name.clone(), value.clone());
    }
    for (language, snippets) in warmup {
        let known = resolved.warmup.entry(language.clone()).or_default();
        known.extend(
            snippets
                .iter()
                .filter(|snippet| !snippets_has(known, snippet))
                .cloned()
                .collect::<Vec<_>>(),
        );
    }
    for wheel in wheel {
        let mut wheel = wheel.clone();
        check.that(
            is_plain(&wheel.name),
            "wheel name",
            &wheel.name,
            "is not a package name",
        )?;
        check.that(
            is_plain(&wheel.version),
            "wheel version",
            &wheel.version,
            "is not a version",
        )?;
        let hex = wheel.sha256.len() == 64
            && wheel
                .sha256
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        check.that(
            hex,
            "wheel sha256",
            &wheel.sha256,
            "is not 64 lower-case hex digits",
        )?;
        for target in wheel.files.values_mut() {
            *target = check.guest_path("wheel files", target)?;
        }
        resolved.wheels.retain(|known| known.name != wheel.name);
        resolved.wheels.push(wheel);
    }
    files(definition, resolved, &check)?;
    if let Some(tier) = definition.spec.seccomp {
        resolved.seccomp = tier;
        resolved.tier_is_named = true;
    }
    if let Some(network) = &definition.spec.network {
        resolved.network = Some(network.clone());
    }
    if let Some(own) = definition.spec.memory_mib {
        check.that(
            MEMORY_RANGE.contains(&own),
            "memory_mib",
            &own.to_string(),
            "is not from 64 to 1048576",
        )?;
        memory_mib = Some(own);
    }
    Ok(memory_mib)
}

fn snippets_has(known: &[String], snippet: &str) -> bool {
    known.iter().any(|other| other == snippet)
}

fn files(
    definition: &Definition,
    resolved: &mut Resolved,
    check: &Check<'_>,
) -> Result<(), DefinitionError> {
    for (path, file) in &definition.spec.files {
        let guest = check.guest_path("files", path)?;
        check.that(
            file.mode <= 0o777,
            "mode of",
            path,
            "is not from 0 to 0o777",
        )?;
        let content = match (&file.content, &file.source, &definition.folder) {
            (Some(content), None, _) => content.clone().into_bytes(),
            (None, Some(source), Some(folder)) => read(&folder.join(source))?,
            _ => return Err(check.wrong("files", path, "needs either content or source")),
        };
        resolved.files.insert(
            guest,
            PlacedFile {
                content,
                mode: file.mode,
            },
        );
    }
    Ok(())
}

struct Check<'a> {
    origin: &'a str,
}

impl Check<'_> {
    fn that(
        &self,
        fine: bool,
        field: &'static str,
        value: &str,
        reason: &'static str,
    ) -> Result<(), DefinitionError> {
        if fine {
            Ok(())
        } else {
            Err(self.wrong(field, value, reason))
        }
    }

    fn wrong(&self, field: &'static str, value: &str, reason: &'static str) -> DefinitionError {
        DefinitionError::Value {
            origin: self.origin.to_owned(),
            field,
            value: value.to_owned(),
            reason,
        }
    }

    fn guest_path(&self, field: &'static str, path: &str) -> Result<String, DefinitionError> {
        normalise(path)
            .filter(|path| !path.is_empty())
            .ok_or_else(|| self.wrong(field, path, "does not lie in the guest's root"))
    }
}

/// Debian Policy 5.6.7: two or more of a-z, 0-9, `+`, `-`, `.`, starting with a letter or digit.
fn is_package_name(name: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() >= 2
        && name.bytes().next().is_some_and(|byte| plain(&byte))
        && name
            .bytes()
            .all(|byte| plain(&byte) || b"+-.".contains(&byte))
}

/// Letters, digits and `-_.+!`, not starting with `-`: safe in a requirement line.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+!".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Resolved, DefinitionError> {
        resolve(&Definition::parse(
            "mine",
            text,
            "mine.toml",
            Some("/".into()),
        )?)
    }

    #[test]
    fn every_built_in_definition_resolves() {
        for name in Definition::builtin_names() {
            let definition = Definition::builtin(name).unwrap();
            assert!(!definition.description().is_empty(), "{name}");
            assert!(!resolve(&definition).unwrap().packages.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_default_template_is_all_languages() {
        let default = resolve(&Definition::builtin("default").unwrap()).unwrap();
        for name in ["base", "node", "ruby", "rust"] {
            let part = resolve(&Definition::builtin(name).unwrap()).unwrap();
            assert!(default.packages.is_superset(&part.packages), "{name}");
            assert!(default.memory_mib >= part.memory_mib, "{name}");
            assert!(
                part.wheels
                    .iter()
                    .all(|wheel| default.wheels.contains(wheel)),
                "{name}"
            );
        }
    }

    #[test]
    fn wrong_definitions_are_refused_with_field_and_value() {
        fn check(text: &str, expected: &str) {
            let error = parse(text).unwrap_err();
            let source = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            let message = format!("{error}: {source}");
            assert!(message.contains(expected), "{text}: {message}");
        }
        check("package = ['x']", "unknown field `package`");
        check("packages = 'x'", "invalid type: string");
        check(
            "packages = ['x y']",
            "packages \"x y\" is not a Debian package name",
        );
        check("packages = ['-oDir=x']", "is not a Debian package name");
        check(
            "include = ['nope']",
            "no template definition \"nope\" (built in: base, default, node, ruby, rust)",
        );
        check("memory_mib = 1", "memory_mib \"1\" is not from 64");
        check("memory_mib = -1", "invalid value");
        check(
            "seccomp = 'none'",
            "unknown variant `none`, expected one of `essential`",
        );
        check("exclude = ['../x']", "exclude \"../x\" is not a pattern");
        check("exclude = ['/']", "is not a pattern");
        check(
            "[links]\n'../x' = 'y'",
            "links \"../x\" does not lie in the guest's root",
        );
        check("[links]\n'x' = ''", "is not a link target");
        check(
            "[env]\n'A=B' = 'c'",
            "env \"A=B\" is not an environment variable",
        );
        check(
            "[files.'etc/x']\nmode = 0o644",
            "needs either content or source",
        );
        check(
            "[files.'etc/x']\ncontent = ''\nsource = 'y'",
            "needs either content or source",
        );
        check(
            "[files.'etc/x']\ncontent = ''\nmode = 0o4755",
            "mode of \"etc/x\"",
        );
        check(
            "[files.'etc/x']\ncontent = ''\nowner = 1",
            "unknown field `owner`",
        );
        check(
            "[files.'etc/x']\nsource = 'no/such/file'",
            "cannot read /no/such/file",
        );
        check(
            "[[wheel]]\nname = 'a b'\nversion = '1'\nsha256 = ''\nfiles = {}",
            "wheel name \"a b\"",
        );
        check(
            "[[wheel]]\nname = 'a'\nversion = '1'\nsha256 = 'XY'\nfiles = {}",
            "wheel sha256 \"XY\"",
        );
        check("[[wheel]]\nname = 'a'", "missing field");
    }

    #[test]
    fn the_outer_definition_wins_over_what_it_includes() {
        let mine = parse(
            "include = ['base']\nmemory_mib = 64\nseccomp = 'network'\n[links]\n'/bin/awk' = 'gawk'\n[env]\nLANG = 'C'",
        )
        .unwrap();
        assert_eq!(mine.memory_mib, 64);
        assert_eq!(mine.seccomp, Tier::Network);
        assert_eq!(mine.links["usr/bin/awk"], "gawk");
        assert_eq!(mine.env["LANG"], "C");
        assert!(mine.packages.contains("bash"));
    }

    #[test]
    fn circles_of_includes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
        fs::write(&a, "include = ['b.toml']").unwrap();
        fs::write(&b, "include = ['base', 'a.toml']").unwrap();
        let error = resolve(&Definition::from_file(&a).unwrap()).unwrap_err();
        let DefinitionError::Cycle { chain } = error else {
            panic!("{error}")
        };
        assert_eq!(
            chain,
            [
                a.to_str().unwrap(),
                b.to_str().unwrap(),
                a.to_str().unwrap()
            ]
        );
    }

    #[test]
    fn a_definition_may_include_the_same_one_twice() {
        let twice = parse("include = ['base', 'base']").unwrap();
        assert_eq!(twice.hash(), parse("include = ['base']").unwrap().hash());
    }

    #[test]
    fn the_hash_follows_the_content_of_host_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        fs::write(&path, "[files.'etc/x']\nsource = 'x'").unwrap();
        let hash = |content: &str| {
            fs::write(folder.path().join("x"), content).unwrap();
            resolve(&Definition::from_file(&path).unwrap())
                .unwrap()
                .hash()
        };
        assert_eq!(hash("one"), hash("one"));
        assert_ne!(hash("one"), hash("two"));
    }

    #[test]
    fn a_network_brings_the_tier_with_sockets_and_is_checked() {
        let resolved = |text: &str| {
            let definition = Definition::parse("mine", text, "mine.toml", None).unwrap();
            resolve(&definition)
        };
        let network = "[network]\nallow = ['203.0.113.1:80']";
        assert_eq!(resolved(network).unwrap().seccomp, Tier::Network);
        let named = resolved(&format!("seccomp = 'unrestricted'\n{network}"));
        assert_eq!(named.unwrap().seccomp, Tier::Unrestricted);
        let refused = resolved(&format!("seccomp = 'standard'\n{network}")).unwrap_err();
        assert!(refused.to_string().contains("no sockets"), "{refused}");
        let wrong = resolved("[network]\nallow = ['203.0.113.1']").unwrap_err();
        assert!(matches!(wrong, DefinitionError::Network { .. }), "{wrong}");
        let without = resolved("").unwrap();
        assert_ne!(without.hash(), resolved(network).unwrap().hash());
        assert_eq!(without.seccomp, Tier::default());
    }
}
