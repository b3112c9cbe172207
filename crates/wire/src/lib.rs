//! What goes over HTTP, and over the Bus between the services.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`problem`] | how a request fails: problem+json (RFC 9457) with code, cause and remedy |
//! | [`run`], [`event`] | one piece of code, run once; what happens to it, in order |
//! | [`sandbox`], [`exec`], [`mod@file`], [`snapshot`] | microVMs that stay for a while |
//! | [`network`] | what happened in a sandbox's network |
//! | [`trace`] | the span of a caller that a request is a part of |
//! | [`host`], [`queue`], [`usage`], [`key`] | what is there, and who may use it |
//! | [`check`] | what can be wrong with a request beyond its form |
//! | [`bus`] | the calls that gateway, coordinator and agent make to each other |
//!
//! Requests refuse fields that they do not know: a misspelt limit must not be no limit. Answers and
//! calls of the Bus take them, so that services of two versions can talk.

pub mod bus;
pub mod check;
pub mod content;
pub mod event;
pub mod exec;
pub mod file;
pub mod host;
pub mod key;
pub mod network;
pub mod page;
pub mod problem;
pub mod queue;
pub mod run;
pub mod sandbox;
pub mod snapshot;
pub mod template;
pub mod trace;
pub mod usage;
