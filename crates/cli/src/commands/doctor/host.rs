//! What of the host bears on isolation and speed, beside what microVMs themselves show.
//!
//! Sources: Firecracker, `docs/prod-host-setup.md` (v1.16.1); Linux, `Documentation/ABI/testing/sysfs-*`,
//! proc(5), cgroups(7).

use std::fs;
use std::path::{Path, PathBuf};

use super::report::{Grade, Report};

/// Open files that a service with many microVMs needs: some 50 for each.
const OPEN_FILES: u64 = 16384;
/// Controllers that bound a VMM.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];
/// Clock sources that are read without leaving the processor.
const FAST_CLOCKS: [&str; 2] = ["tsc", "kvm-clock"];

/// The host's `/proc`, `/sys` and `/dev`.
pub(super) struct System {
    pub(super) root: PathBuf,
}

impl System {
    pub(super) fn real() -> System {
        System { root: "/".into() }
    }

    pub(super) fn check(&self, report: &mut Report) {
        self.check_cgroups(report);
        self.check_swap(report);
        self.check_ksm(report);
        self.check_processor(report);
        self.check_userfaultfd(report);
        self.check_clock(report);
        check_open_files(report);
    }

    /// Applies the remedies that cannot hurt; tells what was done, and what could not be.
    pub(super) fn fix(&self) -> Vec<String> {
        let mut fixed = Vec::new();
        // Pages that are merged already are taken apart: 2; 0 would leave them.
        if self.ksm_runs() {
            let path = self.path("sys/kernel/mm/ksm/run");
            fixed.push(match fs::write(&path, "2") {
                Ok(()) => {
                    "KSM: stopped, and its pages taken apart, until the host boots again".into()
                }
                Err(error) => format!("KSM: cannot write {}: {error}", path.display()),
            });
        }
        fixed
    }

    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    pub(super) fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Memory that can be had without swapping, the page cache too, in MiB.
    pub(super) fn available_mib(&self) -> Option<u64> {
        let info = self.read("proc/meminfo")?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib >> 10)
    }

    fn check_cgroups(&self, report: &mut Report) {
        const NAME: &str = "cgroups";
        let v2 = self.read("sys/fs/cgroup/cgroup.controllers");
        let has = |controllers: &Option<String>, name: &str| {
            let controllers = controllers.as_deref().unwrap_or_default();
            controllers.split_ascii_whitespace().any(|own| own == name)
        };
        let absent: Vec<&str> = CONTROLLERS
            .into_iter()
            .filter(|name| !has(&v2, name))
            .collect();
        if absent.is_empty() {
            return report.add(
                NAME,
                Grade::Ok,
                "version 2, with cpu, memory, pids and io",
                None,
            );
        }
        let v1: Vec<&str> = absent
            .iter()
            .copied()
            .filter(|name| {
                let v1 = if *name == "io" { "blkio" } else { *name };
                self.path("sys/fs/cgroup")
                    .join(v1)
                    .join("cgroup.procs")
                    .exists()
            })
            .collect();
        let detail = match v1.as_slice() {
            [] => format!("version 2 has no {}", absent.join(", ")),
            v1 => format!(
                "{} by version 1, which makes restores slower",
                v1.join(", ")
            ),
        };
        let remedy = "boot with systemd.unified_cgroup_hierarchy=1";
        report.add(NAME, Grade::Warning, detail, Some(remedy));
    }

    fn check_swap(&self, report: &mut Report) {
        let swaps = self.read("proc/swaps").unwrap_or_default();
        match swaps.lines().count() {
            0 | 1 => report.add("swap", Grade::Ok, "off", None),
            _ => report.add(
                "swap",
                Grade::Warning,
                "on: what guests have in memory may reach a disk, and Diff snapshots are not used",
                Some("swapoff -a, and take it out of /etc/fstab"),
            ),
        }
    }

    fn ksm_runs(&self) -> bool {
        self.read("sys/kernel/mm/ksm/run")
            .is_some_and(|run| run == "1")
    }

    fn check_ksm(&self, report: &mut Report) {
        if self.ksm_runs() {
            let remedy = "echo 2 > /sys/kernel/mm/ksm/run, or firelane doctor --fix";
            let detail = "on: guests can tell by time what others have in memory";
            report.add("KSM", Grade::Warning, detail, Some(remedy));
        } else {
            report.add("KSM", Grade::Ok, "off", None);
        }
    }

    fn check_userfaultfd(&self, report: &mut Report) {
        if self.path("dev/userfaultfd").exists() {
            report.add("userfaultfd", Grade::Ok, "/dev/userfaultfd", None);
        } else {
            let detail = "no /dev/userfaultfd: memory of clones is mapped from files";
            report.add("userfaultfd", Grade::Impossible, detail, None);
        }
    }

    fn check_clock(&self, report: &mut Report) {
        let source = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        match self.read(source) {
            Some(clock) if FAST_CLOCKS.contains(&clock.as_str()) => {
                report.add("clock source", Grade::Ok, clock, None);
            }
            Some(clock) => report.add(
                "clock source",
                Grade::Warning,
                format!("{clock}: reading the time is slow"),
                Some("boot with clocksource=tsc, if the processor's counter is stable"),
            ),
            None => report.add(
                "clock source",
                Grade::Impossible,
                "this kernel does not tell",
                None,
            ),
        }
    }
}

