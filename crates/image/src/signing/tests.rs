//! Seals of made-up files, and what is said of those that were changed.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::remembered::Stamp;
use super::tree::Tree;
use super::{
    Content, Kind, Piece, RANGE_BYTES, Ranges, Refusal, Seal, SealedFile, Signing, Subject,
    Verified,
};
use crate::store::SnapshotOrigin;

struct Fixture {
    root: tempfile::TempDir,
    signing: Signing,
}

fn origin() -> SnapshotOrigin {
    SnapshotOrigin {
        cpu: "Some Processor @ 2 GHz".into(),
        initrd: "12.cpio".into(),
        kernel: "34".into(),
        memory_mib: 256,
        template: "base".into(),
        template_id: "56".into(),
        vcpus: 1,
        vmm: "qemu 7".into(),
    }
}

fn subject() -> Subject {
    Subject {
        kind: Kind::Snapshot,
        name: "one".into(),
        origin: Some(origin()),
    }
}

impl Fixture {
    /// A memory of four ranges, of which the second and the third are a hole, and a state.
    fn new() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let signing = Signing::open(&root.path().join("signing")).unwrap();
        let fixture = Fixture { root, signing };
        let mut memory = fs::File::create(fixture.path("memory")).unwrap();
        memory.write_all(&[1; RANGE_BYTES as usize]).unwrap();
        memory
            .seek(SeekFrom::Start(3 * u64::from(RANGE_BYTES)))
            .unwrap();
        memory.write_all(&[2; 100]).unwrap();
        fs::write(fixture.path("state"), "state").unwrap();
        fs::write(fixture.path("other"), "other").unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Opens the memory to be checked by ranges.
    fn ranges(&self) -> Option<Ranges> {
        let (seal, pieces) = (self.path("seal"), self.pieces());
        let ranges = self.signing.ranges(&seal, &subject(), &pieces[1]);
        ranges.unwrap()
    }

    /// Writes another byte to the memory, so long ago that nothing hides behind it.
    fn change_memory(&self, at: u64) {
        let memory = fs::OpenOptions::new().write(true).open(self.path("memory"));
        memory.unwrap().write_all_at(b"x", at).unwrap();
        self.settle();
    }

    /// Has the memory be another file than what is remembered, with the same content.
    fn touch_memory(&self) {
        let copy = self.path("copy");
        fs::copy(self.path("memory"), &copy).unwrap();
        fs::rename(copy, self.path("memory")).unwrap();
        self.settle();
    }

    /// Waits until what changes from now on has another time.
    fn settle(&self) {
        let stamp = Stamp::of(&self.path("memory")).unwrap();
        while !stamp.is_settled(Timestamp::now()) {
            std::thread::yield_now();
        }
    }

    fn lazy_pieces(&self) -> [Piece<'static>; 4] {
        let mut pieces = self.pieces();
        if let Content::Ranged { lazily, .. } = &mut pieces[1].content {
            *lazily = true;
        }
        pieces
    }

    fn pieces(&self) -> [Piece<'static>; 4] {
        let (file, leaves) = (self.path("memory"), self.path("leaves"));
        let content = [
            ("about", Content::Bytes(b"{}")),
            (
                "memory",
                Content::Ranged {
                    file,
                    leaves,
                    lazily: false,
                },
            ),
            ("other", Content::File(self.path("other"))),
            ("state", Content::File(self.path("state"))),
        ];
        content.map(|(name, content)| Piece { name, content })
    }

    fn seal(&self) -> u64 {
        let seal = self.path("seal");
        self.signing
            .seal(&seal, &subject(), &self.pieces(), Timestamp::now())
            .unwrap()
    }

    fn verify_as(&self, subject: &Subject) -> Result<Verified<()>, Refusal> {
        let (seal, now) = (self.path("seal"), Timestamp::now());
        self.signing.verify(&seal, subject, &self.pieces(), 0, now)
    }

    fn verify(&self) -> Result<Verified<()>, Refusal> {
        self.verify_as(&subject())
    }

    /// Verifies until every file is remembered: one that has just changed is not.
    fn verify_until_remembered(&self) {
        loop {
            self.verify().unwrap();
            if fs::read_dir(self.path("signing/verified")).unwrap().count() == 3 {
                return;
            }
        }
    }
}

