//! `/v1/runs`: one file for each thing that can be done.

pub(crate) mod batch;
pub(crate) mod cancel;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod list;
mod outcome;
pub(crate) mod post;
pub(crate) mod ws;
