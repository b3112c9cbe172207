//! Archives that were made to harm, and guests that lie while one is packed.

use firelane_guest_proto::files::{Entries, Entry, FileKind, FileStat, GetRangeSpec, ListDirSpec};
use tar::{EntryType, Header};

use super::*;

const LIMITS: ArchiveLimits = ArchiveLimits {
    entries: 100,
    bytes: 1 << 20,
    file_bytes: 1 << 19,
};

/// One entry, its header as given.
fn raw(kind: EntryType, name: &[u8], target: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    raw(EntryType::Regular, name.as_bytes(), b"", b"content")
}

/// A guest that does all that it is asked, and what that was: the kind and the path.
async fn obey(guest: &mut Guest, seen: &mut Vec<(Kind, String)>) {
    loop {
        let frame = guest.request().await;
        let ends = match frame.kind {
            Kind::Put => {
                let spec: PutSpec = from_frame(&frame).unwrap();
                seen.push((frame.kind, spec.path));
                false
            }
            Kind::MakeDir => {
                let spec: firelane_guest_proto::files::MakeDirSpec = from_frame(&frame).unwrap();
                seen.push((frame.kind, spec.path));
                true
            }
            Kind::MakeLink => {
                let spec: firelane_guest_proto::files::MakeLinkSpec = from_frame(&frame).unwrap();
                seen.push((frame.kind, format!("{} -> {}", spec.path, spec.target)));
                true
            }
            kind => kind == Kind::End,
        };
        if ends {
            let done = Frame::new(frame.stream, Kind::Done, Vec::new());
            guest.send(&done).await;
        }
    }
}

async fn unpacked(archive: &[u8]) -> (Result<Unpacked, UnpackError>, Vec<(Kind, String)>) {
    let (session, mut guest) = Guest::greeted().await;
    let mut seen = Vec::new();
    let result = tokio::select! {
        result = session.unpack("/work/d", &LIMITS, archive) => result,
        () = obey(&mut guest, &mut seen) => unreachable!(),
    };
    (result, seen)
}

