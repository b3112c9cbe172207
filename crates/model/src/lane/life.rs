//! From one stage to the next.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{Handle, Record, Step, Terms};
use super::{Label, LaneId};
use crate::time::Moment;

/// How far a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Written down; there may be a machine, if its create was begun.
    Planned,
    /// The machine runs.
    Created,
    /// It lets us in.
    Reachable,
    /// cloud-init has prepared it.
    CloudInit,
    /// The programs are there.
    Synced,
    /// The services run.
    Deployed,
    /// They have been shown to work.
    Verified,
    /// It is being given back.
    Expiring,
    /// Nothing of it is left.
    Retired,
}

impl Stage {
    /// The step that leads on from here; from Expiring, the one that is being done. None: it is over.
    pub const fn next(self) -> Option<Step> {
        match self {
            Self::Planned => Some(Step::Create),
            Self::Created => Some(Step::Reach),
            Self::Reachable => Some(Step::Prepare),
            Self::CloudInit => Some(Step::Sync),
            Self::Synced => Some(Step::Deploy),
            Self::Deployed => Some(Step::Verify),
            Self::Expiring => Some(Step::Retire),
            Self::Verified | Self::Retired => None,
        }
    }

    const fn after(step: Step) -> Self {
        match step {
            Step::Create => Self::Created,
            Step::Reach => Self::Reachable,
            Step::Prepare => Self::CloudInit,
            Step::Sync => Self::Synced,
            Step::Deploy => Self::Deployed,
            Step::Verify => Self::Verified,
            Step::Retire => Self::Retired,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Planned => "planned",
            Self::Created => "created",
            Self::Reachable => "reachable",
            Self::CloudInit => "cloud-init",
            Self::Synced => "synced",
            Self::Deployed => "deployed",
            Self::Verified => "verified",
            Self::Expiring => "expiring",
            Self::Retired => "retired",
        })
    }
}

/// Why a record does not follow on those before it: the journal is damaged, or two wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// The first record is another one than `planned`.
    #[error("a journal begins with what was planned")]
    NotPlanned,
    /// `planned` comes a second time.
    #[error("a lane is planned once")]
    PlannedTwice,
    /// A step that does not lead on from the stage.
    #[error("a lane that is {stage} does not {step}")]
    OutOfTurn {
        /// Where it is.
        stage: Stage,
        /// What the record tells of.
        step: Step,
    },
    /// The end of a step that was not begun.
    #[error("the step {0} ended without having begun")]
    NotBegun(Step),
    /// A machine or an address without a step that would find it.
    #[error("a lane that is {0} was told of a machine")]
    NoMachine(Stage),
    /// A machine was created, and nothing says where it is.
    #[error("a machine was created, and nothing says which or where")]
    Nowhere,
}

/// A lane, as its journal tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The lane.
    pub lane: LaneId,
    /// Its name.
    pub label: Label,
    /// Who owns it.
    pub owner: String,
    /// What it is to be.
    pub terms: Terms,
    /// When it was planned, since the Unix epoch.
    pub created: Moment,
    /// When anybody may remove it, since the Unix epoch.
    pub expires: Moment,
    /// What it costs, in thousandths of a US dollar for one hour.
    pub milli_usd_per_hour: Option<u64>,
    /// How far it is.
    pub stage: Stage,
    /// A step that was begun and has not ended: it may be under way, or its process was killed.
    pub begun: Option<Step>,
    /// Whether a create was ever begun: then there may be a machine, whatever else is known.
    pub maybe_made: bool,
    /// Whether anything was ever begun on the machine itself.
    pub entered: bool,
    /// The machine.
    pub handle: Option<Handle>,
    /// Its address and the port of its SSH server.
    pub address: Option<(String, u16)>,
    /// The last step that failed, and why; nothing since a step was done.
    pub failed: Option<(Step, String)>,
    /// When it came to the stage that it is at, since the Unix epoch.
    pub since: Moment,
}

