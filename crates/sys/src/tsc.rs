//! The rate of the host's time-stamp counter.
//!
//! Software emulation shows the host's counter to the guest, whose own calibration fails on a
//! loaded host; so the guest is told the rate.

#![expect(unsafe_code, reason = "reading the counter is an instruction")]

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(40);

/// Measures the rate in kHz; takes 40 ms.
#[must_use]
pub fn measure_khz() -> u64 {
    let (start, before) = (Instant::now(), read());
    std::thread::sleep(WINDOW);
    let (elapsed, after) = (start.elapsed(), read());
    let ticks = u128::from(after.wrapping_sub(before));
    u64::try_from(ticks * 1_000_000 / elapsed.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn read() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and user code may execute it on Linux.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rate_is_plausible() {
        let khz = super::measure_khz();
        assert!((100_000..20_000_000).contains(&khz), "{khz} kHz");
    }
}
