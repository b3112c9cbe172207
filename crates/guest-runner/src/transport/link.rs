//! The guest's end of the link: connections over one virtio-serial port.
//!
//! One thread polls the port and one end of a socket pair per connection; whoever serves the
//! connection has the other end and cannot tell it from a socket.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use firelane_guest_proto::link::{
    Flow, Kind, LinkDecoder, LinkError, LinkFrame, MAX_CONNECTIONS, MAX_PAYLOAD_BYTES, PORT_NAME,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{TransportError, known};
use crate::console;

const PORTS: &str = "/sys/class/virtio-ports";
/// Where the devices are that ports belong to.
const DEVICES: &str = "/sys/bus/virtio/devices";
/// Number of a device with ports. Source: Virtual I/O Device (VIRTIO) 1.2, 5.3 "Console Device".
const CONSOLE: &str = "0x0003";
/// How long the host may take to tell of the port, which it does once the device is there.
const PORT_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes that may wait for the port before connections are no longer read.
const MAX_QUEUED: usize = 256 << 10;
/// How often a port without a host is looked at: the kernel reports its state, but no change.
const NO_HOST_POLL: Duration = Duration::from_millis(5);

/// The open port.
pub(crate) struct Port(OwnedFd);

impl Port {
    /// Opens the port of the link's name, if the microVM has it. Where there is a device for it, the host may
    /// not have told of it yet.
    pub(crate) fn find() -> Result<Option<Port>, TransportError> {
        let begun = Instant::now();
        loop {
            let found = Port::look()?;
            if found.is_some() || !has_device() || begun.elapsed() > PORT_DEADLINE {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn look() -> Result<Option<Port>, TransportError> {
        let Ok(entries) = fs::read_dir(PORTS) else {
            return Ok(None);
        };
        for entry in entries.filter_map(Result::ok) {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim_end() == PORT_NAME {
                let path = format!("/dev/{}", entry.file_name().to_string_lossy());
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::open(&*path, flags, Mode::empty()).map_err(|errno| {
                    TransportError::Link {
                        path,
                        source: errno.into(),
                    }
                })?;
                return Ok(Some(Port(fd)));
            }
        }
        Ok(None)
    }

    /// Carries connections until the port fails; `serve` gets each new one with its port number.
    pub(crate) fn run(self, serve: impl Fn(u32, UnixStream)) {
        let mut link = Link {
            port: self.0,
            decoder: LinkDecoder::new(),
            queued: VecDeque::new(),
            connections: HashMap::new(),
            buffer: vec![0; MAX_PAYLOAD_BYTES],
        };
        loop {
            if let Err(error) = link.turn(&serve) {
                console::log(&format!("the link failed: {error}"));
                return;
            }
        }
    }
}

/// Whether there is a device that ports belong to.
fn has_device() -> bool {
    let devices = fs::read_dir(DEVICES).into_iter().flatten().flatten();
    let mut numbers = devices.map(|device| fs::read_to_string(device.path().join("device")));
    numbers.any(|number| number.is_ok_and(|number| number.trim_end() == CONSOLE))
}

struct Connection {
    stream: UnixStream,
    flow: Flow,
    /// Bytes of the host that the serving thread has not taken yet.
    pending: VecDeque<u8>,
    /// The host sends no more.
    host_done: bool,
    /// The serving thread sends no more.
    guest_done: bool,
}

struct Link {
    port: OwnedFd,
    decoder: LinkDecoder,
    queued: VecDeque<u8>,
    connections: HashMap<u32, Connection>,
    buffer: Vec<u8>,
}

impl Link {
    /// Waits for something to do, and does it.
    fn turn(&mut self, serve: &impl Fn(u32, UnixStream)) -> io::Result<()> {
        let ready = self.wait()?;
        if ready.port.intersects(PollFlags::HUP) && !ready.port.intersects(PollFlags::IN) {
            self.forget_all();
            std::thread::sleep(NO_HOST_POLL);
            return Ok(());
        }
        if ready.port.intersects(PollFlags::IN) {
            self.read_port(serve)?;
        }
        for id in ready.connections {
            self.read_connection(id);
        }
        let ids: Vec<u32> = self.connections.keys().copied().collect();
        for id in ids {
            self.write_connection(id);
        }
        self.write_port()
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut port = PollFlags::IN;
        if !self.queued.is_empty() {
            port |= PollFlags::OUT;
        }
        let mut ids = vec![0];
        let mut fds = vec![PollFd::new(&self.port, port)];
        for (id, connection) in &self.connections {
            let mut interest = PollFlags::empty();
            if !connection.guest_done
                && connection.flow.sendable() > 0
                && self.queued.len() < MAX_QUEUED
            {
                interest |= PollFlags::IN;
            }
            if !connection.pending.is_empty() {
                interest |= PollFlags::OUT;
            }
            // Without interest the descriptor would still report a hang-up, again and again.
            if !interest.is_empty() {
                ids.push(*id);
                fds.push(PollFd::new(&connection.stream, interest));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let connections = ids.iter().zip(&fds).skip(1);
        Ok(Ready {
            port: fds[0].revents(),
            connections: connections
                .filter(|(_, fd)| fd.revents().intersects(readable))
                .map(|(id, _)| *id)
                .collect(),
        })
    }

    fn read_port(&mut self, serve: &impl Fn(u32, UnixStream)) -> io::Result<()> {
        match rustix::io::read(&self.port, &mut self.buffer) {
            Ok(0) => {
                self.forget_all();
                return Ok(());
            }
            Ok(count) => self.decoder.push(&self.buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        while let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
            self.handle(&frame, serve).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        frame: &LinkFrame,
        serve: &impl Fn(u32, UnixStream),
    ) -> Result<(), LinkError> {
        let id = frame.connection;
        match frame.kind {
            Kind::Attach => {
                self.connections.clear();
                self.queued.clear();
                let nonce = frame.as_nonce().unwrap_or(0);
                self.queue(&LinkFrame::nonce(Kind::Ready, nonce));
            }
            Kind::Open => {
                let opened = self.open(id, frame.as_u32().unwrap_or(0), serve);
                let kind = if opened { Kind::Opened } else { Kind::Reset };
                self.queue(&LinkFrame::bare(id, kind));
            }
            Kind::Data => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.flow.received(frame.payload.len())?;
                    connection.pending.extend(&frame.payload);
                }
            }
            Kind::Credit => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.flow.granted(frame.as_u32().unwrap_or(0));
                }
            }
            Kind::Shut => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.host_done = true;
                }
            }
            Kind::Reset => drop(self.connections.remove(&id)),
            // Read, so everything before it was too.
            Kind::Mark => {
                let nonce = frame.as_nonce().unwrap_or(0);
                self.queue(&LinkFrame::nonce(Kind::Marked, nonce));
            }
            // Only the guest sends these.
            Kind::Ready | Kind::Opened | Kind::Marked => {}
        }
        Ok(())
    }

    fn open(&mut self, id: u32, port: u32, serve: &impl Fn(u32, UnixStream)) -> bool {
        let free = id != 0
            && self.connections.len() < MAX_CONNECTIONS
            && !self.connections.contains_key(&id);
        if !free || !known(port) {
            return false;
        }
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((ours, theirs))
        });
        let Ok((ours, theirs)) = pair else {
            return false;
        };
        let connection = Connection {
            stream: ours,
            flow: Flow::new(id),
            pending: VecDeque::new(),
            host_done: false,
            guest_done: false,
        };
        self.connections.insert(id, connection);
        serve(port, theirs);
        true
    }

    /// Takes what the serving thread wrote.
    fn read_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let room = connection.flow.sendable();
        if room == 0 || connection.guest_done {
            return;
        }
        let frame = match rustix::io::read(&connection.stream, &mut self.buffer[..room]) {
            Ok(0) => {
                connection.guest_done = true;
                LinkFrame::bare(id, Kind::Shut)
            }
            Ok(count) => {
                connection.flow.sent(count);
                LinkFrame::data(id, &self.buffer[..count])
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                connection.guest_done = true;
                LinkFrame::bare(id, Kind::Shut)
            }
        };
        self.queue(&frame);
    }

    /// Gives the serving thread what the host sent, and closes what both sides are done with.
    fn write_connection(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut grant = None;
        if !connection.pending.is_empty() {
            match rustix::io::write(&connection.stream, connection.pending.make_contiguous()) {
                Ok(count) => {
                    connection.pending.drain(..count);
                    grant = connection.flow.consume(count);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The serving thread is gone: the host learns it from its side's end.
                Err(_) => {
                    connection.pending.clear();
                    connection.host_done = true;
                }
            }
        }
        let drained = connection.host_done && connection.pending.is_empty();
        let closed = drained && connection.guest_done;
        if drained && !closed {
            // The serving thread reads the end; if it is gone already, its end follows.
            drop(connection.stream.shutdown(std::net::Shutdown::Write));
        }
        if let Some(bytes) = grant {
            self.queue(&LinkFrame::number(id, Kind::Credit, bytes));
        }
        if closed {
            self.connections.remove(&id);
            self.queue(&LinkFrame::bare(id, Kind::Reset));
        }
    }

    fn write_port(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() {
            match rustix::io::write(&self.port, self.queued.as_slices().0) {
                Ok(count) => drop(self.queued.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn queue(&mut self, frame: &LinkFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.queued.extend(bytes);
    }

    /// The host went away: nothing of its connections may meet the next host.
    fn forget_all(&mut self) {
        self.connections.clear();
        self.queued.clear();
        self.decoder = LinkDecoder::new();
    }
}

/// What a wait found.
struct Ready {
    port: PollFlags,
    connections: Vec<u32>,
}

impl Default for Ready {
    fn default() -> Ready {
        Ready {
            port: PollFlags::empty(),
            connections: Vec::new(),
        }
    }
}
