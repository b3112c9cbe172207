//! A virtio device at an address, and its queues.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 2.7 ("Split Virtqueues"), 3.1 ("Device
//! Initialization") and 4.2 ("Virtio Over MMIO").

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{Ordering, fence};

const DEVICE_ID: u64 = 0x008;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SELECT: u64 = 0x024;
const QUEUE_SELECT: u64 = 0x030;
const QUEUE_SIZE_MAX: u64 = 0x034;
const QUEUE_SIZE: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const STATUS: u64 = 0x070;
const QUEUE_DESCRIPTORS: u64 = 0x080;
const QUEUE_DRIVER: u64 = 0x090;
const QUEUE_DEVICE: u64 = 0x0a0;
const CONFIG: u64 = 0x100;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
/// `VIRTIO_F_VERSION_1`, bit 32: the only feature that is needed.
const VERSION_1_HIGH: u32 = 1;
/// Of a descriptor: the device writes it.
const WRITE: u16 = 2;
/// Of the used ring: the device does not want to be told.
const NO_NOTIFY: u16 = 1;

/// Buffers of a queue.
pub(crate) const QUEUE: usize = 16;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a virtio device at {address:#x} {what}")]
pub(crate) struct DeviceError {
    address: u64,
    what: &'static str,
}

/// A device.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    address: u64,
}

impl Device {
    /// The device that the command line says is there.
    pub(crate) fn at(address: u64) -> Device {
        Device { address }
    }

    /// What kind of device it is.
    pub(crate) fn id(self) -> u32 {
        self.read(DEVICE_ID)
    }

    /// Begins to set it up. Each register is an exit to the VMM, so there are few.
    pub(crate) fn begin(self) -> Result<(), DeviceError> {
        self.write(STATUS, 0);
        // One bit after the other: Firecracker refuses two at once.
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        self.write(DRIVER_FEATURES_SELECT, 1);
        self.write(DRIVER_FEATURES, VERSION_1_HIGH);
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.read(STATUS) & FEATURES_OK == 0 {
            return Err(self.error("refuses to be driven by version 1 of the standard"));
        }
        Ok(())
    }

