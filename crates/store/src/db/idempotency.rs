//! Answers to requests that carry an idempotency key, so that a repeated request gets the first one's
//! answer and does nothing.
//!
//! ```text
//!   reserve ──> in progress ── complete ──> done ── expire ──> (gone)
//!                    └──────── release ───────────────────────> (gone)
//! ```

use rusqlite::params;

use super::Db;
use super::access::Writing;
use super::check;
use super::error::DbError;

/// Longest idempotency key, in bytes. It is the client's, and may be any text.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// An answer of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The status code.
    pub status: u16,
    /// The headers, JSON.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The right to carry out a request and to keep its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation(i64);

impl Reservation {
    /// The number that stands for it elsewhere. None is given twice.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The one with this number; one that is over does nothing.
    #[must_use]
    pub const fn numbered(number: i64) -> Reservation {
        Reservation(number)
    }
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Nothing: the request is to be carried out.
    New(Reservation),
    /// The same request is being carried out.
    InProgress,
    /// The same request was answered with this.
    Done(KeptAnswer),
    /// Another request had this key.
    Mismatch,
}

impl Writing<'_> {
    /// Takes the key for the request with this fingerprint, or says what is known of it.
    pub fn reserve_answer(
        &self,
        tenant: &str,
        key: &str,
        fingerprint: &[u8; 32],
        now: i64,
    ) -> Result<Reserved, DbError> {
        check::tenant(tenant)?;
        check::size("an idempotency key", key.len(), MAX_IDEMPOTENCY_KEY_BYTES)?;
        let sql = "SELECT fingerprint, status, headers, body FROM idempotency WHERE tenant = ?1 AND key = ?2";
        let found = self.one(sql, [tenant, key], |row| {
            let Some(status) = row.get(1)? else {
                return Ok((row.get::<_, [u8; 32]>(0)?, Reserved::InProgress));
            };
            let answer = KeptAnswer {
                status,
                headers: row.get(2)?,
                body: row.get(3)?,
            };
            Ok((row.get(0)?, Reserved::Done(answer)))
        })?;
        match found {
            Some((of, known)) if of == *fingerprint => Ok(known),
            Some(_) => Ok(Reserved::Mismatch),
            None => {
                let sql = "INSERT INTO idempotency (tenant, key, fingerprint, created)
                           VALUES (?1, ?2, ?3, ?4) RETURNING seq";
                let seq = self
                    .prepare(sql)?
                    .query_row(params![tenant, key, fingerprint, now], |row| row.get(0))?;
                Ok(Reserved::New(Reservation(seq)))
            }
        }
    }

    /// Keeps the answer. Whether the reservation still held.
    pub fn complete_answer(
        &self,
        reservation: Reservation,
        answer: &KeptAnswer,
    ) -> Result<bool, DbError> {
        check::json("the headers of an answer", &answer.headers)?;
        check::blob("the body of an answer", &answer.body)?;
        let sql = "UPDATE idempotency SET status = ?2, headers = ?3, body = ?4
                   WHERE seq = ?1 AND status IS NULL";
        let params = params![reservation.0, answer.status, answer.headers, answer.body];
        Ok(self.execute(sql, params)? > 0)
    }

    /// Gives the key back: nothing was done, and the next such request is carried out.
    pub fn release_answer(&self, reservation: Reservation) -> Result<(), DbError> {
        let sql = "DELETE FROM idempotency WHERE seq = ?1 AND status IS NULL";
        self.execute(sql, [reservation.0])?;
        Ok(())
    }

    /// Forgets at most `most` answers to requests that came before `older_than`; none in progress. How
    /// many it forgot: when it is `most` there may be more.
    pub fn expire_answers(&self, older_than: i64, most: u32) -> Result<usize, DbError> {
        let sql = "DELETE FROM idempotency WHERE seq IN
                   (SELECT seq FROM idempotency WHERE created < ?1 AND status IS NOT NULL
                    ORDER BY created LIMIT ?2)";
        self.execute(sql, params![older_than, most])
    }
}

impl Db {
    /// Gives back all keys of requests in progress: for the start of a service, when nobody carries
    /// them out any more. How many there were.
    pub async fn release_all_answers(&self) -> Result<usize, DbError> {
        self.write(|tx| tx.execute("DELETE FROM idempotency WHERE status IS NULL", []))
            .await
    }
}
