//! Time since boot, from the page that KVM keeps.
//!
//! Source: Linux, `Documentation/virt/kvm/x86/msr.rst`, `MSR_KVM_SYSTEM_TIME_NEW`.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{Ordering, compiler_fence};

#[repr(C)]
#[derive(Clone, Copy)]
struct Page {
    version: u32,
    _padding: u32,
    tsc_at: u64,
    /// Nanoseconds at that count.
    nanoseconds: u64,
    multiplier: u32,
    shift: i8,
    _flags: u8,
}

unsafe extern "C" {
    static kvm_clock: Page;
}

/// Counts of the processor's counter in a microsecond where KVM keeps no clock: a guess, so that
/// time passes at all.
const GUESSED_COUNTS: u64 = 2500;
/// A page that is being written is read again as often as this; that is never for long.
const TRIES: usize = 1000;

/// Microseconds since the machine started.
pub(crate) fn now_us() -> u64 {
    for _ in 0..TRIES {
        // SAFETY: the page is the image's; KVM writes it, so it is read as something volatile.
        let page = unsafe { (&raw const kvm_clock).read_volatile() };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: every processor that runs this has the counter.
        let now = unsafe { _rdtsc() };
        if page.version == 0 {
            return now / GUESSED_COUNTS;
        }
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as above.
        let version = unsafe { (&raw const kvm_clock.version).read_volatile() };
        if page.version % 2 == 1 || page.version != version {
            continue;
        }
        let passed = u128::from(now.saturating_sub(page.tsc_at));
        let passed = match page.shift {
            left @ 0.. => passed << left.min(63),
            right => passed >> right.unsigned_abs().min(63),
        };
        let passed = (passed * u128::from(page.multiplier)) >> 32;
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        return page.nanoseconds.saturating_add(passed) / 1000;
    }
    0
}
