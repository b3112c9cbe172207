//! Messages of the session protocol: the payloads of frames that carry one.
//!
//! Encoded with postcard 1 (its wire format is stable and specified in the postcard book,
//! "Wire Format"): fields in order, unsigned integers as LEB128-style varints, strings and lists
//! prefixed with their length, enum variants by index. New fields need a new protocol version.

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Lang;
use crate::frame::{Frame, Kind};

/// First field of [`Hello`]: bytes that no other protocol starts with.
pub const MAGIC: [u8; 4] = *b"FLN\x01";
/// The newest version of the session protocol that this code speaks.
pub const VERSION: u16 = 2;
/// The oldest version of the session protocol that this code speaks.
pub const MIN_VERSION: u16 = 1;
/// Most environment variables in one [`ExecSpec`].
pub const MAX_ENV: usize = 1024;
/// Most arguments of one program.
pub const MAX_ARGS: usize = 1024;

/// First message of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// Oldest version the host speaks.
    pub min_version: u16,
    /// Newest version the host speaks.
    pub max_version: u16,
}

impl Hello {
    /// The hello of this code.
    #[must_use]
    pub fn ours() -> Hello {
        Hello {
            magic: MAGIC,
            min_version: MIN_VERSION,
            max_version: VERSION,
        }
    }

    /// The newest version that both sides speak, if there is one.
    #[must_use]
    pub fn agree(&self) -> Option<u16> {
        let newest = self.max_version.min(VERSION);
        let known = self.magic == MAGIC && newest >= self.min_version.max(MIN_VERSION);
        known.then_some(newest)
    }
}

/// Answer of the guest to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Version both sides use from here on.
    pub version: u16,
    /// Version of the guest-runner.
    pub runner: String,
    /// Release of the guest's kernel.
    pub kernel: String,
    /// Microseconds from the kernel's start to the guest-runner's.
    pub runner_started_us: u64,
    /// Microseconds from the kernel's start to listening on both ports.
    pub ready_us: u64,
    /// Memory that the guest has in all, in bytes.
    pub memory_bytes: u64,
}

/// Why a session ends, said before it is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// What the sender found wrong, or why it leaves.
    pub reason: String,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Source code, at most [`crate::MAX_CODE_BYTES`].
    Code {
        /// Language of the source.
        lang: Lang,
        /// The source as given.
        source: Vec<u8>,
        /// Arguments that the program gets.
        args: Vec<String>,
    },
    /// A command and its arguments, looked up on `PATH`.
    Command {
        /// Program name first.
        argv: Vec<String>,
    },
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PtySize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Bounds on one exec. Zero means the guest-runner's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall-clock time until the whole process tree is killed, in milliseconds; zero is unlimited.
    pub timeout_ms: u64,
    /// Memory of the process tree, files that it wrote included, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Bytes of each of stdout and stderr that are passed on; what is over is read and dropped.
    pub output_bytes: u64,
}

/// Opens an exec stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Name of the run in logs; the guest gives it to the program as `FIRELANE_TRACE_ID`.
    pub trace_id: String,
    /// What to run.
    pub program: Program,
    /// Variables set over the guest-runner's own, in order.
    pub env: Vec<(String, String)>,
    /// Working directory under `/work`, `/home/user` or `/tmp`, made if missing; a fresh one if
    /// absent.
    pub cwd: Option<String>,
    /// Bounds.
    pub limits: Limits,
    /// Run on a terminal of this size; stdout then carries everything it shows.
    pub pty: Option<PtySize>,
}

/// Why a request was not carried out, for callers to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedCode {
    /// The request is malformed or breaks a cap.
    Invalid,
    /// The guest has no interpreter for the language, or no such command.
    NoInterpreter,
    /// There is no such file.
    NotFound,
    /// The path leaves the folders that files may be put in or got from.
    Confined,
    /// A cap or the guest's memory or disk is exhausted.
    Exhausted,
    /// The guest-runner itself failed.
    Internal,
    /// The guest was warmed or frozen for a snapshot and has not been renewed since.
    Stale,
    /// Something is in the way: the name is taken, or the folder is not empty.
    Conflict,
    /// The programs' user may not do this.
    Denied,
    /// Another stream follows this detached exec now.
    TakenOver,
    /// It could not be done in time; nothing has changed.
    Busy,
}

