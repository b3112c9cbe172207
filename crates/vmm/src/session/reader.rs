//! Reads the guest's frames and keeps the session alive.

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::frame::{Channel, Decoder, Frame, Kind};
use firelane_guest_proto::message::{Goodbye, from_frame};
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::{SessionError, Shared, clean, violation};

/// How often the guest is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a guest may be silent. Generous: a fork bomb under emulation slows everything down.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads until the session ends, then tells every stream why.
pub(super) async fn run(
    mut read: OwnedReadHalf,
    mut decoder: Decoder,
    shared: Arc<Shared>,
    writer: AbortHandle,
) {
    let error = loop {
        match step(&mut read, &mut decoder, &shared).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    writer.abort();
    let mut table = shared.lock();
    // What this side did is the better reason.
    if table.ended.is_none() {
        table.ended = Some(error);
    }
    // With their senders gone, the streams read the end.
    table.open.clear();
}

async fn step(
    read: &mut OwnedReadHalf,
    decoder: &mut Decoder,
    shared: &Shared,
) -> Result<(), SessionError> {
    while let Some(frame) = decoder.next_frame()? {
        handle(frame, shared)?;
    }
    let mut buffer = vec![0; 64 << 10];
    let count = loop {
        match timeout(SILENCE, read.read(&mut buffer)).await {
            Ok(count) => break count?,
            Err(_) if shared.may_be_silent(SILENCE) => {}
            Err(_) => return Err(SessionError::Silent(SILENCE)),
        }
    };
    match count {
        0 => Err(SessionError::Ended {
            reason: "the guest closed it".into(),
        }),
        count => {
            decoder.push(&buffer[..count]);
            Ok(())
        }
    }
}

fn handle(frame: Frame, shared: &Shared) -> Result<(), SessionError> {
    match frame.kind {
        Kind::Ping => {
            // The reader must not wait for a guest that does not read. One that asks faster than
            // it takes answers gets fewer.
            let _ = shared.pongs.try_send(frame.payload);
            return Ok(());
        }

        Kind::Pong => return Ok(()),
        Kind::Goodbye => return Err(goodbye(&frame)),
        Kind::Hello
        | Kind::Welcome
        | Kind::Exec
        | Kind::Put
        | Kind::Get
        | Kind::Signal
        | Kind::Warm
        | Kind::Renew
        | Kind::Freeze
        | Kind::Thaw
        | Kind::Launch
        | Kind::Attach
        | Kind::List
        | Kind::Forget
        | Kind::ListDir
        | Kind::Stat
        | Kind::GetRange
        | Kind::MakeDir
        | Kind::MakeLink
        | Kind::Move
        | Kind::Remove
        | Kind::Watch
        | Kind::Resize => {
            return Err(violation(&format!(
                "a {:?} frame from the guest",
                frame.kind
            )));
        }
        _ => {}
    }
    let mut table = shared.lock();
    let Some(slot) = table.open.get_mut(&frame.stream) else {
        // Of a stream that we have just left.
        return Ok(());
    };
    match frame.kind {
        Kind::Window => {
            let bytes = frame.granted()?;
            slot.credit.give(bytes);
            return Ok(());
        }
        Kind::Data | Kind::Events => {
            if !matches!(
                frame.channel,
                Channel::Stdout | Channel::Stderr | Channel::File
            ) {
                return Err(violation("data on a channel that is not the guest's"));
            }
            let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
            let window = slot.window(frame.channel);
            *window = window
                .checked_sub(length)
                .ok_or_else(|| violation("more data than its window"))?;
        }
        _ => {}
    }
    let last = matches!(
        frame.kind,
        Kind::Exited | Kind::Refused | Kind::Done | Kind::Listing
    );
    let id = frame.stream;
    if !slot.control_allowed(&frame) {
        return Err(violation("frames that nothing bounds"));
    }
    // A stream that was left needs nothing.
    let _ = slot.events.send(frame);
    if last {
        table.open.remove(&id);
    }
    Ok(())
}

/// Asks the guest again and again, and answers what it asks; a failed write is seen by the reader
/// as well.
pub(super) async fn keep_alive(shared: Arc<Shared>, mut pongs: mpsc::Receiver<Vec<u8>>) {
    let mut asked = Instant::now();
    loop {
        let frame = match timeout_at(asked + PING_INTERVAL, pongs.recv()).await {
            Ok(Some(payload)) => Frame::new(0, Kind::Pong, payload),
            Ok(None) => return,
            Err(_) => {
                asked = Instant::now();
                if shared.may_be_silent(Duration::ZERO) {
                    continue;
                }
                Frame::new(0, Kind::Ping, b"firelane".to_vec())
            }
        };
        if shared.send(&frame).await.is_err() {
            return;
        }
    }
}

/// The reason that a guest gives for leaving, kept short.
pub(super) fn goodbye(frame: &Frame) -> SessionError {
    match from_frame::<Goodbye>(frame) {
        Ok(goodbye) => {
            let reason = clean(&goodbye.reason);
            SessionError::Ended {
                reason: format!("the guest left: {reason}"),
            }
        }
        Err(error) => error.into(),
    }
}