#[test]
fn what_was_sealed_verifies() {
    let fixture = Fixture::new();
    assert_eq!(fixture.seal(), 1);
    let verified = fixture.verify().unwrap();
    assert!(verified.is_unchanged(Timestamp::now()));
    fs::write(fixture.path("state"), "state").unwrap();
    assert!(!verified.is_unchanged(Timestamp::now()));
}

#[test]
fn a_changed_file_is_refused_and_named_also_when_it_was_remembered() {
    fn check(change: impl Fn(&Path), expected: &str) {
        for remembered in [false, true] {
            let fixture = Fixture::new();
            fixture.seal();
            if remembered {
                fixture.verify_until_remembered();
            }
            change(fixture.root.path());
            let reason = fixture.verify().unwrap_err().to_string();
            assert_eq!(reason, expected);
        }
    }
    fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let range = RANGE_BYTES as usize;
    check(
        |root| flip(&root.join("memory"), 5),
        "memory has changed at or after byte 0",
    );
    check(
        |root| flip(&root.join("memory"), 2 * range),
        "memory has changed at or after byte 524288",
    );
    check(
        |root| flip(&root.join("memory"), 3 * range + 99),
        "memory has changed at or after byte 786432",
    );
    check(|root| flip(&root.join("state"), 0), "state has changed");
    check(
        |root| fs::write(root.join("state"), "stat").unwrap(),
        "state is truncated: it has 4 of 5 bytes",
    );
    check(
        |root| fs::write(root.join("state"), "states").unwrap(),
        "state has grown: it has 6 of 5 bytes",
    );
    check(
        |root| fs::remove_file(root.join("state")).unwrap(),
        "state is missing",
    );
    check(
        |root| {
            fs::copy(root.join("other"), root.join("state")).unwrap();
        },
        "state has the content of other",
    );
}

#[test]
fn a_changed_list_of_hashes_is_refused() {
    let check = |change: fn(&mut Vec<u8>), expected: &str| {
        let fixture = Fixture::new();
        fixture.seal();
        let path = fixture.path("leaves");
        let mut leaves = fs::read(&path).unwrap();
        change(&mut leaves);
        fs::write(&path, leaves).unwrap();
        // Not remembered: as after another boot of the host.
        fs::remove_dir_all(fixture.path("signing/verified")).unwrap();
        fs::create_dir(fixture.path("signing/verified")).unwrap();
        let reason = fixture.verify().unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}");
    };
    check(
        |leaves| leaves[0] ^= 1,
        "the list of hashes of memory has changed",
    );
    check(|leaves| leaves.truncate(64), "is truncated");
}

#[test]
fn holes_have_the_hashes_of_zeros() {
    let fixture = Fixture::new();
    let size = 3 * u64::from(RANGE_BYTES) + 100;
    let sparse = Tree::of(&fixture.path("memory"), size).unwrap();
    let dense = fixture.path("dense");
    fs::write(&dense, fs::read(fixture.path("memory")).unwrap()).unwrap();
    assert_eq!(Tree::of(&dense, size).unwrap(), sparse);
    assert_eq!(Tree::from_bytes(&sparse.to_bytes(), size), Some(sparse));
}

#[test]
fn ranges_are_checked_when_they_are_read() {
    let fixture = Fixture::new();
    fixture.seal();
    let range = u64::from(RANGE_BYTES);
    fixture.change_memory(range + 7);
    let ranges = fixture.ranges().unwrap();
    let (start, content) = ranges.read(17).unwrap();
    assert_eq!((start, content), (0, vec![1; RANGE_BYTES as usize]));
    assert!(!ranges.is_spoilt());
    let error = ranges.read(range).unwrap_err();
    assert!(matches!(error, Refusal::Changed { offset: Some(at), .. } if at == range));
    assert!(ranges.is_spoilt());
    assert_eq!(ranges.read(3 * range + 5).unwrap().1, [2; 100]);
    assert!(matches!(ranges.read(9 * range), Err(Refusal::Size { .. })));
    assert_eq!(ranges.checked(), (2, 4));
}

