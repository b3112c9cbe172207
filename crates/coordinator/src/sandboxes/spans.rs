//! The span of a sandbox that is gone: the whole of its trace. What was asked of it in between is told
//! by the gateway, when it is answered.

use std::time::{Duration, SystemTime};

use firelane_model::id::SandboxId;
use firelane_model::sandbox::Reason;
use firelane_store::db::Sandbox as Record;
use firelane_traces::{Span, root_of};

use super::record::{About, reason, reason_name};
use crate::service::Coordinator;

impl Coordinator {
    /// Tells of a sandbox that is gone now.
    pub(super) fn tell_sandbox(&self, id: SandboxId, record: &Record) {
        if self.config.traces.is_on() {
            self.config.traces.tell(vec![span(id, record)]);
        }
    }
}

fn span(id: SandboxId, record: &Record) -> Span {
    let reason = reason(record);
    let mut attributes = vec![
        ("firelane.sandbox.id", record.id.as_str().into()),
        ("host.name", record.host.as_str().into()),
    ];
    attributes.extend(reason.map(|reason| ("firelane.sandbox.reason", reason_name(reason).into())));
    // A name that the host has. One that was only asked for is whatever the caller wrote.
    if let (true, Ok(about)) = (reason != Some(Reason::Failed), About::of(record)) {
        attributes.push(("firelane.template", about.template.as_str().into()));
    }
    let start = at(record.created);
    Span {
        trace_id: id.bits(),
        id: root_of(id.bits()),
        parent: None,
        name: "sandbox".into(),
        start,
        // The clock may have been set since.
        end: at(record.updated).max(start),
        attributes,
        error: reason.filter(|reason| is_failure(*reason)).map(reason_name),
    }
}

/// Nobody wanted it to end so.
const fn is_failure(reason: Reason) -> bool {
    match reason {
        Reason::Asked | Reason::TtlOver | Reason::Idle => false,
        Reason::VmmDied | Reason::HostRestarted | Reason::Failed => true,
    }
}

/// A time of a record, which is in milliseconds since 1970.
fn at(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
