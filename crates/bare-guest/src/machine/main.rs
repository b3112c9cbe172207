//! The program: the guest of `firelane_bare_guest` on the hardware that Firecracker gives.
//!
//! ```text
//!   boot      level 0 to level 3
//!   heap      memory behind the image
//!   virtio    devices that the command line names: vsock, entropy
//!   main      serves them for ever, and waits while there is nothing to do
//! ```
//!
//! What it cannot go on from is told on the serial port; then it resets the machine, which ends the
//! VMM.

#![cfg_attr(panic = "abort", no_std)]
#![no_main]
#![expect(
    unsafe_code,
    reason = "registers, ports and memory that devices share have no safe wrapper"
)]

extern crate alloc;

mod boot;
mod clock;
mod entropy;
mod heap;
mod interrupts;
mod serial;
mod virtio;
mod vsock;

use core::ptr;

use firelane_bare_guest::bootparams::{self, MAX_COMMAND_LINE, Region, ZERO_PAGE_BYTES};
use firelane_bare_guest::guest::{Facts, Guest, Machine};

use crate::entropy::Entropy;
use crate::heap::PAGE_BYTES;
use crate::virtio::{Device, DeviceError};
use crate::vsock::Vsock;

/// Times that the devices are looked at before the processor is given up: an answer that the host
/// asks for at once comes at once.
const PATIENCE: u32 = 5000;

/// Why the guest cannot go on.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("the machine has less than 42 MiB of memory")]
    Memory,
    #[error("the command line names no vsock device: give the machine one, and no PCI")]
    NoVsock,
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Where the entry code goes to.
#[unsafe(no_mangle)]
extern "C" fn level3(zero_page: *const [u8; ZERO_PAGE_BYTES]) -> ! {
    boot::open_gates();
    // SAFETY: the boot protocol gives the address of this page, and nothing writes it.
    let zero_page = unsafe { &*zero_page };
    match run(zero_page) {
        Err(error) => serial::line(format_args!("cannot go on: {error}")),
        Ok(never) => match never {},
    }
    serial::reset()
}

fn run(zero_page: &[u8; ZERO_PAGE_BYTES]) -> Result<core::convert::Infallible, BootError> {
    let started_us = clock::now_us();
    let free = heap::start(bootparams::memory(zero_page)).ok_or(BootError::Memory)?;
    let mut vsock = None;
    let mut entropy = None;
    for found in bootparams::virtio_devices(command_line(zero_page)) {
        let device = Device::at(found.address);
        match device.id() {
            vsock::DEVICE_ID => vsock = Some((device, found.interrupt)),
            entropy::DEVICE_ID => entropy = Some(device),
            _ => {}
        }
    }
    let (device, interrupt) = vsock.ok_or(BootError::NoVsock)?;
    let mut vsock = Vsock::start(device)?;
    let mut guest = Guest::new(Facts {
        memory_bytes: bootparams::memory_bytes(zero_page),
        started_us,
        ready_us: clock::now_us(),
    });
    let mut hardware = Hardware {
        free,
        entropy: entropy.map_or(Source::Missing, Source::Unused),
    };
    interrupts::start(interrupt);
    let mut idle = 0;
    loop {
        if vsock.work(&mut guest, &mut hardware) {
            idle = 0;
        } else if idle < PATIENCE {
            idle += 1;
            core::hint::spin_loop();
        } else {
            boot::wait();
        }
    }
}

fn command_line(zero_page: &[u8; ZERO_PAGE_BYTES]) -> &'static [u8] {
    let address = bootparams::command_line_address(zero_page) as usize;
    if address == 0 {
        return &[];
    }
    let start = ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the boot protocol gives the address of a text that ends with NUL, below 4 GiB, where
    // all is mapped; nothing writes it.
    let bytes = unsafe { core::slice::from_raw_parts(start, MAX_COMMAND_LINE) };
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// What programs see of the hardware.
struct Hardware {
    free: Region,
    entropy: Source,
}

enum Source {
    Missing,
    Unused(Device),
    Ready(Entropy),
    Broken,
}

impl Machine for Hardware {
    fn now_us(&mut self) -> u64 {
        clock::now_us()
    }

    fn random(&mut self) -> Result<[u8; 16], &'static str> {
        if let Source::Unused(device) = self.entropy {
            self.entropy = Entropy::start(device).map_or(Source::Broken, Source::Ready);
        }
        match &mut self.entropy {
            Source::Missing => Err("this machine has no entropy device"),
            Source::Ready(entropy) => entropy.bytes().ok_or("the entropy device gives nothing"),
            Source::Unused(_) | Source::Broken => Err("the entropy device cannot be used"),
        }
    }

    fn pages(&self) -> u64 {
        self.free.bytes / PAGE_BYTES
    }

    fn write_page(&mut self, page: u64, word: u64) {
        if let Some(at) = self.page(page) {
            // SAFETY: the page is behind the heap and in memory, and only this writes it.
            unsafe { at.write_volatile(word) };
        }
    }

    fn read_page(&self, page: u64) -> u64 {
        // SAFETY: as in `write_page`.
        self.page(page)
            .map_or(0, |at| unsafe { at.read_volatile() })
    }
}

impl Hardware {
    fn page(&self, page: u64) -> Option<*mut u64> {
        let at = self.free.start + page.checked_mul(PAGE_BYTES)?;
        (page < self.pages()).then(|| ptr::with_exposed_provenance_mut(at as usize))
    }
}

#[cfg(panic = "abort")]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    serial::line(format_args!("{info}"));
    serial::reset()
}
