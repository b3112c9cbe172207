//! The last bytes of a stream that a VMM writes and nobody may need: kept for its error.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

/// Bytes kept of each stream.
pub const KEPT_BYTES: usize = 16 << 10;
/// Lines shown of each in an error.
const SHOWN_LINES: usize = 20;

/// Reads a stream to its end and keeps its tail, so that a guest can fill neither the host's disk
/// nor its memory.
#[derive(Debug)]
pub struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: JoinHandle<()>,
}

impl Tail {
    /// Starts to read.
    pub fn of(mut stream: impl AsyncRead + Unpin + Send + 'static) -> Tail {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let shared = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            // A stream that fails has ended.
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..count]);
                let over = kept.len().saturating_sub(KEPT_BYTES);
                kept.drain(..over);
            }
        });
        Tail { kept, reader }
    }

    /// The last lines, printable: control characters of the guest must not reach a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        printable(&String::from_utf8_lossy(&bytes))
    }

    /// Waits until the stream has ended.
    pub async fn ended(&mut self) {
        if !self.reader.is_finished() {
            // The reader neither panics nor is cancelled while we hold it.
            let _ = (&mut self.reader).await;
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn printable(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control() || *c == '\t')
                .collect::<String>()
        })
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_tail_is_kept_and_it_is_printable() {
        let mut text = vec![b'x'; 3 * KEPT_BYTES];
        text.extend(b"\nlast \x1b[31mline\r\n\n");
        let mut tail = Tail::of(std::io::Cursor::new(text));
        tail.ended().await;
        assert!(tail.kept.lock().unwrap().len() <= KEPT_BYTES);
        assert!(
            tail.text().ends_with("\nlast [31mline"),
            "{:?}",
            tail.text()
        );
    }
}
