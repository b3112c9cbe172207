//! A guest of a template, through everything that a run goes through.

use firelane_agent::workshop::new_id;
use firelane_sys::jail::State;
use firelane_vmm::timeline::{Phase, Timeline};

use super::report::{Grade, Report};
use crate::args::{DriverChoice, MachineArgs};
use crate::failure::Failure;
use crate::host::{Host, open_store};

/// Boots a microVM and reads from `/proc` which controls are in force on its VMM.
pub(super) async fn check_boot(report: &mut Report, template: &str) -> Result<(), Failure> {
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
    for tried in &host.tried {
        let (grade, detail) = match &tried.finding {
            Ok(found) => (Grade::Ok, found),
            Err(reason) => (Grade::Warning, reason),
        };
        report.add(tried.name, grade, detail, tried.remedy.as_deref());
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
    let controls = vm.controls();
    let cgroups = vm.cgroups().clone();
    vm.destroy().await.map_err(Failure::platform)?;
    for control in controls.map_err(Failure::platform)?.0 {
        match control.state {
            State::On => report.add(&control.name, Grade::Ok, "on", None),
            State::Off(reason) => {
                report.add(
                    &control.name,
                    Grade::Warning,
                    format!("off: {reason}"),
                    None,
                );
            }
            State::Impossible(reason) => report.add(&control.name, Grade::Impossible, reason, None),
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
