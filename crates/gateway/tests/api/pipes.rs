//! Files of the fake agent, and the pipes in and out of them.
//!
//! | path | what is there |
//! | --- | --- |
//! | `/work/a.txt` | ten digits |
//! | `/work/empty` | nothing |
//! | `/work/long` | more than a part; out of a pipe comes one part, then a failure |
//! | `/work/short` | ten bytes are said, five come |
//! | `/work/slow` | many bytes are said; one part comes, and no other |
//! | `/work/huge` | more than goes at once, all of it zeros |
//! | `/work` | a folder of three names, one of them no text |
//! | `/work/full` | a file that can be put nowhere |

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use firelane_store::bus::{BusError, Server};
use firelane_wire::bus::{
    ClosePipe, FinishPipe, ListFolder, MakeFolder, MoveFile, OpenPipe, PipeDone, PipeOpened,
    PipePart, Piped, ReadPipe, RemoveFile, StatFile, WritePipe,
};
use firelane_wire::file::{Entry, EntryKind, FileEvent, FileEventKind, Folder};
use firelane_wire::problem::{Code, Problem};
use uuid::Uuid;

use crate::fake::Asked;

pub(crate) const DIGITS: &[u8] = b"0123456789";
/// Bytes that `/work/long` and `/work/slow` say that they have.
pub(crate) const LONG: u64 = 1 << 20;
/// Bytes of `/work/huge`.
pub(crate) const HUGE: u64 = 5 << 30;
/// Bytes of a part.
const PART: u64 = 64 << 10;

/// What goes through a pipe.
#[derive(Clone)]
struct Open {
    what: Piped,
    /// Bytes that went through.
    bytes: u64,
}

type Pipes = Arc<Mutex<BTreeMap<Uuid, Open>>>;

pub(crate) async fn register(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    entries(server, asked.clone()).await?;
    let pipes = Pipes::default();
    let (all, notes) = (Arc::clone(&pipes), asked.clone());
    server
        .on(move |call: OpenPipe| {
            notes.note(&call);
            let opened = open(call.what, &all);
            async { opened }
        })
        .await?;
    let (all, notes) = (Arc::clone(&pipes), asked.clone());
    server
        .on(move |call: WritePipe| {
            let bytes = call.bytes.len();
            notes.note(&format_args!("WritePipe {bytes} {}", call.pipe));
            let mut pipes = all.lock().expect("nobody panics");
            let written = match pipes.get_mut(&call.pipe) {
                Some(open) => {
                    open.bytes += bytes as u64;
                    Ok(())
                }
                None => Err(gone(call.pipe)),
            };
            async { written }
        })
        .await?;
    let (all, notes) = (Arc::clone(&pipes), asked.clone());
    server
        .on(move |call: FinishPipe| {
            notes.note(&call);
            let open = all.lock().expect("nobody panics").remove(&call.pipe);
            async move {
                let open = open.ok_or_else(|| gone(call.pipe))?;
                let entries = 2;
                let bytes = open.bytes;
                Ok(PipeDone { entries, bytes })
            }
        })
        .await?;
    let all = Arc::clone(&pipes);
    server
        .on(move |call: ReadPipe| {
            let part = read(&all, call.pipe);
            async move {
                match part? {
                    Some(part) => Ok(part),
                    // It waits for a while; no test waits for the end of that.
                    None => pending().await,
                }
            }
        })
        .await?;
    server
        .on(move |call: ClosePipe| {
            asked.note(&call);
            pipes.lock().expect("nobody panics").remove(&call.pipe);
            async { Ok(()) }
        })
        .await
}

fn gone(pipe: Uuid) -> Problem {
    Problem::not_found("pipe", pipe)
}

fn entry(name: &str, kind: EntryKind, size: u64) -> Entry {
    Entry {
        name: name.into(),
        name_base64: None,
        kind,
        size,
        mode: 0o644,
        modified_at: "1994-11-06T08:49:37Z".into(),
        target: None,
    }
}

