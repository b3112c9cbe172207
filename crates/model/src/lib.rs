//! What `firelane serve` and `firelane up` decide, apart from what they do.
//!
//! Everything here is a value that is told what happened and answers what to do next. Nothing here
//! reads a clock, opens a file, waits or draws a random number: the time is an argument, a
//! [`time::Moment`], and so are the bits of an id. So each property can be tested over many random
//! histories in milliseconds, and whoever acts on the answers keeps no rules of its own.
//!
//! | Module | Decides |
//! | --- | --- |
//! | [`id`] | what an id looks like |
//! | [`queue`] | who is next, who waits how long, who is turned away |
//! | [`bucket`], [`concurrency`], [`budget`] | what a key may still do |
//! | [`pool`] | when microVMs are prepared in advance, and who gets which |
//! | [`sandbox`] | what a sandbox does next, and what is refused |
//! | [`log`] | what a reader of a run's events is told |
//! | [`lane`] | which stage a lane is in, and what comes next |

pub mod bucket;
pub mod budget;
pub mod concurrency;
pub mod id;
pub mod lane;
pub mod log;
pub mod pool;
pub mod queue;
pub mod sandbox;
pub mod time;
