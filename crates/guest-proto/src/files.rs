//! Messages about files and folders: what is there, what changes, and requests that change it.
//!
//! Put and get of whole files are in [`crate::message`], which also says how messages are encoded.
//! Paths are strings, confined to `/work`, `/home/user` and `/tmp`; relative ones are under `/work`.
//! Names that the guest tells are bytes: Linux allows all but `/` and NUL in them.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Most entries of one [`Entries`]: what the guest-runner holds of a folder at once, however many
/// it has.
pub const MAX_PAGE_ENTRIES: u32 = 1000;
/// Longest name of an entry, in bytes; `NAME_MAX` of Linux.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest path, and longest text of a link, in bytes; `PATH_MAX` of Linux, its NUL included.
pub const MAX_PATH_BYTES: usize = 4096;
/// Most folders that one watch covers: each costs memory of the guest's kernel.
pub const MAX_WATCHED_FOLDERS: usize = 1024;
/// Most watches of one session: each has a thread.
pub const MAX_WATCHES: usize = 8;
/// Largest [`Events`] message, in bytes: a host that has granted so much may be sent one.
pub const MAX_EVENTS_BYTES: usize = 16 << 10;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, whatever it leads to.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// What is known of a file, a folder or a link without reading it. Links are not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a file; without meaning for the rest.
    pub size: u64,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// When it was last modified: nanoseconds since 1970-01-01 00:00 UTC.
    pub mtime_ns: i64,
    /// What a link says; empty for the rest.
    pub target: Vec<u8>,
}

/// Asks for a page of a folder's entries, which are told in the order of their names' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDirSpec {
    /// The folder.
    pub path: String,
    /// Only names after this one; empty is the beginning.
    pub after: Vec<u8>,
    /// Most entries wanted; 1 to [`MAX_PAGE_ENTRIES`].
    pub limit: u32,
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name; never empty, `.` or `..`, without `/` and NUL.
    pub name: Vec<u8>,
    /// What has it.
    pub stat: FileStat,
}

/// A page of a folder: fewer entries than asked for if they do not fit a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// In ascending order of their names' bytes.
    pub entries: Vec<Entry>,
    /// Names follow after the last of these; never with an empty page.
    pub more: bool,
}

/// Asks what is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatSpec {
    /// The path.
    pub path: String,
}

/// Opens a stream that reads a part of a regular file. [`FileStat`] comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetRangeSpec {
    /// Where from.
    pub path: String,
    /// First byte wanted. Nothing follows if the file ends before it.
    pub offset: u64,
    /// Most bytes wanted; [`crate::message::MAX_FILE_BYTES`] is the cap in any case.
    pub length: u64,
}

impl GetRangeSpec {
    /// Bytes that follow, of a file of `size` bytes.
    #[must_use]
    pub fn count(&self, size: u64) -> u64 {
        let wanted = self.length.min(crate::message::MAX_FILE_BYTES);
        size.saturating_sub(self.offset).min(wanted)
    }
}

/// Makes a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirSpec {
    /// Where.
    pub path: String,
    /// Its permission bits; those outside of 0o777 are ignored.
    pub mode: u32,
    /// Make missing folders above it too, and be content with a folder that is there.
    pub parents: bool,
}

/// Makes a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeLinkSpec {
    /// Where; missing folders are made.
    pub path: String,
    /// What it says. The guest-runner itself follows no link.
    pub target: String,
    /// Take the place of a file or link that is there.
    pub replace: bool,
}

/// Gives a file, a folder or a link another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveSpec {
    /// Where it is.
    pub from: String,
    /// Where it shall be; its folder has to exist.
    pub to: String,
    /// Take the place of what is there: of a file, of a link, or of an empty folder.
    pub replace: bool,
}

/// Removes a file, a link or a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveSpec {
    /// What.
    pub path: String,
    /// With all that a folder holds; without, one that holds something stays.
    pub recursive: bool,
}

