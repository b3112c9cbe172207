//! A VMM whose guest lies, for tests of the host: started in QEMU's place, through the same jail,
//! with the same descriptors. The lie is told by the program's name, `lying-vmm-<lie>`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use firelane_guest_proto::files::Entries;
use firelane_guest_proto::frame::{Channel, Decoder, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::link::{self, Flow, LinkDecoder, LinkFrame};
use firelane_guest_proto::message::{
    Exit, MAGIC, Outcome, Refused, RefusedCode, VERSION, Welcome, to_frame,
};

/// The descriptors of `vmm::qemu`'s command line.
const QMP: i32 = 3;
const LINK: i32 = 4;

fn main() -> io::Result<()> {
    let name = std::env::args().next().unwrap_or_default();
    let lie = name
        .rsplit_once("lying-vmm-")
        .map_or("", |(_, lie)| lie)
        .to_owned();
    if lie == "dies" {
        eprintln!("lying-vmm: cannot do this today");
        std::process::exit(3);
    }
    let qmp = UnixStream::from(firelane_sys::inherited::take(QMP)?);
    let link = UnixStream::from(firelane_sys::inherited::take(LINK)?);
    let honest_monitor = lie != "monitor-garbage";
    std::thread::spawn(move || monitor(qmp, honest_monitor));
    let mut guest = Guest {
        link,
        lie,
        link_decoder: LinkDecoder::new(),
        session: Decoder::new(),
        flow: Flow::new(1),
    };
    if let Err(error) = guest.run() {
        eprintln!("lying-vmm: {error}");
    }
    // As a VMM would, it stays until it is killed, whoever hangs up.
    loop {
        std::thread::park();
    }
}

/// Answers every command with success.
fn monitor(stream: UnixStream, honest: bool) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    if !honest {
        return writer.write_all(&[b'{'; 4 << 20]);
    }
    writer.write_all(b"{\"QMP\": {}}\n")?;
    for _command in BufReader::new(stream).lines() {
        writer.write_all(b"{\"return\": {}}\n")?;
    }
    Ok(())
}

struct Guest {
    link: UnixStream,
    lie: String,
    link_decoder: LinkDecoder,
    session: Decoder,
    flow: Flow,
}