fn file(path: &str) -> Result<Entry, Problem> {
    let size = match path {
        "/work/a.txt" | "/work/short" | "/work/ä b%20c" => 10,
        "/work/empty" => 0,
        "/work/long" | "/work/slow" => LONG,
        "/work/huge" => HUGE,
        _ => return Err(Problem::not_found("file", path)),
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    Ok(entry(name, EntryKind::File, size))
}

fn open(what: Piped, pipes: &Pipes) -> Result<PipeOpened, Problem> {
    let entry = match &what {
        Piped::Get { path, .. } => Some(file(path)?),
        Piped::Put { path, .. } if path == "/work/full" => {
            return Err(Problem::new(Code::StorageFull, "the guest's disk is full"));
        }
        _ => None,
    };
    let pipe = Uuid::now_v7();
    let open = Open { what, bytes: 0 };
    pipes.lock().expect("nobody panics").insert(pipe, open);
    Ok(PipeOpened { pipe, entry })
}

/// The next part; none where it would be waited for.
fn read(pipes: &Pipes, pipe: Uuid) -> Result<Option<PipePart>, Problem> {
    let mut pipes = pipes.lock().expect("nobody panics");
    let open = pipes.get_mut(&pipe).ok_or_else(|| gone(pipe))?;
    let first = open.bytes == 0;
    let part = match &open.what {
        Piped::Get {
            path,
            offset,
            length,
        } => {
            let size = file(path)?.size;
            let count = size.saturating_sub(*offset).min(*length);
            match path.as_str() {
                "/work/long" | "/work/slow" if first => part(vec![7; PART as usize], false),
                "/work/long" => return Err(Problem::new(Code::Unavailable, "the guest is gone")),
                "/work/slow" => return Ok(None),
                "/work/short" => part(DIGITS[..5].to_vec(), true),
                "/work/huge" => part(vec![0; count.min(PART) as usize], false),
                _ => {
                    let (first, count) = (*offset as usize, count as usize);
                    part(DIGITS[first..first + count].to_vec(), true)
                }
            }
        }
        Piped::Pack { path } if path == "/work/long" => match first {
            true => part(vec![7; 512], false),
            false => return Err(Problem::new(Code::Unavailable, "the guest is gone")),
        },
        Piped::Pack { .. } => part(vec![7; 1024], true),
        Piped::Watch { path, .. } if path == "/work/slow" && !first => return Ok(None),
        Piped::Watch { path, .. } => watched(path != "/work/slow"),
        Piped::Put { .. } | Piped::Unpack { .. } => {
            return Err(Problem::new(Code::Internal, "nothing comes out of it"));
        }
    };
    open.bytes += (part.bytes.len() + part.events.len()) as u64;
    if part.end {
        pipes.remove(&pipe);
    }
    Ok(Some(part))
}

fn part(bytes: Vec<u8>, end: bool) -> PipePart {
    let events = Vec::new();
    PipePart { bytes, events, end }
}

/// Something is made and moved, and then perhaps the folder is gone.
fn watched(gone: bool) -> PipePart {
    let event = |kind, path: &str, to: Option<&str>| FileEvent {
        kind,
        path: path.into(),
        to: to.map(str::to_owned),
    };
    let mut events = vec![
        event(FileEventKind::Created, "a", None),
        event(FileEventKind::Moved, "a", Some("b")),
    ];
    if gone {
        events.push(event(FileEventKind::Gone, "", None));
    }
    PipePart {
        bytes: Vec::new(),
        events,
        end: gone,
    }
}

async fn entries(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    server
        .on(|call: StatFile| async move { file(&call.path) })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: ListFolder| {
            notes.note(&call);
            async move { Ok(folder(&call)) }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: MakeFolder| {
            notes.note(&call);
            async { Ok(()) }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: MoveFile| {
            notes.note(&call);
            async { Ok(()) }
        })
        .await?;
    server
        .on(move |call: RemoveFile| {
            asked.note(&call);
            async move { file(&call.path).map(drop) }
        })
        .await
}

/// Names of `/work`, as bytes.
const NAMES: [&[u8]; 3] = [b"a.txt", b"b", b"c\xff"];

fn folder(call: &ListFolder) -> Folder {
    let after = |name: &&&[u8]| **name > call.after.as_slice();
    let names: Vec<_> = NAMES.iter().filter(after).collect();
    let shown = names.iter().take(call.limit as usize);
    let entries: Vec<_> = shown
        .map(|name| match std::str::from_utf8(name) {
            Ok(text) => entry(text, EntryKind::File, 1),
            Err(_) => Entry {
                name_base64: Some(firelane_wire::content::base64(name)),
                ..entry("c\u{fffd}", EntryKind::File, 1)
            },
        })
        .collect();
    let more = names.len() > entries.len();
    Folder {
        entries,
        next_cursor: more.then(|| "how an agent says that more follows".into()),
    }
}
