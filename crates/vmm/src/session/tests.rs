//! The host against a guest that keeps to the form, but not to what is expected of it. Time is the
//! runtime's own and passes only while everybody waits.

use firelane_guest_proto::message::{
    AttachSpec, DetachedState, ExecSpec, FileInfo, GetSpec, Limits, Listed, Listing, Program,
    PutSpec, RefusedCode, VERSION,
};
use tokio::time::Instant;

use super::*;

mod archive;
mod files;

/// The guest's end.
struct Guest {
    stream: UnixStream,
    decoder: Decoder,
}

impl Guest {
    /// A session, and the guest that has just welcomed it.
    async fn greeted() -> (Session, Guest) {
        Guest::speaking(VERSION).await
    }

    async fn speaking(version: u16) -> (Session, Guest) {
        let (ours, stream) = UnixStream::pair().unwrap();
        let mut guest = Guest {
            stream,
            decoder: Decoder::new(),
        };
        let (session, ()) = tokio::join!(Session::open(ours), guest.welcome(version));
        (session.unwrap(), guest)
    }

    async fn welcome(&mut self, version: u16) {
        assert_eq!(self.next().await.kind, Kind::Hello);
        let welcome = Welcome {
            version,
            runner: String::new(),
            kernel: String::new(),
            runner_started_us: 0,
            ready_us: 0,
            memory_bytes: 0,
        };
        self.send(&to_frame(0, Kind::Welcome, &welcome).unwrap())
            .await;
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The host's next frame.
    async fn next(&mut self) -> Frame {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            let count = self.stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the host left");
            self.decoder.push(&buffer[..count]);
        }
    }

    /// The host's next frame that is not a question whether we are there; those are answered.
    async fn request(&mut self) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind != Kind::Ping {
                return frame;
            }
            self.send(&Frame::new(0, Kind::Pong, frame.payload)).await;
        }
    }

    /// Answers questions whether we are there, and nothing else, for ever.
    async fn only_live(&mut self) {
        loop {
            let frame = self.next().await;
            if frame.kind == Kind::Ping {
                self.send(&Frame::new(0, Kind::Pong, frame.payload)).await;
            }
        }
    }
}

