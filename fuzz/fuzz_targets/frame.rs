//! Frames of the session protocol. Whatever arrives, in whatever pieces: what is decoded encodes to the
//! bytes it came from, what is kept is less than one frame, and an error stays.
#![no_main]

use firelane_fuzz::pieces;
use firelane_guest_proto::frame::{Decoder, HEADER_BYTES, MAX_EXEC_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (stream, pieces) = pieces(input);
    let mut decoder = Decoder::new();
    let mut encoded = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frame.encode(&mut encoded),
                Ok(None) => break,
                Err(error) => {
                    decoder.push(stream);
                    assert_eq!(decoder.next_frame(), Err(error));
                    assert!(stream.starts_with(&encoded));
                    return;
                }
            }
        }
        assert!(decoder.pending() < HEADER_BYTES + MAX_EXEC_BYTES);
    }
    assert!(stream.starts_with(&encoded));
    assert_eq!(stream.len(), encoded.len() + decoder.pending());
});