#[test]
fn a_piece_may_lie_in_several_ranges_and_not_beyond_the_last() {
    let fixture = Fixture::new();
    fixture.seal();
    let range = u64::from(RANGE_BYTES);
    fixture.touch_memory();
    let ranges = fixture.ranges().unwrap();
    let mut piece = vec![9; RANGE_BYTES as usize + 20];
    ranges.read_at(range - 10, &mut piece).unwrap();
    assert_eq!(piece[..10], [1; 10]);
    assert!(piece[10..].iter().all(|byte| *byte == 0));
    assert_eq!(ranges.checked(), (3, 4));
    // What was checked is read again, and is the same.
    ranges.read_at(range - 10, &mut piece[..20]).unwrap();
    assert_eq!((&piece[..10], &piece[10..20]), (&[1; 10][..], &[0; 10][..]));
    let error = ranges.read_at(3 * range + 90, &mut [0; 11]).unwrap_err();
    assert!(matches!(error, Refusal::Size { .. }), "{error:?}");
}

#[test]
fn a_range_that_was_checked_is_checked_again_once_the_file_has_changed() {
    let fixture = Fixture::new();
    fixture.seal();
    fixture.touch_memory();
    let ranges = fixture.ranges().unwrap();
    ranges.read_at(0, &mut [0; 8]).unwrap();
    fixture.change_memory(100);
    let error = ranges.read_at(0, &mut [0; 8]).unwrap_err();
    assert!(matches!(
        error,
        Refusal::Changed {
            offset: Some(0),
            ..
        }
    ));
    // Cut short, it is not what it was either.
    let memory = fs::OpenOptions::new()
        .write(true)
        .open(fixture.path("memory"));
    memory.unwrap().set_len(10).unwrap();
    let error = ranges.read_at(0, &mut [0; 8]).unwrap_err();
    assert!(matches!(
        error,
        Refusal::Changed {
            offset: Some(0),
            ..
        }
    ));
}

#[test]
fn a_file_of_which_all_ranges_were_checked_is_remembered_as_a_whole() {
    let fixture = Fixture::new();
    fixture.seal();
    fixture.touch_memory();
    let ranges = fixture.ranges().unwrap();
    ranges.read_at(0, &mut [0; 8]).unwrap();
    assert!(!ranges.is_whole());
    ranges.finish().unwrap();
    assert!(ranges.is_whole());
    assert!(
        fixture.ranges().is_none(),
        "it need not be checked any more"
    );
    fixture.change_memory(u64::from(RANGE_BYTES));
    assert!(fixture.ranges().is_some());
}

#[test]
fn a_file_with_a_range_that_did_not_verify_is_not_verified_lazily_any_more() {
    let fixture = Fixture::new();
    fixture.seal();
    let verify = || {
        let (seal, pieces) = (fixture.path("seal"), fixture.lazy_pieces());
        let now = Timestamp::now();
        fixture.signing.verify(&seal, &subject(), &pieces, 0, now)
    };
    let range = u64::from(RANGE_BYTES);
    fixture.change_memory(range + 7);
    verify().unwrap();
    let ranges = fixture.ranges().unwrap();
    ranges.read_at(0, &mut [0; 8]).unwrap();
    verify().unwrap();
    ranges.read_at(range, &mut [0; 8]).unwrap_err();
    let error = verify().unwrap_err();
    assert!(matches!(error, Refusal::Changed { offset: Some(at), .. } if at == range));
}

#[test]
fn a_seal_of_something_else_is_refused() {
    let fixture = Fixture::new();
    fixture.seal();
    let check = |change: &dyn Fn(&mut Subject, &mut SnapshotOrigin), expected: &str| {
        let (mut subject, mut origin) = (subject(), origin());
        change(&mut subject, &mut origin);
        subject.origin = Some(origin);
        let reason = fixture.verify_as(&subject).unwrap_err().to_string();
        assert_eq!(reason, expected);
    };
    check(
        &|_, origin| origin.cpu = "Another".into(),
        "it was made for the processor \"Some Processor @ 2 GHz\", this one is \"Another\"",
    );
    check(
        &|_, origin| origin.vmm = "qemu 8".into(),
        "it was made by the VMM \"qemu 7\", this host has \"qemu 8\"",
    );
    check(
        &|_, origin| origin.kernel = "35".into(),
        "it is of another machine: kernel is 34, not 35",
    );
    check(
        &|subject, _| subject.name = "two".into(),
        "it is the seal of snapshot one, not of snapshot two",
    );
    check(
        &|subject, _| subject.kind = Kind::Kept,
        "it is the seal of snapshot one, not of kept one",
    );
}

