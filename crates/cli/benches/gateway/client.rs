//! Clients that cost little, since they share the processors with what they measure: each has one
//! connection, sends the same bytes again and again, and reads of an answer no more than it must.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The longest answer that is taken.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What clients saw.
pub(crate) struct Seen {
    /// Milliseconds of each request.
    pub(crate) took_ms: Vec<f64>,
    /// From the first request to the last answer.
    pub(crate) all: Duration,
    /// Processor time of the clients themselves.
    pub(crate) own_cpu: Duration,
}

/// So many clients make so many requests together, on a thread of their own.
pub(crate) fn ask(
    address: SocketAddr,
    request: &[u8],
    clients: u32,
    requests: u32,
) -> anyhow::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    let request: Arc<[u8]> = request.into();
    let left = Arc::new(AtomicU32::new(requests));
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..clients {
            let connection = TcpStream::connect(address).await?;
            connection.set_nodelay(true)?;
            connections.push(connection);
        }
        let (start, cpu) = (Instant::now(), own_cpu());
        let mut asking = JoinSet::new();
        for connection in connections {
            asking.spawn(converse(
                connection,
                Arc::clone(&request),
                Arc::clone(&left),
            ));
        }
        let mut took_ms = Vec::new();
        while let Some(asked) = asking.join_next().await {
            took_ms.extend(asked??);
        }
        Ok(Seen {
            took_ms,
            all: start.elapsed(),
            own_cpu: own_cpu().saturating_sub(cpu),
        })
    })
}

/// Makes requests while there are some left to make.
async fn converse(
    mut connection: TcpStream,
    request: Arc<[u8]>,
    left: Arc<AtomicU32>,
) -> anyhow::Result<Vec<f64>> {
    let mut took_ms = Vec::new();
    let mut answer = Vec::with_capacity(MAX_ANSWER_BYTES);
    let take = |left: u32| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        .is_ok()
    {
        let start = Instant::now();
        connection.write_all(&request).await?;
        answer.clear();
        while length(&answer)?.is_none_or(|length| answer.len() < length) {
            if connection.read_buf(&mut answer).await? == 0 {
                bail!("the service closed a connection");
            }
        }
        took_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took_ms)
}

/// Bytes of the whole answer, once its head is there.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = answer.windows(END.len()).position(|window| window == END) else {
        return Ok(None);
    };
    let (head, rest) = (str::from_utf8(&answer[..head])?, &answer[head..]);
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{head}{}", String::from_utf8_lossy(rest));
    }
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim())
    });
    let body: usize = field.context("an answer without a length")?.parse()?;
    if body > MAX_ANSWER_BYTES {
        bail!("an answer of {body} bytes");
    }
    Ok(Some(head.len() + END.len() + body))
}

/// Processor time of this thread.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