/// The request on this stream was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For callers to branch on.
    pub code: RefusedCode,
    /// For people.
    pub message: String,
}

/// How the main process of an exec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How the main process ended.
    pub exit: Exit,
    /// The time limit ended it.
    pub timed_out: bool,
    /// The memory limit ended a process of the tree.
    pub out_of_memory: bool,
    /// Bytes of stdout were dropped.
    pub stdout_truncated: bool,
    /// Bytes of stderr were dropped.
    pub stderr_truncated: bool,
    /// Path of the interpreter or program that ran.
    pub interpreter: String,
    /// Wall-clock time of the exec in microseconds.
    pub wall_us: u64,
    /// CPU time of the process tree in microseconds.
    pub cpu_us: u64,
    /// Highest memory use of the process tree in bytes; zero where the kernel does not tell.
    pub peak_memory_bytes: u64,
}

/// Exit code of a run that its time limit ended.
pub const EXIT_TIMEOUT: i32 = 124;
/// Exit code of a run that was killed, or that its memory limit ended.
pub const EXIT_KILLED: i32 = 137;
/// Exit code of a run whose language has no interpreter in the guest.
pub const EXIT_NO_INTERPRETER: i32 = 127;

impl Outcome {
    /// The exit code that a shell would show: the program's own, 124 for the time limit, 137 for
    /// the memory limit, 128 plus the number for another signal.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self.exit {
            _ if self.timed_out => EXIT_TIMEOUT,
            Exit::Signal(_) if self.out_of_memory => EXIT_KILLED,
            Exit::Signal(signal) => 128 + signal,
            Exit::Code(code) => code,
        }
    }

    /// The signal that ended the main process, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.exit {
            Exit::Signal(signal) => Some(signal),
            Exit::Code(_) => None,
        }
    }
}

/// Opens a stream that writes one file. Relative paths are under `/work`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSpec {
    /// Where to, under `/work`, `/home/user` or `/tmp`; missing folders are made.
    pub path: String,
    /// Permission bits; others are ignored.
    pub mode: u32,
    /// Exact size in bytes.
    pub size: u64,
}

/// Opens a stream that reads one regular file. Relative paths are under `/work`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSpec {
    /// Where from, under `/work`, `/home/user` or `/tmp`.
    pub path: String,
    /// Refuse a file with more bytes than this.
    pub max_bytes: u64,
}

/// The file that a get sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Bytes that follow.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Prepares the guest for a snapshot.
///
/// Afterwards the interpreters that the template has wait for programs, and every request but
/// [`RenewSpec`] is refused as [`RefusedCode::Stale`]: what is common to all clones must not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmSpec {
    /// Programs that are run, so that what they load is in memory.
    pub snippets: Vec<(Lang, String)>,
    /// Variables that programs will find; interpreters read some of them when they start.
    pub env: Vec<(String, String)>,
}

/// Bytes of [`RenewSpec::seed`].
pub const SEED_BYTES: usize = 64;

/// Makes a clone different from all others of its snapshot. May be sent again at any time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewSpec {
    /// [`SEED_BYTES`] random bytes for the kernel's generator, which counts them as random and takes
    /// them in at once.
    pub seed: Vec<u8>,
    /// The time: nanoseconds since 1970-01-01 00:00 UTC.
    pub realtime_ns: u64,
    /// Name of the host inside; 1 to 63 letters, digits and hyphens.
    pub hostname: String,
    /// Content of `/etc/machine-id`. Source: systemd, machine-id(5).
    pub machine_id: [u8; 16],
}

impl core::fmt::Debug for RenewSpec {
    /// Without the seed, which is a secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RenewSpec")
            .field("realtime_ns", &self.realtime_ns)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// Stops the programs of a guest that is to be saved and goes on.
///
/// Afterwards every request but [`RenewSpec`] and [`ThawSpec`] is refused as [`RefusedCode::Stale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeSpec {
    /// How long it may take until all of them stand still, in milliseconds.
    pub timeout_ms: u32,
}

/// Lets a guest go on that was frozen and saved. It keeps its names, and shares no random numbers to
/// come with its clones.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThawSpec {
    /// As in [`RenewSpec::seed`].
    pub seed: Vec<u8>,
    /// The time: nanoseconds since 1970-01-01 00:00 UTC.
    pub realtime_ns: u64,
}

