//! What a program is sent while it runs.

use std::convert::Infallible;

use firelane_guest_proto::message::PtySize;
use firelane_vmm::session::{SessionError, Stdin};
use firelane_wire::event::Input;
use tokio::sync::mpsc;

/// Sends the input that came with the run, then what comes while it runs; ends when there is no more.
pub(crate) async fn feed(
    stdin: Stdin,
    first: Vec<u8>,
    interactive: bool,
    mut inputs: mpsc::Receiver<Input>,
) -> Result<(), SessionError> {
    // A program may be signalled while it does not read.
    let writing = async {
        stdin.write(&first).await?;
        if !interactive {
            stdin.end().await?;
        }
        Ok::<(), SessionError>(())
    };
    tokio::pin!(writing);
    let mut written = false;
    loop {
        let input = tokio::select! {
            done = &mut writing, if !written => {
                let () = done?;
                written = true;
                continue;
            }
            input = inputs.recv() => input,
        };
        match input {
            Some(Input::Stdin(bytes)) => {
                if !written {
                    writing.as_mut().await?;
                    written = true;
                }
                stdin.write(&bytes).await?;
            }
            Some(Input::End) => {
                if !written {
                    writing.as_mut().await?;
                    written = true;
                }
                stdin.end().await?;
            }
            Some(Input::Signal(number)) => stdin.signal(number).await?,
            Some(Input::Resize { rows, cols }) => stdin.resize(PtySize { rows, cols }).await?,
            None => return Ok(()),
        }
    }
}

/// Feeds, and then waits for ever: input that a program no longer takes is not its end.
pub(crate) async fn then_wait(
    feeding: impl Future<Output = Result<(), SessionError>>,
) -> Infallible {
    if let Err(error) = feeding.await {
        tracing::debug!(%error, "a program takes no more input");
    }
    std::future::pending().await
}