fn exec() -> ExecSpec {
    ExecSpec {
        trace_id: "test".into(),
        program: Program::Command {
            argv: vec!["cat".into()],
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    }
}

fn put(size: u64) -> PutSpec {
    PutSpec {
        path: "file".into(),
        size,
        mode: 0o644,
    }
}

fn get(max_bytes: u64) -> GetSpec {
    GetSpec {
        path: "file".into(),
        max_bytes,
    }
}

fn info(size: u64) -> Frame {
    let info = FileInfo { size, mode: 0o644 };
    to_frame(1, Kind::FileInfo, &info).unwrap()
}

fn silent_for(error: &SessionError) -> u64 {
    match error {
        SessionError::Silent(time) => time.as_secs(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_falls_silent_ends_the_session() {
    let (session, guest) = Guest::greeted().await;
    let mut exec = session.exec(&exec()).await.unwrap();
    let start = Instant::now();
    let error = exec.next().await.unwrap_err();
    assert_eq!(silent_for(&error), 60);
    assert_eq!(start.elapsed().as_secs(), 60);
    drop(guest);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_only_answers_pings_keeps_the_session() {
    let (session, mut guest) = Guest::greeted().await;
    let mut exec = session.exec(&exec()).await.unwrap();
    let hour = Duration::from_secs(3600);
    tokio::select! {
        event = exec.next() => panic!("{event:?}"),
        () = guest.only_live() => {}
        () = tokio::time::sleep(hour) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_microvm_is_paused_may_be_silent_and_is_not_asked() {
    let (session, mut guest) = Guest::greeted().await;
    let mut exec = session.exec(&exec()).await.unwrap();
    assert_eq!(guest.next().await.kind, Kind::Exec);
    session.set_paused(true);
    let day = Duration::from_secs(86_400);
    tokio::select! {
        event = exec.next() => panic!("{event:?}"),
        frame = guest.next() => panic!("{frame:?}"),
        () = tokio::time::sleep(day) => {}
    }
    session.set_paused(false);
    let resumed = Instant::now();
    assert_eq!(silent_for(&exec.next().await.unwrap_err()), 60);
    // Counted anew, at the latest from the next look.
    assert!((60..=120).contains(&resumed.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_takes_no_requests_is_given_up() {
    let (session, mut guest) = Guest::greeted().await;
    // It talks, so it is not silent; but it never reads.
    let talk = async {
        loop {
            guest.send(&Frame::new(0, Kind::Pong, vec![0; 8])).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let ask = async {
        let mut big = exec();
        big.env = vec![("K".into(), "v".repeat(60_000))];
        loop {
            if let Err(error) = session.exec(&big).await {
                return error;
            }
        }
    };
    tokio::select! {
        error = ask => assert_eq!(silent_for(&error), 60),
        () = talk => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_to_a_guest_that_grants_nothing_is_given_up() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = put(10 << 20);
    let start = Instant::now();
    let error = tokio::select! {
        put = session.put(&spec, tokio::io::repeat(0)) => put.unwrap_err(),
        () = guest.only_live() => unreachable!(),
    };
    // A minute, and what 10 MiB take at 256 KiB/s.
    assert_eq!(silent_for(&error), 100);
    assert_eq!(start.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_drips_is_given_up_by_its_own_size() {
    let spec = get(1 << 30);
    let (session, mut guest) = Guest::greeted().await;
    let start = Instant::now();
    let drip = async {
        assert_eq!(guest.request().await.kind, Kind::Get);
        guest.send(&info(1 << 20)).await;
        loop {
            guest.send(&Frame::data(1, Channel::File, b".")).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let error = tokio::select! {
        got = session.get(&spec, tokio::io::sink()) => got.unwrap_err(),
        () = drip => unreachable!(),
    };
    assert_eq!(silent_for(&error), 64);
    assert_eq!(start.elapsed().as_secs(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_describes_the_file_is_given_up() {
    let spec = get(1 << 30);
    let (session, mut guest) = Guest::greeted().await;
    let error = tokio::select! {
        got = session.get(&spec, tokio::io::sink()) => got.unwrap_err(),
        () = guest.only_live() => unreachable!(),
    };
    assert_eq!(silent_for(&error), 60);
}

#[tokio::test(start_paused = true)]
async fn a_get_that_is_left_tells_the_guest() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = get(1 << 30);
    let mut getting = Box::pin(session.get(&spec, tokio::io::sink()));
    let described = async {
        assert_eq!(guest.request().await.kind, Kind::Get);
        guest.send(&info(1 << 20)).await;
        guest.send(&Frame::data(1, Channel::File, b"some")).await;
        assert_eq!(guest.request().await.kind, Kind::Window);
    };
    tokio::select! {
        got = &mut getting => panic!("{got:?}"),
        () = described => {}
    }
    drop(getting);
    let end = guest.request().await;
    assert_eq!(
        (end.kind, end.stream, end.channel),
        (Kind::End, 1, Channel::File)
    );
}

#[tokio::test(start_paused = true)]
async fn input_for_a_program_that_ended_is_not_waited_for() {
    let (session, mut guest) = Guest::greeted().await;
    let exec = session.exec(&exec()).await.unwrap();
    let stdin = exec.stdin();
    let much = vec![0; 1 << 20];
    let ends = async {
        assert_eq!(guest.request().await.kind, Kind::Exec);
        // All that the first window lets through.
        let mut taken = 0;
        while taken < INITIAL_WINDOW as usize {
            taken += guest.request().await.payload.len();
        }
        let gone = Refused {
            code: RefusedCode::Internal,
            message: "gone".into(),
        };
        guest
            .send(&to_frame(1, Kind::Refused, &gone).unwrap())
            .await;
        guest.only_live().await;
    };
    tokio::select! {
        written = stdin.write(&much) => drop(written.unwrap_err()),
        () = ends => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_costs_no_memory_and_stops_nobody() {
    let (session, mut guest) = Guest::greeted().await;
    let mut exec = session.exec(&exec()).await.unwrap();
    // None of the answers is read until the end.
    for _ in 0..100_000 {
        guest.send(&Frame::new(0, Kind::Ping, vec![7; 8])).await;
    }
    guest.send(&Frame::new(1, Kind::Started, Vec::new())).await;
    assert_eq!(exec.next().await.unwrap(), Event::Started);
    assert_eq!(guest.next().await.kind, Kind::Exec);
    let pong = guest.next().await;
    assert_eq!((pong.kind, pong.payload), (Kind::Pong, vec![7; 8]));
}

#[tokio::test(start_paused = true)]
async fn an_older_guest_is_not_asked_for_what_it_does_not_know() {
    let (session, mut guest) = Guest::speaking(1).await;
    let old = |error: SessionError| assert!(matches!(error, SessionError::TooOld(1)), "{error:?}");
    old(session.freeze(Duration::from_secs(1)).await.unwrap_err());
    old(session.launch("a", &exec()).await.unwrap_err());
    old(session.list().await.unwrap_err());
    // What it knows it is asked as ever.
    session.exec(&exec()).await.unwrap();
    assert_eq!(guest.request().await.kind, Kind::Exec);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_is_refused() {
    let listed = |id: &str| Listed {
        id: id.into(),
        state: DetachedState::Running,
        pid: 1,
        started_ns: 0,
    };
    let too_many = vec![listed("a"); 65];
    for execs in [vec![listed("\x1b[2J")], too_many] {
        let (session, mut guest) = Guest::greeted().await;
        let lie = async {
            assert_eq!(guest.request().await.kind, Kind::List);
            let listing = Listing { execs };
            guest
                .send(&to_frame(1, Kind::Listing, &listing).unwrap())
                .await;
        };
        let (list, ()) = tokio::join!(session.list(), lie);
        let error = list.unwrap_err();
        assert!(matches!(error, SessionError::Violation { .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_answer_is_given_up_whatever_was_asked() {
    let (session, mut guest) = Guest::greeted().await;
    let asked = async {
        let spec = AttachSpec::default();
        let attach = session.attach(&spec).await.err().unwrap();
        assert_eq!(silent_for(&attach), 60);
        assert_eq!(silent_for(&session.list().await.unwrap_err()), 60);
        let freeze = session.freeze(Duration::from_secs(20)).await;
        assert_eq!(silent_for(&freeze.unwrap_err()), 30);
    };
    tokio::select! {
        () = asked => {}
        () = guest.only_live() => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_attach_that_is_answered_with_something_else_is_refused() {
    let (session, mut guest) = Guest::greeted().await;
    let lie = async {
        assert_eq!(guest.request().await.kind, Kind::Attach);
        guest.send(&Frame::new(1, Kind::Started, Vec::new())).await;
    };
    let spec = AttachSpec::default();
    let (attached, ()) = tokio::join!(session.attach(&spec), lie);
    let error = attached.err().unwrap();
    assert!(matches!(error, SessionError::Violation { .. }), "{error:?}");
}
