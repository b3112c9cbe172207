//! The serial port, where the last words go, and the keyboard controller, whose reset ends the VMM.
//!
//! Source: 16550 UART; Firecracker, `src/vmm/src/devices/legacy`.

use core::fmt::{self, Write};

use crate::boot::out;

const SERIAL: u16 = 0x3f8;
const KEYBOARD: u16 = 0x64;
const RESET: u8 = 0xfe;

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            out(SERIAL, byte);
        }
        Ok(())
    }
}

/// Writes a line. Each byte is an exit to the VMM, so this is for what ends the machine.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    // Writing to a port does not fail.
    let _ = writeln!(Serial, "firelane-bare: {text}");
}

/// Ends the machine.
pub(crate) fn reset() -> ! {
    out(KEYBOARD, RESET);
    loop {
        core::hint::spin_loop();
    }
}
