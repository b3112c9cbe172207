//! Sandboxes.
//!
//! The states are the caller's; what is known here is whether a sandbox is live, that is, may own
//! anything on a host. `generation` grows with each change, and who changes a sandbox says which
//! generation it saw. `revision` and `cpu_us` are its host's last word, so that an older one is known
//! as such.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Row, params, params_from_iter};

use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;
use super::page::{Page, PageOf};

/// Most labels of a sandbox, and of a filter.
pub const MAX_LABELS: usize = 32;

/// Names and values that a user gave.
pub type Labels = BTreeMap<String, String>;

/// A sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The key it was created with, if any.
    pub key_id: Option<String>,
    /// The host that has it.
    pub host: String,
    /// The sandbox that it is a fork of. Its record may be gone.
    pub parent: Option<String>,
    /// Where it is in its life.
    pub state: String,
    /// Whether it may own anything.
    pub live: bool,
    /// Why it is in that state, if that needs to be said.
    pub reason: Option<String>,
    /// 1 when it is inserted, whatever the record says, and one more with each change.
    pub generation: u64,
    /// The host's number of what it last told.
    pub revision: u64,
    /// Microseconds of processor time that were counted so far.
    pub cpu_us: u64,
    /// What it is to be, JSON.
    pub spec: String,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    pub created: i64,
    /// When it is to be destroyed.
    pub expires: Option<i64>,
    /// When it was changed last.
    pub updated: i64,
}

/// What can change in a sandbox: all of it is set.
#[derive(Clone, Debug)]
pub struct SandboxUpdate {
    /// Where it is in its life.
    pub state: String,
    /// Whether it may own anything.
    pub live: bool,
    /// Why it is in that state.
    pub reason: Option<String>,
    /// The host's number of this.
    pub revision: u64,
    /// Microseconds of processor time that were counted so far.
    pub cpu_us: u64,
    /// What it is to be, JSON; none leaves it.
    pub spec: Option<String>,
    /// When it is to be destroyed.
    pub expires: Option<i64>,
    /// Its labels; none leaves them.
    pub labels: Option<Labels>,
    /// When this is.
    pub updated: i64,
}

/// What became of a change of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxChange {
    /// It is made; this is the generation now.
    Made(u64),
    /// There is no such sandbox.
    NotFound,
    /// The sandbox changed meanwhile, to this generation.
    Stale(u64),
}

const COLUMNS: &str = "seq, id, tenant, key_id, host, parent, state, live, reason, generation, revision, \
                       cpu_us, spec, created, expires, updated";

fn of_row(row: &Row<'_>) -> rusqlite::Result<(i64, Sandbox)> {
    let sandbox = Sandbox {
        id: row.get("id")?,
        tenant: row.get("tenant")?,
        key_id: row.get("key_id")?,
        host: row.get("host")?,
        parent: row.get("parent")?,
        state: row.get("state")?,
        live: row.get("live")?,
        reason: row.get("reason")?,
        generation: row.get("generation")?,
        revision: row.get("revision")?,
        cpu_us: row.get("cpu_us")?,
        spec: row.get("spec")?,
        labels: Labels::new(),
        created: row.get("created")?,
        expires: row.get("expires")?,
        updated: row.get("updated")?,
    };
    Ok((row.get("seq")?, sandbox))
}

fn check_labels(labels: &Labels) -> Result<(), DbError> {
    check::size("the labels of a sandbox", labels.len(), MAX_LABELS)?;
    labels.iter().try_for_each(|(name, value)| {
        check::short("the name of a label", name)?;
        check::short("the value of a label", value)
    })
}

fn check_state(state: &str, reason: Option<&str>) -> Result<(), DbError> {
    check::id("state", state)?;
    reason.map_or(Ok(()), |reason| {
        check::short("the reason of a state", reason)
    })
}

