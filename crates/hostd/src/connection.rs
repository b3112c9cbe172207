//! One client, from its hello to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use firelane_host_proto::VERSION;
use firelane_host_proto::frame::{self, FRAME_TIMEOUT, FrameError};
use firelane_host_proto::message::{Code, Refusal, Reply, Request, parse};
use firelane_launch::rundir;
use firelane_sys::peer::Peer;
use firelane_sys::process::ProcessId;

use crate::refuse::{failed, refuse, refuse_with};
use crate::serve::Shared;
use crate::start::start;
use crate::stop::stop;
use crate::table::{Entry, Life};
use crate::{state, table};

/// Serves a client until it goes, and ends what it leaves.
pub(crate) fn serve(shared: &Arc<Shared>, stream: &UnixStream, peer: &Peer, lease: u64) {
    let mut greeted = false;
    // Until it has said hello it may not take its time.
    while let Some(received) = next(shared, stream, peer, greeted) {
        let request = match parse(&received.bytes) {
            Ok(request) => request,
            Err(refusal) => {
                let op = operation(&received.bytes);
                shared
                    .audit
                    .write(peer, &op, None, Err((refusal.code, &refusal.cause)));
                if answer(stream, Err(refusal)).is_err() {
                    break;
                }
                continue;
            }
        };
        let done = match (&request, greeted) {
            (Request::Hello { min, max }, false) => hello(shared, *min, *max),
            (_, false) => Err(refuse(Code::Malformed, "the first request has to be hello")),
            (Request::Hello { .. }, true) => Err(refuse(Code::Malformed, "hello was said already")),
            _ => carry_out(shared, peer, lease, &request, received.descriptors),
        };
        let outcome = done.as_ref().map(drop);
        let outcome = outcome.map_err(|refusal| (refusal.code, refusal.cause.as_str()));
        shared
            .audit
            .write(peer, request.operation(), request.id(), outcome);
        greeted |= done.is_ok();
        if answer(stream, done).is_err() || !greeted {
            break;
        }
    }
    for entry in shared.table.those(|entry| entry.lease == lease) {
        let ended = stop(shared, &entry);
        let cause = ended.err().map(|refusal| refusal.cause);
        shared
            .audit
            .own("lease over", Some(&entry.id), cause.as_deref());
    }
}

/// The next request; `None` at the end of the connection, or after what makes it useless.
fn next(
    shared: &Shared,
    stream: &UnixStream,
    peer: &Peer,
    greeted: bool,
) -> Option<frame::Received> {
    let patience = (!greeted).then_some(FRAME_TIMEOUT);
    let refusal = match frame::receive(stream, patience) {
        Ok(received) => return Some(received),
        Err(FrameError::Closed) => return None,
        Err(error @ (FrameError::TooLarge { .. } | FrameError::TooManyDescriptors)) => {
            refuse(Code::TooLarge, error.to_string())
        }
        Err(error @ FrameError::Late) => refuse(Code::Late, error.to_string()),
        Err(error) => refuse(Code::Malformed, error.to_string()),
    };
    shared
        .audit
        .write(peer, "?", None, Err((refusal.code, &refusal.cause)));
    // It is told if it still listens; the connection ends in any case.
    let _ = answer(stream, Err(refusal));
    None
}

/// The name in a request that was refused, for the audit: short, and printable.
fn operation(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let name = value.get("op").and_then(serde_json::Value::as_str);
    name.unwrap_or("?").escape_debug().take(40).collect()
}

type Done = Result<(Reply, Option<OwnedFd>), Refusal>;

pub(crate) fn answer(stream: &UnixStream, done: Done) -> Result<(), FrameError> {
    let (reply, descriptor) = done.unwrap_or_else(|refusal| (Reply::Refused(refusal), None));
    let bytes = serde_json::to_vec(&reply).expect("answers have keys that are text");
    let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
    frame::send(stream, &bytes, &descriptors)
}

fn hello(shared: &Shared, min: u32, max: u32) -> Done {
    if !(min..=max).contains(&VERSION) {
        let cause = format!("the client speaks versions {min} to {max}, and this speaks {VERSION}");
        let remedy = "use firelane and firelane-hostd of one release";
        return Err(refuse_with(Code::WrongVersion, cause, remedy));
    }
    let (qemu, firecracker) = (&shared.config.qemu, &shared.config.firecracker);
    let reply = Reply::Welcome {
        version: VERSION,
        qemu: qemu.is_file().then(|| qemu.clone()),
        firecracker: firecracker.clone().filter(|program| program.is_file()),
    };
    Ok((reply, None))
}

