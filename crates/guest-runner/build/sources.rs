//! From JSON files to one filter of `seccompiler`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use seccompiler::{TargetArch, compile_from_json};
use serde_json::Value;

use super::bpf::Instruction;

/// The files that make the filter of a tier for a profile.
pub(crate) fn files<'a>(tiers: &[&'a str], tier: &'a str, profile: &'a str) -> Vec<&'a str> {
    match tiers.iter().position(|other| *other == tier) {
        Some(index) if tier != "unrestricted" => {
            let mut files = tiers[..=index].to_vec();
            files.push(profile);
            files
        }
        _ => vec![tier],
    }
}

/// What `seccompiler` makes of rules.
pub(crate) struct Compiled {
    /// The filter of all of them.
    pub(crate) whole: Vec<Instruction>,
    /// That of those whose arguments matter: for these calls it answers the same.
    pub(crate) bounded: Vec<Instruction>,
}

/// Compiles all rules of these files, which have the same key and the same actions.
pub(crate) fn compile(files: &[&str]) -> Result<Compiled, Box<dyn Error>> {
    let mut joined: Option<Value> = None;
    for file in files {
        let parsed = read(file)?;
        match &mut joined {
            None => joined = Some(parsed),
            Some(joined) => {
                join(joined, parsed).map_err(|error| format!("{file}.json: {error}"))?;
            }
        }
    }
    let mut joined = joined.ok_or("a filter needs a file")?;
    check(&joined)?;
    let whole = instructions(&joined)?;
    for filter in joined
        .as_object_mut()
        .into_iter()
        .flat_map(|filters| filters.values_mut())
    {
        if let Some(rules) = filter["filter"].as_array_mut() {
            rules.retain(|rule| rule.get("args").is_some());
        }
    }
    let bounded = instructions(&joined)?;
    Ok(Compiled { whole, bounded })
}

fn instructions(filters: &Value) -> Result<Vec<Instruction>, Box<dyn Error>> {
    let text = serde_json::to_vec(filters)?;
    let mut compiled = compile_from_json(text.as_slice(), TargetArch::x86_64)?.into_values();
    let (Some(program), None) = (compiled.next(), compiled.next()) else {
        return Err("there is not one filter, but none or several".into());
    };
    let same = program.into_iter().map(|step| Instruction {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: step.k,
    });
    Ok(same.collect())
}

fn read(file: &str) -> Result<Value, Box<dyn Error>> {
    let path = Path::new("seccomp").join(format!("{file}.json"));
    let name = path.display().to_string();
    let bytes = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
    parse(&name, &bytes)
}

/// The filters of one file, compiled by themselves: what is wrong is told with the file's name.
pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Value, Box<dyn Error>> {
    compile_from_json(bytes, TargetArch::x86_64).map_err(|error| format!("{name}: {error}"))?;
    Ok(serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))?)
}

/// Appends the rules of another filter.
fn join(whole: &mut Value, mut other: Value) -> Result<(), &'static str> {
    let different = "it has another key, or other actions, than the files before it";
    let filters = whole.as_object_mut().ok_or(different)?;
    for (key, filter) in filters {
        let other = other.get_mut(key).ok_or(different)?;
        for action in ["mismatch_action", "match_action"] {
            if filter[action] != other[action] {
                return Err(different);
            }
        }
        let rules = filter["filter"].as_array_mut().ok_or(different)?;
        rules.append(other["filter"].as_array_mut().ok_or(different)?);
    }
    Ok(())
}

/// A system call is listed as a whole or with arguments: with both, the arguments would win unnoticed.
pub(crate) fn check(whole: &Value) -> Result<(), String> {
    for filter in whole
        .as_object()
        .into_iter()
        .flat_map(|filters| filters.values())
    {
        let mut seen = BTreeMap::new();
        for rule in filter["filter"].as_array().into_iter().flatten() {
            let (name, bounded) = (rule["syscall"].as_str(), rule.get("args").is_some());
            if *seen.entry(name).or_insert(bounded) != bounded {
                let name = name.unwrap_or_default();
                return Err(format!(
                    "{name} is listed as a whole, and with arguments as well"
                ));
            }
        }
    }
    Ok(())
}