#[tokio::test(start_paused = true)]
async fn names_of_every_form_find_their_place() {
    let long = format!("{}/{}", "a".repeat(120), "b".repeat(120));
    let record = format!("252 path={long}c\n");
    let target = format!("117 linkpath={}\n", "t".repeat(103));
    let archive = [
        raw(EntryType::Directory, b"./", b"", b""),
        raw(EntryType::Directory, b"./d/", b"", b""),
        raw(
            EntryType::GNULongName,
            b"././@LongLink",
            b"",
            format!("{long}\0").as_bytes(),
        ),
        file("cut"),
        raw(EntryType::XGlobalHeader, b"g", b"", b"17 comment=hello\n"),
        raw(EntryType::XHeader, b"x", b"", record.as_bytes()),
        file("cut"),
        raw(EntryType::XHeader, b"x", b"", target.as_bytes()),
        raw(EntryType::Symlink, b"d/l", b"cut", b""),
        vec![0; 1024],
        file("after-the-end"),
    ]
    .concat();
    assert_eq!(record.len(), 252);
    assert_eq!(target.len(), 117);
    let (result, seen) = unpacked(&archive).await;
    let expected = [
        (Kind::MakeDir, "/work/d".to_owned()),
        (Kind::MakeDir, "/work/d/d".to_owned()),
        (Kind::Put, format!("/work/d/{long}")),
        (Kind::Put, format!("/work/d/{long}c")),
        (
            Kind::MakeLink,
            format!("/work/d/d/l -> {}", "t".repeat(103)),
        ),
    ];
    assert_eq!(seen, expected);
    let unpacked = Unpacked {
        entries: 4,
        bytes: 14,
    };
    assert_eq!(result.unwrap(), unpacked);
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_is_none_ends_with_what_was_written() {
    let check = async |tail: Vec<u8>, expected: &str| {
        let archive = [file("good"), tail].concat();
        let error = unpacked(&archive).await.0.unwrap_err();
        let UnpackError::Malformed { written, what } = error else {
            panic!("{error:?}");
        };
        assert_eq!((written, what), (1, expected));
    };
    check(vec![b'x'; 512], "a header whose checksum is wrong").await;
    check(file("cut")[..300].to_vec(), "it ends within a header").await;
    check(file("cut")[..515].to_vec(), "it ends within an entry").await;
    let mut huge = Header::new_gnu();
    huge.set_entry_type(EntryType::GNULongName);
    huge.set_size(u64::MAX / 2);
    huge.set_cksum();
    check(
        huge.as_bytes().to_vec(),
        "a record before an entry is too long",
    )
    .await;
    let endless = raw(EntryType::XHeader, b"x", b"", b"11 path=ab\n").repeat(20);
    check(endless, "too many records before an entry").await;
    for record in [
        &b"path=a\n"[..],
        b"99 path=a\n",
        b"9 path=ab\n",
        b"4 a\n",
        b"1 a=b\n",
        b"a",
    ] {
        let bad = raw(EntryType::XHeader, b"x", b"", record);
        check(bad, "a record before an entry is malformed").await;
    }
    let two = [raw(EntryType::XHeader, b"x", b"", b"9 size=8\n"), file("f")].concat();
    check(two, "an entry with two sizes").await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_refused_is_named_and_ends_the_work() {
    let check = async |bad: Vec<u8>, name: &str, expected: EntryProblem| {
        let archive = [file("good"), bad, file("later")].concat();
        let (result, seen) = unpacked(&archive).await;
        let error = result.unwrap_err();
        let UnpackError::Entry {
            entry,
            written,
            source,
        } = error
        else {
            panic!("{error:?}");
        };
        assert_eq!((entry.as_str(), written, source), (name, 1, expected));
        assert_eq!(seen.len(), 2, "{seen:?}");
    };
    check(file("../up"), "../up", EntryProblem::Parent).await;
    check(file("/etc/passwd"), "/etc/passwd", EntryProblem::Absolute).await;
    let link = raw(EntryType::Symlink, b"l", b"/etc", b"");
    check(link, "l", EntryProblem::LinkLeaves).await;
    let what = "a hard link";
    let hard = raw(EntryType::Link, b"h", b"good", b"");
    check(hard, "h", EntryProblem::Kind { what }).await;
    let nul = raw(EntryType::XHeader, b"x", b"", b"12 path=a\0b\n");
    check([nul, file("f")].concat(), "a\\0b", EntryProblem::Nul).await;
    let large = raw(EntryType::Regular, b"large", b"", &vec![0; (1 << 19) + 1]);
    let problem = EntryProblem::TooLarge {
        bytes: (1 << 19) + 1,
        cap: 1 << 19,
    };
    check(large, "large", problem).await;
}

#[tokio::test(start_paused = true)]
async fn entries_and_bytes_are_counted() {
    let many: Vec<u8> = (0..101).flat_map(|n| file(&format!("f{n}"))).collect();
    let error = unpacked(&many).await.0.unwrap_err();
    assert!(
        matches!(&error, UnpackError::Entry { entry, written: 100, source: EntryProblem::TooMany { cap: 100 } } if entry == "f100"),
        "{error:?}"
    );
    let half = raw(EntryType::Regular, b"half", b"", &vec![0; 60_000]).repeat(20);
    let error = unpacked(&half).await.0.unwrap_err();
    assert!(
        matches!(
            &error,
            UnpackError::Entry {
                written: 17,
                source: EntryProblem::Total { cap: 1_048_576 },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn small_files_do_not_wait_for_each_other_but_for_the_window() {
    let archive: Vec<u8> = (0..40).flat_map(|n| file(&format!("f{n}"))).collect();
    let (session, mut guest) = Guest::greeted().await;
    let answers = async {
        let root = guest.request().await;
        assert_eq!(root.kind, Kind::MakeDir);
        guest
            .send(&Frame::new(root.stream, Kind::Done, Vec::new()))
            .await;
        let mut open = Vec::new();
        let second = Duration::from_secs(1);
        // All that come without an answer.
        while let Ok(frame) = timeout(second, guest.request()).await {
            if frame.kind == Kind::Put {
                open.push(frame.stream);
            }
        }
        assert_eq!(open.len(), 16);
        // The fourth fails: the others that are under way are counted, and no more come.
        for (number, stream) in open.into_iter().enumerate() {
            let full = Refused {
                code: RefusedCode::Exhausted,
                message: "no space".into(),
            };
            let answer = if number == 3 {
                to_frame(stream, Kind::Refused, &full).unwrap()
            } else {
                Frame::new(stream, Kind::Done, Vec::new())
            };
            guest.send(&answer).await;
        }
        let mut later = Vec::new();
        obey(&mut guest, &mut later).await;
    };
    let error = tokio::select! {
        result = session.unpack("d", &LIMITS, &*archive) => result.unwrap_err(),
        () = answers => unreachable!(),
    };
    let UnpackError::Guest {
        entry,
        written,
        source,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(entry, "f3");
    assert!((15..=18).contains(&written), "{written}");
    assert!(
        matches!(source, SessionError::Refused(refused) if refused.code == RefusedCode::Exhausted)
    );
}

fn listed(name: &[u8], kind: FileKind) -> Entry {
    let target = if kind == FileKind::Link { "../t" } else { "" };
    Entry {
        name: name.into(),
        stat: FileStat {
            kind,
            size: 3,
            mode: 0o4755,
            mtime_ns: 0,
            target: target.into(),
        },
    }
}

/// A guest with these entries in every folder; each file has three bytes, or is gone.
async fn serve(guest: &mut Guest, entries: &[Entry], more: bool) {
    loop {
        let frame = guest.request().await;
        let (id, done) = (
            frame.stream,
            Frame::new(frame.stream, Kind::Done, Vec::new()),
        );
        match frame.kind {
            Kind::ListDir => {
                let spec: ListDirSpec = from_frame(&frame).unwrap();
                let mut page = Entries {
                    entries: entries.to_vec(),
                    more,
                };
                for entry in &mut page.entries {
                    // Always more, always in order.
                    let prefix = spec.after.get(..8).map_or(0, |number| {
                        1 + str::from_utf8(number).unwrap().parse::<u32>().unwrap()
                    });
                    if more {
                        let name = [format!("{prefix:08}").as_bytes(), &entry.name].concat();
                        entry.name = name;
                    }
                }
                guest
                    .send(&to_frame(id, Kind::Entries, &page).unwrap())
                    .await;
                guest.send(&done).await;
            }
            Kind::GetRange => {
                let spec: GetRangeSpec = from_frame(&frame).unwrap();
                if spec.path.ends_with("gone") {
                    let gone = Refused {
                        code: RefusedCode::NotFound,
                        message: String::new(),
                    };
                    guest
                        .send(&to_frame(id, Kind::Refused, &gone).unwrap())
                        .await;
                    continue;
                }
                let stat = listed(b"f", FileKind::File).stat;
                guest
                    .send(&to_frame(id, Kind::FileStat, &stat).unwrap())
                    .await;
                guest.send(&Frame::data(id, Channel::File, b"abc")).await;
                guest.send(&Frame::end(id, Channel::File)).await;
                guest.send(&done).await;
            }
            _ => {}
        }
    }
}

async fn packed(entries: &[Entry], more: bool) -> (Result<Packed, PackError>, Vec<u8>) {
    let (session, mut guest) = Guest::greeted().await;
    let mut archive = Vec::new();
    let result = tokio::select! {
        result = session.pack("d", &LIMITS, &mut archive) => result,
        () = serve(&mut guest, entries, more) => unreachable!(),
    };
    (result, archive)
}

#[tokio::test(start_paused = true)]
async fn a_packed_folder_is_an_archive_that_can_be_read() {
    let long = [b'n'; 200];
    let entries = [
        listed(b"f", FileKind::File),
        listed(b"gone", FileKind::File),
        listed(b"l", FileKind::Link),
        listed(&long, FileKind::File),
        listed(b"pipe", FileKind::Other),
    ];
    let (result, archive) = packed(&entries, false).await;
    let expected = Packed {
        entries: 3,
        bytes: 6,
        skipped: 2,
    };
    assert_eq!(result.unwrap(), expected);
    let mut found: Vec<(Vec<u8>, u32, u64)> = tar::Archive::new(&*archive)
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.header().mode().unwrap();
            (entry.path_bytes().to_vec(), mode, entry.size())
        })
        .collect();
    found.sort();
    let expected = [
        (b"f".to_vec(), 0o755, 3),
        (b"l".to_vec(), 0o755, 0),
        (long.to_vec(), 0o755, 3),
    ];
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_folder_without_end_is_packed_up_to_the_bound() {
    let check = async |kind, more| {
        let error = packed(&[listed(b"x", kind)], more).await.0.unwrap_err();
        assert!(
            matches!(
                &error,
                PackError::Entry {
                    source: EntryProblem::TooMany { cap: 100 } | EntryProblem::TooLong,
                    ..
                }
            ),
            "{kind:?}: {error:?}"
        );
    };
    // Names without end, and folders in folders without end.
    check(FileKind::Other, true).await;
    check(FileKind::Link, true).await;
    check(FileKind::File, true).await;
    check(FileKind::Folder, false).await;
}

proptest::proptest! {
    #[test]
    fn fuzz_no_archive_asks_for_what_is_outside(
        parts in proptest::collection::vec(hostile_entry(), 0..6),
        cut in proptest::num::usize::ANY,
    ) {
        let mut archive = parts.concat();
        archive.truncate(archive.len() - cut % (archive.len() / 8 + 1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let (_, seen) = runtime.block_on(unpacked(&archive));
        for (_, path) in seen {
            proptest::prop_assert!(path.starts_with("/work/d"), "{path}");
            let place = path.split(" -> ").next().unwrap();
            proptest::prop_assert!(place.split('/').all(|part| part != ".."), "{path}");
        }
    }
}

fn hostile_entry() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let name = "[a./\\x00]{0,12}";
    let kind = prop_oneof![
        4 => Just(b'0'), 2 => Just(b'2'), 1 => Just(b'5'), 1 => Just(b'L'), 1 => Just(b'x'),
        1 => any::<u8>(),
    ];
    (kind, name, name, "[a./= 0-9\n]{0,20}").prop_map(|(kind, name, target, content)| {
        let kind = EntryType::new(kind);
        raw(kind, name.as_bytes(), target.as_bytes(), content.as_bytes())
    })
}