impl Guest {
    fn run(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = self.link_decoder.next_frame().map_err(io::Error::other)? {
                self.handle(&frame)?;
            }
            match self.link.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.link_decoder.push(&buffer[..count]),
            }
        }
    }

    fn handle(&mut self, frame: &LinkFrame) -> io::Result<()> {
        match frame.kind {
            link::Kind::Attach if self.lie == "link-garbage" => {
                self.link.write_all(&[0xaa; 100_000])
            }
            link::Kind::Attach => {
                let nonce = frame.as_nonce().unwrap_or(0);
                self.send(&LinkFrame::nonce(link::Kind::Ready, nonce))
            }
            link::Kind::Open => {
                self.send(&LinkFrame::bare(frame.connection, link::Kind::Opened))?;
                match self.lie.as_str() {
                    // A data frame of 65,535 bytes; 32 KiB is the cap.
                    "link-oversize" => self.link.write_all(&[5, 0, 0xff, 0xff, 0, 0, 0, 1]),
                    "link-flood" => loop {
                        self.send(&LinkFrame::data(frame.connection, &[0; 1000]))?;
                    },
                    "link-stranger" => loop {
                        self.send(&LinkFrame::data(4242, &[0; 1000]))?;
                    },
                    _ => Ok(()),
                }
            }
            link::Kind::Credit => {
                self.flow.granted(frame.as_u32().unwrap_or(0));
                Ok(())
            }
            link::Kind::Data => {
                self.session.push(&frame.payload);
                while let Some(request) = self.session.next_frame().map_err(io::Error::other)? {
                    self.answer(frame.connection, &request)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn answer(&mut self, connection: u32, request: &Frame) -> io::Result<()> {
        match (request.kind, self.lie.as_str()) {
            (Kind::Hello, "session-garbage") => self.raw(connection, &[0x55; 1000]),
            (Kind::Hello, "session-version") => self.message(
                connection,
                &to_frame(0, Kind::Welcome, &welcome(VERSION + 1)),
            ),
            (Kind::Hello, _) => {
                self.message(connection, &to_frame(0, Kind::Welcome, &welcome(VERSION)))
            }
            (Kind::Exec, "session-oversize") => self.raw(
                connection,
                &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x13, 2, 0, 0],
            ),
            (Kind::Exec, "session-flood") => loop {
                self.frame(
                    connection,
                    &Frame::data(1, Channel::Stdout, &[b'x'; MAX_DATA_BYTES]),
                )?;
            },
            (Kind::Exec, "session-starts-for-ever") => loop {
                self.frame(connection, &Frame::new(1, Kind::Started, Vec::new()))?;
            },
            (Kind::Exec, "session-empty-data") => loop {
                self.frame(connection, &Frame::data(1, Channel::Stdout, &[]))?;
            },
            (Kind::Exec, "session-commands") => {
                self.frame(connection, &Frame::new(1, Kind::Signal, vec![9]))
            }
            (Kind::Exec, "session-entries") => {
                let entries = Vec::new();
                let more = true;
                let page = to_frame(1, Kind::Entries, &Entries { entries, more });
                self.message(connection, &page)
            }
            (Kind::Exec, "session-malformed") => {
                self.frame(connection, &Frame::new(1, Kind::Exited, MAGIC.to_vec()))
            }
            (Kind::Exec, "session-impossible") => {
                let outcome = Outcome {
                    exit: Exit::Code(256),
                    timed_out: false,
                    out_of_memory: false,
                    stdout_truncated: false,
                    stderr_truncated: false,
                    interpreter: String::new(),
                    wall_us: 0,
                    cpu_us: 0,
                    peak_memory_bytes: 0,
                };
                self.message(connection, &to_frame(1, Kind::Exited, &outcome))
            }
            (Kind::Exec, "session-escapes") => {
                let message = "\x1b]0;owned\x07\nfirelane: no".into();
                let refused = Refused {
                    code: RefusedCode::Internal,
                    message,
                };
                self.message(connection, &to_frame(1, Kind::Refused, &refused))
            }
            // Also the lie that there will be an outcome.
            _ => Ok(()),
        }
    }

    fn message(
        &mut self,
        connection: u32,
        frame: &Result<Frame, firelane_guest_proto::message::BadMessage>,
    ) -> io::Result<()> {
        match frame {
            Ok(frame) => self.frame(connection, frame),
            Err(error) => Err(io::Error::other(error.clone())),
        }
    }

    fn frame(&mut self, connection: u32, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.raw(connection, &bytes)
    }

    fn raw(&mut self, connection: u32, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let (now, later) = left.split_at(self.room()?.min(left.len()));
            self.flow.sent(now.len());
            self.send(&LinkFrame::data(connection, now))?;
            left = later;
        }
        Ok(())
    }

    /// What the host lets us send, so that the lie is told above the link; waits for credit.
    fn room(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        while self.flow.sendable() == 0 {
            let count = self.link.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.link_decoder.push(&buffer[..count]);
            while let Some(frame) = self.link_decoder.next_frame().map_err(io::Error::other)? {
                match frame.kind {
                    link::Kind::Credit => self.flow.granted(frame.as_u32().unwrap_or(0)),
                    link::Kind::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                    _ => {}
                }
            }
        }
        Ok(self.flow.sendable())
    }

    fn send(&mut self, frame: &LinkFrame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.link.write_all(&bytes)
    }
}

fn welcome(version: u16) -> Welcome {
    Welcome {
        version,
        runner: String::new(),
        kernel: String::new(),
        runner_started_us: 0,
        ready_us: 0,
        memory_bytes: 0,
    }
}
