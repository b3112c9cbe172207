//! What the host is, as far as snapshots and answers that are kept depend on it.

use std::fs;
use std::path::Path;

/// A file as far as its metadata tell whether it is another one.
pub(crate) fn stamp(path: &Path) -> String {
    let found = rustix::fs::stat(path).map_or_else(
        |errno| errno.to_string(),
        |stat| {
            format!(
                "{:o} {}:{} {} {}",
                stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_mtime
            )
        },
    );
    format!("{} [{found}]", path.display())
}

/// The host's kernel as far as snapshots depend on it: `6.18` of `6.18.3-cloud-amd64`.
pub(crate) fn kernel_family() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let numbers = release.trim().splitn(3, '.').take(2);
    numbers.collect::<Vec<_>>().join(".")
}

/// The host's processor: its name and what it can do.
pub(crate) fn processor() -> String {
    cpu_lines(&["model name", "flags"])
}

/// The name of the host's processor.
pub(crate) fn cpu_model() -> String {
    let line = cpu_lines(&["model name"]);
    line.split_once(": ")
        .map_or(String::new(), |(_, name)| name.to_owned())
}

/// Source: `proc_cpuinfo(5)`.
fn cpu_lines(wanted: &[&str]) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines = first
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.collect::<Vec<_>>().join(" ")
}
