//! Templates: which host is meant, and what is done to them on record. They are the hosts' own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::BuildId;
use firelane_store::db::AuditEntry;
use firelane_wire::bus::{
    BuildTemplate, Caller, DropTemplate, FindBuild, PickHost, RemoveTemplate, StartBuild,
};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::template::Build;
use tokio::time::Instant;
use uuid::Uuid;

use crate::records::{actor, json, now, problem};
use crate::runs::going_down;
use crate::service::Coordinator;

/// Builds whose host is known. A host keeps no more itself.
const KEPT: usize = 256;

/// Where builds are, oldest first.
#[derive(Default)]
pub(crate) struct Builds {
    all: VecDeque<(BuildId, String)>,
}

impl Builds {
    fn add(&mut self, id: BuildId, host: String) {
        if self.all.len() == KEPT {
            self.all.pop_front();
        }
        self.all.push_back((id, host));
    }

    fn host(&self, id: BuildId) -> Option<&str> {
        let found = self.all.iter().find(|(known, _)| *known == id);
        found.map(|(_, host)| host.as_str())
    }
}

impl Coordinator {
    /// The host whose templates are meant.
    pub(crate) fn pick_host(&self, call: PickHost) -> Result<String, Problem> {
        let (state, at) = (self.state(), Instant::now());
        let Some(wanted) = call.host else {
            let first = state.hosts.able(at).next().map(ToOwned::to_owned);
            return first.ok_or_else(|| {
                let problem = Problem::new(Code::Unavailable, "no host is there now");
                problem.retry_after(Duration::from_secs(5))
            });
        };
        if state.hosts.is_there(&wanted, at) {
            Ok(wanted)
        } else {
            let problem = Problem::not_found("host", wanted.escape_debug());
            Err(problem.with_remedy("GET /v1/hosts names those that are there"))
        }
    }

    /// Has a template built.
    pub(crate) async fn build_template(
        self: Arc<Self>,
        call: BuildTemplate,
    ) -> Result<Build, Problem> {
        let BuildTemplate {
            caller,
            host,
            request,
        } = call;
        request.check()?;
        if self.stop.is_cancelled() {
            return Err(going_down());
        }
        let host = self.pick_host(PickHost { host })?;
        let id = BuildId::from_bits(Uuid::now_v7().as_u128());
        let detail = serde_json::json!({
            "build": id,
            "host": host,
            // What was built can be told from this; the definition itself may be long.
            "definition": request.definition.as_ref().map(|text| blake3::hash(text.as_bytes()).to_hex().to_string()),
        });
        let row = audit(&caller, "template.build", &request.name, json(&detail));
        let build = self.agent(&host).ask(&StartBuild { id, request }).await?;
        self.state().builds.add(id, host);
        let written = self.db.write(move |tx| tx.append_audit(&row)).await;
        written.map_err(|error| problem(&error))?;
        Ok(build)
    }

    /// The host that has a build.
    pub(crate) fn find_build(&self, call: &FindBuild) -> Result<String, Problem> {
        let state = self.state();
        let host = state.builds.host(call.id).map(ToOwned::to_owned);
        host.ok_or_else(|| Problem::not_found("build", call.id))
    }

    /// Has a template removed.
    pub(crate) async fn remove_template(
        self: Arc<Self>,
        call: RemoveTemplate,
    ) -> Result<(), Problem> {
        let RemoveTemplate { caller, host, name } = call;
        let host = self.pick_host(PickHost { host })?;
        let detail = json(&serde_json::json!({ "host": host }));
        let row = audit(&caller, "template.remove", &name, detail);
        self.agent(&host).ask(&DropTemplate { name }).await?;
        let written = self.db.write(move |tx| tx.append_audit(&row)).await;
        written.map(drop).map_err(|error| problem(&error))
    }
}

fn audit(caller: &Caller, action: &str, name: &str, detail: String) -> AuditEntry {
    AuditEntry {
        at: now().as_millisecond(),
        actor: actor(caller),
        action: action.into(),
        subject: name.into(),
        detail,
    }
}
