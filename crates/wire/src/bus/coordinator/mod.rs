//! What the coordinator is asked.

mod answer;
mod sandbox;
mod template;

use firelane_model::id::{KeyId, RunId};
use serde::{Deserialize, Serialize};

use super::Call;
use crate::event::{Input, LogPage, ReadLog};
use crate::host::Host;
use crate::key::{Key, KeyMade, NewKey};
use crate::page::{Page, PageQuery};
use crate::queue::Queue;
use crate::run::{Place, Run, RunRequest, RunState};
use crate::trace::TraceParent;
use crate::usage::{Usage, UsageQuery};

pub use answer::*;
pub use sandbox::*;
pub use template::*;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Whose things they are.
    pub tenant: String,
    /// The API key; nothing for the owner of the local socket.
    pub key: Option<KeyId>,
    /// Share of the hosts.
    pub weight: u32,
    /// Runs and sandboxes that the key may have at the same time.
    pub concurrency: Option<u32>,
    /// Microseconds of processor time that the key may use on one day.
    pub cpu_us_per_day: Option<u64>,
}

/// A run to be queued.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmitRun {
    /// Who asks.
    pub caller: Caller,
    /// What to run.
    pub request: RunRequest,
    /// It is on disk before the answer, and survives a restart.
    pub durable: bool,
    /// The same run for the same key of the same tenant.
    pub idempotency_key: Option<String>,
    /// The caller's span that it is a part of.
    #[serde(default)]
    pub traceparent: Option<TraceParent>,
}

/// A run that is queued, or was already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Its name.
    pub id: RunId,
    /// Its place.
    pub place: Place,
    /// It was there before, by its idempotency key.
    pub replayed: bool,
}

impl Call for SubmitRun {
    const NAME: &'static str = "run.submit";
    type Answer = Submitted;
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadRun {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: RunId,
    /// From where, and how much.
    pub read: ReadLog,
}

impl Call for ReadRun {
    const NAME: &'static str = "run.read";
    type Answer = LogPage;
}

/// The same as [`ReadRun`] for who waits for the end: it comes with the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AwaitRun {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: RunId,
    /// From where, and how much.
    pub read: ReadLog,
}

/// A part of a run's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Awaited {
    /// The part.
    pub page: LogPage,
    /// The run, with the last part: as it is at its end, without what it wrote.
    pub run: Option<Run>,
}

impl Call for AwaitRun {
    const NAME: &'static str = "run.await";
    type Answer = Awaited;
}

/// A run as it is now, without what it wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetRun {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: RunId,
}

impl Call for GetRun {
    const NAME: &'static str = "run.get";
    type Answer = Run;
}

/// Ends a run, wherever it is; one that is over stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelRun {
    /// Who asks.
    pub caller: Caller,
    /// Its name.
    pub id: RunId,
}

impl Call for CancelRun {
    const NAME: &'static str = "run.cancel";
    type Answer = Run;
}

/// Runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListRuns {
    /// Whose.
    pub tenant: String,
    /// Only those that are there.
    pub state: Option<RunState>,
    /// Which page.
    pub page: PageQuery,
}

impl Call for ListRuns {
    const NAME: &'static str = "run.list";
    type Answer = Page<Run>;
}

/// Something for a program that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SendRun {
    /// Whose it is.
    pub tenant: String,
    /// Its run.
    pub id: RunId,
    /// What.
    pub input: Input,
}

impl Call for SendRun {
    const NAME: &'static str = "run.send";
    type Answer = ();
}

/// The queue as a tenant may see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookQueue {
    /// Who looks.
    pub tenant: String,
}

impl Call for LookQueue {
    const NAME: &'static str = "queue.look";
    type Answer = Queue;
}

/// The hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListHosts {}

impl Call for ListHosts {
    const NAME: &'static str = "host.list";
    type Answer = Vec<Host>;
}

/// What a tenant used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookUsage {
    /// Whose use.
    pub tenant: String,
    /// Which days.
    pub query: UsageQuery,
}

impl Call for LookUsage {
    const NAME: &'static str = "usage.look";
    type Answer = Usage;
}

/// A key, to check a secret against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindKey {
    /// Its name.
    pub id: KeyId,
}

/// A key and the hash of its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyFound {
    /// The key.
    pub key: Key,
    /// BLAKE3 of the secret.
    pub secret_hash: [u8; 32],
}

impl Call for FindKey {
    const NAME: &'static str = "key.find";
    type Answer = Option<KeyFound>;
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MakeKey {
    /// Who asks, for the audit.
    pub actor: String,
    /// What it shall be.
    pub key: NewKey,
}

impl Call for MakeKey {
    const NAME: &'static str = "key.make";
    type Answer = KeyMade;
}

/// All keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListKeys {}

impl Call for ListKeys {
    const NAME: &'static str = "key.list";
    type Answer = Vec<Key>;
}

/// Ends a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokeKey {
    /// Who asks, for the audit.
    pub actor: String,
    /// Its name.
    pub id: KeyId,
}

impl Call for RevokeKey {
    const NAME: &'static str = "key.revoke";
    type Answer = Key;
}

/// A host tells that it is there, and how it is. Without this for a while it gets no work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportHost {
    /// How it is.
    pub host: Host,
    /// It takes no new work.
    pub draining: bool,
}

impl Call for ReportHost {
    const NAME: &'static str = "host.report";
    type Answer = ();
}
