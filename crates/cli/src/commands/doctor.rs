//! `firelane doctor`: what this host can do, found out by trying.

use std::fmt;

use firelane_agent::workshop::new_id;
use firelane_sys::jail::{Controls, State};
use firelane_sys::kvm;
use firelane_vmm::driver::Driver;
use firelane_vmm::qemu;
use firelane_vmm::rundir;
use firelane_vmm::timeline::{Phase, Timeline};
use serde::Serialize;

use crate::args::{DoctorArgs, DriverChoice, MachineArgs};
use crate::failure::Failure;
use crate::host::{Host, open_store};
use crate::say::say;

/// Free space below which templates cannot be built, in MiB.
const LEAST_SPACE_MIB: u64 = 4096;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Grade {
    /// As it should be.
    Ok,
    /// Works, but weaker or slower than it could.
    Warning,
    /// Cannot be on this host.
    Impossible,
    /// Runs are not possible without it.
    Missing,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Impossible => "impossible",
            Grade::Missing => "MISSING",
        })
    }
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    grade: Grade,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// The driver that runs would use, if any works.
    driver: Option<String>,
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &str, grade: Grade, detail: impl Into<String>, remedy: Option<&str>) {
        let check = Check {
            name: name.into(),
            grade,
            detail: detail.into().replace('\n', " | "),
            remedy: remedy.map(Into::into),
        };
        self.checks.push(check);
    }
}

/// Exit code 0 if runs are possible, 1 if not.
pub(super) async fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    let mut report = Report {
        driver: None,
        checks: Vec::new(),
    };
    check_qemu(&mut report);
    check_kvm_device(&mut report);
    check_tools(&mut report);
    check_store(&mut report)?;
    check_run_dir(&mut report);
    let possible = !report
        .checks
        .iter()
        .any(|check| check.grade == Grade::Missing);
    if possible {
        check_boot(&mut report, &args.template).await?;
    }
    let possible = !report
        .checks
        .iter()
        .any(|check| check.grade == Grade::Missing);
    if args.json {
        say(format_args!(
            "{}",
            serde_json::to_string_pretty(&report).map_err(Failure::platform)?
        ))?;
    } else {
        print(&report)?;
    }
    Ok(u8::from(!possible))
}

fn print(report: &Report) -> Result<(), Failure> {
    for check in &report.checks {
        say(format_args!(
            "{:<11} {:<24} {}",
            check.grade, check.name, check.detail
        ))?;
        if let Some(remedy) = &check.remedy {
            say(format_args!("{:<36} remedy: {remedy}", ""))?;
        }
    }
    match &report.driver {
        Some(driver) => say(format_args!("runs use {driver}")),
        None => say(format_args!(
            "runs are not shown to work here yet: see above"
        )),
    }
}

fn check_qemu(report: &mut Report) {
    match qemu::version(&qemu::default_program()) {
        Ok(version) => report.add("QEMU", Grade::Ok, version, None),
        Err(error) => report.add(
            "QEMU",
            Grade::Missing,
            error.to_string(),
            Some(error.remedy()),
        ),
    }
}

fn check_kvm_device(report: &mut Report) {
    match kvm::check() {
        Ok(()) => report.add(
            "KVM device",
            Grade::Ok,
            "answers; whether guests run on it is shown below",
            None,
        ),
        Err(error) => {
            let detail = format!("{:#}", anyhow::Error::from(error));
            let remedy = "use a machine with KVM, and have access to /dev/kvm (group kvm)";
            report.add("KVM device", Grade::Warning, detail, Some(remedy));
        }
    }
}

/// What building templates needs; without, templates that are built still run.
fn check_tools(report: &mut Report) {
    for (tool, package) in [("mmdebstrap", "mmdebstrap"), ("mkfs.erofs", "erofs-utils")] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join(tool))
            .find(|path| path.is_file());
        match found {
            Some(path) => report.add(tool, Grade::Ok, path.display().to_string(), None),
            None => {
                let remedy = format!("apt-get install {package}");
                report.add(
                    tool,
                    Grade::Warning,
                    "templates cannot be built",
                    Some(&remedy),
                );
            }
        }
    }
}

