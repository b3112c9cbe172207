//! `/v1/templates` and `/v1/builds`.
//!
//! Templates are a host's, and every tenant's: whoever may use the API sees them, and a key with the scope
//! `template` builds and removes them.

pub(crate) mod builds;
pub(crate) mod look;
