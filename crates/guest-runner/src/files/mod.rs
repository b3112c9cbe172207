//! Files of the guest, as the host sees and changes them: confined to three folders, atomic, capped.
//!
//! Paths are resolved by the kernel beneath the folder (`openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so no link that a program plants leads the guest-runner elsewhere. Every
//! request is carried out with the rights of the programs' user ([`AsUser`]): the host reaches no
//! file that a program could not reach.
//!
//! ```text
//!   place    a path, taken apart and opened
//!   put      whole files written      get     files and parts of them read
//!   list     pages of folders         change  folders and links made, things moved
//!   remove   trees removed            watch   what changes, told
//! ```

mod as_user;
mod change;
mod get;
mod list;
mod place;
mod put;
mod remove;
mod stat;
mod watch;

pub(crate) use as_user::AsUser;
pub(crate) use change::{make_dir, make_link, move_to};
pub(crate) use get::{open_for_get, open_range, read_full};
pub(crate) use list::list_dir;
pub(crate) use place::Place;
pub(crate) use put::Put;
pub(crate) use remove::remove;
pub(crate) use stat::stat;
pub(crate) use watch::Watcher;

/// Permission bits that the host may set: no set-uid, set-gid or sticky.
const MODE_BITS: u32 = 0o777;
