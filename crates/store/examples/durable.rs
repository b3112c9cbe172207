//! How many durable writes a second a database takes, and how long its check at a start takes:
//! `cargo run --release -p firelane-store --example durable [FOLDER]`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use firelane_store::db::{Db, Finish, NewRun, OutputPart, RunEnd};
use tokio::task::JoinSet;

const FOR: Duration = Duration::from_secs(4);
const OUTPUTS: u32 = 256;
const OUTPUT_BYTES: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(parent)?;
    let path = folder.path().join("state.db");
    let db = Db::open(&path).await?;
    for callers in [1, 8, 64, 256] {
        let mut waits = measure(&db, callers).await?;
        waits.sort();
        let at = |share: usize| waits[(waits.len() - 1) * share / 100];
        println!(
            "{callers:>4} callers: {:>7.0} inserts/s, p50 {:?}, p99 {:?}",
            waits.len() as f64 / FOR.as_secs_f64(),
            at(50),
            at(99)
        );
    }
    read(&db).await?;
    outputs(&db).await?;
    db.close().await;
    let size_mib = std::fs::metadata(&path)?.len() / 1024 / 1024;
    let begin = Instant::now();
    let db = Db::open(&path).await?;
    println!("open with its check, {size_mib} MiB: {:?}", begin.elapsed());
    db.close().await;
    Ok(())
}

fn run(id: &str) -> NewRun {
    NewRun {
        id: id.to_owned(),
        tenant: "tenant".to_owned(),
        key_id: Some("key".to_owned()),
        durable: true,
        priority: 0,
        deadline: None,
        about: "{}".to_owned(),
        spec: "x".repeat(500),
        created: 0,
    }
}

/// How long each insert waited.
async fn measure(db: &Db, callers: u32) -> anyhow::Result<Vec<Duration>> {
    let begin = Instant::now();
    let mut asking = JoinSet::new();
    for caller in 0..callers {
        let db = db.clone();
        asking.spawn(async move {
            let mut waits = Vec::new();
            while begin.elapsed() < FOR {
                let new = run(&format!("r{callers}-{caller}-{}", waits.len()));
                let asked = Instant::now();
                db.write(move |tx| tx.insert_run(&new)).await?;
                waits.push(asked.elapsed());
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(asked) = asking.join_next().await {
        waits.append(&mut asked??);
    }
    Ok(waits)
}

async fn read(db: &Db) -> anyhow::Result<()> {
    const READS: u32 = 20_000;
    let begin = Instant::now();
    for i in 0..READS {
        let id = format!("r1-0-{}", i % 1000);
        db.read(move |rx| rx.run(&id)).await?;
    }
    println!("one reader: {:?} each", begin.elapsed() / READS);
    Ok(())
}

/// Makes the database large.
async fn outputs(db: &Db) -> anyhow::Result<()> {
    for i in 0..OUTPUTS {
        let id = format!("large-{i}");
        let finish = Finish {
            id: id.clone(),
            attempt: 0,
            state: RunEnd::Done,
            outcome: None,
            output: vec![OutputPart {
                last: 1,
                events: vec![7; OUTPUT_BYTES],
            }],
            finished: 1,
        };
        db.write(move |tx| {
            tx.insert_run(&run(&id))?;
            tx.finish_run(&finish)
        })
        .await?;
    }
    Ok(())
}
