//! Lists of runs: those in memory and those on record, as one.
//!
//! What is in memory is newer than its record, or has none yet. Both are in the order of ids, which is
//! that of submissions, so the last id of a page is where the next one begins, wherever its runs are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use firelane_model::id::RunId;
use firelane_wire::bus::ListRuns;
use firelane_wire::page::{DEFAULT_LIMIT, MAX_LIMIT, Page, PageQuery};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::Run;

use crate::entry::Entry;
use crate::records;
use crate::service::Coordinator;

/// Runs, newest first.
type Sorted = BTreeMap<Reverse<RunId>, Run>;

impl Coordinator {
    /// A tenant's runs, newest first.
    pub(crate) async fn list(self: Arc<Self>, call: ListRuns) -> Result<Page<Run>, Problem> {
        let limit = limit(&call.page)?;
        let before: Option<RunId> = match call.page.cursor.as_deref().map(str::parse) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Err(Problem::new(Code::Invalid, "cursor is none of ours")),
        };
        // Before the records: a run that leaves the memory meanwhile is on record by then.
        let live = self.live(&call.tenant);
        let mut runs: Sorted = live
            .iter()
            .filter(|(id, run)| {
                before.is_none_or(|before| id.0 < before)
                    && call.state.is_none_or(|state| state == run.state)
            })
            .map(|(id, run)| (*id, run.clone()))
            .collect();
        let mut after = before;
        loop {
            let page = self.recorded_runs(&call, after, limit + 1).await?;
            let last = page.last().map(|run| run.id);
            let more = page.len() > limit as usize;
            let newer = |run: &Run| live.contains_key(&Reverse(run.id));
            let page = page.into_iter().filter(|run| !newer(run));
            runs.extend(page.map(|run| (Reverse(run.id), run)));
            // A record of what is in memory is none here: then more are needed.
            let Some(last) = last.filter(|_| more) else {
                break;
            };
            if runs.range(..=Reverse(last)).count() > limit as usize {
                break;
            }
            after = Some(last);
        }
        Ok(page(runs, limit as usize))
    }

    fn live(&self, tenant: &str) -> Sorted {
        let live: Vec<Arc<Entry>> = self.state().runs.values().map(Arc::clone).collect();
        let own = live.iter().filter(|entry| entry.caller.tenant == tenant);
        own.map(|entry| (Reverse(entry.id), entry.shown(None)))
            .collect()
    }

    async fn recorded_runs(
        &self,
        call: &ListRuns,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<Run>, Problem> {
        let tenant = call.tenant.clone();
        let state = call.state.map(records::recorded);
        let after = after.map(|id| id.to_string());
        let heads = self
            .db
            .read(move |rx| rx.runs(&tenant, state, after.as_deref(), limit));
        let heads = heads.await.map_err(|error| records::problem(&error))?;
        heads.iter().map(records::shown).collect()
    }
}

/// How many entries a page shall have.
pub(crate) fn limit(query: &PageQuery) -> Result<u32, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let cause = format!("limit is {limit}, not from 1 to {MAX_LIMIT}");
        return Err(Problem::new(Code::Invalid, cause));
    }
    Ok(limit)
}

fn page(runs: Sorted, limit: usize) -> Page<Run> {
    let more = runs.len() > limit;
    let items: Vec<Run> = runs.into_values().take(limit).collect();
    let next_cursor = items.last().filter(|_| more).map(|run| run.id.to_string());
    Page { items, next_cursor }
}
