//! What of the processor bears on isolation.
//!
//! Sources: Linux, `Documentation/ABI/testing/sysfs-devices-system-cpu` (`smt`, `vulnerabilities`),
//! `Documentation/admin-guide/hw-vuln/old_microcode.rst`; proc(5), `cpuinfo`.

use std::fs;

use super::host::System;
use super::report::{Grade, Report};

impl System {
    pub(super) fn check_processor(&self, report: &mut Report) {
        self.check_smt(report);
        self.check_vulnerabilities(report);
        self.check_microcode(report);
    }

    fn check_smt(&self, report: &mut Report) {
        match self.read("sys/devices/system/cpu/smt/active").as_deref() {
            Some("1") => report.add(
                "SMT",
                Grade::Warning,
                "on: guests of two tenants may share a core",
                Some("echo off > /sys/devices/system/cpu/smt/control, where tenants distrust each other"),
            ),
            Some(_) => report.add("SMT", Grade::Ok, "off", None),
            None => report.add("SMT", Grade::Impossible, "this kernel does not tell", None),
        }
    }

    fn check_vulnerabilities(&self, report: &mut Report) {
        const NAME: &str = "processor mitigations";
        let folder = self.path("sys/devices/system/cpu/vulnerabilities");
        let Ok(entries) = fs::read_dir(&folder) else {
            return report.add(NAME, Grade::Impossible, "this kernel does not tell", None);
        };
        let mut open: Vec<String> = entries
            .flatten()
            .filter(|entry| {
                let state = fs::read_to_string(entry.path()).unwrap_or_default();
                state.starts_with("Vulnerable")
            })
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        if open.is_empty() {
            return report.add(
                NAME,
                Grade::Ok,
                "in force, as far as the kernel knows",
                None,
            );
        }
        open.sort();
        let detail = format!("open: {}", open.join(", "));
        let remedy = "install the present microcode and kernel, and boot without mitigations=off";
        report.add(NAME, Grade::Warning, detail, Some(remedy));
    }

    fn check_microcode(&self, report: &mut Report) {
        const NAME: &str = "microcode";
        let info = self.read("proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name)
        };
        let Some((_, revision)) = field("microcode") else {
            return report.add(NAME, Grade::Impossible, "this kernel does not tell", None);
        };
        let revision = revision.trim();
        let old = self.read("sys/devices/system/cpu/vulnerabilities/old_microcode");
        if old.is_some_and(|state| state.starts_with("Vulnerable")) {
            let detail = format!("{revision}: older than the kernel knows");
            let remedy = "install intel-microcode or amd64-microcode, and boot again";
            return report.add(NAME, Grade::Warning, detail, Some(remedy));
        }
        let virtual_one = field("flags")
            .is_some_and(|(_, flags)| flags.split_ascii_whitespace().any(|f| f == "hypervisor"));
        if virtual_one {
            let detail = "this machine is virtual: its host has it, and does not tell";
            report.add(NAME, Grade::Impossible, detail, None);
        } else {
            report.add(NAME, Grade::Ok, revision, None);
        }
    }
}
