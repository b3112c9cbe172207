//! Versions of the tables.
//!
//! A database has the version in its `user_version`; version N was made by the first N scripts. A
//! script that was released is never changed: the next one is appended.

use rusqlite::Connection;

/// Marks our files among all that SQLite wrote: "FLst".
pub(super) const APPLICATION_ID: i32 = 0x464C_7374;

const SCRIPTS: &[&str] = &[include_str!("schema/0001.sql")];

/// The version that this program works with.
pub(super) const LATEST: i64 = SCRIPTS.len() as i64;

/// Brings a database to the latest version; one version is one transaction.
pub(super) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    for (script, version) in SCRIPTS.iter().zip(1..) {
        if version <= from {
            continue;
        }
        let transaction = connection.transaction()?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}
