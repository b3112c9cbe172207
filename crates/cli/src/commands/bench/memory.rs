//! `firelane bench memory`: what clones of one snapshot take of this host's memory while several live.
//!
//! A clone's own pages are private; those that it has in common with the snapshot's file, and of
//! QEMU's program and libraries, are shared. PSS counts a shared page in equal parts to all that map
//! it. Source: Linux, `Documentation/filesystems/proc.rst`, `smaps_rollup`.

use std::fs;

use firelane_agent::clone::Ready;
use firelane_agent::workshop::new_id;
use firelane_vmm::timeline::Timeline;
use serde::Serialize;

use super::measure::{check, request};
use super::report::{Fingerprint, fingerprint, head, keep};
use super::stats::percentiles;
use crate::args::{MachineArgs, MemoryArgs};
use crate::failure::Failure;
use crate::host::Host;
use crate::run::{Output, inside};
use crate::say::say;

/// Memory of one VMM, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Taken {
    pub(super) pss_kib: u64,
    pub(super) private_kib: u64,
    resident_kib: u64,
}

#[derive(Debug, Serialize)]
struct Measured {
    benchmark: String,
    host: Fingerprint,
    /// Of each clone, restored and renewed.
    idle: Vec<Taken>,
    /// The same clones after a program has run in each.
    after_a_run: Vec<Taken>,
}

pub(super) async fn memory(args: &MemoryArgs) -> Result<u8, Failure> {
    let host = Host::prepare(&MachineArgs::of_snapshot(&args.template)).await?;
    let workshop = host.workshop();
    let name = &host.template.manifest().name;
    let prepared = workshop.prepare(name).await.map_err(Failure::platform)?;
    let mut clones = Vec::new();
    for _ in 0..args.clones {
        let mut unseen = Timeline::start();
        let restored = workshop.restore(&prepared, &new_id(), &mut unseen).await;
        clones.push(restored.map_err(Failure::platform)?);
    }
    let idle = all(&clones)?;
    for Ready { vm, session, .. } in &mut clones {
        let mut output = Output::collect();
        let request = request(&host, args.lang, &new_id());
        let mut unseen = Timeline::start();
        let ran = inside(&mut **vm, session, request, &mut output, &mut unseen).await?;
        check(&ran, output)?;
    }
    let after_a_run = all(&clones)?;
    for Ready { vm, session, .. } in clones {
        drop(session);
        vm.destroy().await.map_err(Failure::platform)?;
    }
    let measured = Measured {
        benchmark: format!("memory {}", args.lang),
        host: fingerprint(&host, None)?,
        idle,
        after_a_run,
    };
    tell(&measured)?;
    keep(&measured, args.json.as_deref())?;
    Ok(0)
}

fn all(clones: &[Ready]) -> Result<Vec<Taken>, Failure> {
    clones.iter().map(|clone| of(clone.vm.pid())).collect()
}

pub(super) fn of(pid: u32) -> Result<Taken, Failure> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| {
        let context = format!("cannot read {path}");
        Failure::platform(anyhow::Error::from(error).context(context))
    })?;
    parse(&text).ok_or_else(|| Failure::platform(anyhow::anyhow!("{path} says nothing of memory")))
}

fn parse(text: &str) -> Option<Taken> {
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line?
            .strip_prefix(':')?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()
    };
    Some(Taken {
        pss_kib: kib("Pss")?,
        private_kib: kib("Private_Clean")? + kib("Private_Dirty")?,
        resident_kib: kib("Rss")?,
    })
}

fn tell(measured: &Measured) -> Result<(), Failure> {
    head(&measured.benchmark, &measured.host)?;
    say(format_args!(
        "{:>12} {:>10} {:>10} {:>10} {:>10}   (MiB of each of {} clones that live at once)",
        "",
        "PSS p50",
        "PSS max",
        "private",
        "resident",
        measured.idle.len()
    ))?;
    for (name, taken) in [
        ("idle", &measured.idle),
        ("after a run", &measured.after_a_run),
    ] {
        let mib = |kib: fn(&Taken) -> u64| -> [f64; 2] {
            let values: Vec<f64> = taken
                .iter()
                .map(|taken| kib(taken) as f64 / 1024.0)
                .collect();
            percentiles(&values, [50, 100])
        };
        let [pss, most] = mib(|taken| taken.pss_kib);
        let [private, _] = mib(|taken| taken.private_kib);
        let [resident, _] = mib(|taken| taken.resident_kib);
        say(format_args!(
            "{name:>12} {pss:>10.1} {most:>10.1} {private:>10.1} {resident:>10.1}"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_or_refused() {
        let text = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:      2048 kB\nPss:   700 kB\n\
                    Pss_Anon:   1 kB\nPrivate_Clean:   10 kB\nPrivate_Dirty:     600 kB\n";
        let taken = Taken {
            pss_kib: 700,
            private_kib: 610,
            resident_kib: 2048,
        };
        assert_eq!(parse(text), Some(taken));
        assert_eq!(parse(""), None);
        assert_eq!(parse(&text.replace("700 kB", "much")), None);
    }
}
