//! From the body of a request into a pipe, in parts.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use firelane_wire::bus::{MAX_PART_BYTES, PipeDone};
use firelane_wire::problem::{Code, Problem};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::pipe::Pipe;

/// How long a part may take to arrive. Less than an agent keeps a pipe that nobody uses.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends all of a body, and waits until it is done. A body that breaks off, or is not as long as was
/// said, leaves nothing: the pipe is dropped unfinished.
pub(super) async fn pour(
    mut pipe: Pipe,
    body: Body,
    size: Option<u64>,
) -> Result<PipeDone, Problem> {
    let mut source = Source {
        stream: body.into_data_stream(),
        rest: Bytes::new(),
    };
    let mut sent = 0;
    loop {
        let part = timeout(PART_TIMEOUT, source.part()).await;
        let part = part.map_err(|_| {
            let cause = format!("{MAX_PART_BYTES} bytes of the body took over {PART_TIMEOUT:?}");
            Problem::new(Code::Invalid, cause)
        })??;
        if part.is_empty() {
            break;
        }
        sent += u64::try_from(part.len()).unwrap_or(u64::MAX);
        if let Some(size) = size.filter(|size| sent > *size) {
            return Err(wrong_length(sent, size));
        }
        pipe.write(part).await?;
    }
    if let Some(size) = size.filter(|size| sent != *size) {
        return Err(wrong_length(sent, size));
    }
    pipe.finish().await
}

fn wrong_length(sent: u64, size: u64) -> Problem {
    let cause = format!("the body has {sent} bytes, and Content-Length is {size}");
    Problem::new(Code::Invalid, cause)
}

/// A body, in parts that are full but the last.
struct Source {
    stream: BodyDataStream,
    /// What came with the last part and did not fit into it.
    rest: Bytes,
}

impl Source {
    /// The next part; an empty one at the end.
    async fn part(&mut self) -> Result<Vec<u8>, Problem> {
        let mut part = Vec::new();
        loop {
            let room = MAX_PART_BYTES - part.len();
            let taken = self.rest.split_to(self.rest.len().min(room));
            part.extend_from_slice(&taken);
            if part.len() == MAX_PART_BYTES {
                return Ok(part);
            }
            match self.stream.next().await {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => {
                    let cause = format!("the body broke off: {error}");
                    return Err(Problem::new(Code::Invalid, cause));
                }
                None => return Ok(part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;

    use super::*;

    async fn parts(chunks: &[usize]) -> Vec<usize> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|size| Ok::<_, io::Error>(Bytes::from(vec![7; *size])))
            .collect();
        let mut source = Source {
            stream: Body::from_stream(stream::iter(chunks)).into_data_stream(),
            rest: Bytes::new(),
        };
        let mut sizes = Vec::new();
        loop {
            let part = source.part().await.expect("it does not break off");
            if part.is_empty() {
                return sizes;
            }
            sizes.push(part.len());
        }
    }

    #[tokio::test]
    async fn parts_are_full_but_the_last() {
        let full = MAX_PART_BYTES;
        assert_eq!(parts(&[]).await, Vec::<usize>::new());
        assert_eq!(parts(&[1, 2, 0, 3]).await, [6]);
        assert_eq!(parts(&[full]).await, [full]);
        assert_eq!(parts(&[2 * full + 1]).await, [full, full, 1]);
        assert_eq!(parts(&[full - 1, 3]).await, [full, 2]);
    }
}