    /// It may work from here on.
    pub(crate) fn finish(self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// The 64-bit value that its configuration begins with.
    pub(crate) fn config(self) -> u64 {
        let (low, high) = (self.read(CONFIG), self.read(CONFIG + 4));
        u64::from(low) | u64::from(high) << 32
    }

    pub(crate) fn error(self, what: &'static str) -> DeviceError {
        let address = self.address;
        DeviceError { address, what }
    }

    fn read(self, register: u64) -> u32 {
        // SAFETY: the VMM said that a device is at the address; its registers are no memory of ours.
        unsafe {
            ptr::with_exposed_provenance::<u32>((self.address + register) as usize).read_volatile()
        }
    }

    fn write(self, register: u64, value: u32) {
        let at = ptr::with_exposed_provenance_mut::<u32>((self.address + register) as usize);
        // SAFETY: as in `read`; what the device writes is in the buffers of its queues.
        unsafe { at.write_volatile(value) };
    }

    fn write_address(self, register: u64, address: u64) {
        // All memory of ours is below 4 GiB, and the reset has made the upper half zero.
        self.write(register, address as u32);
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Used {
    id: u32,
    length: u32,
}

/// What driver and device share of a queue.
#[repr(C, align(4096))]
struct Shared {
    descriptors: [Descriptor; QUEUE],
    driver_flags: u16,
    driver_index: u16,
    driver_ring: [u16; QUEUE],
    _driver_event: u16,
    _padding: u16,
    device_flags: u16,
    device_index: u16,
    device_ring: [Used; QUEUE],
}

/// A queue of buffers that belong to it, each of which is the device's or the driver's.
pub(crate) struct Queue {
    device: Device,
    index: u32,
    shared: *mut Shared,
    buffers: Vec<*mut u8>,
    buffer_bytes: usize,
    /// Buffers that were given to the device, modulo 2^16; and of those, taken back.
    given: u16,
    taken: u16,
}

impl Queue {
    /// Makes queue `index` of a device that is being set up.
    pub(crate) fn new(
        device: Device,
        index: u32,
        buffer_bytes: usize,
    ) -> Result<Queue, DeviceError> {
        let empty = Descriptor {
            address: 0,
            length: 0,
            flags: 0,
            next: 0,
        };
        // The device goes on using it, so it is never given back.
        let shared: *mut Shared = Box::leak(Box::new(Shared {
            descriptors: [empty; QUEUE],
            driver_flags: 0,
            driver_index: 0,
            driver_ring: [0; QUEUE],
            _driver_event: 0,
            _padding: 0,
            device_flags: 0,
            device_index: 0,
            device_ring: [Used { id: 0, length: 0 }; QUEUE],
        }));
        let buffer = || alloc::vec![0_u8; buffer_bytes].leak().as_mut_ptr();
        device.write(QUEUE_SELECT, index);
        if (device.read(QUEUE_SIZE_MAX) as usize) < QUEUE {
            return Err(device.error("has queues that are too short"));
        }
        device.write(QUEUE_SIZE, QUEUE as u32);
        let at = shared as u64;
        device.write_address(QUEUE_DESCRIPTORS, at);
        device.write_address(
            QUEUE_DRIVER,
            at + core::mem::offset_of!(Shared, driver_flags) as u64,
        );
        device.write_address(
            QUEUE_DEVICE,
            at + core::mem::offset_of!(Shared, device_flags) as u64,
        );
        device.write(QUEUE_READY, 1);
        Ok(Queue {
            device,
            index,
            shared,
            buffers: (0..QUEUE).map(|_| buffer()).collect(),
            buffer_bytes,
            given: 0,
            taken: 0,
        })
    }

    /// Gives a buffer to the device, to be written.
    pub(crate) fn offer(&mut self, buffer: usize) {
        self.give(buffer, self.buffer_bytes, WRITE);
    }

    /// Gives it the first bytes of a buffer, to be read.
    pub(crate) fn send(&mut self, buffer: usize, bytes: usize) {
        self.give(buffer, bytes.min(self.buffer_bytes), 0);
    }

    fn give(&mut self, buffer: usize, bytes: usize, flags: u16) {
        let descriptor = Descriptor {
            address: self.buffers[buffer] as u64,
            length: bytes as u32,
            flags,
            next: 0,
        };
        let slot = usize::from(self.given) % QUEUE;
        self.given = self.given.wrapping_add(1);
        // SAFETY: `shared` is ours for ever, and the device reads the descriptor of a buffer only
        // after the index says so.
        unsafe {
            (&raw mut (*self.shared).descriptors[buffer]).write_volatile(descriptor);
            (&raw mut (*self.shared).driver_ring[slot]).write_volatile(buffer as u16);
            fence(Ordering::SeqCst);
            (&raw mut (*self.shared).driver_index).write_volatile(self.given);
        }
    }

    /// Tells the device that it was given something.
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst);
        // SAFETY: `shared` is ours for ever.
        let flags = unsafe { (&raw const (*self.shared).device_flags).read_volatile() };
        if flags & NO_NOTIFY == 0 {
            self.device.write(QUEUE_NOTIFY, self.index);
        }
    }

    /// Takes back a buffer that the device is done with; its number, and how much it wrote.
    pub(crate) fn take(&mut self) -> Option<(usize, usize)> {
        // SAFETY: `shared` is ours for ever.
        let index = unsafe { (&raw const (*self.shared).device_index).read_volatile() };
        if index == self.taken {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = usize::from(self.taken) % QUEUE;
        // SAFETY: as above; the device has written the entry before the index.
        let used = unsafe { (&raw const (*self.shared).device_ring[slot]).read_volatile() };
        self.taken = self.taken.wrapping_add(1);
        // A device that names another buffer than its own is not one to go on with, but no reason
        // to read other memory.
        let buffer = used.id as usize % QUEUE;
        Some((buffer, (used.length as usize).min(self.buffer_bytes)))
    }

    /// The bytes of a buffer, while it is the driver's.
    pub(crate) fn bytes(&mut self, buffer: usize) -> &mut [u8] {
        // SAFETY: the buffer was leaked with this length, is borrowed as the queue is, and the device
        // leaves it alone until it is given again.
        unsafe { core::slice::from_raw_parts_mut(self.buffers[buffer], self.buffer_bytes) }
    }
}
