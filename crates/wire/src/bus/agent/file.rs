//! What an agent is asked about files of sandboxes. Any of it wakes a sandbox that is paused.
//!
//! What is larger than a message goes through a pipe: opened, written or read in parts of at most
//! [`MAX_PART_BYTES`], and closed. A pipe that nobody uses for [`PIPE_IDLE_S`] seconds is closed by the
//! agent; what was put is then as if it had never been begun.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::SandboxRef;
use crate::bus::Call;
use crate::file::{Entry, FileEvent, Folder, MoveRequest};

/// Most bytes of one part.
pub const MAX_PART_BYTES: usize = 256 << 10;
/// Seconds after which a pipe that nobody uses is closed.
pub const PIPE_IDLE_S: u64 = 60;

/// What is at a path. Links are not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFile {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its path.
    pub path: String,
}

impl Call for StatFile {
    const NAME: &'static str = "file.stat";
    type Answer = Entry;
}

/// A page of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFolder {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its path.
    pub path: String,
    /// The page begins after this name; empty for the first.
    #[serde(with = "serde_bytes")]
    pub after: Vec<u8>,
    /// Most entries.
    pub limit: u32,
}

impl Call for ListFolder {
    const NAME: &'static str = "file.list";
    type Answer = Folder;
}

/// Makes a folder, and those above it that are missing. One that is there stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeFolder {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its path.
    pub path: String,
}

impl Call for MakeFolder {
    const NAME: &'static str = "file.make_folder";
    type Answer = ();
}

/// Gives a file, a folder or a link another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveFile {
    /// Where.
    pub sandbox: SandboxRef,
    /// From where to where.
    pub request: MoveRequest,
}

impl Call for MoveFile {
    const NAME: &'static str = "file.move";
    type Answer = ();
}

/// Removes a file, a link or a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveFile {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its path.
    pub path: String,
    /// A folder with all that it holds.
    pub recursive: bool,
}

impl Call for RemoveFile {
    const NAME: &'static str = "file.remove";
    type Answer = ();
}

/// Opens a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPipe {
    /// Where.
    pub sandbox: SandboxRef,
    /// What goes through it.
    pub what: Piped,
}

/// What goes through a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piped {
    /// Into a file, which is there once all of it is.
    Put {
        /// Its path.
        path: String,
        /// Bytes, exactly.
        size: u64,
        /// Permission bits.
        mode: u32,
    },
    /// Out of a file.
    Get {
        /// Its path.
        path: String,
        /// The first byte.
        offset: u64,
        /// Most bytes.
        length: u64,
    },
    /// A tar archive, into a folder.
    Unpack {
        /// Its path.
        path: String,
    },
    /// A folder, as a tar archive.
    Pack {
        /// Its path.
        path: String,
    },
    /// What changes in a folder.
    Watch {
        /// Its path.
        path: String,
        /// What changes below its folders too.
        recursive: bool,
    },
}

/// A pipe that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeOpened {
    /// Its name.
    pub pipe: Uuid,
    /// Of [`Piped::Get`]: the whole file.
    pub entry: Option<Entry>,
}

impl Call for OpenPipe {
    const NAME: &'static str = "pipe.open";
    type Answer = PipeOpened;
}

/// The next part, into a pipe; answered when there is room for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WritePipe {
    /// Which.
    pub pipe: Uuid,
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl Call for WritePipe {
    const NAME: &'static str = "pipe.write";
    type Answer = ();
}

/// Nothing follows; answered when all of it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishPipe {
    /// Which.
    pub pipe: Uuid,
}

/// What went through a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeDone {
    /// Of an archive: entries written.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

impl Call for FinishPipe {
    const NAME: &'static str = "pipe.finish";
    type Answer = PipeDone;
}

/// The next part, out of a pipe; waits for it a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPipe {
    /// Which.
    pub pipe: Uuid,
    /// How long to wait, in milliseconds.
    pub wait_ms: u64,
}

/// A part of what comes out of a pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipePart {
    /// Bytes of a file or an archive.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Changes of a watch.
    pub events: Vec<FileEvent>,
    /// Nothing follows, and the pipe is closed.
    pub end: bool,
}

impl Call for ReadPipe {
    const NAME: &'static str = "pipe.read";
    type Answer = PipePart;
}

/// Closes a pipe, whatever became of it; one that is not there is closed already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosePipe {
    /// Which.
    pub pipe: Uuid,
}

impl Call for ClosePipe {
    const NAME: &'static str = "pipe.close";
    type Answer = ();
}
