//! Reads and lists sandboxes.

use std::sync::Arc;

use firelane_model::id::SandboxId;
use firelane_store::db::{Labels, MAX_LABELS, MAX_SHORT_BYTES, PageOf, Sandbox as Record};
use firelane_wire::bus::{FindSandbox, GetSandbox, ListSandboxes};
use firelane_wire::page::{Page, PageQuery};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::Sandbox;

use super::record::{gone, shown};
use crate::list::limit;
use crate::records::problem;
use crate::service::Coordinator;

impl Coordinator {
    /// A sandbox as it is now, or as it was at its end.
    pub(crate) async fn get_sandbox(self: Arc<Self>, call: GetSandbox) -> Result<Sandbox, Problem> {
        shown(&self.sandbox_record(&call.tenant, call.id).await?)
    }

    /// The host of a sandbox that is not gone.
    pub(crate) async fn find_sandbox(
        self: Arc<Self>,
        call: FindSandbox,
    ) -> Result<String, Problem> {
        let record = self.sandbox_record(&call.tenant, call.id).await?;
        match record.live {
            true => Ok(record.host),
            false => Err(gone(&record)),
        }
    }

    /// A tenant's sandboxes, newest first.
    pub(crate) async fn list_sandboxes(
        self: Arc<Self>,
        call: ListSandboxes,
    ) -> Result<Page<Sandbox>, Problem> {
        let ListSandboxes {
            tenant,
            labels,
            gone,
            page,
        } = call;
        check(&labels)?;
        let page = page_of(&page)?;
        let found = self
            .db
            .read(move |rx| rx.sandboxes(&tenant, &labels, !gone, page));
        let found = found.await.map_err(|error| problem(&error))?;
        let items: Result<_, _> = found.items.iter().map(shown).collect();
        Ok(Page {
            items: items?,
            next_cursor: found.next.map(|next| next.to_string()),
        })
    }

    /// The record of a sandbox, and whose it is.
    pub(super) async fn sandbox_record(
        &self,
        tenant: &str,
        id: SandboxId,
    ) -> Result<Record, Problem> {
        let name = id.to_string();
        let found = self.db.read(move |rx| rx.sandbox(&name)).await;
        let found = found.map_err(|error| problem(&error))?;
        let own = found.filter(|record| record.tenant == tenant);
        own.ok_or_else(|| Problem::not_found("sandbox", id))
    }
}

fn check(labels: &Labels) -> Result<(), Problem> {
    let long = |text: &String| text.len() > MAX_SHORT_BYTES;
    let too_long = labels.iter().any(|(name, value)| long(name) || long(value));
    if labels.len() > MAX_LABELS || too_long {
        let cause = format!("labels are not at most {MAX_LABELS} of {MAX_SHORT_BYTES} bytes");
        return Err(Problem::new(Code::Invalid, cause));
    }
    Ok(())
}

/// A page as the database counts.
pub(super) fn page_of(query: &PageQuery) -> Result<PageOf, Problem> {
    let after = query.cursor.as_deref().map(str::parse).transpose();
    Ok(PageOf {
        after: after.map_err(|_| Problem::new(Code::Invalid, "cursor is none of ours"))?,
        limit: limit(query)?,
    })
}
