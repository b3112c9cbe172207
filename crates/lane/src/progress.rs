//! What a lane tells while it is at work.

use firelane_model::lane::{Label, Stage, Step};
use serde::Serialize;

/// Something that happened. As JSON, one line each, it is what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// What is about to be got, before anything is spent.
    Planned {
        /// The lane.
        label: Label,
        /// Provider, region and type, in the provider's words.
        provider: String,
        /// Region.
        region: String,
        /// Type.
        instance_type: String,
        /// Price in thousandths of a US dollar for one hour. None: not known.
        milli_usd_per_hour: Option<u64>,
        /// When anybody may remove it, in seconds since the Unix epoch.
        expires: u64,
    },
    /// A lane that exists goes on.
    Resumed {
        /// The lane.
        label: Label,
        /// Where it is.
        stage: Stage,
    },
    /// A step begins.
    Begun {
        /// Which.
        step: Step,
    },
    /// Something of a step that a person may want to know.
    Note {
        /// Which step.
        step: Step,
        /// In a few words.
        message: String,
    },
    /// Lines of a log that explain a failure.
    Log {
        /// Which step.
        step: Step,
        /// From where.
        source: String,
        /// The end of it.
        text: String,
    },
    /// A step is done.
    Done {
        /// Which.
        step: Step,
        /// How long it took.
        ms: u64,
    },
    /// A step was not done.
    Failed {
        /// Which.
        step: Step,
        /// Why.
        cause: String,
        /// What to do about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

/// Somebody who is told.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn tell(&self, event: &Event);
}
