//! What a person sees while a lane is at work.
//!
//! On a terminal one line for each stage, with a spinner while it lasts; plain lines when piped; with
//! `--json` one object for each event, on stdout. Everything is in the lane's log too.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{IsTerminal, Write, stderr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use firelane_lane::journal::LOG;
use firelane_lane::progress::{Event, Progress};
use indicatif::ProgressBar;

use crate::say::say;

/// Tells events as they come.
pub(super) struct Stages {
    json: bool,
    log: Option<Mutex<File>>,
    /// Where the log is, until it has been told.
    path: Mutex<Option<PathBuf>>,
    bar: Mutex<Option<ProgressBar>>,
}

impl Stages {
    /// Events are also added to the log in this folder, if there is one.
    pub(super) fn new(json: bool, folder: Option<&Path>) -> Stages {
        let log = folder.and_then(|folder| {
            // As the journal makes it: there are keys in it.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            let opened = made.and_then(|()| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(folder.join(LOG))
            });
            opened
                .map_err(|error| tracing::warn!(%error, "the lane has no log"))
                .ok()
        });
        Stages {
            json,
            log: log.map(Mutex::new),
            path: Mutex::new(folder.map(|folder| folder.join(LOG))),
            bar: Mutex::default(),
        }
    }

    fn show(&self, event: &Event) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Begun { step } if stderr().is_terminal() => {
                let spinner = ProgressBar::new_spinner();
                spinner.set_message(step.to_string());
                spinner.enable_steady_tick(Duration::from_millis(100));
                *bar = Some(spinner);
                return;
            }
            Event::Note { step, message } => {
                if let Some(bar) = &*bar {
                    bar.set_message(format!("{step}: {message}"));
                    return;
                }
            }
            _ => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
        eprintln!("{}", line(event));
        if matches!(event, Event::Planned { .. } | Event::Resumed { .. })
            && let Some(path) = self
                .path
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        {
            eprintln!("log: {}", path.display());
        }
    }
}

impl Progress for Stages {
    fn tell(&self, event: &Event) {
        if let Some(log) = &self.log {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let at = jiff::Timestamp::now();
            if let Err(error) = writeln!(log, "{at:.3} {}", line(event)) {
                tracing::warn!(%error, "the lane's log cannot be written");
            }
        }
        if self.json {
            let text = serde_json::to_string(event).expect("events are JSON in every case");
            // Nobody reads it: what is done does not depend on that.
            let _ = say(text);
        } else {
            self.show(event);
        }
    }
}

/// One event as people read it.
fn line(event: &Event) -> String {
    match event {
        Event::Planned {
            label,
            provider,
            region,
            instance_type,
            milli_usd_per_hour,
            expires,
        } => {
            let price = milli_usd_per_hour.map_or_else(
                || "price not known".to_owned(),
                |milli| format!("{} an hour", dollars(milli)),
            );
            format!(
                "lane {label}: {provider} {region} {instance_type}, {price}, until {}",
                instant(*expires)
            )
        }
        Event::Resumed { label, stage } => format!("lane {label} is {stage}, and goes on"),
        Event::Begun { step } => format!("{step} ..."),
        Event::Note { step, message } => format!("  {step}: {message}"),
        Event::Log { step, source, text } => {
            let text = text.replace('\n', "\n  | ");
            format!("  {step}: {source}\n  | {text}")
        }
        Event::Done { step, ms } => format!(
            "{step} done, {:.1} s",
            Duration::from_millis(*ms).as_secs_f64()
        ),
        Event::Failed {
            step,
            cause,
            remedy,
        } => {
            let remedy = remedy
                .as_ref()
                .map_or_else(String::new, |remedy| format!("; remedy: {remedy}"));
            format!("{step} FAILED: {cause}{remedy}")
        }
    }
}

/// Thousandths of a dollar, as people write them.
pub(super) fn dollars(milli: u64) -> String {
    format!("{}.{:03} USD", milli / 1000, milli % 1000)
}

/// Seconds since the Unix epoch, as people write them.
pub(super) fn instant(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| seconds.to_string(), |at| at.to_string())
}
