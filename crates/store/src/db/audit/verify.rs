//! Walking the chain.

use super::{AuditHead, AuditRow, of_row};
use crate::db::{Db, DbError, MAX_PAGE, PageOf};

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFault {
    /// It is missing: the rows go on without it, or end before a head that was noted.
    Missing,
    /// Its hash is not that of what it says after the row before it, or it cannot be read at all.
    Hash,
    /// Its hash is right, and is not the one that was noted: rows up to it were made anew.
    Noted,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditVerdict {
    /// Every row follows from the one before it, up to this head.
    Whole(AuditHead),
    /// The first row that does not.
    Broken {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        fault: AuditFault,
    },
}

impl Db {
    /// The end of the audit log.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method's path has one lifetime, and the argument any"
    )]
    pub async fn audit_head(&self) -> Result<AuditHead, DbError> {
        self.read(|rx| rx.audit_head()).await
    }

    /// Walks the audit log from its first row; `noted` is a head that was read earlier and kept
    /// elsewhere, if there is one. Rows that are added meanwhile are walked too.
    pub async fn audit_verify(&self, noted: Option<AuditHead>) -> Result<AuditVerdict, DbError> {
        let mut walk = Walk {
            head: AuditHead::EMPTY,
            noted,
        };
        let mut page = PageOf::first(MAX_PAGE);
        loop {
            let read = self.read(move |rx| {
                // A row that cannot be read was changed, and is one to be named.
                let found = rx.audit_page(page, |row| Ok(of_row(row).ok()))?;
                Ok(page.of(found))
            });
            let read = read.await?;
            for row in read.items {
                if let Err(broken) = walk.step(row.as_ref()) {
                    return Ok(broken);
                }
            }
            page.after = read.next;
            if read.next.is_none() {
                return Ok(walk.end());
            }
        }
    }
}

struct Walk {
    head: AuditHead,
    noted: Option<AuditHead>,
}

impl Walk {
    fn step(&mut self, row: Option<&AuditRow>) -> Result<(), AuditVerdict> {
        let seq = self.head.seq + 1;
        let broken = |fault| Err(AuditVerdict::Broken { seq, fault });
        let Some(row) = row else {
            return broken(AuditFault::Hash);
        };
        let next = self.head.then(&row.entry);
        if row.seq != next.seq {
            return broken(AuditFault::Missing);
        }
        if row.hash != next.hash {
            return broken(AuditFault::Hash);
        }
        if self
            .noted
            .is_some_and(|noted| noted.seq == next.seq && noted != next)
        {
            return broken(AuditFault::Noted);
        }
        self.head = next;
        Ok(())
    }

    fn end(&self) -> AuditVerdict {
        match self.noted {
            Some(noted) if noted.seq > self.head.seq => AuditVerdict::Broken {
                seq: self.head.seq + 1,
                fault: AuditFault::Missing,
            },
            _ => AuditVerdict::Whole(self.head),
        }
    }
}
