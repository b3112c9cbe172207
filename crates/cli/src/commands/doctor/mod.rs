//! `firelane doctor`: what this host can do, found out by trying.
//!
//! ```text
//!   programs, KVM, store ── proof: bare guest, Firecracker ── boot: template, driver of runs ── host
//! ```

mod boot;
mod host;
mod network;
mod processor;
mod proof;
mod report;
mod store;

use firelane_agent::workshop::new_id;
use firelane_sys::kvm;
use firelane_vmm::rundir;
use firelane_vmm::trial::kvm_answers;
use firelane_vmm::{firecracker, qemu};

use crate::args::DoctorArgs;
use crate::failure::Failure;
use crate::hostd::Hostd;
use crate::say::say;

use report::{Grade, Report, print};

/// Exit code 0 if runs are possible, 1 if not.
pub(super) async fn doctor(args: DoctorArgs) -> Result<u8, Failure> {
    let mut report = Report::default();
    let system = host::System::real();
    if args.fix {
        report.fixed = system.fix();
    }
    check_qemu(&mut report);
    check_kvm_device(&mut report);
    check_tools(&mut report);
    store::check(&system, &mut report)?;
    check_run_dir(&mut report);
    check_hostd(&mut report);
    let possible = !report
        .checks
        .iter()
        .any(|check| check.grade == Grade::Missing);
    if possible {
        proof::prove(&mut report).await?;
        boot::check_boot(&mut report, &args.template).await?;
    }
    network::check(&mut report).await?;
    system.check(&mut report);
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

fn check_qemu(report: &mut Report) {
    match qemu::version(&qemu::default_program()) {
        Ok(version) => report.add("QEMU", Grade::Ok, version, None),
        Err(error) => report.add(
            "QEMU",
            match firecracker::default_program() {
                Some(_) => Grade::Warning,
                None => Grade::Missing,
            },
            error.to_string(),
            Some(error.remedy()),
        ),
    }
}

fn check_kvm_device(report: &mut Report) {
    let hosted = matches!(Hostd::find(), Hostd::Usable { .. });
    match kvm_answers(hosted) {
        Ok(()) if hosted && kvm::check().is_err() => report.add(
            "KVM device",
            Grade::Ok,
            "hostd's VMMs have it, not this user's; whether guests run on it is shown below",
            None,
        ),
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

/// Who starts VMMs: for an ordinary user, whether root does it for them.
fn check_hostd(report: &mut Report) {
    const NAME: &str = "hostd";
    match Hostd::find() {
        Hostd::Unneeded => report.add(NAME, Grade::Ok, "not needed: this is root", None),
        Hostd::Usable {
            socket,
            qemu,
            firecracker,
        } => {
            let programs = [("Firecracker", firecracker), ("QEMU", qemu)];
            let starts = programs.map(|(name, program)| program.map(|_| name));
            let starts: Vec<&str> = starts.into_iter().flatten().collect();
            let socket = socket.display();
            if starts.is_empty() {
                let detail = format!("{socket}: it starts neither Firecracker nor QEMU");
                let remedy = "have root install one of them, or name it to firelane-hostd: --firecracker, --qemu";
                report.add(NAME, Grade::Warning, detail, Some(remedy));
            } else {
                let starts = starts.join(" and ");
                let detail = format!("{socket}: starts {starts}, jailed as root's are");
                report.add(NAME, Grade::Ok, detail, None);
            }
        }
        Hostd::Absent => {
            let detail = "none: VMMs have this user's rights, less what user namespaces take away";
            let remedy = "have root start firelane-hostd, and be in its group: docs/hostd.md";
            report.add(NAME, Grade::Warning, detail, Some(remedy));
        }
        Hostd::Unusable(error) => {
            let remedy = error.remedy();
            let detail = format!("{:#}", anyhow::Error::from(error));
            report.add(NAME, Grade::Warning, detail, remedy.as_deref());
        }
    }
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
