//! What services share and what outlives them.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`bus`] | requests and answers between services, whether they share a process or not |
//! | [`db`] | what survives a restart, a crash and a power cut |
//! | [`live`] | logs that are read while they grow |

pub mod bus;
pub mod db;
pub mod live;
