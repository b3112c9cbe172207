//! `firelane template`.

use firelane_image::{Definition, KernelSource, Options, Template};

use firelane_vmm::qemu;

use crate::args::{DriverChoice, KernelChoice, MachineArgs, TemplateCommand};
use crate::failure::Failure;
use crate::host::{Host, build_template, open_store};
use crate::say::say;

pub(super) async fn template(command: TemplateCommand) -> Result<u8, Failure> {
    let store = open_store()?;
    match command {
        TemplateCommand::Build {
            template,
            refresh,
            kernel,
        } => {
            let definition = Definition::find(&template)?;
            let kernel = kernel.map(|choice| match choice {
                KernelChoice::Debian => KernelSource::Debian,
                KernelChoice::Small => KernelSource::Small,
            });
            let options = Options {
                refresh,
                kernel,
                ..Options::default()
            };
            let built = build_template(store, definition, options).await?;
            make_snapshot(&built).await?;
            say(format_args!(
                "{} {}",
                built.manifest().name,
                built.manifest().id
            ))?;
        }
        TemplateCommand::List { json } => list(&store.list()?, json)?,
        TemplateCommand::Show { template, json } => {
            show(&store.get(&template)?, json)?;
            for kept in store.quarantined()? {
                eprintln!(
                    "firelane: in quarantine since it was refused, {} MiB in {}: {}",
                    kept.size_bytes >> 20,
                    kept.folder.display(),
                    kept.reason
                );
            }
        }
        TemplateCommand::Rm { template } => {
            let freed = store.remove(&template)?;
            eprintln!("removed {template}, {} MiB freed", freed >> 20);
        }
    }
    Ok(0)
}

/// Warms a guest of the template, so that its first run need not wait for it.
async fn make_snapshot(template: &Template) -> Result<(), Failure> {
    if qemu::find_program(&qemu::default_program()).is_err() {
        eprintln!(
            "firelane: no snapshot was made, because QEMU is not installed; the first run makes it"
        );
        return Ok(());
    }
    let machine = MachineArgs {
        template: template.manifest().name.clone(),
        memory_mib: None,
        seccomp: None,
        vcpus: 1,
        driver: DriverChoice::Auto,
        cold: false,
    };
    let host = Host::of_template(&machine, template.clone()).await?;
    if template.manifest().network.is_some() && !host.driver.gives_networks() {
        let driver = host.driver.kind().name();
        eprintln!(
            "firelane: no snapshot was made, because {driver} gives no guest a network here; the first run that can makes it"
        );
        return Ok(());
    }
    host.snapshot().await.map(drop)
}

fn list(templates: &[Template], json: bool) -> Result<(), Failure> {
    if json {
        let manifests: Vec<_> = templates.iter().map(Template::manifest).collect();
        return print_json(&manifests);
    }
    say(format_args!(
        "{:<16} {:<12} {:>9} {:>9}  DESCRIPTION",
        "NAME", "ID", "ROOTFS", "MEMORY"
    ))?;
    for template in templates {
        let manifest = template.manifest();
        let (rootfs, memory) = (manifest.rootfs.size >> 20, manifest.memory_mib);
        say(format_args!(
            "{:<16} {:<12} {rootfs:>5} MiB {memory:>5} MiB  {}",
            manifest.name,
            &manifest.id[..12],
            manifest.description
        ))?;
    }
    Ok(())
}

fn show(template: &Template, json: bool) -> Result<(), Failure> {
    let manifest = template.manifest();
    if json {
        return print_json(manifest);
    }
    say(format_args!("name         {}", manifest.name))?;
    say(format_args!("description  {}", manifest.description))?;
    say(format_args!("id           {}", manifest.id))?;
    say(format_args!("created      {}", manifest.created))?;
    say(format_args!("memory       {} MiB", manifest.memory_mib))?;
    say(format_args!("seccomp      {}", manifest.seccomp))?;
    if let Some(network) = &manifest.network {
        say(format_args!("network      {}", network.allow.join(", ")))?;
    }
    say(format_args!(
        "rootfs       {} ({} MiB)",
        template.location(&manifest.rootfs).display(),
        manifest.rootfs.size >> 20
    ))?;
    say(format_args!(
        "kernel       {} ({})",
        template.location(&manifest.kernel.vmlinux).display(),
        manifest.kernel.version
    ))?;
    say(format_args!(
        "packages     {} of Debian, {} wheels",
        manifest.packages.len(),
        manifest.wheels.len()
    ))?;
    for (name, value) in &manifest.env {
        say(format_args!("env          {name}={value}"))?;
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say(format_args!(
        "{}",
        serde_json::to_string_pretty(value).map_err(Failure::platform)?
    ))?;
    Ok(())
}
