//! `firelane run`.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use firelane_agent::workshop::new_id;
use firelane_guest_proto::message::{self, ExecSpec, Limits, MAX_FILE_BYTES, PutSpec};
use firelane_network::Count;
use firelane_vmm::timeline::Timeline;
use firelane_wire::network::NetworkSeen;
use firelane_wire::run::{Ending, Ran};

use crate::args::RunArgs;
use crate::failure::Failure;
use crate::host::Host;
use crate::run::{
    Done, FileIn, FileOut, Finished, Input, Output, Program, Request, StdinSource, execute,
    interruptible, print_timings, remote, to_json,
};
use crate::say::say;

/// Working directory of a run, where its files are put.
const WORK: &str = "/work";

pub(super) async fn run(args: RunArgs) -> Result<u8, Failure> {
    let input = Input::read(&args)?;
    let lang = input.lang;
    // All that can be wrong with the arguments is found before anything is started.
    let stdin = stdin(&args, &input)?;
    let files_in = args
        .files_in
        .iter()
        .map(open_file_in)
        .collect::<Result<_, _>>()?;
    let files_out = args
        .files_out
        .iter()
        .map(check_file_out)
        .collect::<Result<_, _>>()?;
    let program = Program {
        input,
        stdin,
        files_in,
        files_out,
    };
    let mut output = if args.json {
        Output::collect()
    } else {
        Output::Stream
    };
    let done = match interruptible(remote::service(&args, &program)).await? {
        Some(service) => remote::run(&args, program, &service, &mut output).await?,
        None => local(&args, program, &mut output).await?,
    };
    if args.json {
        let report = to_json(lang, output.collected(), &done);
        say(format_args!("{}", report.map_err(Failure::platform)?))?;
    } else {
        remark(&done.ending, &args);
        remark_network(done.ran.network.as_ref());
    }
    let mut missing = done.missing.into_iter();
    match missing.next_back() {
        Some(last) => {
            for failure in missing {
                failure.report();
            }
            Err(last)
        }
        None => Ok(u8::try_from(done.ending.exit_code & 0xff).unwrap_or(u8::MAX)),
    }
}

/// Runs in a microVM of our own.
async fn local(args: &RunArgs, program: Program, output: &mut Output) -> Result<Done, Failure> {
    let host = interruptible(Host::prepare(&args.machine)).await?;
    let id = new_id();
    let limit = u64::from(args.max_output_mib) << 20;
    let template_env = host.template.manifest().env.clone();
    let spec = ExecSpec {
        trace_id: id.clone(),
        program: message::Program::Code {
            lang: program.input.lang,
            source: program.input.source,
            args: program.input.args,
        },
        env: template_env.into_iter().chain(args.env.clone()).collect(),
        cwd: Some(WORK.into()),
        limits: Limits {
            timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
            output_bytes: limit,
            memory_bytes: host.program_memory_bytes(),
            ..Limits::default()
        },
        pty: None,
    };
    let request = Request {
        spec,
        timeout: args.timeout,
        stdin: program.stdin,
        files_in: program.files_in,
        files_out: program.files_out,
    };
    let mut timeline = Timeline::start();
    let executed = execute(&host, &id, request, output, &mut timeline).await;
    if args.timings {
        print_timings(&timeline.in_ms());
    }
    let Finished {
        outcome,
        missing,
        network,
    } = executed?;
    let ran = Ran {
        host: "local".into(),
        driver: host.driver.kind().name().into(),
        acceleration: host.driver.acceleration().to_string(),
        origin: host.origin(),
        phases_ms: timeline.in_ms(),
        network,
    };
    Ok(Done {
        id,
        ending: Ending::from(&outcome),
        ran,
        missing,
    })
}

/// Says on stderr what the program's own output cannot show.
fn remark(outcome: &Ending, args: &RunArgs) {
    if outcome.timed_out {
        eprintln!("firelane: killed at the time limit of {:?}", args.timeout);
    } else if outcome.out_of_memory {
        eprintln!("firelane: out of memory; remedy: give --memory-mib more");
    }
    for (name, truncated) in [
        ("stdout", outcome.stdout_truncated),
        ("stderr", outcome.stderr_truncated),
    ] {
        if truncated {
            eprintln!(
                "firelane: {name} was cut at {} MiB; remedy: --max-output-mib",
                args.max_output_mib
            );
        }
    }
}

/// Says on stderr what the program saw as silence.
fn remark_network(seen: Option<&NetworkSeen>) {
    let Some(seen) = seen else {
        return;
    };
    let refusals = Count::ALL.iter().filter(|count| count.is_refusal());
    let refused: Vec<String> = refusals
        .filter_map(|count| {
            let times = seen.counts.get(count.name())?;
            Some(format!("{} {times}", count.name()))
        })
        .collect();
    if !refused.is_empty() {
        eprintln!(
            "firelane: the network refused packets: {}; --json lists them",
            refused.join(", ")
        );
    }
}

fn stdin(args: &RunArgs, input: &Input) -> Result<StdinSource, Failure> {
    match &args.stdin_file {
        Some(path) if path.is_dir() => {
            Err(Failure::usage(format!("{} is a folder", path.display())))
        }
        Some(path) => Ok(StdinSource::File(open(path)?)),
        None if input.stdin_used => Ok(StdinSource::Empty),
        None => Ok(StdinSource::Inherited),
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

fn open_file_in((host, guest): &(PathBuf, String)) -> Result<FileIn, Failure> {
    let file = open(host)?;
    let meta = file
        .metadata()
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", host.display())))?;
    if !meta.is_file() {
        return Err(Failure::usage(format!(
            "{} is not a regular file",
            host.display()
        )));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{} is over 1 GiB", host.display())));
    }
    let spec = PutSpec {
        path: guest.clone(),
        mode: meta.permissions().mode() & 0o777,
        size: meta.len(),
    };
    Ok(FileIn { file, spec })
}

fn check_file_out((guest, host): &(String, PathBuf)) -> Result<FileOut, Failure> {
    let folder = host
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() || host.is_dir() {
        return Err(Failure::usage(format!(
            "cannot write {}: not a file in an existing folder",
            host.display()
        )));
    }
    Ok(FileOut {
        guest: guest.clone(),
        host: host.clone(),
    })
}
