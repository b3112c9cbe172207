//! Messages of the original protocol, both directions. Whatever arrives, in whatever pieces: no message over
//! the cap is accepted, and what is accepted can be sent again.
#![no_main]

use firelane_fuzz::pieces;
use firelane_guest_proto::original::{Decoder, Request, Response, encode};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Small, so that the fuzzer reaches it.
const CAP: usize = 512;

fn direction<T: Serialize + DeserializeOwned>(input: &[u8]) {
    let mut decoder = Decoder::new(CAP);
    for piece in pieces(input).1 {
        decoder.push(piece);
        loop {
            match decoder.next_message::<T>() {
                // Escapes may make the text longer than the one that came in.
                Ok(Some(message)) => drop(encode(&message, 8 * CAP).expect("within the cap")),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending() < 4 + CAP);
    }
}

fuzz_target!(|input: &[u8]| {
    direction::<Request>(input);
    direction::<Response>(input);
});
