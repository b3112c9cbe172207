//! What happens to a program, as clients follow it: the log of a run or of an exec, told as
//! server-sent events, over a WebSocket, or as what was written in all.

pub(crate) mod events;
mod log;
mod told;
pub(crate) mod ws;

pub(crate) use log::Log;
pub(crate) use told::Told;