/// Opens a stream that tells what changes in a folder, until the host ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// The folder.
    pub path: String,
    /// With all folders below it.
    pub recursive: bool,
}

/// Something that has changed. Paths are relative to the folder that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// This is new, or has taken the place of what was there.
    Created(Vec<u8>),
    /// Content or permissions changed, once or more often.
    Modified(Vec<u8>),
    /// This is gone, or has left what is watched.
    Deleted(Vec<u8>),
    /// This has another path.
    Moved {
        /// The path it had.
        from: Vec<u8>,
        /// The path it has.
        to: Vec<u8>,
    },
    /// More has changed than could be kept: whoever needs to know must look.
    Overflow,
    /// The folder itself is gone or has another path; nothing follows.
    Gone,
}

/// What has changed, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Never empty.
    pub changes: Vec<Change>,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::frame::{Frame, Kind};
    use crate::message::{MAX_FILE_BYTES, from_frame, to_frame};

    #[test]
    fn the_encoding_of_a_listing_is_the_documented_one() {
        let spec = ListDirSpec {
            path: "src".into(),
            after: vec![b'a'],
            limit: 1000,
        };
        let frame = to_frame(1, Kind::ListDir, &spec).unwrap();
        let expected = [
            3, b's', b'r', b'c', // path
            1, b'a', // after
            0xe8, 0x07, // limit: 1000
        ];
        assert_eq!(frame.payload, expected);
        let link = FileStat {
            kind: FileKind::Link,
            size: 1,
            mode: 0o777,
            mtime_ns: -1,
            target: vec![b'b'],
        };
        let page = Entries {
            entries: vec![Entry {
                name: vec![b'l'],
                stat: link,
            }],
            more: true,
        };
        let frame = to_frame(1, Kind::Entries, &page).unwrap();
        let expected = [
            1, 1, b'l', // one entry, its name
            2, 1, 0xff, 0x03, 1, 1, b'b', // link: size, mode, time, target
            1,    // more
        ];
        assert_eq!(frame.payload, expected);
        assert_eq!(from_frame::<Entries>(&frame), Ok(page));
    }

    #[test]
    fn a_range_ends_with_the_file() {
        let check = |offset, length, size, expected| {
            let path = String::new();
            let spec = GetRangeSpec {
                path,
                offset,
                length,
            };
            assert_eq!(spec.count(size), expected, "{spec:?}");
        };
        check(0, 10, 5, 5);
        check(2, 2, 5, 2);
        check(4, 10, 5, 1);
        check(5, 10, 5, 0);
        check(u64::MAX, u64::MAX, 5, 0);
        check(0, u64::MAX, u64::MAX, MAX_FILE_BYTES);
    }

    fn check_reencodes<T: DeserializeOwned + Serialize + PartialEq + core::fmt::Debug>(
        bytes: &[u8],
    ) {
        let frame = Frame::new(1, Kind::Exec, bytes.to_vec());
        if let Ok(message) = from_frame::<T>(&frame) {
            let again = to_frame(1, Kind::Exec, &message).unwrap();
            assert_eq!(from_frame::<T>(&again), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn fuzz_file_messages_reencode_to_an_equal_message(
            // Small values make plausible lengths and variants.
            bytes in vec(prop_oneof![4 => 0..6u8, 1 => any::<u8>()], 0..60),
        ) {
            check_reencodes::<FileStat>(&bytes);
            check_reencodes::<ListDirSpec>(&bytes);
            check_reencodes::<Entries>(&bytes);
            check_reencodes::<StatSpec>(&bytes);
            check_reencodes::<GetRangeSpec>(&bytes);
            check_reencodes::<MakeDirSpec>(&bytes);
            check_reencodes::<MakeLinkSpec>(&bytes);
            check_reencodes::<MoveSpec>(&bytes);
            check_reencodes::<RemoveSpec>(&bytes);
            check_reencodes::<WatchSpec>(&bytes);
            check_reencodes::<Events>(&bytes);
        }
    }
}