#[test]
fn older_epochs_and_expired_seals_are_refused() {
    let fixture = Fixture::new();
    let epoch = fixture.seal();
    fixture.signing.raise(&subject(), epoch).unwrap();
    assert_eq!(fixture.seal(), 2);
    let verify = |newest, now| {
        let seal = fixture.path("seal");
        let verified = fixture
            .signing
            .verify(&seal, &subject(), &fixture.pieces(), newest, now);
        verified.map(drop).map_err(|reason| reason.to_string())
    };
    let now = Timestamp::now();
    assert_eq!(verify(2, now), Ok(()));
    assert_eq!(
        verify(3, now).unwrap_err(),
        "its epoch 2 is older than 3, which was seen before"
    );
    let later = now + SignedDuration::from_hours(24 * 30) + SignedDuration::from_mins(1);
    assert_eq!(verify(2, later - SignedDuration::from_mins(2)), Ok(()));
    assert!(verify(2, later).unwrap_err().starts_with("it expired at"));
}

#[test]
fn an_unknown_key_is_refused_until_it_is_trusted() {
    let (maker, user) = (Fixture::new(), Fixture::new());
    maker.seal();
    for name in ["seal", "seal.minisig", "leaves"] {
        fs::copy(maker.path(name), user.path(name)).unwrap();
    }
    let Err(Refusal::UnknownKey { key }) = user.verify() else {
        panic!("it was taken");
    };
    let public = maker.path("signing/host.pub");
    assert_eq!(user.signing.keys().trust(&public).unwrap(), key);
    assert_eq!(user.signing.keys().trust(&public).unwrap(), key);
    user.verify().unwrap();
    let known = user.signing.keys().list().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].own, &known[0].id), (false, &key));
}

#[test]
fn a_signature_that_is_changed_or_cut_is_refused() {
    let fixture = Fixture::new();
    fixture.seal();
    let path = fixture.path("seal.minisig");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let check = |text: &str, expected: &str| {
        fs::write(&path, text).unwrap();
        let reason = fixture.verify().unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}: {text}");
    };
    check("", "the signature has not four lines");
    check(&lines[..3].join("\n"), "the signature has not four lines");
    check(
        &text.replace("epoch 1", "epoch 2"),
        "its signature is not that of key",
    );
    check(&text.replace(lines[3], "AAAA"), "too short");
    check(&text.replace(lines[3], &"A".repeat(88)), "");
    check(&text.replace(lines[3], &"!".repeat(88)), "cannot be read");
    check(&text.replace(lines[1], &"A".repeat(100)), "cannot be read");
    check(&"x".repeat(5000), "is longer than 4096 bytes");
    fs::remove_file(&path).unwrap();
    assert!(matches!(fixture.verify(), Err(Refusal::NotSigned)));
}

#[test]
fn a_file_that_was_not_sealed_is_no_part_of_it() {
    let fixture = Fixture::new();
    fixture.seal();
    let (seal, now) = (fixture.path("seal"), Timestamp::now());
    let verified = fixture
        .signing
        .verify(&seal, &subject(), &fixture.pieces()[..3], 0, now);
    assert!(matches!(verified, Err(Refusal::OtherFiles)));
}

#[test]
fn what_is_remembered_is_not_read_again() {
    let fixture = Fixture::new();
    fixture.seal();
    fixture.verify_until_remembered();
    // The hashes of the ranges are needed only where the memory is read.
    fs::remove_file(fixture.path("leaves")).unwrap();
    fixture.verify().unwrap();
    // A record of another boot of the host is none.
    for entry in fs::read_dir(fixture.path("signing/verified")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("boot\":\"", "boot\":\"0", 1)).unwrap();
    }
    assert!(matches!(fixture.verify(), Err(Refusal::Missing { .. })));
}

