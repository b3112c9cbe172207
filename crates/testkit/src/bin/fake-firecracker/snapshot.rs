//! Snapshots of the simulated microVM: a state file, and a memory file as large as the memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where in its memory the guest has its counter, and whether it is stale: the first two words of a
/// page of its own.
pub(super) const GUEST_AT: u64 = 1 << 20;
const PAGE: usize = 4096;
/// What a Full snapshot writes at once.
const CHUNK: usize = 1 << 20;

/// What is not memory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) format: String,
    pub(super) mem_size_mib: u64,
    pub(super) vsock: PathBuf,
    pub(super) drives: Vec<PathBuf>,
}

/// The part of the guest's memory that is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) counter: u64,
    pub(super) stale: bool,
}

impl Words {
    fn page(self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(&self.counter.to_le_bytes());
        page[8] = u8::from(self.stale);
        page
    }
}

/// Writes a snapshot. A memory file that is there already keeps what is not written over, as with the
/// real one: only one of another size is cut.
pub(super) fn write(
    state: &State,
    words: Words,
    is_diff: bool,
    state_path: &Path,
    memory_path: &Path,
) -> io::Result<()> {
    fs::write(state_path, serde_json::to_vec(state)?)?;
    let mut options = File::options();
    let memory = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(memory_path)?;
    let size = state.mem_size_mib << 20;
    if memory.metadata()?.len() != size {
        memory.set_len(0)?;
        memory.set_len(size)?;
    }
    if !is_diff {
        let zeroes = vec![0; CHUNK];
        for at in (0..size).step_by(CHUNK) {
            memory.write_all_at(&zeroes, at)?;
        }
    }
    memory.write_all_at(&words.page(), GUEST_AT)?;
    memory.sync_all()
}

/// Reads the state; in words of the real one what is wrong with it.
pub(super) fn read(state_path: &Path, format: &str) -> Result<State, String> {
    let text = fs::read(state_path).map_err(|error| {
        format!("Load snapshot error: Failed to restore from snapshot: Failed to open snapshot file: {error}")
    })?;
    let state: State = serde_json::from_slice(&text).map_err(|error| {
        format!("Load snapshot error: Failed to restore from snapshot: Failed to load snapshot state from file: {error}")
    })?;
    if state.format != format {
        return Err(format!(
            "Load snapshot error: Failed to restore from snapshot: Invalid snapshot version {}",
            state.format
        ));
    }
    for drive in &state.drives {
        File::open(drive).map_err(|error| {
            format!("Load snapshot error: Failed to restore devices: Block: {error}")
        })?;
    }
    Ok(state)
}

/// The words in a memory file of this size.
pub(super) fn words_in(memory_path: &Path, size: u64) -> Result<Words, String> {
    let memory = File::open(memory_path).map_err(|error| {
        format!("Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: {error}")
    })?;
    if memory.metadata().map_err(|error| error.to_string())?.len() < size {
        return Err("Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: the file is too short".into());
    }
    let mut page = [0; PAGE];
    memory
        .read_exact_at(&mut page, GUEST_AT)
        .map_err(|error| error.to_string())?;
    let counter = u64::from_le_bytes(page[..8].try_into().expect("eight bytes"));
    let stale = page[8] != 0;
    Ok(Words { counter, stale })
}
