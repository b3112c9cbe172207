//! Snapshots that users made of their sandboxes. The files are elsewhere; here is what they are.

use rusqlite::{Row, params};

use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;
use super::page::{Page, PageOf};

/// A snapshot of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What it was made of. The sandbox may be gone.
    pub sandbox: String,
    /// The snapshot that the sandbox had been restored from. It may be gone too.
    pub parent: Option<String>,
    /// When it was made.
    pub created: i64,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Template of the sandbox.
    pub template: String,
    /// The host that has its files.
    pub host: String,
}

const COLUMNS: &str = "seq, id, tenant, sandbox, parent, created, size_bytes, template, host";

fn of_row(row: &Row<'_>) -> rusqlite::Result<(i64, Snapshot)> {
    let snapshot = Snapshot {
        id: row.get("id")?,
        tenant: row.get("tenant")?,
        sandbox: row.get("sandbox")?,
        parent: row.get("parent")?,
        created: row.get("created")?,
        size_bytes: row.get("size_bytes")?,
        template: row.get("template")?,
        host: row.get("host")?,
    };
    Ok((row.get("seq")?, snapshot))
}

impl Reading<'_> {
    /// One snapshot.
    pub fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE id = ?1");
        Ok(self.one(&sql, [id], of_row)?.map(|(_, snapshot)| snapshot))
    }

    /// Snapshots of a tenant, newest first; all, or those of one sandbox.
    pub fn snapshots(
        &self,
        tenant: &str,
        sandbox: Option<&str>,
        page: PageOf,
    ) -> Result<Page<Snapshot>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshots
             WHERE tenant = ?1 AND seq < ?2 AND (?3 IS NULL OR sandbox = ?3)
             ORDER BY seq DESC LIMIT ?4"
        );
        let params = params![tenant, page.below(), sandbox, page.look_for()];
        Ok(page.of(self.many(&sql, params, of_row)?))
    }

    /// Snapshots whose files one host has, in the order of their inserts: to compare with the files.
    pub fn snapshots_of_host(&self, host: &str, page: PageOf) -> Result<Page<Snapshot>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshots WHERE host = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
        );
        let params = params![host, page.above(), page.look_for()];
        Ok(page.of(self.many(&sql, params, of_row)?))
    }
}

impl Writing<'_> {
    /// Adds a snapshot.
    pub fn insert_snapshot(&self, snapshot: &Snapshot) -> Result<(), DbError> {
        check::id("snapshot", &snapshot.id)?;
        check::tenant(&snapshot.tenant)?;
        check::id("sandbox", &snapshot.sandbox)?;
        if let Some(parent) = &snapshot.parent {
            check::id("snapshot", parent)?;
        }
        check::short("the template of a snapshot", &snapshot.template)?;
        check::short("the host of a snapshot", &snapshot.host)?;
        self.insert(
            "snapshot",
            &snapshot.id,
            "INSERT INTO snapshots (id, tenant, sandbox, parent, created, size_bytes, template, host)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                snapshot.id,
                snapshot.tenant,
                snapshot.sandbox,
                snapshot.parent,
                snapshot.created,
                snapshot.size_bytes,
                snapshot.template,
                snapshot.host
            ],
        )
    }

    /// Removes a snapshot. Whether there was one.
    pub fn remove_snapshot(&self, id: &str) -> Result<bool, DbError> {
        Ok(self.execute("DELETE FROM snapshots WHERE id = ?1", [id])? > 0)
    }
}
