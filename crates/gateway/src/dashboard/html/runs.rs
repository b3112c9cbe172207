//! The list of recent runs, and how a run is told in words.

use firelane_wire::run::{Ending, Run};
use maud::{Markup, html};

use super::phases;
use super::units::{between, duration, time};
use crate::dashboard::overview::Recent;

/// Hexadecimal characters of an id that a list shows: enough to tell runs apart. The first ones are
/// the time, the last ones random.
const ID_DIGITS: usize = 8;

/// Labels of a run that a list shows; its page has the others.
const LISTED_LABELS: usize = 3;

/// The recent runs; `None` if the key may not see them.
pub(super) fn section(runs: Option<&[Recent]>) -> Markup {
    html! {
        section.card #runs aria-labelledby="runs-title" {
            h2 #runs-title { "Recent runs" }
            @match runs {
                None => p.empty { "The key lacks the scope " code { "run" } ", which shows runs." },
                Some([]) => p.empty {
                    "Nothing has run yet. Type something into the box and press Run, or: "
                    code { "firelane run -c 'print(6*7)'" }
                },
                Some(runs) => {
                    (phases::legend(names(runs)))
                    (table(runs))
                }
            }
        }
    }
}

fn names(runs: &[Recent]) -> impl Iterator<Item = &str> {
    let done = runs.iter().filter_map(|recent| recent.done.as_ref());
    done.flat_map(|done| done.ran.phases_ms.keys().map(String::as_str))
}

fn table(runs: &[Recent]) -> Markup {
    html! {
        table.runs {
            caption.hidden { "Recent runs, newest first" }
            thead {
                tr {
                    th scope="col" { "Run" }
                    th scope="col" { "Language" }
                    th scope="col" { "State" }
                    th scope="col" { "Exit" }
                    th scope="col" { "When" }
                    th.number scope="col" { "Took" }
                    th.phases scope="col" { "Phases" }
                }
            }
            tbody { @for recent in runs { (row(recent)) } }
        }
    }
}

fn row(recent: &Recent) -> Markup {
    let run = &recent.run;
    let id = run.id.to_string();
    let end = &id[id.len().saturating_sub(ID_DIGITS)..];
    html! {
        tr {
            th scope="row" {
                a.id href=(format!("/runs/{id}")) title=(id) aria-label=(format!("Run {id}")) { "…" (end) }
                (labels(run, LISTED_LABELS))
            }
            td data-label="Language" { (run.lang.name()) " " span.dim { bdi { (run.template) } } }
            td data-label="State" { (state(run)) }
            td data-label="Exit" {
                @match &recent.done {
                    Some(done) => (exit(&done.ending)),
                    None => (nothing()),
                }
            }
            td data-label="When" { (time(&run.created_at)) }
            td.number data-label="Took" {
                @match took(run) {
                    Some(ms) => (duration(ms)),
                    None => (nothing()),
                }
            }
            td.phases data-label="Phases" {
                @match &recent.done {
                    Some(done) => (phases::short(&done.ran.phases_ms)),
                    None => (nothing()),
                }
            }
        }
    }
}

/// From the moment a run was started to its end.
pub(super) fn took(run: &Run) -> Option<f64> {
    between(run.started_at.as_ref()?, run.finished_at.as_ref()?)
}

pub(super) fn state(run: &Run) -> Markup {
    let state = run.state.name();
    html! { span class=(format!("state state-{state}")) { (state) } }
}

/// The exit code, and why it is that if the program did not choose it.
pub(super) fn exit(ending: &Ending) -> Markup {
    let reason = match ending.signal {
        _ if ending.timed_out => Some("time limit".into()),
        _ if ending.out_of_memory => Some("out of memory".into()),
        Some(signal) => Some(format!("signal {signal}")),
        None => None,
    };
    let class = if ending.exit_code == 0 {
        "exit ok"
    } else {
        "exit bad"
    };
    html! {
        span class=(class) { (ending.exit_code) }
        @if let Some(reason) = reason { " " span.reason { (reason) } }
    }
}

/// The caller's own names, no more than so many.
pub(super) fn labels(run: &Run, most: usize) -> Markup {
    let more = run.labels.len().saturating_sub(most);
    html! {
        @if !run.labels.is_empty() {
            ul.labels aria-label="Labels" {
                @for (name, value) in run.labels.iter().take(most) {
                    li { bdi { (name) } "=" bdi { (value) } }
                }
                @if more > 0 { li { "and " (more) " more" } }
            }
        }
    }
}

pub(super) fn nothing() -> Markup {
    html! { span.dim aria-label="none" { "–" } }
}
