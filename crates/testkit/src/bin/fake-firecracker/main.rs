//! Firecracker without a KVM: its API as the real one behaves, around a guest that is simulated.
//!
//! What it reproduces is what a driver meets: one request at a time, ten connections, unknown fields
//! refused, files opened when they are named, sockets that are in the way, a process that ends after a
//! load that failed, a Diff that is merged into a memory file that is there already. It is held to the
//! conformance suite that the real one passes. Source: Firecracker v1.16.1, `docs` and
//! `src/firecracker/swagger/firecracker.yaml`, and the real program's behaviour.
//!
//! A fault is told by its name: see [`faults`].

mod api;
mod faults;
mod guest;
mod paged;
mod snapshot;
mod vm;

use std::path::{Path, PathBuf};
use std::process::exit;

use faults::{Fault, Point};

/// Version that it claims, unless its name tells another.
const VERSION: &str = "1.16.1";
/// Version of its snapshots: they are of no use to a real one.
const FORMAT: &str = "10.0.0";
/// Exit code for bad arguments: `FcExitCode::ArgParsing`.
const BAD_ARGUMENTS: i32 = 153;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let fault = Fault::of_this_program();
    match args.first().map(String::as_str) {
        Some("--version") => {
            println!("Firecracker v{}", fault.version().unwrap_or(VERSION));
            return;
        }
        Some("--snapshot-version") => {
            println!("v{FORMAT}");
            return;
        }
        _ => {}
    }
    let Some(socket) = value(&args, "--api-sock").map(PathBuf::from) else {
        eprintln!("Arguments parsing error: --api-sock is missing");
        exit(BAD_ARGUMENTS);
    };
    fault.strike_process(Point::Start);
    let served = run(&socket, fault);
    eprintln!("fake-firecracker: {served:?}");
    exit(1);
}

fn value(args: &[String], name: &str) -> Option<String> {
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).cloned()
}

fn run(socket: &Path, fault: Fault) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A socket that an earlier process left is in the way, as it is for the real one.
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket)?;
        api::serve(listener, fault).await
    })
}
