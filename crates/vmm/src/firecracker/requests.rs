//! Bodies of requests and answers.
//!
//! Source: Firecracker, `src/firecracker/swagger/firecracker.yaml`, v1.16.1. Only what we send is here;
//! fields that an older version does not know are left out by whoever fills them in.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
pub(super) struct MachineConfig {
    pub(super) vcpu_count: u32,
    pub(super) mem_size_mib: u32,
    pub(super) smt: bool,
}

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
pub(super) struct BootSource<'a> {
    pub(super) kernel_image_path: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initrd_path: Option<&'a Path>,
    pub(super) boot_args: &'a str,
}

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Serialize)]
pub(super) struct Drive<'a> {
    pub(super) drive_id: &'a str,
    pub(super) path_on_host: &'a Path,
    pub(super) is_root_device: bool,
    pub(super) is_read_only: bool,
    pub(super) rate_limiter: RateLimiter,
}

/// Two token buckets; each is without a bound if absent.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct RateLimiter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bandwidth: Option<TokenBucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ops: Option<TokenBucket>,
}

/// Tokens (bytes or operations) that are there at once, and the milliseconds in which all come again.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct TokenBucket {
    pub(super) size: u64,
    pub(super) refill_time: u64,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
pub(super) struct Vsock<'a> {
    pub(super) guest_cid: u32,
    pub(super) uds_path: &'a Path,
}

/// `PUT /entropy`.
#[derive(Debug, Serialize)]
pub(super) struct Entropy {
    pub(super) rate_limiter: RateLimiter,
}

/// `PUT /serial`, since 1.16.
#[derive(Debug, Serialize)]
pub(super) struct Serial {
    pub(super) rate_limiter: TokenBucket,
}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
pub(super) struct Action {
    pub(super) action_type: &'static str,
}

/// `PATCH /vm`.
#[derive(Debug, Serialize)]
pub(super) struct VmState {
    pub(super) state: &'static str,
}

/// `PUT /snapshot/create`.
#[derive(Debug, Serialize)]
pub(super) struct CreateSnapshot<'a> {
    pub(super) snapshot_type: SnapshotKind,
    pub(super) snapshot_path: &'a Path,
    pub(super) mem_file_path: &'a Path,
}

/// How much memory a snapshot's file gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum SnapshotKind {
    /// Every page.
    Full,
    /// The pages that were touched. Of a microVM that was booted and not restored these are all that
    /// are not zero, so that the file can be loaded by itself. Source: Firecracker,
    /// `docs/snapshotting/snapshot-support.md`, "Creating diff snapshots".
    Diff,
}

/// `PUT /snapshot/load`.
#[derive(Debug, Serialize)]
pub(super) struct LoadSnapshot<'a> {
    pub(super) snapshot_path: &'a Path,
    pub(super) mem_backend: MemoryBackend<'a>,
    pub(super) resume_vm: bool,
    /// Since 1.16.
    pub(super) vsock_override: VsockOverride<'a>,
    /// Since 1.16.
    pub(super) clock_realtime: bool,
}

/// Where a restored microVM's memory comes from.
#[derive(Debug, Serialize)]
pub(super) struct MemoryBackend<'a> {
    pub(super) backend_type: &'static str,
    pub(super) backend_path: &'a Path,
}

/// The socket of a restored microVM.
#[derive(Debug, Serialize)]
pub(super) struct VsockOverride<'a> {
    pub(super) uds_path: &'a Path,
}

/// The body of every refusal.
#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    pub(super) fault_message: String,
}
