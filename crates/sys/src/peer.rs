//! Who is at the other end of a Unix socket, as the kernel knows it from when they connected.
//!
//! Source: unix(7), `SO_PEERCRED` and `SO_PEERGROUPS`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Groups that a process has at most. Source: Linux, `include/uapi/linux/limits.h`, `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65536;

/// The process that connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its groups, the primary one first.
    pub gids: Vec<u32>,
}

impl Peer {
    /// The one that connected this socket.
    ///
    /// # Errors
    /// If it is no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Peer> {
        let socket = socket.as_fd();
        let found = rustix::net::sockopt::socket_peercred(socket)?;
        let mut gids = vec![found.gid.as_raw()];
        gids.extend(groups(socket.as_raw_fd())?);
        Ok(Peer {
            pid: found.pid.as_raw_nonzero().get().unsigned_abs(),
            uid: found.uid.as_raw(),
            gids,
        })
    }
}

#[expect(unsafe_code, reason = "this socket option has no safe wrapper")]
fn groups(socket: i32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let size = size_of::<libc::gid_t>();
        let mut length =
            libc::socklen_t::try_from(groups.len() * size).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which the vector has, and tells how many.
        let result = unsafe {
            libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = usize::try_from(length).map_err(io::Error::other)? / size;
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Too small: the length says what it takes.
            Some(libc::ERANGE) if count > groups.len() && count <= MAX_GROUPS => {
                groups.resize(count, 0);
            }
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_is_known_by_process_user_and_groups() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gids[0], rustix::process::getegid().as_raw());
        let groups = rustix::process::getgroups().unwrap();
        assert!(
            groups
                .iter()
                .all(|group| peer.gids.contains(&group.as_raw()))
        );
    }
}
