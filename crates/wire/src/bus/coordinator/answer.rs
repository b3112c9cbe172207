//! Answers that are kept for those who repeat a request with its idempotency key.

use serde::{Deserialize, Serialize};

use crate::bus::Call;

/// Takes an idempotency key for a request, or says what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReserveAnswer {
    /// Whose key it is.
    pub tenant: String,
    /// The key.
    pub key: String,
    /// BLAKE3 of method, path and body.
    pub fingerprint: [u8; 32],
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reserved {
    /// Nothing: the request is to be carried out, and then its answer kept under this number.
    New(i64),
    /// The request is being carried out.
    InProgress,
    /// It was answered with this.
    Done(KeptAnswer),
    /// Another request had this key.
    Other,
}

impl Call for ReserveAnswer {
    const NAME: &'static str = "answer.reserve";
    type Answer = Reserved;
}

/// An answer of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The status code.
    pub status: u16,
    /// The headers that are told again, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Keeps the answer to a request, or gives its key back: then the next such request is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleAnswer {
    /// The number of the reservation.
    pub reservation: i64,
    /// The answer.
    pub answer: Option<KeptAnswer>,
}

impl Call for SettleAnswer {
    const NAME: &'static str = "answer.settle";
    type Answer = ();
}
