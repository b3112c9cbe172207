//! What verification adds to a restore: of a snapshot whose files were verified since the host's boot, and of one whose were
//! not.
//!
//! `cargo bench -p firelane-image --bench verify`: a memory of 256 MiB, of which 96 MiB are no holes, as that of the template
//! `base`. The snapshot is found, its seal verified, its files compared with what is remembered, or hashed; the first row hashes them.
//! The page cache is warm, as after a snapshot was made.

#![expect(clippy::unwrap_used, reason = "a bench that fails shall say where")]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use firelane_image::{Found, Memory, SnapshotOrigin, Store};

const MEMORY_BYTES: u64 = 256 << 20;
const DATA_BYTES: usize = 96 << 20;
const KHZ: u64 = 2_300_000;
const RUNS: usize = 200;
const FIRST_RUNS: usize = 20;

fn main() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let origin = SnapshotOrigin {
        cpu: "emulated".into(),
        initrd: "12.cpio".into(),
        kernel: "34".into(),
        memory_mib: 256,
        template: "base".into(),
        template_id: "56".into(),
        vcpus: 1,
        vmm: "qemu".into(),
    };
    let Found::Draft(draft) = store
        .snapshot_or_draft(&origin, KHZ, Memory::Whole)
        .unwrap()
    else {
        panic!("a new store has a snapshot");
    };
    write_memory(&draft.memory());
    fs::write(draft.state(), vec![7; 66_000]).unwrap();
    let start = Instant::now();
    let snapshot = draft.commit(KHZ).unwrap();
    println!("seal                  {:8.3} ms", ms(start));

    let find = |memory| {
        let start = Instant::now();
        assert!(store.snapshot(&origin, KHZ, memory).unwrap().is_some());
        ms(start)
    };
    let verified = root.path().join("signing/verified");
    let forget = || {
        for entry in fs::read_dir(&verified).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    for (what, memory) in [
        ("first since boot", Memory::Whole),
        ("the same, lazily", Memory::Lazily),
    ] {
        let mut first: Vec<f64> = (0..FIRST_RUNS)
            .map(|_| {
                forget();
                find(memory)
            })
            .collect();
        tell(what, &mut first);
    }
    let mut ranges: Vec<f64> = (0..FIRST_RUNS)
        .map(|_| {
            forget();
            let snapshot = store.snapshot(&origin, KHZ, Memory::Lazily).unwrap();
            let ranges = snapshot.unwrap().ranges().unwrap();
            let start = Instant::now();
            ranges.read_at(0, &mut [0; 64 << 10]).unwrap();
            ms(start)
        })
        .collect();
    tell("one range of it", &mut ranges);
    find(Memory::Whole);
    let find = || find(Memory::Whole);
    let mut remembered: Vec<f64> = (0..RUNS).map(|_| find()).collect();
    tell("remembered", &mut remembered);
    let mut unchanged: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            assert!(snapshot.is_unchanged(jiff::Timestamp::now()));
            ms(start)
        })
        .collect();
    tell("unchanged (service)", &mut unchanged);
    template();
}

/// The template `base` of the default store, if it is built.
fn template() {
    let store = Store::open(&Store::default_root()).unwrap();
    if store.get("base").is_err() {
        println!("template base         not built: firelane template build base");
        return;
    }
    let mut remembered: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            store.get("base").unwrap().verified().unwrap();
            ms(start)
        })
        .collect();
    tell("template base", &mut remembered);
}

/// No byte that hashing could skip, in blocks with holes between them.
fn write_memory(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block: Vec<u8> = (0..1 << 20_u32)
        .map(|byte: u32| (byte % 251) as u8 + 1)
        .collect();
    for index in 0..DATA_BYTES / block.len() {
        let at = (index as u64) * (MEMORY_BYTES / (DATA_BYTES / block.len()) as u64);
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&block).unwrap();
    }
    file.set_len(MEMORY_BYTES).unwrap();
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn tell(what: &str, took_ms: &mut [f64]) {
    took_ms.sort_by(f64::total_cmp);
    let at = |part: usize| took_ms[(took_ms.len() - 1) * part / 100];
    let (p50, p90, p99, runs) = (at(50), at(90), at(99), took_ms.len());
    println!("{what:<20}  {p50:8.3} ms p50  {p90:8.3} p90  {p99:8.3} p99  {runs} runs");
}
