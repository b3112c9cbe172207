//! How many requests a second the local Bus carries: `cargo run --release -p firelane-store --example bus`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use firelane_store::bus::{Bus, LocalBus};
use tokio::task::JoinSet;

const REQUESTS: u32 = 400_000;
const PAYLOAD_BYTES: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for askers in [1, 64, 256] {
        let took = measure(askers).await?;
        let each = took.as_secs_f64() / f64::from(REQUESTS);
        println!(
            "{askers:>4} askers: {:>9.0} requests/s, {:.2} us each",
            1.0 / each,
            each * 1e6
        );
    }
    Ok(())
}

async fn measure(askers: u32) -> anyhow::Result<Duration> {
    let bus = LocalBus::new();
    let mut server = bus.serve("measure").await?;
    let serving = tokio::spawn(async move {
        while let Some(request) = server.next().await {
            let payload = request.payload().clone();
            request.answer(payload).await?;
        }
        anyhow::Ok(())
    });
    let begin = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..askers {
        let bus = bus.clone();
        asking.spawn(async move {
            let payload = Bytes::from(vec![0; PAYLOAD_BYTES]);
            for _ in 0..REQUESTS / askers {
                bus.request("measure", payload.clone(), TIMEOUT).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    let took = begin.elapsed();
    bus.close().await;
    serving.await??;
    Ok(took)
}
