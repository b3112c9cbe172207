//! Signals that ask a program to end, waited for by one thread.

#![expect(unsafe_code, reason = "signal sets have no safe wrapper")]

use std::io;

/// The signals that ask to end, held back from all threads that are started after.
#[derive(Debug)]
pub struct Ending(libc::sigset_t);

impl Ending {
    /// Holds them back. Call it in `main`, before there are other threads.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn hold_back() -> io::Result<Ending> {
        // SAFETY: the set is plain data that is filled before it is used.
        unsafe {
            let mut signals: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(&raw mut signals, signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) {
                0 => Ok(Ending(signals)),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Waits for one of them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn wait(&self) -> io::Result<()> {
        let mut signal = 0;
        // SAFETY: both pointers are to values that live across the call.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
