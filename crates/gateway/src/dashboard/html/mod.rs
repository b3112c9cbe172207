//! Everything that is written on pages. What comes from outside is put in as text only, which `maud`
//! escapes; the one thing that is not escaped is what these modules have written themselves.

pub(super) mod login;
pub(super) mod overview;
mod page;
mod phases;
pub(super) mod problem;
pub(super) mod run;
mod run_box;
mod runs;
mod units;

pub(super) use page::Html;
