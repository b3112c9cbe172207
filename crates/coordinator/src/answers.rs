//! Answers that are kept for those who repeat a request with its idempotency key.

use std::sync::Arc;

use firelane_store::db::{KeptAnswer as Record, Reservation, Reserved as Known};
use firelane_wire::bus::{KeptAnswer, ReserveAnswer, Reserved, SettleAnswer};
use firelane_wire::problem::{Code, Problem};

use crate::records::{json, now, problem};
use crate::service::Coordinator;

impl Coordinator {
    /// Takes a key for a request, or tells what is known of it.
    pub(crate) async fn reserve_answer(
        self: Arc<Self>,
        call: ReserveAnswer,
    ) -> Result<Reserved, Problem> {
        let at = now().as_millisecond();
        let reserved = self.db.write(move |tx| {
            let ReserveAnswer {
                tenant,
                key,
                fingerprint,
            } = &call;
            tx.reserve_answer(tenant, key, fingerprint, at)
        });
        match reserved.await.map_err(|error| problem(&error))? {
            Known::New(reservation) => Ok(Reserved::New(reservation.number())),
            Known::InProgress => Ok(Reserved::InProgress),
            Known::Done(record) => kept(record).map(Reserved::Done),
            Known::Mismatch => Ok(Reserved::Other),
        }
    }

    /// Keeps the answer to a request, or gives its key back.
    pub(crate) async fn settle_answer(self: Arc<Self>, call: SettleAnswer) -> Result<(), Problem> {
        let reservation = Reservation::numbered(call.reservation);
        let record = call.answer.map(|answer| Record {
            status: answer.status,
            headers: json(&answer.headers),
            body: answer.body,
        });
        let settled = self.db.write(move |tx| match &record {
            Some(record) => tx.complete_answer(reservation, record),
            None => tx.release_answer(reservation).map(|()| true),
        });
        if !settled.await.map_err(|error| problem(&error))? {
            let cause = format!("nobody waits for the answer {}", call.reservation);
            return Err(Problem::new(Code::Conflict, cause));
        }
        Ok(())
    }
}

fn kept(record: Record) -> Result<KeptAnswer, Problem> {
    let headers = serde_json::from_str(&record.headers);
    let headers = headers
        .map_err(|_| Problem::new(Code::Internal, "the record of an answer cannot be read"))?;
    Ok(KeptAnswer {
        status: record.status,
        headers,
        body: record.body,
    })
}
