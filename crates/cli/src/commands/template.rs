//! `firelane template`.

use firelane_image::{Definition, Template};

use crate::args::TemplateCommand;
use crate::failure::Failure;
use crate::host::{build_template, open_store};

pub(super) async fn template(command: TemplateCommand) -> Result<u8, Failure> {
    let store = open_store()?;
    match command {
        TemplateCommand::Build { template, refresh } => {
            let definition = Definition::find(&template)?;
            let built = build_template(store, definition, refresh).await?;
            println!("{} {}", built.manifest().name, built.manifest().id);
        }
        TemplateCommand::List { json } => list(&store.list()?, json)?,
        TemplateCommand::Show { template, json } => show(&store.get(&template)?, json)?,
        TemplateCommand::Rm { template } => {
            let freed = store.remove(&template)?;
            eprintln!("removed {template}, {} MiB freed", freed >> 20);
        }
    }
    Ok(0)
}

fn list(templates: &[Template], json: bool) -> Result<(), Failure> {
    if json {
        let manifests: Vec<_> = templates.iter().map(Template::manifest).collect();
        return print_json(&manifests);
    }
    println!(
        "{:<16} {:<12} {:>9} {:>9}  DESCRIPTION",
        "NAME", "ID", "ROOTFS", "MEMORY"
    );
    for template in templates {
        let manifest = template.manifest();
        let (rootfs, memory) = (manifest.rootfs.size >> 20, manifest.memory_mib);
        println!(
            "{:<16} {:<12} {rootfs:>5} MiB {memory:>5} MiB  {}",
            manifest.name,
            &manifest.id[..12],
            manifest.description
        );
    }
    Ok(())
}

fn show(template: &Template, json: bool) -> Result<(), Failure> {
    let manifest = template.manifest();
    if json {
        return print_json(manifest);
    }
    println!("name         {}", manifest.name);
    println!("description  {}", manifest.description);
    println!("id           {}", manifest.id);
    println!("created      {}", manifest.created);
    println!("memory       {} MiB", manifest.memory_mib);
    println!(
        "rootfs       {} ({} MiB)",
        template.rootfs().display(),
        manifest.rootfs.size >> 20
    );
    println!(
        "kernel       {} ({})",
        template.vmlinux().display(),
        manifest.kernel.version
    );
    println!(
        "packages     {} of Debian, {} wheels",
        manifest.packages.len(),
        manifest.wheels.len()
    );
    for (name, value) in &manifest.env {
        println!("env          {name}={value}");
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    println!(
        "{}",
        serde_json::to_string_pretty(value).map_err(Failure::platform)?
    );
    Ok(())
}
