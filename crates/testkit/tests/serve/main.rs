//! `firelane serve` with real microVMs.

mod runs;
mod sandboxes;
mod templates;
