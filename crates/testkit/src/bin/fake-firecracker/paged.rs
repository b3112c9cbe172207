//! Memory that whoever restores a snapshot fills as it is missed.
//!
//! Source: Firecracker, `docs/snapshotting/handling-page-faults-on-snapshot-resume.md`, v1.16.1: it connects, sends its
//! regions with the userfaultfd, and never speaks again.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;

use firelane_sys::userfault::{Memory, PAGE_BYTES, Userfault};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::faults::{Fault, Instead, Point};
use crate::snapshot::{GUEST_AT, Words};

/// Memory with the means to have it filled. Both live as long as the process.
pub(super) struct Paged {
    memory: Memory,
    _faults: Userfault,
    /// Open until the process ends, so that whoever fills it knows when it does.
    _connection: Option<UnixStream>,
}

impl Paged {
    /// Makes it, and hands it over to whoever listens there.
    pub(super) fn hand_over(socket: &Path, size: u64, fault: &Fault) -> Result<Paged, String> {
        Paged::try_hand_over(socket, size, fault.instead(Point::Memory)).map_err(|error| {
            format!("Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: {error}")
        })
    }

    fn try_hand_over(socket: &Path, size: u64, instead: Option<Instead>) -> io::Result<Paged> {
        let memory = Memory::new(size)?;
        let faults = Userfault::make()?;
        faults.register(&memory)?;
        if instead == Some(Instead::Nothing) {
            // It never connects, and its guest has nothing but what the kernel gives: no page is read below.
            return Ok(Paged {
                memory: Memory::new(GUEST_AT + PAGE_BYTES)?,
                _faults: faults,
                _connection: None,
            });
        }
        let connection = UnixStream::connect(socket)?;
        let told = match instead {
            Some(Instead::Beyond) => 2 * size,
            Some(Instead::Outside) => GUEST_AT,
            _ => size,
        };
        let region = |address: u64, offset: u64, size: u64| {
            serde_json::json!({
                "base_host_virt_addr": address,
                "size": size,
                "offset": offset,
                "page_size": PAGE_BYTES,
                "page_size_kib": PAGE_BYTES,
            })
        };
        let mut regions = vec![region(memory.address(), 0, told)];
        if instead == Some(Instead::Outside) {
            // As large as it should be, but the guest's page is somewhere else.
            regions.push(region(memory.address() + size, GUEST_AT, size - GUEST_AT));
        }
        let message = serde_json::Value::from(regions).to_string();
        let null = File::open("/dev/null")?;
        match instead {
            Some(Instead::Garbage) => send(&connection, b"\x00\xff{]", Some(faults.as_fd()))?,
            Some(Instead::Half) => {
                send(&connection, &message.as_bytes()[..message.len() / 2], None)?;
                connection.shutdown(std::net::Shutdown::Both)?;
            }
            Some(Instead::Mute) => send(&connection, message.as_bytes(), None)?,
            Some(Instead::Wrong) => send(&connection, message.as_bytes(), Some(null.as_fd()))?,
            _ => send(&connection, message.as_bytes(), Some(faults.as_fd()))?,
        }
        Ok(Paged {
            memory,
            _faults: faults,
            _connection: Some(connection),
        })
    }

    /// What the guest has in its page, once that is there.
    pub(super) fn words(&self) -> Words {
        Words {
            counter: self.memory.word(GUEST_AT),
            stale: self.memory.word(GUEST_AT + 8) & 0xff != 0,
        }
    }
}

fn send(connection: &UnixStream, message: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let passed: Vec<BorrowedFd<'_>> = passed.into_iter().collect();
    if !passed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&passed)) {
        exit(1);
    }
    sendmsg(
        connection,
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}
