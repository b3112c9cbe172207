//! The host's end of the link: a Unix socket of the microVM's ports, over one virtio-serial port.
//!
//! Clients connect to the socket as they would to a Firecracker's, and say `CONNECT <port>`.
//!
//! ```text
//!   client ── v.sock ── connection task ──┐
//!   client ── v.sock ── connection task ──┼── writer task ── port ── guest
//!                            ▲            │
//!                            └── reader task ────────────────────┘
//! ```
//!
//! The guest is hostile: it may send no more than its window, no frame for a connection that does
//! not exist has an effect, and a malformed frame ends the link.
//!
//! Before the microVM is paused the link is held: a mark is sent, nothing after it, and the guest's
//! answer says that it has read everything. A snapshot of that moment cuts no frame to the guest.
//! Frames from the guest may be cut: a restored one's are skipped until it has attached.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::handshake::{MAX_LINE_BYTES, ok_line, parse_connect};
use firelane_guest_proto::link::{
    Flow, Kind, LinkDecoder, LinkError, LinkFrame, MAX_CONNECTIONS, MAX_PAYLOAD_BYTES, ReadyFinder,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a client may take to say which port it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames that may wait to be written to the port.
const QUEUED_FRAMES: usize = 16;

/// How long the guest may take to read what was sent to it before it is paused.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the other end is when the link starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A guest that has just booted: all that it sends is frames.
    Fresh,
    /// A guest that was restored: it goes on in the middle of what it was sending.
    Restored,
}

/// State of the link, for whoever waits for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The guest has not answered yet.
    Attaching,
    /// The guest listens.
    Ready,
    /// The link has ended, with the reason.
    Ended(String),
}

/// The running link. Dropping it ends every connection.
pub(super) struct Link {
    state: watch::Receiver<LinkState>,
    marked: watch::Receiver<u64>,
    last_mark: u64,
    holds: mpsc::Sender<Hold>,
    _tasks: JoinSet<()>,
}

/// Asks the writer to send a mark, and nothing more until it is let go.
struct Hold {
    mark: u64,
    released: oneshot::Receiver<()>,
}

/// A link on which nothing is sent to the guest. Dropping it lets the link go on.
pub(super) struct Held {
    /// Whether the guest has read everything.
    pub(super) settled: bool,
    _release: oneshot::Sender<()>,
}