fn check_open_files(report: &mut Report) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most >= OPEN_FILES {
        report.add("open files", Grade::Ok, format!("up to {most}"), None);
    } else {
        let remedy = format!("ulimit -Hn {OPEN_FILES}, or LimitNOFILE= of the service's unit");
        let detail = format!("up to {most}: too few for a service with many microVMs");
        report.add("open files", Grade::Warning, detail, Some(&remedy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let system = System {
            root: root.path().into(),
        };
        (root, system)
    }

    fn grades(system: &System) -> Vec<(String, Grade)> {
        let mut report = Report::default();
        system.check(&mut report);
        let checks = report.checks.into_iter();
        checks
            .filter(|check| check.name != "open files")
            .map(|check| (check.name, check.grade))
            .collect()
    }

    #[test]
    fn a_host_as_it_should_be_is_ok() {
        let (_root, system) = host(&[
            (
                "sys/fs/cgroup/cgroup.controllers",
                "cpuset cpu io memory pids\n",
            ),
            ("proc/swaps", "Filename\tType\n"),
            ("sys/kernel/mm/ksm/run", "0\n"),
            ("sys/devices/system/cpu/smt/active", "0\n"),
            (
                "sys/devices/system/cpu/vulnerabilities/meltdown",
                "Not affected\n",
            ),
            (
                "proc/cpuinfo",
                "microcode\t: 0x2b000643\nflags\t\t: fpu vme\n",
            ),
            ("dev/userfaultfd", ""),
            (
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
                "tsc\n",
            ),
        ]);
        for (name, grade) in grades(&system) {
            assert_eq!(grade, Grade::Ok, "{name}");
        }
    }

    #[test]
    fn what_weakens_a_host_is_a_warning_with_its_remedy() {
        let (_root, system) = host(&[
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("sys/fs/cgroup/memory/cgroup.procs", ""),
            ("proc/swaps", "Filename\tType\n/dev/sda2\tpartition\n"),
            ("sys/kernel/mm/ksm/run", "1\n"),
            ("sys/devices/system/cpu/smt/active", "1\n"),
            (
                "sys/devices/system/cpu/vulnerabilities/mds",
                "Vulnerable: no microcode\n",
            ),
            (
                "sys/devices/system/cpu/vulnerabilities/old_microcode",
                "Vulnerable\n",
            ),
            ("proc/cpuinfo", "microcode\t: 0x1\nflags\t\t: fpu\n"),
            ("dev/userfaultfd", ""),
            (
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
                "hpet\n",
            ),
        ]);
        for (name, grade) in grades(&system) {
            let expected = match name.as_str() {
                "userfaultfd" => Grade::Ok,
                _ => Grade::Warning,
            };
            assert_eq!(grade, expected, "{name}");
        }
    }

    #[test]
    fn the_microcode_of_a_virtual_processor_is_its_hosts() {
        let flags = "microcode\t: 0x1\nflags\t\t: fpu hypervisor\n";
        let (_root, system) = host(&[("proc/cpuinfo", flags)]);
        let grades = grades(&system);
        assert!(grades.contains(&("microcode".into(), Grade::Impossible)));
    }

    #[test]
    fn what_memory_is_available_is_read_in_mib() {
        let (_root, system) = host(&[(
            "proc/meminfo",
            "MemTotal: 9 kB\nMemAvailable:   2048000 kB\n",
        )]);
        assert_eq!(system.available_mib(), Some(2000));
        assert_eq!(host(&[]).1.available_mib(), None);
    }

    #[test]
    fn fixing_stops_ksm_and_says_so_and_does_nothing_twice() {
        let (root, system) = host(&[("sys/kernel/mm/ksm/run", "1\n")]);
        let fixed = system.fix();
        assert_eq!(fixed.len(), 1);
        assert!(fixed[0].starts_with("KSM: stopped"), "{fixed:?}");
        let run = fs::read_to_string(root.path().join("sys/kernel/mm/ksm/run")).unwrap();
        assert_eq!(run, "2");
        assert!(system.fix().is_empty());
    }
}
