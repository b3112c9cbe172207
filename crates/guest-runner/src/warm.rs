//! Prepares the guest for a snapshot: what a first program would wait for is done before.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use firelane_guest_proto::Lang;
use firelane_guest_proto::frame::Channel;
use firelane_guest_proto::message::{ExecSpec, Limits, Program, Refused, RefusedCode, WarmSpec};

use crate::exec::{self, Sink, SourceFile, refused};
use crate::{Guest, console, renewal};

/// Working directory of the programs that warm.
const FOLDER: &str = "/work/warm";
/// How long each of them may take.
const TIMEOUT_MS: u64 = 120_000;

/// Starts the zygotes, runs each snippet, and makes the guest stale.
pub(crate) fn warm(guest: &Arc<Guest>, spec: &WarmSpec) -> Result<(), Refused> {
    guest.renewal.require_fresh()?;
    let fail = |what: &str, error: &io::Error| {
        refused(RefusedCode::Internal, format!("cannot {what}: {error}"))
    };
    renewal::forget_time().map_err(|error| fail("set the clock back", &error))?;
    renewal::prepare_names().map_err(|error| fail("prepare the names", &error))?;
    for lang in Lang::ALL {
        let snippets: Vec<String> = spec
            .snippets
            .iter()
            .filter(|(of, _)| *of == lang)
            .map(|(_, snippet)| snippet.clone())
            .collect();
        start_zygote(guest, lang, &snippets, &spec.env);
        // With a zygote, this warms the way through it.
        for snippet in &snippets {
            run(guest, lang, snippet, &spec.env)?;
        }
        // One that was parked has run a snippet and is gone.
        start_zygote(guest, lang, &snippets, &spec.env);
    }
    exec::prepare_group(guest).map_err(|error| fail("prepare a cgroup", &error))?;
    guest.renewal.make_stale();
    Ok(())
}

/// Without a zygote programs start as usual; what is wrong with a snippet shows when it is run.
fn start_zygote(guest: &Guest, lang: Lang, snippets: &[String], env: &[(String, String)]) {
    if let Err(error) = guest.zygotes.start(guest, lang, snippets, env) {
        console::log(&format!("cannot start the zygote of {lang}: {error}"));
    }
}

fn run(
    guest: &Arc<Guest>,
    lang: Lang,
    snippet: &str,
    env: &[(String, String)],
) -> Result<(), Refused> {
    let spec = ExecSpec {
        trace_id: "warm".into(),
        program: Program::Code {
            lang,
            source: snippet.into(),
            args: Vec::new(),
        },
        env: env.to_vec(),
        cwd: Some(FOLDER.into()),
        limits: Limits {
            timeout_ms: TIMEOUT_MS,
            ..Limits::default()
        },
        pty: None,
    };
    let (remote, local) = exec::control()
        .map_err(|error| refused(RefusedCode::Exhausted, format!("cannot start: {error}")))?;
    remote.send(exec::Command::StdinEnd);
    let mut said = Tail::default();
    let ended = exec::run(guest, &spec, SourceFile::Stays, &local, &mut said);
    // The next one begins in an empty folder, and so does the first program of a clone.
    if Path::new(FOLDER).exists() {
        fs::remove_dir_all(FOLDER).map_err(|error| {
            refused(
                RefusedCode::Internal,
                format!("cannot remove {FOLDER}: {error}"),
            )
        })?;
    }
    let outcome = match ended {
        // A template that lacks the interpreter has nothing to warm.
        Err(refused) if refused.code == RefusedCode::NoInterpreter => return Ok(()),
        ended => ended?.outcome,
    };
    if outcome.exit_code() == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said.0);
    let message = format!(
        "the warm-up of {lang} ended with {}: {said}",
        outcome.exit_code()
    );
    Err(refused(RefusedCode::Invalid, message))
}

/// The first bytes of what a snippet says on stderr.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Sink for Tail {
    fn started(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let room = 200usize.saturating_sub(self.0.len());
        if channel == Channel::Stderr {
            self.0.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
        Ok(())
    }

    fn stdin_taken(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn initial_window(&self) -> u64 {
        u64::MAX
    }
}
