//! The spans of a run that is over.
//!
//! ```text
//!   run                                  from being asked for to the end
//!   ├─ queue                             until a host has it
//!   ├─ claim | restore | boot            until a microVM is its own
//!   │  └─ renew                          of a clone, its last step
//!   └─ exec                              until its outcome is there
//!      └─ send                           its code and files, the first step
//! ```
//!
//! The steps are those of `metrics` and of `Server-Timing`. A trace says nothing of code, output,
//! environment, labels or tenant: a collector is read by others than a run's owner.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use firelane_model::id::RunId;
use firelane_traces::{Parent, Span, Value, fresh_id};
use firelane_wire::event::End;
use firelane_wire::run::{Origin, Ran};
use firelane_wire::trace::TraceParent;
use tokio::time::Instant;

use crate::entry::Entry;
use crate::metrics::phases;
use crate::service::Coordinator;

impl Coordinator {
    /// Tells of a run that ends now.
    pub(crate) fn tell_spans(
        &self,
        entry: &Arc<Entry>,
        end: &End,
        started: Option<Instant>,
        host: Option<&str>,
    ) {
        let sink = &self.config.traces;
        // Who does not record its own spans wants none of ours.
        if !sink.is_on() || entry.traceparent.is_some_and(|parent| !parent.sampled) {
            return;
        }
        let now = SystemTime::now();
        let over = Over {
            trace_id: trace_id(entry.id, entry.traceparent),
            caller: entry.traceparent.map(|parent| parent.span_id),
            asked: entry.submitted.min(now),
            started: started.map(|at| now.checked_sub(at.elapsed()).unwrap_or(now)),
            ended: now,
            end,
        };
        let mut about = vec![
            ("firelane.run.id", entry.id.to_string().as_str().into()),
            ("firelane.run.state", Entry::state_of(end).name().into()),
            ("firelane.lang", entry.lang.name().into()),
        ];
        // A name that a host has. One that was only asked for is whatever the caller wrote, and as long.
        if let End::Done { .. } = end {
            about.push(("firelane.template", entry.template.as_str().into()));
        }
        about.extend(host.map(|host| ("host.name", host.into())));
        sink.tell(over.spans(about, fresh_id));
    }
}

/// The trace that a run belongs to.
fn trace_id(id: RunId, caller: Option<TraceParent>) -> u128 {
    caller.map_or(id.bits(), |caller| caller.trace_id)
}

/// The same, as callers see it.
pub(crate) fn id_of(id: RunId, caller: Option<TraceParent>) -> String {
    format!("{:032x}", trace_id(id, caller))
}

/// A run that is over.
struct Over<'a> {
    trace_id: u128,
    /// The caller's span.
    caller: Option<u64>,
    asked: SystemTime,
    started: Option<SystemTime>,
    ended: SystemTime,
    end: &'a End,
}

impl Over<'_> {
    /// Its spans, the first of which is the whole; what it is about is said by that one.
    fn spans(
        &self,
        mut about: Vec<(&'static str, Value)>,
        mut next_id: impl FnMut() -> u64,
    ) -> Vec<Span> {
        let mut error = None;
        match self.end {
            End::Done { ending, ran } => {
                about.push(("process.exit.code", ending.exit_code.into()));
                about.push(("firelane.origin", ran.origin.name().into()));
                about.push(("firelane.driver", ran.driver.as_str().into()));
                about.push(("firelane.acceleration", ran.acceleration.as_str().into()));
            }
            End::Failed(problem) => {
                error = Some(problem.code.name());
                about.push(("error.type", problem.code.name().into()));
            }
            End::Cancelled | End::Expired => {}
        }
        let root = next_id();
        let mut spans = vec![Span {
            trace_id: self.trace_id,
            id: root,
            parent: self.caller.map(Parent::Caller),
            name: "run".into(),
            start: self.asked,
            end: self.ended,
            attributes: about,
            error,
        }];
        let mut step = |name: &'static str, parent, from: SystemTime, to: SystemTime| {
            // The clock may have been set, and hosts have their own: no step is outside of its run.
            let start = from.clamp(self.asked, self.ended);
            let id = next_id();
            spans.push(Span {
                trace_id: self.trace_id,
                id,
                parent: Some(Parent::Here(parent)),
                name: Cow::Borrowed(name),
                start,
                end: to.clamp(start, self.ended),
                attributes: Vec::new(),
                error: None,
            });
            id
        };
        // One that never started waited until its end.
        step(
            "queue",
            root,
            self.asked,
            self.started.unwrap_or(self.ended),
        );
        if let (Some(started), End::Done { ran, .. }) = (self.started, self.end) {
            inside(started, ran, |name, parent, from, to| {
                step(name, parent.unwrap_or(root), from, to)
            });
        }
        spans
    }
}

