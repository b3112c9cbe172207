//! The page of one run.

use maud::{Markup, html};

use super::page::{self, Html};
use super::units::{duration, size, time};
use super::{phases, problem, runs};
use crate::auth::Who;
use crate::dashboard::ended::{Done, Stream};
use crate::dashboard::run::Record;

/// The page. While the run goes on, the script follows it.
pub(in crate::dashboard) fn page(record: &Record, who: &Who) -> Html {
    let run = &record.run;
    let id = run.id.to_string();
    let follow = (!run.state.is_final()).then_some(&id);
    page::page(
        &id,
        Some(who),
        &html! {
            nav aria-label="Path" { a href="/" { "Overview" } }
            section.card aria-labelledby="run-title" data-follow=[follow] {
                h1.id #run-title { (id) }
                p.status #run-status role="status" {
                    (runs::state(run))
                    @if let Some(done) = &record.told.done {
                        span { "exit code " (runs::exit(&done.ending)) }
                    }
                }
                @if follow.is_some() {
                    div.actions { button #run-stop type="button" disabled { "Stop" } }
                }
                (output(record))
                (summary(record))
            }
        },
    )
}

fn output(record: &Record) -> Markup {
    let told = &record.told;
    let id = &record.run.id;
    html! {
        h2 { "Output" }
        div.output #run-output role="log" aria-live="polite" aria-label="Output" tabindex="0" {
            @for (stream, bytes) in &told.written { (chunk(*stream, bytes)) }
        }
        // The style shows it as long as there is no output above.
        p.empty.none { "Nothing was written." }
        @if told.left_out > 0 {
            p.hint {
                (size(told.left_out as u64)) " more: " code { "GET /v1/runs/" (id) }
            }
        }
    }
}

/// What was written to one stream in one go.
fn chunk(stream: Stream, bytes: &[u8]) -> Markup {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    html! {
        div class=(format!("chunk {name}")) {
            span.stream { (name) }
            // A line break right behind the tag would be swallowed.
            pre { "\n" (String::from_utf8_lossy(bytes)) }
        }
    }
}

/// Everything but the output; the script puts it below the box of a run that is over.
fn summary(record: &Record) -> Markup {
    let run = &record.run;
    html! {
        div #summary data-final=(run.state.is_final()) {
            @if let Some(found) = &run.problem { (problem::told(found)) }
            dl.facts {
                @if let Some(done) = &record.told.done { (outcome(done)) }
                div { dt { "Language" } dd { (run.lang.name()) } }
                div { dt { "Template" } dd { bdi { (run.template) } } }
                div { dt { "Asked for" } dd { (time(&run.created_at)) } }
                @if let Some(at) = &run.started_at { div { dt { "Started" } dd { (time(at)) } } }
                @if let Some(at) = &run.finished_at { div { dt { "Finished" } dd { (time(at)) } } }
                @if let Some(ms) = runs::took(run) { div { dt { "Took" } dd { (duration(ms)) } } }
                @if let Some(place) = run.place {
                    div { dt { "Before it" } dd { (place.position) " runs, about " (duration(place.eta_ms as f64)) } }
                }
                @if !run.labels.is_empty() { div { dt { "Labels" } dd { (runs::labels(run, usize::MAX)) } } }
            }
            @if let Some(done) = &record.told.done {
                h2 { "Phases" }
                (phases::table(&done.ran.phases_ms))
            }
        }
    }
}

fn outcome(done: &Done) -> Markup {
    let (ending, ran) = (&done.ending, &done.ran);
    let cut = match (ending.stdout_truncated, ending.stderr_truncated) {
        (false, false) => None,
        (true, false) => Some("stdout"),
        (false, true) => Some("stderr"),
        (true, true) => Some("stdout and stderr"),
    };
    html! {
        @if let Some(cut) = cut { div { dt { "Over the limit, dropped" } dd { "parts of " (cut) } } }
        div { dt { "Processor time" } dd { (duration(ending.usage.cpu_ms)) } }
        div { dt { "Peak memory" } dd { (size(ending.usage.peak_memory_bytes)) } }
        div { dt { "Host" } dd { bdi { (ran.host) } } }
        @if !ran.driver.is_empty() {
            div { dt { "Driver" } dd { bdi { (ran.driver) } ", " bdi { (ran.acceleration) } } }
        }
        div { dt { "MicroVM from" } dd { (ran.origin.name()) } }
        @if !ending.interpreter.is_empty() {
            div { dt { "Interpreter" } dd { bdi { (ending.interpreter) } } }
        }
    }
}
