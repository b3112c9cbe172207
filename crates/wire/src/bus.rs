//! The calls that gateway, coordinator and agent make to each other over the Bus.
//!
//! Each is a request and an answer, MessagePack with named fields (<https://msgpack.org>, version 5
//! of the specification): a field that a service does not know is skipped, one that is missing takes
//! its default, so that services of two versions can talk. An answer is `Ok` or a [`Problem`].

mod agent;
mod coordinator;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::{Code, Problem};

pub use agent::*;
pub use coordinator::*;

/// Most messages are not longer, so that their buffer does not grow.
const USUAL_BYTES: usize = 512;

/// A request that has one kind of answer.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// What is asked, as the last words of the subject.
    const NAME: &'static str;
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
}

/// Bytes that are not the message that they should be.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// They cannot be read.
    #[error("a message of the Bus cannot be read")]
    Decode(#[from] rmp_serde::decode::Error),
    /// It cannot be written.
    #[error("a message of the Bus cannot be written")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl From<BadMessage> for Problem {
    fn from(error: BadMessage) -> Problem {
        let cause = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
        Problem::new(Code::Internal, format!("{error}: {cause}"))
            .with_remedy("all services must be of versions that know each other")
    }
}

/// A message as bytes.
///
/// # Errors
/// [`BadMessage::Encode`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, BadMessage> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    rmp_serde::encode::write_named(&mut bytes, message)?;
    Ok(bytes)
}

/// A message from bytes.
///
/// # Errors
/// [`BadMessage::Decode`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadMessage> {
    Ok(rmp_serde::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{End, Event, LogPage};
    use crate::run::{Ending, Origin, Ran, RunRequest};

    #[test]
    fn what_is_sent_is_what_arrives() {
        let page = LogPage {
            events: vec![
                (
                    1,
                    Event::Started {
                        host: "here".into(),
                        origin: Origin::Pool,
                    },
                ),
                (2, Event::Stdout(vec![0xff, 0])),
                (
                    3,
                    Event::Ended(Box::new(End::Done {
                        ending: Ending {
                            exit_code: 3,
                            ..Ending::default()
                        },
                        ran: Ran::default(),
                    })),
                ),
            ],
            gap: Some((4, 5)),
            end: true,
        };
        let answer: Result<LogPage, Problem> = Ok(page);
        let bytes = encode(&answer).expect("it can be written");
        let read: Result<LogPage, Problem> = decode(&bytes).expect("it can be read");
        assert_eq!(read, answer);
    }

    #[test]
    fn a_run_survives_the_bus_with_defaults_filled_in() {
        let json =
            r#"{"lang":"node","code":{"base64":"Yf8="},"files":[{"path":"a","content":"b"}]}"#;
        let request: RunRequest = serde_json::from_str(json).expect("it is a run");
        let bytes = encode(&request).expect("it can be written");
        assert_eq!(
            decode::<RunRequest>(&bytes).expect("it can be read"),
            request
        );
    }

    #[test]
    fn bytes_from_elsewhere_are_refused() {
        assert!(decode::<LogPage>(b"\xc1nonsense").is_err());
    }
}
