//! What the fuzzers share.

/// Splits a fuzzer's input: its first byte says in pieces of how many bytes the rest arrives, as a
/// peer's bytes arrive in pieces that nobody chose.
pub fn pieces(input: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let (size, stream) = input
        .split_first()
        .map_or((1, input), |(size, rest)| (usize::from(*size) + 1, rest));
    (stream, stream.chunks(size))
}
