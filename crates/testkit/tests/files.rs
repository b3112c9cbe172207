//! Files of a real guest: listed, made, moved, removed, watched, packed and unpacked.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::path::PathBuf;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::files::{
    Change, FileKind, GetRangeSpec, ListDirSpec, MAX_WATCHES, MakeDirSpec, MakeLinkSpec, MoveSpec,
    RemoveSpec, WatchSpec,
};
use firelane_guest_proto::message::{ExecSpec, Limits, Program, PutSpec, RefusedCode};
use firelane_testkit::{Lab, Running};
use firelane_vmm::connect::connect;
use firelane_vmm::session::{
    ArchiveLimits, EntryProblem, Event, Session, SessionError, UnpackError, Unpacked, Watch,
};
use tokio::time::Instant;

/// A microVM that lives as long as this.
struct Guest {
    lab: Lab,
    running: Running,
    vsock: PathBuf,
}

impl Guest {
    fn boot() -> Guest {
        let lab = Lab::new();
        let code = "echo up; read -r x";
        let args = ["run", "--template", "base", "--timeout", "10m", "--lang"];
        let command = lab.command(&[&args[..], &["bash", "-c", code]].concat());
        let mut running = Running::start(command, b"");
        assert_eq!(running.line(), "up\n");
        let vsock = lab.microvms()[0].path.join("v.sock");
        Guest {
            lab,
            running,
            vsock,
        }
    }

    async fn session(&self) -> Session {
        let deadline = Instant::now() + Duration::from_secs(30);
        let stream = connect(&self.vsock, SESSION_PORT, deadline).await.unwrap();
        Session::open(stream).await.unwrap()
    }

    fn end(self) {
        assert_eq!(self.running.end().code, 1);
        self.lab.assert_empty();
    }
}

/// What a script in the guest says.
async fn shell(session: &Session, script: &str) -> String {
    let spec = ExecSpec {
        trace_id: "test".into(),
        program: Program::Command {
            argv: ["bash", "-c", script].map(String::from).to_vec(),
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits {
            timeout_ms: 300_000,
            ..Limits::default()
        },
        pty: None,
    };
    let mut exec = session.exec(&spec).await.unwrap();
    exec.stdin().end().await.unwrap();
    let mut said = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) | Event::Stderr(bytes) => said.extend(bytes),
            Event::Ended(_) => return String::from_utf8(said).unwrap(),
            Event::Started => {}
        }
    }
}