/// The steps of a run that a host has had since this time.
fn inside(
    started: SystemTime,
    ran: &Ran,
    mut step: impl FnMut(&'static str, Option<u64>, SystemTime, SystemTime) -> u64,
) {
    let after = |took: Duration| started.checked_add(took).unwrap_or(started);
    let at = |name: &str| {
        let ms = ran.phases_ms.get(name).copied();
        ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok())
    };
    let (Some(ready), exec) = phases(ran) else {
        return;
    };
    let name = match ran.origin {
        Origin::Pool => "claim",
        Origin::Snapshot => "restore",
        Origin::Boot => "boot",
    };
    let parent = step(name, None, started, after(ready));
    // A clone of a pool is not connected to anew.
    let before = at("connected").or_else(|| at("started"));
    if let (Some(before), Some(renewed)) = (before, at("renewed")) {
        step("renew", Some(parent), after(before), after(renewed));
    }
    if let Some(exec) = exec {
        let parent = step("exec", None, after(ready), after(ready + exec));
        if let Some(sent) = at("sent") {
            step("send", Some(parent), after(ready), after(sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelane_wire::problem::{Code, Problem};
    use firelane_wire::run::Ending;

    const SECOND: Duration = Duration::from_secs(1);

    /// Name, number of its parent, milliseconds to its begin and its end.
    type Row = (&'static str, Option<u64>, u128, u128);

    fn rows(end: &End, started_ms: Option<u64>) -> Vec<Row> {
        let asked = SystemTime::UNIX_EPOCH + SECOND;
        let over = Over {
            trace_id: 7,
            caller: None,
            asked,
            started: started_ms.map(|ms| asked + Duration::from_millis(ms)),
            ended: asked + SECOND,
            end,
        };
        let mut ids = 1..;
        let spans = over.spans(Vec::new(), || ids.next().expect("there are more"));
        assert!(spans.iter().all(|span| span.trace_id == 7));
        let ms = |at: SystemTime| at.duration_since(asked).expect("it is later").as_millis();
        let row = |span: Span| {
            let parent = span.parent.map(|parent| match parent {
                Parent::Here(id) => id,
                Parent::Caller(_) => panic!("there is no caller"),
            });
            let Cow::Borrowed(name) = span.name else {
                panic!("{span:?}")
            };
            (name, parent, ms(span.start), ms(span.end))
        };
        spans.into_iter().map(row).collect()
    }

    fn done(origin: Origin, phases_ms: &[(&str, f64)]) -> End {
        let phases = phases_ms.iter().map(|(name, at)| ((*name).into(), *at));
        let ran = Ran {
            origin,
            phases_ms: phases.collect(),
            ..Ran::default()
        };
        let ending = Ending::default();
        End::Done { ending, ran }
    }

    #[test]
    fn each_step_is_inside_the_one_that_it_is_a_part_of() {
        let restored = done(
            Origin::Snapshot,
            &[
                ("connected", 40.0),
                ("renewed", 50.0),
                ("sent", 60.0),
                ("result", 175.0),
            ],
        );
        let expected: [Row; 6] = [
            ("run", None, 0, 1000),
            ("queue", Some(1), 0, 100),
            ("restore", Some(1), 100, 150),
            ("renew", Some(3), 140, 150),
            ("exec", Some(1), 150, 275),
            ("send", Some(5), 150, 160),
        ];
        assert_eq!(rows(&restored, Some(100)), expected);
    }

    #[test]
    fn a_step_that_there_was_not_has_no_span() {
        let booted = done(Origin::Boot, &[("connected", 40.0)]);
        let names = |end: &End, started| -> Vec<&str> {
            rows(end, started).iter().map(|row| row.0).collect()
        };
        assert_eq!(names(&booted, Some(1)), ["run", "queue", "boot"]);
        let claimed = done(Origin::Pool, &[("started", 1.0), ("renewed", 2.0)]);
        assert_eq!(names(&claimed, Some(1)), ["run", "queue", "claim", "renew"]);
        assert_eq!(rows(&End::Expired, None)[1], ("queue", Some(1), 0, 1000));
    }

    #[test]
    fn what_a_host_says_moves_no_step_out_of_its_run() {
        let phases = [("renewed", 9e12), ("result", f64::NAN), ("started", -4.0)];
        for row in rows(&done(Origin::Pool, &phases), Some(5000)) {
            assert!(row.2 <= row.3 && row.3 <= 1000, "{row:?}");
        }
    }

    #[test]
    fn a_failure_says_what_it_was_and_not_why() {
        let cause = "secret cause";
        let end = End::Failed(Problem::new(Code::Unavailable, cause));
        let over = Over {
            trace_id: 7,
            caller: Some(9),
            asked: SystemTime::UNIX_EPOCH,
            started: None,
            ended: SystemTime::UNIX_EPOCH + SECOND,
            end: &end,
        };
        let spans = over.spans(Vec::new(), || 1);
        assert_eq!(spans[0].error, Some(Code::Unavailable.name()));
        assert_eq!(spans[0].parent, Some(Parent::Caller(9)));
        assert!(!format!("{spans:?}").contains("secret"));
    }
}
