//! The entropy device, if the machine has one. It is set up when bytes are first asked for.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 5.4.

use crate::virtio::{Device, DeviceError, Queue};

pub(crate) const DEVICE_ID: u32 = 4;
const REQUESTS: u32 = 0;
const BYTES: usize = 16;
/// How often the device is looked at before it is given up: seconds.
const LOOKS: usize = 200_000_000;

pub(crate) struct Entropy {
    requests: Queue,
}

impl Entropy {
    pub(crate) fn start(device: Device) -> Result<Entropy, DeviceError> {
        device.begin()?;
        let requests = Queue::new(device, REQUESTS, BYTES)?;
        device.finish();
        Ok(Entropy { requests })
    }

    /// Fresh random bytes; `None` if the device gives none.
    pub(crate) fn bytes(&mut self) -> Option<[u8; BYTES]> {
        self.requests.offer(0);
        self.requests.notify();
        for _ in 0..LOOKS {
            if let Some((buffer, length)) = self.requests.take() {
                let bytes = self.requests.bytes(buffer);
                return (length == BYTES).then(|| bytes.try_into().ok()).flatten();
            }
            core::hint::spin_loop();
        }
        None
    }
}
