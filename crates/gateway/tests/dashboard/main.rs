//! The dashboard through the real router, with a coordinator that only says what it is told.

mod fake;
mod pages;
mod sessions;