/// Why the guest refused.
fn code<T: std::fmt::Debug>(result: Result<T, SessionError>) -> RefusedCode {
    match result {
        Err(SessionError::Refused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn put(path: &str, size: usize) -> PutSpec {
    PutSpec {
        path: path.into(),
        mode: 0o644,
        size: size as u64,
    }
}

fn range(path: &str, offset: u64, length: u64) -> GetRangeSpec {
    GetRangeSpec {
        path: path.into(),
        offset,
        length,
    }
}

fn folder(path: &str, parents: bool) -> MakeDirSpec {
    MakeDirSpec {
        path: path.into(),
        mode: 0o750,
        parents,
    }
}

fn link(path: &str, target: &str, replace: bool) -> MakeLinkSpec {
    MakeLinkSpec {
        path: path.into(),
        target: target.into(),
        replace,
    }
}

fn moved(from: &str, to: &str, replace: bool) -> MoveSpec {
    MoveSpec {
        from: from.into(),
        to: to.into(),
        replace,
    }
}

fn gone(path: &str, recursive: bool) -> RemoveSpec {
    RemoveSpec {
        path: path.into(),
        recursive,
    }
}

fn list(path: &str, after: &[u8], limit: u32) -> ListDirSpec {
    ListDirSpec {
        path: path.into(),
        after: after.into(),
        limit,
    }
}

/// All names of a folder, page by page.
async fn names(session: &Session, path: &str, limit: u32) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().cloned().unwrap_or_default();
        let spec = list(path, after.as_bytes(), limit);
        let page = session.list_dir(&spec).await.unwrap();
        let new = page.entries.into_iter();
        names.extend(new.map(|entry| String::from_utf8(entry.name).unwrap()));
        if !page.more {
            return names;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_described_listed_changed_and_read_in_part() {
    let guest = Guest::boot();
    let session = guest.session().await;

    // Stat and ranges.
    session
        .put(&put("f", 10), &b"0123456789"[..])
        .await
        .unwrap();
    shell(
        &session,
        "touch -d @1700000000.5 /work/f; chmod 640 /work/f",
    )
    .await;
    let stat = session.stat("f").await.unwrap();
    let known = (stat.kind, stat.size, stat.mode, stat.mtime_ns);
    let expected = (FileKind::File, 10, 0o640, 1_700_000_000_500_000_000);
    assert_eq!(known, expected);
    let part = async |offset, length| {
        let mut bytes = Vec::new();
        let spec = range("f", offset, length);
        let stat = session.get_range(&spec, &mut bytes).await.unwrap();
        assert_eq!(stat.size, 10);
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(part(2, 3).await, "234");
    assert_eq!(part(8, u64::MAX).await, "89");
    assert_eq!(part(10, 1).await, "");
    assert_eq!(part(u64::MAX, u64::MAX).await, "");
    assert_eq!(session.stat("/work").await.unwrap().kind, FileKind::Folder);
    assert_eq!(code(session.stat("none").await), RefusedCode::NotFound);
    assert_eq!(
        code(session.stat("/etc/passwd").await),
        RefusedCode::Confined
    );
    assert_eq!(code(session.stat("../etc").await), RefusedCode::Confined);
    assert_eq!(code(session.stat("a\0b").await), RefusedCode::Confined);

    // Folders and links belong to the programs' user; a link is told, not followed.
    session.make_dir(&folder("a/b/c", true)).await.unwrap();
    session.make_dir(&folder("a/b/c", true)).await.unwrap();
    assert_eq!(
        code(session.make_dir(&folder("a/b", false)).await),
        RefusedCode::Conflict
    );
    assert_eq!(
        code(session.make_dir(&folder("x/y", false)).await),
        RefusedCode::NotFound
    );
    assert_eq!(
        code(session.make_dir(&folder("f", true)).await),
        RefusedCode::Conflict
    );
    session
        .make_link(&link("a/l", "/etc", false))
        .await
        .unwrap();
    let again = session.make_link(&link("a/l", "b", false)).await;
    assert_eq!(code(again), RefusedCode::Conflict);
    let said = shell(&session, "cd /work; stat -c '%n %U %a' a/b/c; readlink a/l").await;
    assert_eq!(said, "a/b/c user 750\n/etc\n");
    let stat = session.stat("a/l").await.unwrap();
    assert_eq!((stat.kind, &*stat.target), (FileKind::Link, &b"/etc"[..]));
    assert_eq!(
        code(session.stat("a/l/passwd").await),
        RefusedCode::Confined
    );
    assert_eq!(
        code(session.list_dir(&list("a/l", b"", 9)).await),
        RefusedCode::Confined
    );
    assert_eq!(
        code(session.make_dir(&folder("a/l/x", true)).await),
        RefusedCode::Confined
    );
    session.make_link(&link("a/l", "b", true)).await.unwrap();

    // Moves.
    session.put(&put("g", 1), &b"g"[..]).await.unwrap();
    assert_eq!(
        code(session.move_to(&moved("f", "g", false)).await),
        RefusedCode::Conflict
    );
    assert_eq!(
        code(session.move_to(&moved("f", "x/f", false)).await),
        RefusedCode::NotFound
    );
    assert_eq!(
        code(session.move_to(&moved("f", "/etc/f", true)).await),
        RefusedCode::Confined
    );
    assert_eq!(
        code(session.move_to(&moved("a", "a/b/d", true)).await),
        RefusedCode::Invalid
    );
    session.move_to(&moved("f", "g", true)).await.unwrap();
    session.move_to(&moved("g", "/tmp/g", false)).await.unwrap();
    session.move_to(&moved("a/l", "l", false)).await.unwrap();
    assert_eq!(names(&session, "/work/a", 1).await, ["b"]);

    // What a program closes to itself is closed to the host; what it may not touch, too.
    shell(
        &session,
        "mkdir /work/closed; echo x > /work/secret; chmod 0 /work/closed /work/secret",
    )
    .await;
    assert_eq!(
        code(session.list_dir(&list("closed", b"", 9)).await),
        RefusedCode::Denied
    );
    let closed = session
        .get_range(&range("secret", 0, 9), tokio::io::sink())
        .await;
    assert_eq!(code(closed), RefusedCode::Denied);

    // Pages of a large folder: each name once, in order.
    let made = "mkdir /work/many; cd /work/many; touch $(seq 2500); printf x > $'not\\xffutf8'; mkfifo pipe";
    shell(&session, made).await;
    let page = session.list_dir(&list("many", b"not", 3)).await.unwrap();
    let found: Vec<_> = page
        .entries
        .iter()
        .map(|e| (&*e.name, e.stat.kind))
        .collect();
    let expected = [
        (&b"not\xffutf8"[..], FileKind::File),
        (b"pipe", FileKind::Other),
    ];
    assert_eq!((found.as_slice(), page.more), (&expected[..], false));
    shell(&session, "rm /work/many/not*").await;
    let mut expected: Vec<String> = (1..=2500).map(|n| n.to_string()).collect();
    expected.push("pipe".into());
    expected.sort();
    assert_eq!(names(&session, "many", 1000).await, expected);
    assert_eq!(
        code(session.list_dir(&list("l/b", b"", 9)).await),
        RefusedCode::Confined
    );
    assert_eq!(
        code(session.list_dir(&list("secret", b"", 9)).await),
        RefusedCode::Invalid
    );
    assert_eq!(
        code(session.list_dir(&list("many", b"", 0)).await),
        RefusedCode::Invalid
    );

    // Removal: never through a link, however deep.
    let made = "cd /work; mkdir -p out; echo kept > out/f; d=deep; for i in {1..100}; do d=$d/d; done; mkdir -p $d; ln -s /work/out $d/l; ln -s /work/out deep/l";
    shell(&session, made).await;
    assert_eq!(
        code(session.remove(&gone("deep", false)).await),
        RefusedCode::Conflict
    );
    session.remove(&gone("deep", true)).await.unwrap();
    session.remove(&gone("many", true)).await.unwrap();
    session.remove(&gone("l", true)).await.unwrap();
    assert_eq!(
        code(session.remove(&gone("deep", true)).await),
        RefusedCode::NotFound
    );
    assert_eq!(
        code(session.remove(&gone("/work", true)).await),
        RefusedCode::Invalid
    );
    assert_eq!(
        code(session.remove(&gone("/etc", true)).await),
        RefusedCode::Confined
    );
    let left = shell(
        &session,
        "cd /work; cat out/f; ls -d deep many l 2>/dev/null",
    )
    .await;
    assert_eq!(left, "kept\n");

    // As many tiny files as the guest has room for: one more is refused, a page stays a page, and
    // room comes back with their removal.
    let made = "mkdir tiny; cd tiny; seq 100000 | xargs touch 2>&1 | grep -c 'No space'";
    let full = shell(&session, &format!("cd /work; {made}")).await;
    assert_ne!(full, "0\n", "there is room for a hundred thousand");
    let one_more = session.put(&put("more", 1), &b"x"[..]).await;
    assert_eq!(code(one_more), RefusedCode::Exhausted);
    let one_more = session.make_dir(&folder("more", true)).await;
    assert_eq!(code(one_more), RefusedCode::Exhausted);
    let start = Instant::now();
    let page = session.list_dir(&list("tiny", b"", 1000)).await.unwrap();
    eprintln!("a page of a full guest took {:?}", start.elapsed());
    assert_eq!((page.entries.len(), page.more), (1000, true));
    let start = Instant::now();
    session.remove(&gone("tiny", true)).await.unwrap();
    eprintln!("its files were removed in {:?}", start.elapsed());
    session.put(&put("more", 1), &b"x"[..]).await.unwrap();
    assert!(
        !names(&session, "/work", 1000)
            .await
            .contains(&"tiny".into())
    );
    drop(session);
    guest.end();
}

/// Changes up to the one that is waited for.
async fn until(watch: &mut Watch, last: &Change) -> Vec<Change> {
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seen.contains(last) {
        let next = tokio::time::timeout_at(deadline, watch.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{last:?} does not come: {seen:?}"));
        seen.extend(next.unwrap().expect("the folder is still there"));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_a_folder_is_told_until_nobody_listens() {
    let guest = Guest::boot();
    let session = guest.session().await;
    let spec = WatchSpec {
        path: "w".into(),
        recursive: true,
    };
    assert_eq!(
        code(session.watch(&spec).await.map(drop)),
        RefusedCode::NotFound
    );
    session.make_dir(&folder("w/sub", true)).await.unwrap();
    let mut watch = session.watch(&spec).await.unwrap();

    session.put(&put("w/sub/f", 1), &b"x"[..]).await.unwrap();
    let created = Change::Created(b"sub/f".to_vec());
    assert_eq!(until(&mut watch, &created).await, [created]);
    shell(
        &session,
        "cd /work/w/sub; for i in {1..200}; do echo $i >> f; done; mv f ../g; rm ../g",
    )
    .await;
    let seen = until(&mut watch, &Change::Deleted(b"g".to_vec())).await;
    let modified = Change::Modified(b"sub/f".to_vec());
    let modifications = seen.iter().filter(|change| **change == modified).count();
    assert!((1..200).contains(&modifications), "{modifications}");
    let moved = Change::Moved {
        from: b"sub/f".to_vec(),
        to: b"g".to_vec(),
    };
    assert!(seen.contains(&moved), "{seen:?}");

    // More than anybody takes: the loss is told.
    shell(
        &session,
        "mkdir /work/w/n; cd /work/w/n; touch $(seq 20000); rm -r /work/w/n",
    )
    .await;
    let seen = until(&mut watch, &Change::Overflow).await;
    assert!(
        seen.contains(&Change::Created(b"n".to_vec())),
        "{}",
        seen.len()
    );

    // As many as a session may have; one that is dropped makes room.
    let mut watches = vec![watch];
    while watches.len() < MAX_WATCHES {
        watches.push(session.watch(&spec).await.unwrap());
    }
    assert_eq!(
        code(session.watch(&spec).await.map(drop)),
        RefusedCode::Exhausted
    );
    drop(watches.pop());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = loop {
        match session.watch(&spec).await {
            Ok(watch) => break watch,
            refused => assert_eq!(code(refused.map(drop)), RefusedCode::Exhausted),
        }
        assert!(Instant::now() < deadline, "no watch is freed");
    };
    drop(watches);
    session.remove(&gone("w", true)).await.unwrap();
    until(&mut last, &Change::Gone).await;
    assert_eq!(last.next().await.unwrap(), None);
    drop((last, session));
    guest.end();
}

/// An archive of these entries; what ends with `/` is a folder.
fn archive<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in entries {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let fields = format!(
            "0000644\x000000000\x000000000\x00{:011o}\x0000000000000\x00",
            content.len()
        );
        header[100..100 + fields.len()].copy_from_slice(fields.as_bytes());
        header[156] = if name.ends_with('/') { b'5' } else { b'0' };
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend(header);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_go_in_and_out_and_keep_to_their_folder() {
    let guest = Guest::boot();
    let session = guest.session().await;
    let limits = ArchiveLimits::default();

    // Ten thousand small files, in folders of a hundred.
    let files: Vec<String> = (0..10_000)
        .map(|n| format!("d{:02}/file-{n}", n / 100))
        .collect();
    let content = vec![b'x'; 100];
    let many = archive(files.iter().map(|name| (name.as_str(), content.as_slice())));
    let start = Instant::now();
    let unpacked = session.unpack("/work/many", &limits, &*many).await.unwrap();
    eprintln!("10000 files unpacked in {:?}", start.elapsed());
    let expected = Unpacked {
        entries: 10_000,
        bytes: 1_000_000,
    };
    assert_eq!(unpacked, expected);
    let said = shell(
        &session,
        "cd /work/many; find . -type f -size 100c | wc -l; stat -c %U d99/file-9999",
    )
    .await;
    assert_eq!(said, "10000\nuser\n");
    let start = Instant::now();
    let mut bytes = Vec::new();
    let packed = session
        .pack("/work/many", &limits, &mut bytes)
        .await
        .unwrap();
    eprintln!("10000 files packed in {:?}", start.elapsed());
    assert_eq!(
        (packed.entries, packed.bytes, packed.skipped),
        (10_100, 1_000_000, 0)
    );
    session.remove(&gone("/work/many", true)).await.unwrap();

    // There and back: modes, links, long names, a large file; pipes are left out.
    let made = "mkdir -p /work/t/sub; cd /work/t; head -c 3000000 /dev/urandom > large; printf hi > sub/x; chmod 4750 sub/x
        ln -s ../large sub/link; touch sub/$(printf n%.0s {1..200}); mkfifo pipe; mkdir empty";
    shell(&session, made).await;
    let mut tree = Vec::new();
    let packed = session.pack("/work/t", &limits, &mut tree).await.unwrap();
    assert_eq!(
        (packed.entries, packed.bytes, packed.skipped),
        (6, 3_000_002, 1)
    );
    session.unpack("/work/u", &limits, &*tree).await.unwrap();
    let same = "rm /work/t/pipe; chmod 750 /work/t/sub/x; cd /work; diff -r t u && for d in t u; do (cd $d; find . ! -name . -printf '%p %y %m %l\\n' | sort) > $d.list; done; cmp t.list u.list && echo same";
    assert_eq!(shell(&session, same).await, "same\n");
    // The archive is one for others, too.
    let listed = std::process::Command::new("python3")
        .args(["-c", "import sys, tarfile; print(sorted(m.name[:9] for m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|')))"])
        .stdin(file_with(&tree))
        .output()
        .unwrap();
    let expected = "['empty', 'large', 'sub', 'sub/link', 'sub/nnnnn', 'sub/x']\n";
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout),
        expected,
        "{listed:?}"
    );

    // Links that a program planted lead nowhere; what is refused is named, with what is done.
    shell(&session, "mkdir /work/v; ln -s /tmp /work/v/out").await;
    let through = archive([("a", &b"1"[..]), ("out/b", b"2"), ("c", b"3")]);
    let error = session
        .unpack("/work/v", &limits, &*through)
        .await
        .unwrap_err();
    let UnpackError::Guest { entry, source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (entry.as_str(), code(Err::<(), _>(source))),
        ("out/b", RefusedCode::Confined)
    );
    let leaving = archive([("a", &b"1"[..]), ("../b", b"2"), ("c", b"3")]);
    let error = session
        .unpack("/work/x", &limits, &*leaving)
        .await
        .unwrap_err();
    let UnpackError::Entry {
        entry,
        source,
        written,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(
        (entry.as_str(), source, written),
        ("../b", EntryProblem::Parent, 1)
    );
    assert_eq!(names(&session, "/work/x", 10).await, ["a"]);

    // A full disk is told, and nothing half-written has a name.
    let big = vec![7u8; 48 << 20];
    let full = loop {
        let number = names(&session, "/work/x", 100).await.len();
        match session
            .put(&put(&format!("x/big{number}"), big.len()), &*big)
            .await
        {
            Ok(()) => assert!(number < 100, "the disk has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(Err::<(), _>(full)), RefusedCode::Exhausted);
    let sizes = shell(&session, "cd /work/x; stat -c %s big*; ls -A | grep -v big").await;
    let mut lines: Vec<&str> = sizes.lines().collect();
    assert_eq!(lines.pop(), Some("a"));
    assert!(lines.iter().all(|size| *size == "50331648"), "{sizes}");
    session.remove(&gone("/work/x", true)).await.unwrap();
    session.put(&put("again", 1), &b"x"[..]).await.unwrap();
    drop(session);
    guest.end();
}

/// The bytes as another program's standard input.
fn file_with(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}