impl Lane {
    /// The lane that a journal begins.
    pub fn begin(record: Record, at: Moment) -> Result<Lane, Impossible> {
        let Record::Planned {
            lane,
            label,
            owner,
            terms,
            expires,
            milli_usd_per_hour,
        } = record
        else {
            return Err(Impossible::NotPlanned);
        };
        Ok(Lane {
            lane,
            label,
            owner,
            terms,
            created: at,
            expires,
            milli_usd_per_hour,
            stage: Stage::Planned,
            begun: None,
            maybe_made: false,
            entered: false,
            handle: None,
            address: None,
            failed: None,
            since: at,
        })
    }

    /// What a journal says, from first to last.
    pub fn read(
        records: impl IntoIterator<Item = (Moment, Record)>,
    ) -> Result<Option<Lane>, Impossible> {
        let mut records = records.into_iter();
        let Some((at, first)) = records.next() else {
            return Ok(None);
        };
        let mut lane = Lane::begin(first, at)?;
        for (at, record) in records {
            lane.apply(record, at)?;
        }
        Ok(Some(lane))
    }

    /// One more record. Refused, it has changed nothing.
    pub fn apply(&mut self, record: Record, at: Moment) -> Result<(), Impossible> {
        match record {
            Record::Planned { .. } => return Err(Impossible::PlannedTwice),
            Record::Begun { step } => {
                self.in_turn(step)?;
                self.begun = Some(step);
                self.maybe_made |= step == Step::Create;
                self.entered |= matches!(step, Step::Prepare | Step::Sync | Step::Deploy);
                if step == Step::Retire && self.stage != Stage::Expiring {
                    (self.stage, self.since) = (Stage::Expiring, at);
                }
            }
            Record::Made { handle } => {
                if !self.maybe_made || self.stage == Stage::Retired {
                    return Err(Impossible::NoMachine(self.stage));
                }
                self.handle = Some(handle);
            }
            Record::Addressed { address, port } => {
                if self.handle.is_none() || self.stage == Stage::Retired {
                    return Err(Impossible::NoMachine(self.stage));
                }
                self.address = Some((address, port));
            }
            Record::Done { step } => {
                self.ended(step)?;
                if step == Step::Create && (self.handle.is_none() || self.address.is_none()) {
                    return Err(Impossible::Nowhere);
                }
                self.begun = None;
                self.failed = None;
                (self.stage, self.since) = (Stage::after(step), at);
            }
            Record::Failed { step, cause } => {
                self.ended(step)?;
                self.begun = None;
                self.failed = Some((step, cause));
            }
        }
        Ok(())
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.stage != Stage::Retired && now >= self.expires
    }

    /// What it has cost so far, in thousandths of a US dollar: from when it was planned to when it
    /// was retired, or now. None: its price is not known.
    pub fn milli_usd(&self, now: Moment) -> Option<u64> {
        const HOUR_MS: u128 = 3_600_000;
        if !self.maybe_made {
            return Some(0);
        }
        let end = if self.stage == Stage::Retired {
            self.since
        } else {
            now
        };
        let ms = end.since(self.created).as_millis();
        let price = u128::from(self.milli_usd_per_hour?);
        u64::try_from((ms * price).div_ceil(HOUR_MS)).ok()
    }

    /// A step may be begun: the next one, the last one once more, or giving it back.
    fn in_turn(&self, step: Step) -> Result<(), Impossible> {
        let stage = self.stage;
        let fits = match step {
            Step::Retire => stage != Stage::Retired,
            // What has been done may be done again, to mend it; not what comes later.
            _ => stage < Stage::Expiring && Stage::after(step) <= next_of(stage),
        };
        if fits {
            Ok(())
        } else {
            Err(Impossible::OutOfTurn { stage, step })
        }
    }

    fn ended(&self, step: Step) -> Result<(), Impossible> {
        if self.begun == Some(step) {
            Ok(())
        } else {
            Err(Impossible::NotBegun(step))
        }
    }
}

/// The stage that the next step leads to; the stage itself if there is none.
const fn next_of(stage: Stage) -> Stage {
    match stage.next() {
        Some(step) => Stage::after(step),
        None => stage,
    }
}
