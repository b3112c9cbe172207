//! What services share and what outlives them.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`bus`] | requests and answers between services |
//! | [`db`] | what survives a restart |
//! | [`live`] | logs that are read while they grow |

pub mod bus;
pub mod db;
pub mod live;
