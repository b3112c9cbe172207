//! A host's sandboxes, that are whatever they are told to be: each program says `hi` and ends, each
//! file is [`CONTENT`], each folder is empty.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use firelane_model::id::ExecId;
use firelane_model::sandbox::Reason;
use firelane_store::bus::{BusError, Server};
use firelane_wire::bus::{
    ClosePipe, DropSnapshot, FeedExec, FinishPipe, FollowExec, GetExec, HaveSnapshots, ListExecs,
    ListFolder, LookSandbox, MakeFolder, MakeSandbox, MoveFile, OpenPipe, PipeDone, PipeOpened,
    PipePart, Piped, ReadPipe, RemoveFile, SandboxOrder, SandboxSeen, SaveSandbox, SnapshotHere,
    SplitSandbox, StartExec, StatFile, TellSandbox, WritePipe,
};
use firelane_wire::event::{End, Event, LogPage};
use firelane_wire::exec::Exec;
use firelane_wire::file::{Entry, EntryKind, Folder};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Ending, Ran};
use firelane_wire::sandbox::SandboxState;
use uuid::Uuid;

const CONTENT: &[u8] = b"a file";

/// Serves them.
pub(crate) async fn serve(server: &mut Server) {
    let served = sandboxes(server).await;
    served.expect("the Bus is open");
    let served = programs(server).await;
    served.expect("the Bus is open");
    let served = files(server).await;
    served.expect("the Bus is open");
    let served = pipes(server).await;
    served.expect("the Bus is open");
}

async fn sandboxes(server: &mut Server) -> Result<(), BusError> {
    let make = |_: MakeSandbox| async { Ok(seen(1, SandboxState::Running)) };
    server.on(make).await?;
    let tell = |call: TellSandbox| async move {
        // Its end is news whatever was told of it before.
        let (revision, state) = match call.order {
            SandboxOrder::Destroy => (3, SandboxState::Destroyed),
            SandboxOrder::Pause => (2, SandboxState::Paused),
            _ => (2, SandboxState::Running),
        };
        Ok(seen(revision, state))
    };
    server.on(tell).await?;
    server.on(|_: LookSandbox| std::future::pending()).await?;
    let save = |call: SaveSandbox| async move {
        Ok(SnapshotHere {
            id: call.snapshot,
            tenant: call.sandbox.tenant,
            template: "default".into(),
            size_bytes: 1,
        })
    };
    server.on(save).await?;
    let split = |call: SplitSandbox| async move {
        let forks = call.forks.iter();
        Ok(forks.map(|_| Ok(seen(1, SandboxState::Running))).collect())
    };
    server.on(split).await?;
    server
        .on(|_: HaveSnapshots| async { Ok(Vec::new()) })
        .await?;
    server.on(|_: DropSnapshot| async { Ok(()) }).await
}

fn seen(revision: u64, state: SandboxState) -> SandboxSeen {
    SandboxSeen {
        state,
        reason: (state == SandboxState::Destroyed).then_some(Reason::Asked),
        revision,
        cpu_us: 0,
        network: None,
    }
}

async fn programs(server: &mut Server) -> Result<(), BusError> {
    let begun: Arc<Mutex<HashSet<ExecId>>> = Arc::default();
    let all = Arc::clone(&begun);
    let start = move |call: StartExec| {
        all.lock().expect("nobody panicked").insert(call.id);
        async move { Ok(exec(call.id)) }
    };
    server.on(start).await?;
    server.on(|_: ListExecs| async { Ok(Vec::new()) }).await?;
    let all = Arc::clone(&begun);
    let known = move |id: ExecId| {
        let known = all.lock().expect("nobody panicked").contains(&id);
        known
            .then_some(())
            .ok_or_else(|| Problem::not_found("exec", id))
    };
    let find = known.clone();
    let get = move |call: GetExec| {
        let found = find(call.id).map(|()| exec(call.id));
        async { found }
    };
    server.on(get).await?;
    let find = known.clone();
    let feed = move |call: FeedExec| {
        let ended = Problem::new(Code::Conflict, "the program has ended");
        let found = find(call.id).and(Err(ended));
        async { found }
    };
    server.on(feed).await?;
    let follow = move |call: FollowExec| {
        let found = known(call.id).map(|()| log(call.read.after));
        async { found }
    };
    server.on(follow).await
}

fn exec(id: ExecId) -> Exec {
    Exec {
        id,
        running: false,
        started_at: "2026-01-01T00:00:00Z".into(),
        ending: Some(Ending::default()),
        output: None,
        problem: None,
    }
}

fn log(after: u64) -> LogPage {
    let end = End::Done {
        ending: Ending::default(),
        ran: Ran::default(),
    };
    let all = [
        (1, Event::Stdout(b"hi\n".into())),
        (2, Event::Ended(Box::new(end))),
    ];
    LogPage {
        events: all
            .into_iter()
            .filter(|(number, _)| *number > after)
            .collect(),
        gap: None,
        end: true,
    }
}

async fn files(server: &mut Server) -> Result<(), BusError> {
    server.on(|_: StatFile| async { Ok(entry()) }).await?;
    server
        .on(|_: ListFolder| async { Ok(Folder::default()) })
        .await?;
    server.on(|_: MakeFolder| async { Ok(()) }).await?;
    server.on(|_: MoveFile| async { Ok(()) }).await?;
    server.on(|_: RemoveFile| async { Ok(()) }).await
}

fn entry() -> Entry {
    Entry {
        name: "file".into(),
        name_base64: None,
        kind: EntryKind::File,
        size: CONTENT.len() as u64,
        mode: 0o644,
        modified_at: "2026-01-01T00:00:00Z".into(),
        target: None,
    }
}

async fn pipes(server: &mut Server) -> Result<(), BusError> {
    let open: Arc<Mutex<HashMap<Uuid, Vec<u8>>>> = Arc::default();
    let all = Arc::clone(&open);
    let begin = move |call: OpenPipe| {
        let pipe = Uuid::now_v7();
        let (bytes, entry) = match call.what {
            Piped::Get { offset, length, .. } => (part(offset, length), Some(entry())),
            _ => (Vec::new(), None),
        };
        all.lock().expect("nobody panicked").insert(pipe, bytes);
        async move { Ok(PipeOpened { pipe, entry }) }
    };
    server.on(begin).await?;
    let all = Arc::clone(&open);
    let read = move |call: ReadPipe| {
        let mut all = all.lock().expect("nobody panicked");
        let bytes = all.insert(call.pipe, Vec::new()).unwrap_or_default();
        let part = PipePart {
            end: bytes.is_empty(),
            bytes,
            events: Vec::new(),
        };
        async { Ok(part) }
    };
    server.on(read).await?;
    server.on(|_: WritePipe| async { Ok(()) }).await?;
    server
        .on(|_: FinishPipe| async { Ok(PipeDone::default()) })
        .await?;
    let close = move |call: ClosePipe| {
        open.lock().expect("nobody panicked").remove(&call.pipe);
        async { Ok(()) }
    };
    server.on(close).await
}

fn part(offset: u64, length: u64) -> Vec<u8> {
    let bytes = CONTENT
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX));
    let bytes = bytes.take(usize::try_from(length).unwrap_or(usize::MAX));
    bytes.copied().collect()
}
