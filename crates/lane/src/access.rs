//! What a lane does on its machine, whoever carries it there.
//!
//! [`Access`] lets in, [`Host`] carries out. Over SSH that is [`crate::ssh`]; tests have machines
//! that are made up, and the same lane.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use firelane_model::lane::Label;

/// Most bytes of either output of a command that are kept.
pub const MOST_OUTPUT: usize = 1 << 20;

/// A command on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments, as they are: no shell reads them.
    pub words: Vec<String>,
    /// As root.
    pub root: bool,
    /// What it reads.
    pub input: Vec<u8>,
    /// How long it may take in all.
    pub deadline: Duration,
}

impl Command {
    /// As the lane's user, with no input and a minute of time.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
        Command {
            words: words.into_iter().map(str::to_owned).collect(),
            root: false,
            input: Vec::new(),
            deadline: Duration::from_secs(60),
        }
    }

    /// The same as root.
    #[must_use]
    pub fn as_root(self) -> Command {
        Command { root: true, ..self }
    }

    /// The same with this to read.
    #[must_use]
    pub fn reading(self, input: impl Into<Vec<u8>>) -> Command {
        Command {
            input: input.into(),
            ..self
        }
    }

    /// The same with so much time.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Command {
        Command { deadline, ..self }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 128 and the number of a signal that ended it.
    pub code: i32,
    /// What it wrote, the first [`MOST_OUTPUT`] bytes.
    pub stdout: Vec<u8>,
    /// The same of its errors.
    pub stderr: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The machine does not let us in, or lets us no more.
    #[error("cannot log in at {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// In the words of the program that tried.
        cause: String,
    },
    /// It shows another key than the one that was planted there, or none that is known.
    #[error("the machine at {address} does not show the host key of this lane: {cause}")]
    WrongKey {
        /// Where.
        address: String,
        /// In the words of the program that tried.
        cause: String,
    },
    /// Not done in time. It may still run.
    #[error("{what} was not done after {} s", after.as_secs())]
    Late {
        /// What.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A program that this needs on our side failed.
    #[error("{what}: {cause}")]
    Failed {
        /// What.
        what: String,
        /// Why.
        cause: String,
    },
}

/// Whose keys count at a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those of the lane, which it planted.
    Planted,
    /// Those of whoever logs in, as their own SSH settings say, or these files.
    Own {
        /// A private key.
        identity: Option<String>,
        /// Keys of hosts.
        known_hosts: Option<String>,
    },
}

/// Where to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The lane.
    pub label: Label,
    /// Folder of the lane's keys and SSH settings.
    pub folder: PathBuf,
    /// Name or address.
    pub address: String,
    /// Port of its SSH server.
    pub port: u16,
    /// User. None: as the settings of whoever logs in say.
    pub login: Option<String>,
    /// Whose keys count.
    pub keys: Keys,
}

/// Lets in.
#[async_trait]
pub trait Access: Send + Sync {
    /// Logs in once; does not wait for a machine that is not there yet.
    async fn open(&self, door: &Door) -> Result<Box<dyn Host>, HostError>;
}

/// A machine that let us in.
#[async_trait]
pub trait Host: Send + Sync {
    /// Runs a command to its end. A command that fails is an [`Output`], not an error.
    async fn run(&self, command: &Command) -> Result<Output, HostError>;

    /// Makes a folder of the machine the same as one of ours; what is not in ours is removed there.
    async fn send(&self, from: &Path, to: &str, deadline: Duration) -> Result<(), HostError>;
}
