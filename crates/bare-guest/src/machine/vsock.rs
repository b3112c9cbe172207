//! The vsock device: moves packets between its queues and the guest's connections.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 5.10.

use alloc::vec::Vec;

use firelane_bare_guest::guest::{Guest, Machine};
use firelane_bare_guest::vsock::{HEADER_BYTES, Host};

use crate::virtio::{Device, DeviceError, QUEUE, Queue};

pub(crate) const DEVICE_ID: u32 = 19;
const RECEIVE: u32 = 0;
const SEND: u32 = 1;
const EVENT: u32 = 2;
/// Bytes of a packet at most: few packets, since each notification is an exit to the VMM.
const PACKET: usize = HEADER_BYTES + (32 << 10);
const EVENT_BYTES: usize = 4;
/// Buffers that are given back before the device is told; it looks by itself while it has some.
const TELL_AFTER: usize = QUEUE / 2;

pub(crate) struct Vsock {
    device: Device,
    receive: Queue,
    send: Queue,
    events: Queue,
    /// Buffers of `send` that are the driver's.
    free: Vec<usize>,
    /// Buffers of `receive` that were given back since the device was told.
    untold: usize,
    host: Host,
}

impl Vsock {
    pub(crate) fn start(device: Device) -> Result<Vsock, DeviceError> {
        device.begin()?;
        let mut receive = Queue::new(device, RECEIVE, PACKET)?;
        let send = Queue::new(device, SEND, PACKET)?;
        let mut events = Queue::new(device, EVENT, EVENT_BYTES)?;
        (0..QUEUE).for_each(|buffer| receive.offer(buffer));
        (0..QUEUE).for_each(|buffer| events.offer(buffer));
        let host = Host::new(device.config());
        device.finish();
        receive.notify();
        events.notify();
        Ok(Vsock {
            device,
            receive,
            send,
            events,
            free: (0..QUEUE).collect(),
            untold: 0,
            host,
        })
    }

    /// Moves what there is; gives whether there was something.
    pub(crate) fn work(&mut self, guest: &mut Guest, machine: &mut dyn Machine) -> bool {
        let mut moved = self.obey_events(guest);
        while self.host.has_room() {
            let Some((buffer, length)) = self.receive.take() else {
                break;
            };
            let packet = &self.receive.bytes(buffer)[..length];
            self.host.receive(packet, guest);
            self.receive.offer(buffer);
            self.untold += 1;
            moved = true;
        }
        if self.untold >= TELL_AFTER {
            self.untold = 0;
            self.receive.notify();
        }
        moved |= self.host.work(guest, machine);
        moved | self.send_packets()
    }

    /// The only event is the reset of the transport, after a snapshot. The device gives nothing more
    /// until its buffer is given back.
    fn obey_events(&mut self, guest: &mut Guest) -> bool {
        let mut reset = false;
        while let Some((buffer, _)) = self.events.take() {
            self.host.reset(self.device.config(), guest);
            self.events.offer(buffer);
            reset = true;
        }
        if reset {
            self.events.notify();
        }
        reset
    }

    fn send_packets(&mut self) -> bool {
        while let Some((buffer, _)) = self.send.take() {
            self.free.push(buffer);
        }
        let mut sent = false;
        while let Some(&buffer) = self.free.last() {
            let Some(length) = self.host.next_packet(self.send.bytes(buffer)) else {
                break;
            };
            self.free.pop();
            self.send.send(buffer, length);
            sent = true;
        }
        if sent {
            self.send.notify();
        }
        sent
    }
}