fn carry_out(
    shared: &Arc<Shared>,
    peer: &Peer,
    lease: u64,
    request: &Request,
    descriptors: Vec<OwnedFd>,
) -> Done {
    let plain = |reply| Ok((reply, None));
    match request {
        Request::Start(what) => {
            let (reply, pidfd) = start(shared, peer, lease, what, descriptors)?;
            Ok((reply, Some(pidfd)))
        }
        _ if !descriptors.is_empty() => Err(refuse(
            Code::BadDescriptor,
            "no descriptors belong to this operation",
        )),
        Request::Confirm { id } => {
            let entry = find(shared, peer, id)?;
            let state = state::of(&entry);
            if state.controls.is_empty() {
                // It has ended, or is about to.
                let status = stop(shared, &entry)?.status;
                return Err(refuse(Code::Died, status));
            }
            if let Err(refusal) = state::confined(&state.controls) {
                // What is not confined does not go on.
                return Err(stop(shared, &entry).err().unwrap_or(refusal));
            }
            plain(Reply::State(state))
        }
        Request::Pause { id } => signal(shared, peer, id, "stop the VMM", ProcessId::stop),
        Request::Resume { id } => signal(shared, peer, id, "have the VMM go on", ProcessId::go_on),
        Request::Inspect { id } => plain(Reply::State(state::of(&*find(shared, peer, id)?))),
        Request::Stop { id } => match shared.table.find(id, peer.uid)? {
            None => plain(Reply::Stopped { status: None }),
            Some(entry) => {
                let table::Ended { status, .. } = stop(shared, &entry)?;
                let status = Some(status);
                plain(Reply::Stopped { status })
            }
        },
        Request::List {} => {
            let own = |entry: &Entry| peer.uid == 0 || entry.uid == peer.uid;
            let mut microvms: Vec<_> = shared
                .table
                .those(own)
                .iter()
                .map(|e| state::of(e))
                .collect();
            microvms.sort_by(|a, b| a.id.cmp(&b.id));
            plain(Reply::Listed { microvms })
        }
        Request::Sweep {} => plain(sweep(shared)),
        Request::Hello { .. } => Err(refuse(Code::Malformed, "hello was said already")),
    }
}

/// Sends a signal to a VMM, which is never a process that has its number by chance.
fn signal(
    shared: &Shared,
    peer: &Peer,
    id: &str,
    step: &str,
    send: impl FnOnce(&ProcessId) -> io::Result<()>,
) -> Done {
    let entry = find(shared, peer, id)?;
    match entry.life() {
        Life::Starting => {
            let cause = format!("microVM {id} is being started");
            return Err(refuse(Code::Busy, cause));
        }
        Life::Running(running) => send(&running.vmm).map_err(failed(step))?,
        Life::Ended(ended) => return Err(refuse(Code::Died, ended.status)),
    }
    Ok((Reply::State(state::of(&entry)), None))
}

fn find(shared: &Shared, peer: &Peer, id: &str) -> Result<Arc<Entry>, Refusal> {
    let found = shared.table.find(id, peer.uid)?;
    found.ok_or_else(|| {
        let shown: String = id.escape_debug().take(80).collect();
        refuse(Code::NotFound, format!("there is no microVM '{shown}'"))
    })
}

/// Removes what microVMs left whose owner was killed: a later hostd's predecessors, and `firelane` that
/// ran as root.
pub(crate) fn sweep(shared: &Shared) -> Reply {
    let (mut removed, mut left) = (0, Vec::new());
    for swept in rundir::sweep(&shared.config.run_base) {
        let name = swept.path.file_name().unwrap_or_default().to_string_lossy();
        let error = swept.result.err().map(|error| error.to_string());
        shared.audit.own("swept", Some(&name), error.as_deref());
        match error {
            None => removed += 1,
            Some(error) => left.push(format!("{name}: {error}")),
        }
    }
    Reply::Swept { removed, left }
}
