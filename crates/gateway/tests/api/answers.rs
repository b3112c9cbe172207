//! What the fake coordinator keeps of requests with an idempotency key; API keys and runs that they
//! make.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use firelane_model::id::{KeyId, RunId};
use firelane_store::bus::{BusError, Server};
use firelane_wire::bus::{
    GetRun, KeptAnswer, MakeKey, ReserveAnswer, Reserved, SettleAnswer, SubmitRun, Submitted,
};
use firelane_wire::key::{Key, KeyLimits, KeyMade};
use firelane_wire::run::{Place, Run};

use crate::fake::Asked;

/// A request that has a key.
struct Reservation {
    number: i64,
    fingerprint: [u8; 32],
    answer: Option<KeptAnswer>,
}

/// By tenant and key.
type Reservations = BTreeMap<(String, String), Reservation>;

pub(crate) async fn register(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    let all = Arc::new(Mutex::new(Reservations::new()));
    let (reservations, notes) = (Arc::clone(&all), asked.clone());
    server
        .on(move |call: ReserveAnswer| {
            notes.note(&call);
            let mut reservations = reservations.lock().expect("nobody panics");
            let number = notes.all("ReserveAnswer").len() as i64;
            let reserved = reserve(&mut reservations, call, number);
            async { Ok(reserved) }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: SettleAnswer| {
            let mut reservations = all.lock().expect("nobody panics");
            match &call.answer {
                Some(answer) => reservations
                    .values_mut()
                    .filter(|reservation| reservation.number == call.reservation)
                    .for_each(|reservation| reservation.answer = Some(answer.clone())),
                None => reservations.retain(|_, kept| kept.number != call.reservation),
            }
            notes.note(&call);
            async { Ok(()) }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: MakeKey| {
            notes.note(&call);
            async { Ok(made(call)) }
        })
        .await?;
    server
        .on(|call: SubmitRun| async move {
            Ok(Submitted {
                id: RunId::from_bits(9),
                place: Place {
                    position: 0,
                    eta_ms: 0,
                },
                replayed: call.idempotency_key.as_deref() == Some("again"),
            })
        })
        .await?;
    server
        .on(|call: GetRun| async move { Ok(run(call.id)) })
        .await
}

fn reserve(reservations: &mut Reservations, call: ReserveAnswer, number: i64) -> Reserved {
    let kept = reservations
        .entry((call.tenant, call.key))
        .or_insert_with(|| Reservation {
            number,
            fingerprint: call.fingerprint,
            answer: None,
        });
    match &kept.answer {
        _ if kept.fingerprint != call.fingerprint => Reserved::Other,
        _ if kept.number == number => Reserved::New(number),
        Some(answer) => Reserved::Done(answer.clone()),
        None => Reserved::InProgress,
    }
}

fn made(call: MakeKey) -> KeyMade {
    KeyMade {
        key: Key {
            id: KeyId::from_bits(5),
            name: call.key.name,
            tenant: "ours".into(),
            scopes: call.key.scopes,
            weight: 1,
            limits: KeyLimits::default(),
            created_at: "2026-01-01T00:00:00Z".into(),
            revoked_at: None,
        },
        token: "key-secret".into(),
    }
}

fn run(id: RunId) -> Run {
    let json = serde_json::json!({
        "id": id.to_string(), "state": "queued", "lang": "bash", "labels": {},
        "template": "default", "created_at": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(json).expect("it is a run")
}
