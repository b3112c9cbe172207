//! Entry: from the VMM's hand-over at privilege level 0 to level 3, where everything else runs.
//!
//! Some hosts' KVM interprets code at level 0 and runs level 3 natively, so level 0 has a handful of
//! instructions: page tables and descriptors are constants of the image. Level 0 is
//! called only to write to a port and to wait, and only there do interrupts come. A fault is told on the serial port and ends the
//! machine.
//!
//! Source: Linux, `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol"; Intel SDM, volume 3,
//! chapters 4 (paging), 6 (interrupts), 8 (tasks).

use core::arch::global_asm;

use crate::serial;

global_asm!(include_str!("entry.s"));
#[cfg(panic = "abort")]
global_asm!(include_str!("memory.s"));

/// Exceptions of the processor.
const VECTORS: u8 = 32;
/// Distance of the entries of two vectors.
const ENTRY_BYTES: u64 = 16;
/// Of a gate: present, for level 0, interrupts off; code segment 8.
const GATE: u64 = 0x8e00_0008_0000;
/// The vector of the undefined instruction.
const UNDEFINED: u8 = 6;
/// The vector of the interrupt controllers' first line; behind the exceptions.
pub(crate) const FIRST_INTERRUPT: u8 = VECTORS;
/// Their lines.
pub(crate) const INTERRUPTS: u8 = 16;

unsafe extern "C" {
    static mut idt: [[u64; 2]; 256];
    static fault_entries: [u8; 0];
    static undefined_entry: [u8; 0];
    static interrupt_entry: [u8; 0];
    fn level0_out(port: u16, byte: u8);
    fn level0_wait();
}

/// Lets faults be told, and level 0 be called.
pub(crate) fn open_gates() {
    let entries = (&raw const fault_entries) as u64;
    for vector in 0..VECTORS {
        set_gate(vector, entries + u64::from(vector) * ENTRY_BYTES);
    }
    set_gate(UNDEFINED, (&raw const undefined_entry) as u64);
    for vector in FIRST_INTERRUPT..FIRST_INTERRUPT + INTERRUPTS {
        set_gate(vector, (&raw const interrupt_entry) as u64);
    }
}

fn set_gate(vector: u8, entry: u64) {
    let low = (entry & 0xffff) | ((entry & 0xffff_0000) << 32) | GATE;
    // SAFETY: the table is the entry code's, which leaves it alone, and has 256 entries; only this
    // function writes it, and the program has one thread.
    unsafe {
        let gates = (&raw mut idt).cast::<[u64; 2]>();
        gates.add(vector.into()).write([low, entry >> 32]);
    }
}

/// Writes to a port; once the gates are open.
pub(crate) fn out(port: u16, byte: u8) {
    // SAFETY: level 0 writes to the port and comes back, and the ports of this program change no memory.
    unsafe { level0_out(port, byte) };
}

/// Waits for an interrupt; one that has come since the last time counts.
pub(crate) fn wait() {
    // SAFETY: level 0 halts until there is an interrupt, and comes back.
    unsafe { level0_wait() };
}

/// Called at level 3 by the entry code.
#[unsafe(no_mangle)]
extern "C" fn fault(vector: u64, error: u64, at: u64, address: u64) -> ! {
    serial::line(format_args!(
        "fault {vector}, error {error:#x}, at {at:#x}, address {address:#x}"
    ));
    serial::reset()
}