impl core::fmt::Debug for ThawSpec {
    /// Without the seed, which is a secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThawSpec")
            .field("realtime_ns", &self.realtime_ns)
            .finish_non_exhaustive()
    }
}

/// Longest name of a detached exec, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Detached execs in one guest, those included that have ended and were not forgotten.
pub const MAX_DETACHED: usize = 64;

/// Starts an exec that outlives the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Its name, the host's choice; see [`is_id`].
    pub id: String,
    /// What to run.
    pub exec: ExecSpec,
}

/// Whether this can be the name of a detached exec: 1 to [`MAX_ID_BYTES`] letters and digits of
/// ASCII, hyphens, underscores and dots.
#[must_use]
pub fn is_id(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&name.len()) && name.bytes().all(plain)
}

/// Opens a stream that follows a detached exec. Positions are counted in bytes from the exec's
/// start; the host has taken all before them, and what it grants later counts from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSpec {
    /// Its name.
    pub id: String,
    /// Position of the first byte of stdout to be sent; the oldest one that is kept if absent.
    pub stdout_from: Option<u64>,
    /// The same of stderr.
    pub stderr_from: Option<u64>,
}

/// Where a detached exec stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Number of its main process in the guest.
    pub pid: u32,
    /// Position of the first byte of stdout that follows.
    pub stdout_at: u64,
    /// The same of stderr.
    pub stderr_at: u64,
    /// Bytes of stdin that the guest has taken so far.
    pub stdin_at: u64,
}

/// Forgets a detached exec that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// Its name.
    pub id: String,
}

/// Whether a detached exec runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DetachedState {
    /// It does.
    Running,
    /// It has ended, and waits for somebody to take its outcome.
    Ended,
}

/// One detached exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// Whether it runs.
    pub state: DetachedState,
    /// Number of its main process in the guest.
    pub pid: u32,
    /// When it was started: nanoseconds since 1970-01-01 00:00 UTC, by the guest's clock.
    pub started_ns: u64,
}

/// The detached execs of a guest, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// At most [`MAX_DETACHED`].
    pub execs: Vec<Listed>,
}

/// Largest file that put and get carry, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// A payload that is not the message its frame kind promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?} message is malformed")]
pub struct BadMessage {
    kind: Kind,
}

/// A frame that carries `message`.
///
/// # Errors
/// [`BadMessage`] if the encoded message is over the cap of `kind`.
pub fn to_frame(stream: u32, kind: Kind, message: &impl Serialize) -> Result<Frame, BadMessage> {
    let payload = postcard::to_allocvec(message).map_err(|_| BadMessage { kind })?;
    if payload.len() > kind.max_payload() {
        return Err(BadMessage { kind });
    }
    Ok(Frame::new(stream, kind, payload))
}

