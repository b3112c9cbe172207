//! Compiles the seccomp filters of `seccomp/*.json`, one for each tier and profile.
//!
//! A file is in the form that the crate `seccompiler` 0.5 documents (`docs/json_format.md`). It knows the
//! numbers of all system calls of Linux 6.12: a name that it does not know fails the build, and so does
//! whatever else cannot be meant.
//!
//! ```text
//!   essential ⊂ minimal ⊂ standard ⊂ network    each file lists what the tier allows beyond the one before it
//!   python, bash, node, ruby, rust, command      what a language needs in every tier
//!   unrestricted                                 what this tier denies; all else is allowed
//!   absent                                       what programs are told that the kernel does not have
//! ```

#[path = "build/bpf.rs"]
mod bpf;
#[path = "build/search.rs"]
mod search;
#[path = "build/sources.rs"]
mod sources;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use crate::search::Decisions;

/// In the order of `Tier::ALL`.
const TIERS: [&str; 5] = [
    "essential",
    "minimal",
    "standard",
    "network",
    "unrestricted",
];
/// In the order of `Profile::index`.
const PROFILES: [&str; 6] = ["python", "bash", "node", "ruby", "rust", "command"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=seccomp");
    println!("cargo::rerun-if-changed=build");
    let target = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    if target != "x86_64" {
        return Err(
            format!("there are seccomp filters for x86_64 only, and not for {target}").into(),
        );
    }
    let absent = Decisions::of(&sources::compile(&["absent"])?.whole);
    let mut text = String::new();
    let mut table = String::new();
    let mut known: Vec<Vec<bpf::Instruction>> = Vec::new();
    for tier in TIERS {
        table.push_str("    [");
        for profile in PROFILES {
            let listed = sources::compile(&sources::files(&TIERS, tier, profile))
                .map_err(|error| format!("the filter of {tier} for {profile}: {error}"))?;
            let program = search::join(&listed, &absent)
                .map_err(|error| format!("the filter of {tier} for {profile}: {error}"))?;
            let number = known.iter().position(|other| *other == program);
            let number = number.unwrap_or_else(|| {
                known.push(program);
                known.len() - 1
            });
            write!(table, "&FILTER_{number}, ")?;
        }
        table.push_str("],\n");
    }
    for (number, program) in known.iter().enumerate() {
        let length = program.len();
        writeln!(
            text,
            "static FILTER_{number}: [libc::sock_filter; {length}] = ["
        )?;
        for bpf::Instruction { code, jt, jf, k } in program {
            writeln!(text, "    step({code:#x}, {jt}, {jf}, {k:#x}),")?;
        }
        text.push_str("];\n");
    }
    writeln!(
        text,
        "static FILTERS: [[&[libc::sock_filter]; {}]; {}] = [\n{table}];",
        PROFILES.len(),
        TIERS.len()
    )?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("filters.rs"), text)?;
    Ok(())
}
