//! What a job of the database is given. Each table adds its operations to these.

use std::ops::Deref;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use super::error::DbError;

/// A view of the database.
pub struct Reading<'c> {
    connection: &'c Connection,
}

/// A transaction: reads, and changes.
pub struct Writing<'c> {
    reading: Reading<'c>,
}

impl<'c> Reading<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection }
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, DbError> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, DbError> {
        Ok(self.prepare(sql)?.query_row(params, row).optional()?)
    }

    pub(super) fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbError> {
        let mut statement = self.prepare(sql)?;
        let rows = statement.query_map(params, row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl<'c> Writing<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        let reading = Reading::new(connection);
        Self { reading }
    }

    /// How many rows were changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, DbError> {
        Ok(self.prepare(sql)?.execute(params)?)
    }

    /// Inserts a row whose name may be taken.
    pub(super) fn insert(
        &self,
        what: &'static str,
        id: &str,
        sql: &str,
        params: impl Params,
    ) -> Result<(), DbError> {
        self.prepare(sql)?
            .execute(params)
            .map_err(|error| super::error::exists(error, what, id))?;
        Ok(())
    }
}

impl<'c> Deref for Writing<'c> {
    type Target = Reading<'c>;

    fn deref(&self) -> &Reading<'c> {
        &self.reading
    }
}
