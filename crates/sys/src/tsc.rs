//! The rate of the host's time-stamp counter.
//!
//! Software emulation shows the host's counter to the guest, whose own calibration fails on a
//! loaded host; so the guest is told the rate.

#![expect(unsafe_code, reason = "reading the counter is an instruction")]

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(10);
/// Measurements, of which the least disturbed counts.
const ROUNDS: usize = 5;

/// Measures the rate in kHz; takes 50 ms.
#[must_use]
pub fn measure_khz() -> u64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (start, first) = sample();
        std::thread::sleep(WINDOW);
        let (end, second) = sample();
        let ticks = u128::from(end.counter.wrapping_sub(start.counter));
        let elapsed = end.clock.duration_since(start.clock).as_nanos().max(1);
        let khz = u64::try_from(ticks * 1_000_000 / elapsed).unwrap_or(u64::MAX);
        (first + second, khz)
    });
    rounds.min().map_or(0, |(_, khz)| khz)
}

/// The clock and the counter, read together.
struct Sample {
    clock: Instant,
    counter: u64,
}

/// Reads both, and tells how far apart the two readings may be.
fn sample() -> (Sample, Duration) {
    let before = Instant::now();
    let counter = read();
    let clock = Instant::now();
    (Sample { clock, counter }, clock - before)
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
