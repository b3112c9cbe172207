//! What a person sees while waiting: bars and spinners on a terminal, nothing when piped.

use std::io::IsTerminal;
use std::time::Duration;

use firelane_image::{Progress, Step};
use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(100);

/// A spinner with a message; gone when dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn start(message: &str) -> Spinner {
        let bar = visible(ProgressBar::new_spinner());
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(TICK);
        Spinner(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The steps of a template build as a bar.
pub(crate) struct BuildBar {
    bar: ProgressBar,
    name: String,
}

impl BuildBar {
    pub(crate) fn start(name: &str) -> BuildBar {
        let bar = visible(ProgressBar::new(Step::ALL.len() as u64));
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix} [{bar:24}] {pos}/{len} {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(format!("template {name}"));
        bar.enable_steady_tick(TICK);
        BuildBar {
            bar,
            name: name.to_owned(),
        }
    }
}

impl Progress for BuildBar {
    fn step(&self, step: Step) {
        tracing::info!(template = %self.name, step = step.name(), "building");
        self.bar.set_position(step.position() as u64 - 1);
        self.bar.set_message(step.name());
    }

    fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }
}

impl Drop for BuildBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn visible(bar: ProgressBar) -> ProgressBar {
    if std::io::stderr().is_terminal() {
        bar
    } else {
        ProgressBar::hidden()
    }
}
