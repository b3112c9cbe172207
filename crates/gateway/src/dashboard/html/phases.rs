//! The phases of a run as a bar, a legend and numbers.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::units::duration;

/// The phases that are known, in order, each with a colour of its own and what it means.
const KNOWN: [(&str, &str); 10] = [
    ("spawned", "the VMM's process exists"),
    ("configured", "the VMM is configured and answers"),
    ("loaded", "the snapshot's state is in place"),
    ("started", "the guest's processors run"),
    ("guest_ready", "the guest-runner listens"),
    ("connected", "a session with it is open"),
    ("renewed", "the clone is like no other"),
    ("sent", "program and files were sent"),
    ("result", "the outcome is here"),
    ("destroyed", "the microVM is gone"),
];
/// Width of the bar in its own units.
const WIDTH: f64 = 1000.0;
/// Phases that are named below a bar of the list: the longest ones.
const NAMED: usize = 3;

/// What happened until a phase was reached.
struct Part<'a> {
    name: &'a str,
    /// When it was reached, in milliseconds.
    at: f64,
    /// Since the one before.
    took: f64,
}

impl Part<'_> {
    fn class(&self) -> String {
        class(self.name)
    }
}

fn class(name: &str) -> String {
    match KNOWN.iter().position(|(known, _)| *known == name) {
        Some(number) => format!("phase phase-{number}"),
        None => "phase phase-other".into(),
    }
}

fn parts(phases_ms: &BTreeMap<String, f64>) -> Vec<Part<'_>> {
    let finite = phases_ms.iter().filter(|(_, at)| at.is_finite());
    let mut phases: Vec<(&str, f64)> = finite.map(|(name, at)| (name.as_str(), *at)).collect();
    phases.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut before = 0.0;
    let mut parts = Vec::new();
    for (name, at) in phases {
        let at = at.max(before);
        let took = at - before;
        parts.push(Part { name, at, took });
        before = at;
    }
    parts
}

/// A bar in which each phase is as wide as it took long. Its text says the same.
pub(super) fn bar(phases_ms: &BTreeMap<String, f64>) -> Markup {
    let parts = parts(phases_ms);
    let total = parts.last().map_or(0.0, |part| part.at);
    if total <= 0.0 {
        return html! {};
    }
    let told: Vec<String> = parts
        .iter()
        .map(|part| format!("{} {}", part.name, duration(part.took)))
        .collect();
    let x = |ms: f64| format!("{:.1}", ms / total * WIDTH);
    html! {
        svg.bar viewBox="0 0 1000 10" preserveAspectRatio="none" role="img"
            aria-label=(format!("Phases: {}", told.join(", "))) {
            @for part in &parts {
                rect class=(part.class()) x=(x(part.at - part.took)) y="0"
                    width=(x(part.took)) height="10" {
                    title { (part.name) ": " (duration(part.took)) }
                }
            }
        }
    }
}

/// The bar with its longest phases in words.
pub(super) fn short(phases_ms: &BTreeMap<String, f64>) -> Markup {
    let mut longest = parts(phases_ms);
    longest.sort_by(|a, b| b.took.total_cmp(&a.took));
    longest.truncate(NAMED);
    html! {
        (bar(phases_ms))
        span.longest {
            @for part in &longest {
                span { (part.name) " " (duration(part.took)) }
            }
        }
    }
}

/// The bar with all its numbers.
pub(super) fn table(phases_ms: &BTreeMap<String, f64>) -> Markup {
    html! {
        (bar(phases_ms))
        table.plain {
            caption { "From the moment a host had the run" }
            thead {
                tr {
                    th scope="col" { "Phase" }
                    th scope="col" { "What is reached" }
                    th.number scope="col" { "Took" }
                    th.number scope="col" { "Reached at" }
                }
            }
            tbody {
                @for part in parts(phases_ms) {
                    tr {
                        th scope="row" { (swatch(part.name)) (part.name) }
                        td data-label="What is reached" { (meaning(part.name)) }
                        td.number data-label="Took" { (duration(part.took)) }
                        td.number data-label="Reached at" { (duration(part.at)) }
                    }
                }
            }
        }
    }
}

/// What the colours mean.
pub(super) fn legend<'a>(names: impl Iterator<Item = &'a str>) -> Markup {
    let mut there = [false; KNOWN.len()];
    for name in names {
        if let Some(number) = KNOWN.iter().position(|(known, _)| *known == name) {
            there[number] = true;
        }
    }
    let shown = KNOWN.iter().zip(there).filter(|(_, there)| *there);
    html! {
        ul.legend aria-label="Phases, in order" {
            @for ((name, meaning), _) in shown {
                li title=(meaning) { (swatch(name)) (name) }
            }
        }
    }
}

fn swatch(name: &str) -> Markup {
    html! {
        svg.swatch viewBox="0 0 10 10" aria-hidden="true" {
            rect class=(class(name)) width="10" height="10" {}
        }
    }
}

fn meaning(name: &str) -> &'static str {
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    known.map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_is_as_wide_as_it_took_long() {
        let phases = [("renewed", 10.0), ("result", 40.0)];
        let phases = phases.map(|(name, at)| (name.to_owned(), at)).into();
        let bar = bar(&phases).0;
        assert!(bar.contains(r#"x="0.0" y="0" width="250.0""#), "{bar}");
        assert!(bar.contains(r#"x="250.0" y="0" width="750.0""#), "{bar}");
        assert!(bar.contains("renewed 10 ms, result 30 ms"), "{bar}");
    }

    #[test]
    fn numbers_that_cannot_be_drawn_are_left_out() {
        let check = |phases: &[(&str, f64)], expected: &[f64]| {
            let phases = phases.iter().map(|(name, at)| ((*name).to_owned(), *at));
            let phases = phases.collect();
            let took: Vec<f64> = parts(&phases).iter().map(|part| part.took).collect();
            assert_eq!(took, expected);
        };
        check(&[("a", f64::NAN), ("b", f64::INFINITY), ("c", 2.0)], &[2.0]);
        check(&[("a", -5.0), ("b", 3.0)], &[0.0, 3.0]);
        assert_eq!(bar(&BTreeMap::new()).0, "");
    }
}
