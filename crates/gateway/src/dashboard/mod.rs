//! The dashboard: what there is, what runs and what ran, and a box to run code.
//!
//! ```text
//!   browser ─▶ routes (headers) ─▶ viewer (cookie or peer) ─▶ page ─▶ coordinator, over the Bus
//!                                                              └──▶ html ─▶ text that is escaped
//! ```
//!
//! Pages are made here and show everything without a script; `assets/dashboard.js` refreshes parts of
//! them and runs code through the public API. Labels, templates, ids and outputs come from strangers:
//! they reach a page only as text that `maud` escapes, and the pages allow no script and no style but
//! the two files of ours.
//!
//! | Module | Holds |
//! | --- | --- |
//! | `routes` | paths, and the headers of every page |
//! | `viewer` | who looks, and what they get instead of a page |
//! | `session` | who logged in with a browser |
//! | `origin` | whether a page of ours asks |
//! | `login` | in and out |
//! | `overview` | `/` |
//! | `run` | `/runs/{id}` |
//! | `ended` | how recent runs ended, remembered |
//! | `assets` | the files |
//! | `html` | everything that is written |

mod assets;
pub(crate) mod ended;
mod html;
mod login;
pub(crate) mod origin;
mod overview;
pub(crate) mod routes;
mod run;
pub(crate) mod session;
mod viewer;
