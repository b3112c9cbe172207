//! Bounds of every Bus.

/// The largest payload of a request or an answer, in bytes: 1 MiB, which is what a NATS server takes
/// by default, less room for the headers that count against it.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024 - 4 * 1024;

/// The longest subject in bytes. NATS warns above 256; a host's token and the name of a call are far shorter.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// How many requests of one subject wait for a server before askers wait for a place. Enough that
/// servers never idle between two looks at the queue; more would only be latency.
pub const QUEUE: usize = 1024;
