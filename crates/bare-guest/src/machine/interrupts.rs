//! What ends waiting: the interrupt of the vsock device, and a clock's.
//!
//! Source: Intel 8259A, "Programming"; Intel 8254, "Mode 2: Rate Generator".

use crate::boot::{FIRST_INTERRUPT, INTERRUPTS, out};

const FIRST: u16 = 0x20;
const SECOND: u16 = 0xa0;
/// Begins the set-up: edges, two controllers, a fourth word follows.
const BEGIN: u8 = 0x11;
/// 8086 mode; an interrupt is over when the processor has taken it.
const AUTOMATIC: u8 = 0x03;
/// The line of the first controller where the second is.
const CASCADE: u8 = 2;
/// The line of the clock.
const CLOCK: u8 = 0;

const CLOCK_COMMAND: u16 = 0x43;
const CLOCK_COUNT: u16 = 0x40;
/// Counter 0, both bytes of the count, mode 2.
const PERIODIC: u8 = 0x34;
/// Counts of 1.193182 MHz: a hundred times each second. Deadlines of programs are as coarse as that.
const PERIOD: u16 = 11_932;

/// Lets a device's interrupt and the clock's come.
pub(crate) fn start(device: u8) {
    let lines: u16 = 1 << (device % INTERRUPTS) | 1 << CLOCK | 1 << CASCADE;
    let [first, second] = (!lines).to_le_bytes();
    let half = INTERRUPTS / 2;
    for (port, vector, cascade, mask) in [
        (FIRST, FIRST_INTERRUPT, 1 << CASCADE, first),
        (SECOND, FIRST_INTERRUPT + half, CASCADE, second),
    ] {
        out(port, BEGIN);
        for word in [vector, cascade, AUTOMATIC, mask] {
            out(port + 1, word);
        }
    }
    out(CLOCK_COMMAND, PERIODIC);
    PERIOD
        .to_le_bytes()
        .into_iter()
        .for_each(|byte| out(CLOCK_COUNT, byte));
}
