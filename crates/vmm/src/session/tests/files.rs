//! Lies about files: each is found, named, and costs the host no more than its bound.

use firelane_guest_proto::files::{
    Change, Entries, Entry, Events, FileKind, FileStat, GetRangeSpec, ListDirSpec, RemoveSpec,
    WatchSpec,
};
use serde::Serialize;

use super::*;

fn stat(kind: FileKind) -> FileStat {
    let target = if kind == FileKind::Link { "t" } else { "" };
    FileStat {
        kind,
        size: 3,
        mode: 0o644,
        mtime_ns: 0,
        target: target.into(),
    }
}

fn entry(name: &[u8]) -> Entry {
    Entry {
        name: name.into(),
        stat: stat(FileKind::File),
    }
}

fn message(kind: Kind, message: &impl Serialize) -> Frame {
    to_frame(1, kind, message).unwrap()
}

fn done() -> Frame {
    Frame::new(1, Kind::Done, Vec::new())
}

/// What comes of a request that the guest answers with these frames.
async fn answered<T>(
    asked: impl AsyncFn(&Session) -> Result<T, SessionError>,
    answers: Vec<Frame>,
) -> Result<T, SessionError> {
    let (session, mut guest) = Guest::greeted().await;
    let answer = async {
        guest.request().await;
        for frame in &answers {
            guest.send(frame).await;
        }
        // A host that has found a lie leaves; one that waits is to see that we live.
        if answers.is_empty() {
            guest.only_live().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = asked(&session) => result,
        () = answer => unreachable!(),
    }
}

fn broke<T: std::fmt::Debug>(result: Result<T, SessionError>) -> String {
    match result {
        Err(SessionError::Violation { what }) => what,
        other => panic!("believed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_cannot_be_are_refused() {
    let page = async |entries: Vec<Entry>, more| {
        let asked = async |session: &Session| {
            let spec = ListDirSpec {
                path: "d".into(),
                after: b"b".into(),
                limit: 2,
            };
            session.list_dir(&spec).await
        };
        let page = Entries { entries, more };
        answered(asked, vec![message(Kind::Entries, &page), done()]).await
    };
    let honest = page(vec![entry(b"c"), entry(b"d")], true).await;
    assert_eq!(honest.unwrap().entries.len(), 2);
    let check = async |names: &[&[u8]], more, expected: &str| {
        let entries = names.iter().map(|name| entry(name)).collect();
        assert_eq!(broke(page(entries, more).await), expected, "{names:?}");
    };
    check(
        &[b"c", b"d", b"e"],
        false,
        "more entries than were asked for",
    )
    .await;
    check(&[], true, "an empty page, and more to come").await;
    check(&[b"d", b"c"], false, "entries that are not in order").await;
    check(&[b"c", b"c"], false, "entries that are not in order").await;
    check(&[b"b"], true, "entries that are not in order").await;
    let bad = "a name that no file can have";
    for name in [&b""[..], b".", b"..", b"c/d", b"c\0", &[b'c'; 256]] {
        check(&[name], false, bad).await;
    }
    let mut lie = entry(b"c");
    lie.stat.target = b"t".into();
    let found = broke(page(vec![lie], false).await);
    assert_eq!(found, "a link without a target, or one that cannot be");
}

#[tokio::test(start_paused = true)]
async fn answers_of_another_kind_are_refused() {
    let asked = async |session: &Session| session.stat("f").await;
    let honest = vec![message(Kind::FileStat, &stat(FileKind::Link)), done()];
    assert_eq!(answered(asked, honest).await.unwrap().target, b"t");
    let found = broke(answered(asked, vec![done()]).await);
    assert_eq!(found, "a Done frame in place of FileStat");
    let twice = vec![message(Kind::FileStat, &stat(FileKind::File)); 2];
    let found = broke(answered(asked, twice).await);
    assert_eq!(found, "a FileStat frame in place of its word");
    let stranger = vec![message(
        Kind::Entries,
        &Entries {
            entries: Vec::new(),
            more: false,
        },
    )];
    let found = broke(answered(asked, stranger).await);
    assert_eq!(found, "a Entries frame in place of FileStat");
    let mut bits = stat(FileKind::File);
    bits.mode = 0o10_000;
    let lie = vec![message(Kind::FileStat, &bits), done()];
    let found = broke(answered(asked, lie).await);
    assert_eq!(found, "permission bits that do not exist");
    let request = vec![message(
        Kind::Watch,
        &WatchSpec {
            path: "f".into(),
            recursive: true,
        },
    )];
    let ended = answered(asked, request).await.unwrap_err();
    assert!(
        ended.to_string().contains("a Watch frame from the guest"),
        "{ended}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_range_has_the_bytes_that_its_file_has() {
    let range = async |bytes: &[u8], stat: FileStat| {
        let asked = async |session: &Session| {
            let spec = GetRangeSpec {
                path: "f".into(),
                offset: 1,
                length: 10,
            };
            let mut content = Vec::new();
            session
                .get_range(&spec, &mut content)
                .await
                .map(|_| content)
        };
        let answers = vec![
            message(Kind::FileStat, &stat),
            Frame::data(1, Channel::File, bytes),
            Frame::end(1, Channel::File),
            done(),
        ];
        answered(asked, answers).await
    };
    let file = stat(FileKind::File);
    assert_eq!(range(b"bc", file.clone()).await.unwrap(), b"bc");
    let found = broke(range(b"bcd", file.clone()).await);
    assert_eq!(found, "more bytes than announced");
    let found = broke(range(b"b", file).await);
    assert_eq!(found, "a Done frame during a get");
    let found = broke(range(b"bc", stat(FileKind::Folder)).await);
    assert_eq!(found, "the bytes of what is no file");
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_only_what_can_be() {
    let watched = async |changes: Vec<Change>, channel| {
        let asked = async |session: &Session| {
            let spec = WatchSpec {
                path: "d".into(),
                recursive: true,
            };
            session.watch(&spec).await?.next().await
        };
        let mut events = message(Kind::Events, &Events { changes });
        events.channel = channel;
        let started = Frame::new(1, Kind::Started, Vec::new());
        answered(asked, vec![started, events]).await
    };
    let moved = Change::Moved {
        from: b"a/b".into(),
        to: b"c".into(),
    };
    let honest = watched(vec![moved.clone()], Channel::File).await;
    assert_eq!(honest.unwrap(), Some(vec![moved]));
    let found = broke(watched(Vec::new(), Channel::File).await);
    assert_eq!(found, "events of nothing");
    for path in [&b"/etc"[..], b"../x", b"a//b", b"a\0", b""] {
        let found = broke(watched(vec![Change::Created(path.into())], Channel::File).await);
        assert_eq!(found, "a name that no file can have", "{path:?}");
    }
    let found = broke(watched(vec![Change::Overflow], Channel::None).await);
    assert_eq!(found, "data on a channel that is not the guest's");
}

#[tokio::test(start_paused = true)]
async fn events_that_nobody_takes_are_bounded_by_their_window() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = WatchSpec {
        path: "d".into(),
        recursive: false,
    };
    let flood = async {
        guest.request().await;
        guest.send(&Frame::new(1, Kind::Started, Vec::new())).await;
        let changes = vec![Change::Created(vec![b'n'; 255]); 60];
        let mut events = message(Kind::Events, &Events { changes });
        events.channel = Channel::File;
        for _ in 0..=INITIAL_WINDOW as usize / events.payload.len() {
            guest.send(&events).await;
        }
        std::future::pending::<()>().await;
    };
    let taken = async {
        let mut watch = session.watch(&spec).await.unwrap();
        // Nothing is taken until the guest has sent all.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut count = 0;
        loop {
            match watch.next().await {
                Ok(changes) => count += changes.map_or(0, |changes| changes.len()),
                Err(error) => return (count, error),
            }
        }
    };
    tokio::select! {
        (count, error) = taken => {
            assert!(error.to_string().contains("the guest broke the protocol"), "{error}");
            assert!(count <= INITIAL_WINDOW as usize / 255, "{count}");
        }
        () = flood => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_never_answered_are_given_up() {
    let asked = async |session: &Session| session.stat("f").await;
    let error = answered(asked, Vec::new()).await.unwrap_err();
    assert_eq!(silent_for(&error), 60);
    let asked = async |session: &Session| {
        let spec = RemoveSpec {
            path: "d".into(),
            recursive: true,
        };
        session.remove(&spec).await
    };
    let error = answered(asked, Vec::new()).await.unwrap_err();
    assert_eq!(silent_for(&error), 900);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_left_tells_the_guest() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = put(10);
    let (mut source, content) = tokio::io::duplex(64);
    let mut putting = Box::pin(session.put(&spec, content));
    source.write_all(b"some").await.unwrap();
    tokio::select! {
        put = &mut putting => panic!("{put:?}"),
        frame = guest.request() => assert_eq!(frame.kind, Kind::Put),
    }
    drop(putting);
    let end = guest.request().await;
    assert_eq!((end.kind, end.channel), (Kind::End, Channel::File));
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_not_held_against_the_guest() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = put(3);
    let (mut source, content) = tokio::io::duplex(1);
    let feed = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            source.write_all(b"x").await.unwrap();
        }
    };
    let obey = async {
        loop {
            let frame = guest.request().await;
            if frame.kind == Kind::End {
                let done = Frame::new(frame.stream, Kind::Done, Vec::new());
                guest.send(&done).await;
            }
        }
    };
    let put = async { tokio::join!(session.put(&spec, content), feed).0 };
    tokio::select! {
        put = put => put.unwrap(),
        () = obey => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_left_tells_the_guest() {
    let (session, mut guest) = Guest::greeted().await;
    let spec = WatchSpec {
        path: "d".into(),
        recursive: false,
    };
    let answer = async {
        assert_eq!(guest.request().await.kind, Kind::Watch);
        guest.send(&Frame::new(1, Kind::Started, Vec::new())).await;
    };
    let (watch, ()) = tokio::join!(session.watch(&spec), answer);
    drop(watch.unwrap());
    let end = guest.request().await;
    assert_eq!((end.kind, end.channel), (Kind::End, Channel::File));
}
