//! The original protocol (port 5000): a 4-byte big-endian length, then that many bytes of JSON.
//!
//! One request, `{trace_id, lang, code, timeout}`, is answered by one response,
//! `{trace_id, stdout, stderr, exit_code}`; a connection carries any number of such pairs, one
//! after the other. Output that is not UTF-8 loses those bytes (U+FFFD stands for them): clients
//! that need them use the session protocol. Specified in `docs/protocol.md`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest JSON text of a request, in bytes: one MiB of code, each byte escaped to six at worst.
pub const MAX_REQUEST_BYTES: usize = 6 * crate::MAX_CODE_BYTES + (64 << 10);
/// Largest JSON text of a response, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// Bytes of stdout and of stderr each that a response carries at most.
pub const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// Longest `trace_id`, in bytes.
pub const MAX_TRACE_ID_BYTES: usize = 256;
/// Exit code of a response to a request that could not be carried out.
pub const EXIT_REFUSED: i32 = 125;

/// A program to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Returned unchanged in the response.
    pub trace_id: String,
    /// Name of the language, as [`crate::Lang`] parses it.
    pub lang: String,
    /// The source code.
    pub code: String,
    /// Time limit in seconds; fractions count.
    pub timeout: f64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request's.
    pub trace_id: String,
    /// What the program wrote, not-UTF-8 bytes replaced.
    pub stdout: String,
    /// What the program wrote, not-UTF-8 bytes replaced; or why the request was refused.
    pub stderr: String,
    /// The program's own, 124 for the time limit, 127 without interpreter, 137 killed,
    /// 125 refused.
    pub exit_code: i32,
}

/// Bytes that are not a message of this protocol. The connection cannot go on after one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginalError {
    /// The length is zero.
    #[error("message has length zero")]
    Empty,
    /// The length is over the cap.
    #[error("message has {length} bytes, the cap is {cap}")]
    TooLarge {
        /// Length found.
        length: usize,
        /// The cap of this direction.
        cap: usize,
    },
    /// The bytes are not the JSON object expected.
    #[error("message is not the expected JSON object: {reason}")]
    Malformed {
        /// What the JSON parser says.
        reason: String,
    },
}

/// `message` with its length in front.
///
/// # Errors
/// [`OriginalError::TooLarge`] if the text is over `cap` bytes.
pub fn encode(message: &impl Serialize, cap: usize) -> Result<Vec<u8>, OriginalError> {
    let mut text = serde_json::to_vec(message).map_err(|error| OriginalError::Malformed {
        reason: alloc::format!("{error}"),
    })?;
    let length = u32::try_from(text.len())
        .ok()
        .filter(|_| text.len() <= cap)
        .ok_or(OriginalError::TooLarge {
            length: text.len(),
            cap,
        })?;
    // In place: in a small guest, a second copy of a large text may not fit.
    text.splice(0..0, length.to_be_bytes());
    Ok(text)
}

/// Turns a byte stream into messages of one direction.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    cap: usize,
}

impl Decoder {
    /// A decoder that refuses messages of more than `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Decoder {
        Decoder {
            buffer: Vec::new(),
            cap,
        }
    }

    /// Takes bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`OriginalError`] as soon as the length or the text shows that none follows.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, OriginalError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        match length {
            0 => return Err(OriginalError::Empty),
            _ if length > self.cap => {
                return Err(OriginalError::TooLarge {
                    length,
                    cap: self.cap,
                });
            }
            _ => {}
        }
        let Some(text) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(text).map_err(|error| OriginalError::Malformed {
            reason: alloc::format!("{error}"),
        })?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }

    /// Bytes held that are not yet part of a whole message.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            trace_id: "t-1".into(),
            lang: "python".into(),
            code: "print(1)".into(),
            timeout: 2.5,
        }
    }

    #[test]
    fn requests_survive_any_cut_of_the_stream() {
        let bytes = [
            encode(&request(), 1000).unwrap(),
            encode(&request(), 1000).unwrap(),
        ]
        .concat();
        for step in [1, 3, 4, 5, 1000] {
            let mut decoder = Decoder::new(1000);
            let mut got = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(message) = decoder.next_message::<Request>().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, vec![request(), request()]);
            assert_eq!(decoder.pending(), 0);
        }
    }

    #[test]
    fn zero_oversize_and_garbage_are_refused() {
        let check = |bytes: &[u8], expected: &str| {
            let mut decoder = Decoder::new(16);
            decoder.push(bytes);
            let error = decoder.next_message::<Request>().unwrap_err();
            assert!(alloc::format!("{error}").contains(expected), "{error}");
        };
        check(&[0, 0, 0, 0], "length zero");
        check(&[0, 0, 0, 17], "the cap is 16");
        check(b"GET / HTTP/1.1", "the cap is 16");
        check(&[0, 0, 0, 2, b'{', b'}'], "missing field");
        check(&[0, 0, 0, 1, 0xff], "not the expected JSON");
    }

    proptest! {
        #[test]
        fn fuzz_decoder_never_holds_more_than_the_cap(
            parts in vec(prop_oneof![
                vec(any::<u8>(), 0..30),
                (0..80u32).prop_map(|length| length.to_be_bytes().to_vec()),
                Just(encode(&request(), 1000).unwrap()),
            ], 0..8),
            step in 1..20usize,
        ) {
            let mut decoder = Decoder::new(64);
            'stream: for chunk in parts.concat().chunks(step) {
                decoder.push(chunk);
                loop {
                    match decoder.next_message::<Request>() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
                prop_assert!(decoder.pending() < 4 + 64);
            }
        }
    }
}