/// The message that `frame` carries; trailing bytes are refused.
///
/// # Errors
/// [`BadMessage`] if the payload does not have the form of a `T`.
pub fn from_frame<T: DeserializeOwned>(frame: &Frame) -> Result<T, BadMessage> {
    match postcard::take_from_bytes(&frame.payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadMessage { kind: frame.kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn outcome(exit: Exit) -> Outcome {
        Outcome {
            exit,
            timed_out: false,
            out_of_memory: false,
            stdout_truncated: false,
            stderr_truncated: false,
            interpreter: "/usr/bin/python3".into(),
            wall_us: 1,
            cpu_us: 2,
            peak_memory_bytes: 3,
        }
    }

    #[test]
    fn exit_codes_are_those_a_shell_shows() {
        let check = |outcome: Outcome, expected| assert_eq!(outcome.exit_code(), expected);
        check(outcome(Exit::Code(3)), 3);
        check(outcome(Exit::Signal(11)), 139);
        check(outcome(Exit::Signal(9)), 137);
        let timed_out = true;
        check(
            Outcome {
                timed_out,
                ..outcome(Exit::Signal(9))
            },
            124,
        );
        let out_of_memory = true;
        check(
            Outcome {
                out_of_memory,
                ..outcome(Exit::Signal(9))
            },
            137,
        );
        // A shell that survived the death of its child decides its own exit code.
        check(
            Outcome {
                out_of_memory,
                ..outcome(Exit::Code(1))
            },
            1,
        );
    }

    #[test]
    fn versions_agree_on_the_newest_common_one() {
        let check = |min_version, max_version, expected| {
            let hello = Hello {
                magic: MAGIC,
                min_version,
                max_version,
            };
            assert_eq!(hello.agree(), expected);
        };
        check(1, 1, Some(1));
        check(1, 2, Some(2));
        check(2, 2, Some(2));
        check(1, 9, Some(2));
        check(3, 9, None);
        check(0, 0, None);
        assert_eq!(
            Hello {
                magic: *b"HTTP",
                ..Hello::ours()
            }
            .agree(),
            None
        );
    }

    #[test]
    fn the_encoding_of_an_exec_is_the_documented_one() {
        let spec = ExecSpec {
            trace_id: "t".into(),
            program: Program::Code {
                lang: Lang::Node,
                source: vec![0xff, 0x0a],
                args: vec!["-v".into()],
            },
            env: vec![("K".into(), "V".into())],
            cwd: None,
            limits: Limits {
                timeout_ms: 300,
                ..Limits::default()
            },
            pty: Some(PtySize { rows: 24, cols: 80 }),
        };
        let frame = to_frame(1, Kind::Exec, &spec).unwrap();
        let expected = [
            1, b't', // trace_id
            0, 2, 2, 0xff, 0x0a, // Code, node, two bytes of source
            1, 2, b'-', b'v', // its arguments
            1, 1, b'K', 1, b'V', // env
            0,    // no cwd
            0xac, 0x02, 0, 0, 0, // limits: 300 ms, rest default
            1, 24, 80, // terminal
        ];
        assert_eq!(frame.payload, expected);
        assert_eq!(from_frame::<ExecSpec>(&frame), Ok(spec));
    }

    #[test]
    fn a_whole_listing_fits_its_frame() {
        let listed = Listed {
            id: "i".repeat(MAX_ID_BYTES),
            state: DetachedState::Ended,
            pid: u32::MAX,
            started_ns: u64::MAX,
        };
        let listing = Listing {
            execs: vec![listed; MAX_DETACHED],
        };
        assert!(to_frame(1, Kind::Listing, &listing).is_ok());
    }

    #[test]
    fn the_encodings_of_version_2_are_the_documented_ones() {
        let attach = AttachSpec {
            id: "a".into(),
            stdout_from: Some(300),
            stderr_from: None,
        };
        let frame = to_frame(1, Kind::Attach, &attach).unwrap();
        assert_eq!(frame.payload, [1, b'a', 1, 0xac, 0x02, 0]);
        let freeze = FreezeSpec { timeout_ms: 300 };
        let frame = to_frame(1, Kind::Freeze, &freeze).unwrap();
        assert_eq!(frame.payload, [0xac, 0x02]);
    }

    #[test]
    fn names_of_detached_execs_are_plain_and_short() {
        for good in ["a", "build-1.2_x", &"x".repeat(MAX_ID_BYTES)] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a/b",
            "\u{e4}",
            "a\n",
            &"x".repeat(MAX_ID_BYTES + 1),
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut frame = to_frame(0, Kind::Hello, &Hello::ours()).unwrap();
        frame.payload.push(0);
        assert!(from_frame::<Hello>(&frame).is_err());
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
        fn fuzz_messages_reencode_to_an_equal_message(
            // Small values make plausible lengths and variants.
            bytes in vec(prop_oneof![4 => 0..6u8, 1 => any::<u8>()], 0..60),
        ) {
            check_reencodes::<Hello>(&bytes);
            check_reencodes::<Welcome>(&bytes);
            check_reencodes::<ExecSpec>(&bytes);
            check_reencodes::<Outcome>(&bytes);
            check_reencodes::<Refused>(&bytes);
            check_reencodes::<PutSpec>(&bytes);
            check_reencodes::<GetSpec>(&bytes);
            check_reencodes::<FileInfo>(&bytes);
            check_reencodes::<FreezeSpec>(&bytes);
            check_reencodes::<ThawSpec>(&bytes);
            check_reencodes::<LaunchSpec>(&bytes);
            check_reencodes::<AttachSpec>(&bytes);
            check_reencodes::<Attached>(&bytes);
            check_reencodes::<Forget>(&bytes);
            check_reencodes::<Listing>(&bytes);
        }
    }
}