#[test]
fn the_secret_key_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    fixture.seal();
    let path = fixture.path("signing/host.key");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&fixture.path("signing")), 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let sealed = fixture.signing.seal(
        &fixture.path("seal"),
        &subject(),
        &fixture.pieces(),
        Timestamp::now(),
    );
    let error = sealed.unwrap_err();
    assert_eq!(
        error.remedy().unwrap(),
        format!("chmod 600 {}", path.display())
    );
}

#[test]
fn makers_of_the_first_key_end_with_the_same() {
    let fixture = Fixture::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| fixture.signing.keys().host().unwrap().0.to_base64()))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn a_pair_is_written_once_and_its_public_half_can_be_trusted() {
    let fixture = Fixture::new();
    let folder = fixture.path("pair");
    let id = super::write_pair(&folder).unwrap();
    assert!(super::write_pair(&folder).is_err());
    let keys = fixture.signing.keys();
    assert_eq!(keys.trust(&folder.join("firelane.pub")).unwrap(), id);
    for wrong in ["", "one line", "two\nlines", &"long".repeat(2000)] {
        fs::write(fixture.path("wrong"), wrong).unwrap();
        let error = keys.trust(&fixture.path("wrong")).unwrap_err();
        assert!(error.remedy().is_some(), "{error}");
    }
}

/// Agreement with minisign itself, where it is installed (Debian: minisign).
#[test]
fn minisign_verifies_seals() {
    let fixture = Fixture::new();
    fixture.seal();
    let verify = || {
        Command::new("minisign")
            .args(["-V", "-p"])
            .arg(fixture.path("signing/host.pub"))
            .arg("-m")
            .arg(fixture.path("seal"))
            .output()
    };
    let Ok(output) = verify() else {
        eprintln!("SKIP minisign_verifies_seals: minisign is not installed");
        return;
    };
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("firelane snapshot one epoch 1"), "{said}");
    fs::write(fixture.path("seal"), "{}").unwrap();
    assert!(!verify().unwrap().status.success());
}

fn seals() -> impl Strategy<Value = Seal> {
    let file = (
        "[0-9a-f]{64}",
        "\\PC{0,20}",
        proptest::option::of(any::<u32>()),
        0..1_u64 << 53,
    );
    let file = file.prop_map(|(hash, name, range_bytes, size)| SealedFile {
        hash,
        name,
        range_bytes,
        size,
    });
    let kind = prop_oneof![
        Just(Kind::Kernel),
        Just(Kind::Snapshot),
        Just(Kind::Kept),
        Just(Kind::Template)
    ];
    let files = proptest::collection::vec(file, 0..5);
    (any::<String>(), 0..1_u64 << 53, files, kind, any::<bool>()).prop_map(
        |(text, epoch, files, kind, has_origin)| Seal {
            created: text.clone(),
            epoch,
            expires: text.clone(),
            files,
            key: text.clone(),
            kind,
            name: text,
            origin: has_origin.then(origin),
            schema: 1,
        },
    )
}

proptest! {
    #[test]
    fn seals_read_back(seal in seals()) {
        prop_assert_eq!(Seal::parse(&seal.encode()).unwrap(), seal);
    }

    /// One meaning has one encoding: whatever is taken is written in the same way.
    #[test]
    fn no_other_bytes_mean_the_same(seal in seals(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = seal.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Seal::parse(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let fixture = Fixture::new();
    fixture.seal();
    let text = fs::read_to_string(fixture.path("seal")).unwrap();
    let check = |text: String, expected: &str| {
        let reason = Seal::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}: {text}");
    };
    check(format!("{text}\n"), "not canonical");
    check(text.replacen(':', ": ", 1), "not canonical");
    check(text.replace("\"schema\":1", "\"schema\":2"), "has schema 2");
    check(
        text.replace("\"epoch\":1", "\"epoch\":9007199254740992"),
        "too large",
    );
    check(text.replacen('{', "{\"a\":1,", 1), "unknown field");
    check(text[..text.len() / 2].to_owned(), "EOF");
}