impl Link {
    /// Serves `vsock` and attaches to the guest at the other end of `port`.
    pub(super) fn start(
        vsock: &Path,
        port: UnixStream,
        nonce: u64,
        peer: Peer,
    ) -> io::Result<Link> {
        let listener = UnixListener::bind(vsock)?;
        // Its folder may be entered by the VMM's user, who has no business with the ports.
        fs::set_permissions(vsock, fs::Permissions::from_mode(0o600))?;
        let (told, state) = watch::channel(LinkState::Attaching);
        let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
        let (holds, held) = mpsc::channel(1);
        let (marks, marked) = watch::channel(0);
        let (reader, writer) = port.into_split();
        let shared = Arc::new(Shared {
            frames,
            marks,
            table: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write_all(writer, queued, held));
        let reading = Arc::clone(&shared);
        tasks.spawn(async move {
            let ended = reading.read(reader, nonce, peer, &told).await;
            reading.lock().connections.clear();
            let reason = ended
                .err()
                .map_or_else(|| "the VMM closed it".into(), |error| error.to_string());
            // Nobody may be waiting any more.
            let _ = told.send(LinkState::Ended(reason));
        });
        tasks.spawn(async move { shared.accept(listener, nonce).await });
        Ok(Link {
            state,
            marked,
            last_mark: 0,
            holds,
            _tasks: tasks,
        })
    }

    /// Sends nothing more to the guest from here on, and waits until it has read what was sent. A
    /// guest that does not is told by the result, after a while.
    pub(super) async fn hold(&mut self) -> Held {
        self.last_mark += 1;
        let mark = self.last_mark;
        let (release, released) = oneshot::channel();
        let settled = async {
            self.holds.send(Hold { mark, released }).await.is_ok()
                && self.marked.wait_for(|marked| *marked == mark).await.is_ok()
        };
        Held {
            settled: timeout(SETTLE_TIMEOUT, settled).await.unwrap_or(false),
            _release: release,
        }
    }

    /// Waits until the guest listens; gives the reason if the link ends before.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        match self
            .state
            .wait_for(|state| *state != LinkState::Attaching)
            .await
            .as_deref()
        {
            Ok(LinkState::Ended(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("its reader is gone".into()),
        }
    }
}

/// One connection as the reader sees it.
struct Entry {
    flow: Arc<Mutex<Flow>>,
    credit: Arc<Notify>,
    events: mpsc::UnboundedSender<Event>,
    opened: bool,
    shut: bool,
}

/// What the guest did on a connection. Unbounded, but data is bounded by the window, and of the
/// others each connection passes on at most one.
enum Event {
    Opened,
    Data(Vec<u8>),
    Shut,
}

#[derive(Default)]
struct Table {
    last: u32,
    connections: HashMap<u32, Entry>,
}

struct Shared {
    frames: mpsc::Sender<LinkFrame>,
    /// The last mark that the guest answered.
    marks: watch::Sender<u64>,
    table: Mutex<Table>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, frame: LinkFrame) -> io::Result<()> {
        self.frames
            .send(frame)
            .await
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Reads the guest's frames until the link ends.
    async fn read(
        &self,
        mut port: impl AsyncRead + Unpin,
        nonce: u64,
        peer: Peer,
        told: &watch::Sender<LinkState>,
    ) -> io::Result<()> {
        let mut decoder = LinkDecoder::new();
        let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
        let mut attached = false;
        if peer == Peer::Restored {
            // As long as the restore may take: whoever waits for the guest gives up.
            let mut finder = ReadyFinder::new(nonce);
            let rest = loop {
                match port.read(&mut buffer).await? {
                    0 => return Ok(()),
                    count => {
                        if let Some(rest) = finder.push(&buffer[..count]) {
                            break rest;
                        }
                    }
                }
            };
            decoder.push(&rest);
            attached = true;
            told.send_replace(LinkState::Ready);
        }
        loop {
            while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
                if attached {
                    self.handle(frame).map_err(io::Error::other)?;
                } else if frame.kind == Kind::Ready && frame.as_nonce() == Some(nonce) {
                    attached = true;
                    told.send_replace(LinkState::Ready);
                }
            }
            match port.read(&mut buffer).await? {
                0 => return Ok(()),
                count => decoder.push(&buffer[..count]),
            }
        }
    }

    fn handle(&self, frame: LinkFrame) -> Result<(), LinkError> {
        if frame.kind == Kind::Marked {
            self.marks.send_replace(frame.as_nonce().unwrap_or(0));
            return Ok(());
        }
        let mut table = self.lock();
        let Some(entry) = table.connections.get_mut(&frame.connection) else {
            // Of a connection that ended meanwhile.
            return Ok(());
        };
        let once = |done: &mut bool| match std::mem::replace(done, true) {
            false => Ok(()),
            true => Err(LinkError::Repeated {
                connection: frame.connection,
            }),
        };
        let flow = Arc::clone(&entry.flow);
        let flow = || flow.lock().unwrap_or_else(PoisonError::into_inner);
        let event = match frame.kind {
            Kind::Opened => {
                once(&mut entry.opened)?;
                Some(Event::Opened)
            }
            Kind::Data => {
                flow().received(frame.payload.len())?;
                Some(Event::Data(frame.payload))
            }
            Kind::Shut => {
                once(&mut entry.shut)?;
                Some(Event::Shut)
            }
            Kind::Credit => {
                flow().granted(frame.as_u32().unwrap_or(0));
                entry.credit.notify_one();
                None
            }
            Kind::Reset => {
                // The events' sender goes with the entry: the connection reads the end.
                table.connections.remove(&frame.connection);
                return Ok(());
            }
            // Only the host sends these; a ready is sent once.
            Kind::Attach | Kind::Open | Kind::Ready | Kind::Mark | Kind::Marked => None,
        };
        if let Some(event) = event {
            // A connection that has ended does not need it.
            let _ = entry.events.send(event);
        }
        Ok(())
    }

    /// Accepts clients for ever.
    async fn accept(self: Arc<Self>, listener: UnixListener, nonce: u64) {
        // The writer outlives this task, so the frame is queued.
        let _ = self.send(LinkFrame::nonce(Kind::Attach, nonce)).await;
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => drop(clients.spawn(Arc::clone(&self).serve(client))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection to the guest");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, client: UnixStream) {
        let (mut from_client, to_client) = client.into_split();
        let Ok(Some(port)) = timeout(REQUEST_TIMEOUT, read_request(&mut from_client)).await else {
            return;
        };
        let Some((id, entry, events)) = self.register() else {
            return;
        };
        let connection = Connection {
            id,
            flow: entry.0,
            credit: entry.1,
            shared: Arc::clone(&self),
        };
        // A client that leaves in the middle only ends its own connection.
        let _ = connection.run(port, from_client, to_client, events).await;
        if self.lock().connections.remove(&id).is_some() {
            let _ = self.send(LinkFrame::bare(id, Kind::Reset)).await;
        }
    }

    /// A place in the table, if there is one.
    #[expect(clippy::type_complexity, reason = "the three ends of one connection")]
    fn register(
        &self,
    ) -> Option<(
        u32,
        (Arc<Mutex<Flow>>, Arc<Notify>),
        mpsc::UnboundedReceiver<Event>,
    )> {
        let mut table = self.lock();
        if table.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        table.last = table.last.wrapping_add(1).max(1);
        while table.connections.contains_key(&table.last) {
            table.last = table.last.wrapping_add(1).max(1);
        }
        let id = table.last;
        let (sender, events) = mpsc::unbounded_channel();
        let flow = Arc::new(Mutex::new(Flow::new(id)));
        let credit = Arc::new(Notify::new());
        let entry = Entry {
            flow: Arc::clone(&flow),
            credit: Arc::clone(&credit),
            events: sender,
            opened: false,
            shut: false,
        };
        table.connections.insert(id, entry);
        Some((id, (flow, credit), events))
    }
}

/// One connection as its own task sees it.
struct Connection {
    id: u32,
    flow: Arc<Mutex<Flow>>,
    credit: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn run(
        &self,
        port: u32,
        from_client: OwnedReadHalf,
        mut to_client: OwnedWriteHalf,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) -> io::Result<()> {
        self.shared
            .send(LinkFrame::number(self.id, Kind::Open, port))
            .await?;
        let Some(Event::Opened) = events.recv().await else {
            return Ok(());
        };
        to_client.write_all(ok_line(self.id).as_bytes()).await?;
        let down = self.to_client(to_client, events);
        let up = self.to_guest(from_client);
        // When the guest resets, nothing that the client still sends matters.
        tokio::pin!(down, up);
        tokio::select! {
            ended = &mut down => ended,
            ended = &mut up => match ended {
                Ok(()) => down.await,
                Err(error) => Err(error),
            },
        }
    }

    /// Passes on what the client sends, as far as the guest granted it.
    async fn to_guest(&self, mut client: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
        loop {
            let room = self.lock().sendable();
            if room == 0 {
                self.credit.notified().await;
                continue;
            }
            let count = client.read(&mut buffer[..room]).await?;
            if count == 0 {
                return self.shared.send(LinkFrame::bare(self.id, Kind::Shut)).await;
            }
            self.lock().sent(count);
            self.shared
                .send(LinkFrame::data(self.id, &buffer[..count]))
                .await?;
        }
    }

    /// Passes on what the guest sends, until it resets the connection.
    async fn to_client(
        &self,
        mut client: OwnedWriteHalf,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) -> io::Result<()> {
        while let Some(event) = events.recv().await {
            match event {
                Event::Data(bytes) => {
                    client.write_all(&bytes).await?;
                    let grant = self.lock().consume(bytes.len());
                    if let Some(grant) = grant {
                        self.shared
                            .send(LinkFrame::number(self.id, Kind::Credit, grant))
                            .await?;
                    }
                }
                Event::Shut => client.shutdown().await?,
                Event::Opened => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write_all(
    mut port: impl AsyncWrite + Unpin,
    mut queued: mpsc::Receiver<LinkFrame>,
    mut holds: mpsc::Receiver<Hold>,
) {
    let mut bytes = Vec::new();
    loop {
        let (frame, released) = tokio::select! {
            biased;
            Some(hold) = holds.recv() => {
                let mark = LinkFrame::nonce(Kind::Mark, hold.mark);
                (mark, Some(hold.released))
            }
            frame = queued.recv() => match frame {
                Some(frame) => (frame, None),
                None => return,
            },
        };
        bytes.clear();
        frame.encode(&mut bytes);
        if port.write_all(&bytes).await.is_err() {
            // The reader sees the same end and tells it.
            return;
        }
        if let Some(released) = released {
            // However it is let go.
            let _ = released.await;
        }
    }
}

/// The port that the client asks for; `None` if it does not ask properly.
async fn read_request(client: &mut OwnedReadHalf) -> Option<u32> {
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    while line.last() != Some(&b'\n') {
        if line.len() >= MAX_LINE_BYTES {
            return None;
        }
        line.push(client.read_u8().await.ok()?);
    }
    parse_connect(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link whose guest is played by the test, and a client that asked for port 5001.
    async fn linked() -> (tempfile::TempDir, Link, UnixStream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock");
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let mut link = Link::start(&path, ours, 7, Peer::Fresh).unwrap();
        assert_eq!(read(&mut guest).await, LinkFrame::nonce(Kind::Attach, 7));
        // Of an earlier life: skipped until the link is attached.
        write(&mut guest, &LinkFrame::nonce(Kind::Ready, 6)).await;
        write(&mut guest, &LinkFrame::data(1, b"old")).await;
        write(&mut guest, &LinkFrame::nonce(Kind::Ready, 7)).await;
        link.ready().await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"CONNECT 5001\n").await.unwrap();
        assert_eq!(
            read(&mut guest).await,
            LinkFrame::number(1, Kind::Open, 5001)
        );
        (folder, link, guest, client)
    }

    async fn read(guest: &mut UnixStream) -> LinkFrame {
        let mut decoder = LinkDecoder::new();
        loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                return frame;
            }
            decoder.push(&[guest.read_u8().await.unwrap()]);
        }
    }

    async fn write(guest: &mut UnixStream, frame: &LinkFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        guest.write_all(&bytes).await.unwrap();
    }

    async fn ended(mut link: Link) -> String {
        let ended = |state: &LinkState| matches!(state, LinkState::Ended(_));
        match &*link.state.wait_for(ended).await.unwrap() {
            LinkState::Ended(reason) => reason.clone(),
            state => panic!("{state:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_ends_are_passed_on() {
        let (_folder, _link, mut guest, mut client) = linked().await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Opened)).await;
        write(&mut guest, &LinkFrame::data(1, b"hello")).await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Shut)).await;
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "OK 1\nhello");
        client.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut guest).await, LinkFrame::data(1, b"answer"));
        drop(client);
        assert_eq!(read(&mut guest).await, LinkFrame::bare(1, Kind::Shut));
    }

    #[tokio::test]
    async fn a_refused_connection_is_closed_without_an_answer() {
        let (_folder, _link, mut guest, mut client) = linked().await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Reset)).await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"");
    }

    #[tokio::test]
    async fn a_guest_that_ignores_its_window_ends_the_link() {
        let (_folder, link, mut guest, client) = linked().await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Opened)).await;
        // The client does not read, so no credit is given; socket buffers take some.
        let flood = tokio::spawn(async move {
            let mut bytes = Vec::new();
            LinkFrame::data(1, &[0; 1000]).encode(&mut bytes);
            while guest.write_all(&bytes).await.is_ok() {}
        });
        assert!(ended(link).await.contains("more than it was granted"));
        drop(client);
        flood.abort();
    }

    #[tokio::test]
    async fn a_guest_that_ends_a_connection_again_and_again_ends_the_link() {
        for kind in [Kind::Opened, Kind::Shut] {
            let (_folder, link, mut guest, _client) = linked().await;
            write(&mut guest, &LinkFrame::bare(1, kind)).await;
            write(&mut guest, &LinkFrame::bare(1, kind)).await;
            assert_eq!(ended(link).await, "connection 1 was opened or ended twice");
        }
    }

    #[tokio::test]
    async fn a_client_is_not_read_further_than_the_guest_grants() {
        let (_folder, _link, mut guest, mut client) = linked().await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Opened)).await;
        let sent =
            tokio::spawn(async move { client.write_all(&vec![1; 1 << 20]).await.map(|()| client) });
        let window = usize::try_from(firelane_guest_proto::link::WINDOW_BYTES).unwrap();
        let mut received = 0;
        while received < window {
            received += read(&mut guest).await.payload.len();
        }
        assert_eq!(received, window);
        // Not a byte more until there is credit; then exactly that.
        write(&mut guest, &LinkFrame::number(1, Kind::Credit, 10)).await;
        assert_eq!(read(&mut guest).await.payload.len(), 10);
        sent.abort();
    }

    #[tokio::test]
    async fn what_a_restored_guest_was_sending_is_skipped_wherever_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let path = folder.path().join("v.sock");
        let mut link = Link::start(&path, ours, 7, Peer::Restored).unwrap();
        assert_eq!(read(&mut guest).await, LinkFrame::nonce(Kind::Attach, 7));
        let mut bytes = Vec::new();
        LinkFrame::data(1, &[0xff; 500]).encode(&mut bytes);
        LinkFrame::nonce(Kind::Ready, 6).encode(&mut bytes);
        LinkFrame::nonce(Kind::Ready, 7).encode(&mut bytes);
        guest.write_all(&bytes[300..]).await.unwrap();
        link.ready().await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"CONNECT 5001\n").await.unwrap();
        assert_eq!(
            read(&mut guest).await,
            LinkFrame::number(1, Kind::Open, 5001)
        );
    }

    #[tokio::test]
    async fn nothing_follows_a_mark_until_the_link_is_let_go() {
        let (_folder, mut link, mut guest, mut client) = linked().await;
        write(&mut guest, &LinkFrame::bare(1, Kind::Opened)).await;
        let (held, ()) = tokio::join!(link.hold(), async {
            let mark = read(&mut guest).await;
            assert_eq!(mark, LinkFrame::nonce(Kind::Mark, 1));
            write(&mut guest, &LinkFrame::nonce(Kind::Marked, 1)).await;
        });
        assert!(held.settled);
        client.write_all(b"later").await.unwrap();
        // Bytes of the guest still pass: only its own direction is held.
        write(&mut guest, &LinkFrame::data(1, b"meanwhile")).await;
        let mut text = [0; 14];
        client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"OK 1\nmeanwhile");
        let mut nothing = [0; 1];
        assert!(guest.try_read(&mut nothing).is_err());
        drop(held);
        assert_eq!(read(&mut guest).await, LinkFrame::data(1, b"later"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_does_not_read_is_told_from_one_that_has() {
        let (_folder, mut link, mut guest, _client) = linked().await;
        write(&mut guest, &LinkFrame::nonce(Kind::Marked, 99)).await;
        let start = tokio::time::Instant::now();
        assert!(!link.hold().await.settled);
        assert_eq!(start.elapsed(), SETTLE_TIMEOUT);
    }
}
