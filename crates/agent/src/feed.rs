//! What a program is sent while it runs.

use std::collections::VecDeque;
use std::convert::Infallible;

use firelane_guest_proto::frame::INITIAL_WINDOW;
use firelane_guest_proto::message::PtySize;
use firelane_vmm::session::{SessionError, Stdin};
use firelane_wire::event::Input;
use tokio::sync::mpsc;

/// The input of one program: what came with its start, then what comes while it runs. It can be sent over one
/// connection after the other.
pub(crate) struct Feed {
    /// What is being written, and how much of it is sent.
    bytes: Vec<u8>,
    at: usize,
    /// The end of the input follows that.
    ends: bool,
    /// What was taken off `inputs` and is not sent.
    next: Option<Input>,
    inputs: mpsc::Receiver<Input>,
    /// Nothing comes any more.
    closed: bool,
    /// Bytes of input that were sent so far, by whomever.
    sent: u64,
    /// The last of those: what the guest may not have passed on when its connection ends.
    kept: VecDeque<u8>,
    /// The end was sent.
    ended: bool,
}

impl Feed {
    /// Nothing is sent yet of `first`, and the program was sent `sent` bytes before. One that is not interactive gets no
    /// more.
    pub(crate) fn new(
        first: Vec<u8>,
        interactive: bool,
        inputs: mpsc::Receiver<Input>,
        sent: u64,
    ) -> Feed {
        Feed {
            bytes: first,
            at: 0,
            ends: !interactive,
            next: None,
            inputs,
            closed: false,
            sent,
            kept: VecDeque::new(),
            ended: false,
        }
    }

    /// Over another connection: the guest has passed on so many bytes. What was sent beyond that is sent again, and so is
    /// the end. Gives whether that can be.
    #[must_use]
    pub(crate) fn go_back_to(&mut self, passed_on: u64) -> bool {
        let lost = self.sent.checked_sub(passed_on);
        let first = lost
            .and_then(|lost| usize::try_from(lost).ok())
            .and_then(|lost| self.kept.len().checked_sub(lost));
        let Some(first) = first else {
            return false;
        };
        let mut bytes: Vec<u8> = self.kept.drain(first..).collect();
        bytes.extend_from_slice(&self.bytes[self.at..]);
        (self.bytes, self.at, self.sent) = (bytes, 0, passed_on);
        self.ends |= std::mem::take(&mut self.ended);
        true
    }

    /// Sends it; ends when there is no more. Dropped or failed, it goes on where it was when it is called again.
    pub(crate) async fn send(&mut self, stdin: &Stdin) -> Result<(), SessionError> {
        loop {
            match &self.next {
                // A program may be signalled while it does not read.
                Some(Input::Signal(number)) => {
                    stdin.signal(*number).await?;
                    self.next = None;
                }
                Some(Input::Resize { rows, cols }) => {
                    let (rows, cols) = (*rows, *cols);
                    stdin.resize(PtySize { rows, cols }).await?;
                    self.next = None;
                }
                Some(Input::Stdin(_) | Input::End) if self.is_written() => match self.next.take() {
                    Some(Input::Stdin(bytes)) => (self.bytes, self.at) = (bytes, 0),
                    _ => self.ends = true,
                },
                None if self.closed && self.is_written() => return Ok(()),
                Some(Input::Stdin(_) | Input::End) | None => {}
            }
            let (waits, written) = (self.next.is_none() && !self.closed, self.is_written());
            // Only taken from: what is sent is counted as soon as it is.
            let rest = &self.bytes[self.at..];
            tokio::select! {
                wrote = write_on(stdin, rest), if !written => self.wrote(wrote?),
                input = self.inputs.recv(), if waits => match input {
                    Some(input) => self.next = Some(input),
                    None => self.closed = true,
                },
                else => {}
            }
        }
    }

    /// So many bytes were sent, or the end.
    fn wrote(&mut self, count: Option<usize>) {
        let Some(count) = count else {
            (self.bytes, self.at) = (Vec::new(), 0);
            (self.ends, self.ended) = (false, true);
            return;
        };
        self.kept.extend(&self.bytes[self.at..self.at + count]);
        let over = self.kept.len().saturating_sub(INITIAL_WINDOW as usize);
        self.kept.drain(..over);
        self.at += count;
        self.sent += count as u64;
    }

    fn is_written(&self) -> bool {
        self.at == self.bytes.len() && !self.ends
    }
}

/// Sends one piece, and gives its length; nothing, once the end was sent.
async fn write_on(stdin: &Stdin, rest: &[u8]) -> Result<Option<usize>, SessionError> {
    if rest.is_empty() {
        stdin.end().await?;
        return Ok(None);
    }
    stdin.write_some(rest).await.map(Some)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(first: &[u8], interactive: bool) -> Feed {
        let (_, inputs) = mpsc::channel(1);
        Feed::new(first.into(), interactive, inputs, 10)
    }

    #[test]
    fn what_was_not_passed_on_is_sent_again_and_the_end_too() {
        let mut feed = feed(b"abcdef", false);
        feed.wrote(Some(4));
        assert!(feed.go_back_to(12));
        assert_eq!((&*feed.bytes, feed.at, feed.sent), (&b"cdef"[..], 0, 12));
        feed.wrote(Some(4));
        feed.wrote(None);
        assert!(feed.is_written());
        // All of it arrived, except that there is no more.
        assert!(feed.go_back_to(16));
        assert!(feed.bytes.is_empty() && feed.ends && !feed.is_written());
        feed.wrote(None);
        assert!(feed.go_back_to(15));
        assert_eq!((&*feed.bytes, feed.ends), (&b"f"[..], true));
    }

    #[test]
    fn what_nobody_has_any_more_cannot_be_sent_again() {
        let window = INITIAL_WINDOW as usize;
        let mut feed = feed(&vec![7; window + 9], true);
        feed.wrote(Some(window + 9));
        assert_eq!(feed.kept.len(), window);
        assert!(!feed.go_back_to(18));
        assert!(!feed.go_back_to(10 + window as u64 + 10));
        assert!(feed.go_back_to(19));
        assert_eq!(feed.bytes.len(), window);
    }
}
