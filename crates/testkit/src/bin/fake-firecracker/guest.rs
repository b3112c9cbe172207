//! The guest's end of vsock: the bare guest's own sessions, on memory that is simulated.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use firelane_bare_guest::guest::{Facts, Guest, Machine};
use firelane_bare_guest::session::Session;
use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::handshake::{MAX_LINE_BYTES, ok_line, parse_connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use crate::faults::{Fault, Instead, Point};
use crate::snapshot::Words;

/// How often a guest with nothing to read looks whether it may go on.
const POLL: Duration = Duration::from_millis(1);
/// First of the host's port numbers. Source: Firecracker, `docs/vsock.md`.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A simulated guest, shared by its connections.
pub(super) struct Simulated {
    guest: Guest,
    hardware: Hardware,
    pub(super) runs: bool,
    /// Nothing that the host sends arrives any more.
    deaf: bool,
    /// How often its vsock was reset; connections of before are gone.
    life: u32,
}

struct Hardware {
    started: Instant,
    pages: u64,
    written: BTreeMap<u64, u64>,
    drawn: u128,
}

impl Simulated {
    /// One that goes on where these words were; a fresh one, if they are the first.
    pub(super) fn new(mem_size_mib: u64, words: Words) -> Simulated {
        let facts = Facts {
            memory_bytes: mem_size_mib << 20,
            ..Facts::default()
        };
        let hardware = Hardware {
            started: Instant::now(),
            // All but a part for itself.
            pages: (mem_size_mib << 20) / 4096 * 3 / 4,
            written: BTreeMap::new(),
            drawn: u128::from(std::process::id()),
        };
        Simulated {
            guest: Guest::again(facts, words.counter, words.stale),
            hardware,
            runs: false,
            deaf: false,
            life: 0,
        }
    }

    pub(super) fn words(&self) -> Words {
        Words {
            counter: self.guest.counter(),
            stale: self.guest.is_stale(),
        }
    }

    /// Its connections are gone, as after a snapshot.
    pub(super) fn reset_vsock(&mut self) {
        self.life += 1;
    }

    /// Nothing reaches it any more.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
    }

    fn hears(&self) -> bool {
        self.runs && !self.deaf
    }
}

impl Machine for Hardware {
    fn now_us(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&mut self) -> Result<[u8; 16], &'static str> {
        self.drawn = self
            .drawn
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        Ok(self.drawn.to_le_bytes())
    }

    fn pages(&self) -> u64 {
        self.pages
    }

    fn write_page(&mut self, page: u64, word: u64) {
        self.written.insert(page, word);
    }

    fn read_page(&self, page: u64) -> u64 {
        self.written.get(&page).copied().unwrap_or(0)
    }
}

/// Takes connections of the host until the process ends.
pub(super) async fn listen(listener: UnixListener, guest: Rc<RefCell<Simulated>>, fault: Fault) {
    let mut port = FIRST_HOST_PORT;
    while let Ok((stream, _)) = listener.accept().await {
        port += 1;
        let connection = connection(stream, Rc::clone(&guest), fault.clone(), port);
        tokio::task::spawn_local(async move {
            // A host that hangs up is no fault.
            let _ = connection.await;
        });
    }
}

/// Binds the socket that the host connects to.
pub(super) fn bind(path: &Path) -> Result<UnixListener, String> {
    UnixListener::bind(path)
        .map_err(|error| format!("Error binding to the host-side Unix socket: {error}"))
}

async fn connection(
    mut stream: UnixStream,
    guest: Rc<RefCell<Simulated>>,
    fault: Fault,
    host_port: u32,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') && line.len() < MAX_LINE_BYTES {
        line.push(stream.read_u8().await?);
    }
    match fault.instead(Point::Connect) {
        Some(Instead::Nothing) => std::future::pending().await,
        Some(Instead::Garbage) => return stream.write_all(b"\x07garbage\n").await,
        Some(_) => return stream.write_all(b"OK ").await,
        None => {}
    }
    // Silence, until the guest's driver is up.
    while !guest.borrow().hears() {
        sleep(POLL).await;
    }
    if parse_connect(&line) != Ok(SESSION_PORT) {
        return Ok(());
    }
    stream.write_all(ok_line(host_port).as_bytes()).await?;
    let life = guest.borrow().life;
    let mut session = Session::default();
    let served = serve(&mut stream, &mut session, &guest, life).await;
    session.end(&mut guest.borrow_mut().guest);
    served
}

async fn serve(
    stream: &mut UnixStream,
    session: &mut Session,
    guest: &Rc<RefCell<Simulated>>,
    life: u32,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let (runs, hears, alive) = {
            let guest = guest.borrow();
            (guest.runs, guest.hears(), guest.life == life)
        };
        if !alive {
            return Ok(());
        }
        let mut busy = false;
        if runs {
            let mut guest = guest.borrow_mut();
            let Simulated {
                guest, hardware, ..
            } = &mut *guest;
            busy = session.work(guest, hardware);
        }
        if runs && !session.output().is_empty() {
            let sent = stream.write(session.output()).await?;
            session.sent(sent);
            continue;
        }
        if session.is_over() {
            return Ok(());
        }
        let reads = hears && session.wants_bytes();
        tokio::select! {
            biased;
            read = stream.read(&mut buffer), if reads => match read? {
                0 => return Ok(()),
                count => session.receive(&buffer[..count]),
            },
            () = sleep(if busy { Duration::ZERO } else { POLL }) => {}
        }
    }
}
