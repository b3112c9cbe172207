//! The compiled filters.

#![expect(unsafe_code, reason = "the seccomp call has no safe wrapper")]

use std::io;

use firelane_guest_proto::{Lang, Tier};

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// What a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile(pub(super) Option<Lang>);

impl Profile {
    /// Those of the languages, then that of commands.
    pub(super) const ALL: [Profile; 6] = [
        Profile(Some(Lang::Python)),
        Profile(Some(Lang::Bash)),
        Profile(Some(Lang::Node)),
        Profile(Some(Lang::Ruby)),
        Profile(Some(Lang::Rust)),
        Profile(None),
    ];

    /// Its place in `build.rs`.
    fn index(self) -> usize {
        match self.0 {
            Some(Lang::Python) => 0,
            Some(Lang::Bash) => 1,
            Some(Lang::Node) => 2,
            Some(Lang::Ruby) => 3,
            Some(Lang::Rust) => 4,
            None => 5,
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.0.map_or("command", Lang::name)
    }
}

/// A seccomp filter.
#[derive(Clone, Copy)]
pub(crate) struct Filter(&'static [libc::sock_filter]);

impl Filter {
    /// The filter of a tier for programs of a language, or for commands.
    pub(crate) fn of(tier: Tier, lang: Option<Lang>) -> Filter {
        let row = match tier {
            Tier::Essential => 0,
            Tier::Minimal => 1,
            Tier::Standard => 2,
            Tier::Network => 3,
            Tier::Unrestricted => 4,
        };
        let filters: &[&[libc::sock_filter]; Profile::ALL.len()] = &FILTERS[row];
        Filter(filters[Profile(lang).index()])
    }

    /// Installs it for this thread and all that it starts, for good. This thread has `no_new_privs` set.
    ///
    /// It allocates nothing and takes no lock: it may be called between fork and exec.
    pub(crate) fn install(self) -> io::Result<()> {
        let length = self
            .0
            .len()
            .try_into()
            .map_err(|_| io::ErrorKind::InvalidData)?;
        let program = libc::sock_fprog {
            len: length,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which is `len` instructions, and writes nothing.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Number of its instructions.
    pub(super) fn length(self) -> usize {
        self.0.len()
    }
}