impl Reading<'_> {
    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> Result<Option<Sandbox>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM sandboxes WHERE id = ?1");
        let found = self.one(&sql, [id], of_row)?;
        found
            .map(|found| self.with_labels(found))
            .transpose()
            .map(|found| found.map(|(_, sandbox)| sandbox))
    }

    /// Sandboxes of a tenant that have all of these labels, newest first; only those that are live, or all.
    pub fn sandboxes(
        &self,
        tenant: &str,
        labels: &Labels,
        only_live: bool,
        page: PageOf,
    ) -> Result<Page<Sandbox>, DbError> {
        check_labels(labels)?;
        let mut sql = format!("SELECT {COLUMNS} FROM sandboxes WHERE tenant = ? AND seq < ?");
        let mut params = vec![Value::from(tenant.to_owned()), Value::from(page.below())];
        if only_live {
            sql += " AND live";
        }
        for (name, value) in labels {
            sql += " AND EXISTS (SELECT 1 FROM sandbox_labels WHERE sandbox = seq AND name = ? AND value = ?)";
            params.extend([Value::from(name.clone()), Value::from(value.clone())]);
        }
        sql += " ORDER BY seq DESC LIMIT ?";
        params.push(Value::from(page.look_for()));
        let found = self.many(&sql, params_from_iter(params), of_row)?;
        self.page(page, found)
    }

    /// Sandboxes that are live, in the order of their inserts: for the start of a service.
    pub fn live_sandboxes(&self, page: PageOf) -> Result<Page<Sandbox>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM sandboxes WHERE live AND seq > ?1 ORDER BY seq LIMIT ?2"
        );
        let found = self.many(&sql, params![page.above(), page.look_for()], of_row)?;
        self.page(page, found)
    }

    fn page(&self, page: PageOf, found: Vec<(i64, Sandbox)>) -> Result<Page<Sandbox>, DbError> {
        let found: Result<_, _> = found
            .into_iter()
            .map(|found| self.with_labels(found))
            .collect();
        Ok(page.of(found?))
    }

    fn with_labels(&self, found: (i64, Sandbox)) -> Result<(i64, Sandbox), DbError> {
        let (seq, mut sandbox) = found;
        let sql = "SELECT name, value FROM sandbox_labels WHERE sandbox = ?1";
        let labels = self.many(sql, [seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        sandbox.labels = labels.into_iter().collect();
        Ok((seq, sandbox))
    }
}

impl Sandbox {
    /// A change that leaves everything as it is, at this time.
    #[must_use]
    pub fn unchanged(&self, updated: i64) -> SandboxUpdate {
        SandboxUpdate {
            state: self.state.clone(),
            live: self.live,
            reason: self.reason.clone(),
            revision: self.revision,
            cpu_us: self.cpu_us,
            spec: None,
            expires: self.expires,
            labels: None,
            updated,
        }
    }
}

impl Writing<'_> {
    /// Adds a sandbox, at generation 1.
    pub fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), DbError> {
        check::id("sandbox", &sandbox.id)?;
        check::tenant(&sandbox.tenant)?;
        if let Some(key) = &sandbox.key_id {
            check::id("key", key)?;
        }
        check::short("the host of a sandbox", &sandbox.host)?;
        if let Some(parent) = &sandbox.parent {
            check::id("sandbox", parent)?;
        }
        check_state(&sandbox.state, sandbox.reason.as_deref())?;
        check::json("the spec of a sandbox", &sandbox.spec)?;
        check_labels(&sandbox.labels)?;
        self.insert(
            "sandbox",
            &sandbox.id,
            "INSERT INTO sandboxes (id, tenant, key_id, host, parent, state, live, reason, revision, cpu_us,
                                    spec, created, expires, updated)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            params![
                sandbox.id,
                sandbox.tenant,
                sandbox.key_id,
                sandbox.host,
                sandbox.parent,
                sandbox.state,
                sandbox.live,
                sandbox.reason,
                sandbox.revision,
                sandbox.cpu_us,
                sandbox.spec,
                sandbox.created,
                sandbox.expires,
                sandbox.updated
            ],
        )?;
        self.insert_labels(&sandbox.id, &sandbox.labels)
    }

    /// Changes a sandbox that is still at this generation.
    pub fn update_sandbox(
        &self,
        id: &str,
        generation: u64,
        update: &SandboxUpdate,
    ) -> Result<SandboxChange, DbError> {
        check_state(&update.state, update.reason.as_deref())?;
        if let Some(spec) = &update.spec {
            check::json("the spec of a sandbox", spec)?;
        }
        let sql =
            "UPDATE sandboxes SET state = ?3, live = ?4, reason = ?5, expires = ?6, updated = ?7,
                   revision = ?8, cpu_us = ?9, spec = coalesce(?10, spec),
                   generation = generation + 1 WHERE id = ?1 AND generation = ?2";
        let changed = self.execute(
            sql,
            params![
                id,
                generation,
                update.state,
                update.live,
                update.reason,
                update.expires,
                update.updated,
                update.revision,
                update.cpu_us,
                update.spec
            ],
        )?;
        if changed == 0 {
            let sql = "SELECT generation FROM sandboxes WHERE id = ?1";
            let found = self.one(sql, [id], |row| row.get(0))?;
            return Ok(found.map_or(SandboxChange::NotFound, SandboxChange::Stale));
        }
        if let Some(labels) = &update.labels {
            check_labels(labels)?;
            let sql = "DELETE FROM sandbox_labels WHERE sandbox = (SELECT seq FROM sandboxes WHERE id = ?1)";
            self.execute(sql, [id])?;
            self.insert_labels(id, labels)?;
        }
        Ok(SandboxChange::Made(generation + 1))
    }

    fn insert_labels(&self, id: &str, labels: &Labels) -> Result<(), DbError> {
        let sql = "INSERT INTO sandbox_labels (sandbox, name, value)
                   SELECT seq, ?2, ?3 FROM sandboxes WHERE id = ?1";
        labels.iter().try_for_each(|(name, value)| {
            self.execute(sql, params![id, name, value])?;
            Ok(())
        })
    }

    /// Removes at most `most` sandboxes that are not live and were changed last before `older_than`.
    /// How many it removed: when it is `most` there may be more.
    pub fn prune_sandboxes(&self, older_than: i64, most: u32) -> Result<usize, DbError> {
        let sql = "DELETE FROM sandboxes WHERE seq IN
                   (SELECT seq FROM sandboxes WHERE NOT live AND updated < ?1 ORDER BY updated LIMIT ?2)";
        self.execute(sql, params![older_than, most])
    }
}