fn check_store(report: &mut Report) -> Result<(), Failure> {
    let store = open_store()?;
    let root = store.root().display();
    let stat = rustix::fs::statvfs(store.root())
        .map_err(|errno| Failure::platform(std::io::Error::from(errno)))?;
    let free_mib = (stat.f_bavail * stat.f_frsize) >> 20;
    let detail = format!("{root}: {free_mib} MiB free");
    if free_mib < LEAST_SPACE_MIB {
        let remedy =
            format!("free {LEAST_SPACE_MIB} MiB, or set FIRELANE_HOME to a folder with more");
        report.add("store", Grade::Warning, detail, Some(&remedy));
    } else {
        report.add("store", Grade::Ok, detail, None);
    }
    Ok(())
}

fn check_run_dir(report: &mut Report) {
    let base = rundir::default_base();
    match rundir::RunDir::make(&base, &new_id()).map(rundir::RunDir::remove) {
        Ok(Ok(())) => report.add("run directory", Grade::Ok, base.display().to_string(), None),
        Ok(Err(error)) => report.add("run directory", Grade::Missing, error.to_string(), None),
        Err(error) => {
            let remedy = "set FIRELANE_RUN_DIR to a folder of yours with a short path";
            report.add(
                "run directory",
                Grade::Missing,
                format!("{:#}", anyhow::Error::from(error)),
                Some(remedy),
            );
        }
    }
}

/// Boots a microVM and reads from `/proc` which controls are in force on its VMM.
async fn check_boot(report: &mut Report, template: &str) -> Result<(), Failure> {
    if open_store()?.get(template).is_err() {
        let remedy = format!("firelane template build {template}");
        report.add(
            "boot",
            Grade::Warning,
            format!("template {template} is not built"),
            Some(&remedy),
        );
        return Ok(());
    }
    let machine = MachineArgs {
        template: template.into(),
        memory_mib: None,
        seccomp: None,
        vcpus: 1,
        driver: DriverChoice::Auto,
        cold: true,
    };
    let host = Host::look_again(&machine).await?;
    let accelerator = &host.accelerator;
    if accelerator.kvm {
        report.add("KVM guests", Grade::Ok, "a guest booted", None);
    } else {
        let remedy = "use a machine on which KVM runs Linux guests; emulation is slower, and no security boundary";
        report.add(
            "KVM guests",
            Grade::Warning,
            accelerator.reason.clone(),
            Some(remedy),
        );
    }
    let mut timeline = Timeline::start();
    let vm = match host
        .driver
        .boot(&host.machine(&new_id()), &mut timeline)
        .await
    {
        Ok(vm) => vm,
        Err(error) => {
            let remedy = error.remedy();
            let detail = format!("{:#}", anyhow::Error::from(error));
            report.add("boot", Grade::Missing, detail, remedy.as_deref());
            return Ok(());
        }
    };
    let ready = timeline.at(Phase::GuestReady).unwrap_or_default();
    report.add(
        "boot",
        Grade::Ok,
        format!("guest ready after {} ms", ready.as_millis()),
        None,
    );
    let controls = Controls::of(vm.pid());
    let cgroups = vm.cgroups().clone();
    vm.destroy().await.map_err(Failure::platform)?;
    for control in controls.map_err(Failure::platform)?.0 {
        match control.state {
            State::On => report.add(control.name, Grade::Ok, "on", None),
            State::Off(reason) => {
                report.add(control.name, Grade::Warning, format!("off: {reason}"), None);
            }
            State::Impossible(reason) => report.add(control.name, Grade::Impossible, reason, None),
        }
    }
    for controller in &cgroups.bounded {
        report.add(
            &format!("{controller} limit"),
            Grade::Ok,
            "on (cgroup)",
            None,
        );
    }
    for (controller, reason) in &cgroups.absent {
        report.add(
            &format!("{controller} limit"),
            Grade::Impossible,
            reason.clone(),
            None,
        );
    }
    report.driver = Some(format!(
        "{} ({})",
        host.driver.kind().name(),
        host.driver.acceleration()
    ));
    Ok(())
}
