//! How a machine of ours is known among others: its tags.
//!
//! They go into the request that creates it, so that it never exists without them; `firelane down`
//! and `firelane reap` touch nothing that lacks [`EPHEMERAL`]. Keys and values keep to what every
//! provider takes: lower-case letters, digits, hyphens and underscores, at most 63 of them.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_model::lane::{Label, LaneId};
use firelane_model::time::Moment;

use crate::machine::Spec;

/// `true` at everything that a lane made, machines and what is beside them.
pub const EPHEMERAL: &str = "mvm-ephemeral";
/// The lane's label.
pub const LABEL: &str = "firelane-label";
/// The lane itself.
pub const LANE: &str = "firelane-lane";
/// Who made it.
pub const OWNER: &str = "firelane-owner";
/// When it was asked for, in seconds since the Unix epoch.
pub const CREATED: &str = "firelane-created";
/// When anybody may remove it, in seconds since the Unix epoch.
pub const EXPIRES: &str = "firelane-expires";

/// What the tags of one machine say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// [`LABEL`]
    pub label: Label,
    /// [`LANE`]. None: the tag is missing or no id.
    pub lane: Option<LaneId>,
    /// [`OWNER`]
    pub owner: String,
    /// [`CREATED`]
    pub created: Option<Moment>,
    /// [`EXPIRES`]
    pub expires: Option<Moment>,
}

/// The tags of a machine that is asked for.
pub fn tags(spec: &Spec) -> BTreeMap<String, String> {
    let seconds = |moment: Moment| moment.since_origin().as_secs().to_string();
    [
        (EPHEMERAL, "true".to_owned()),
        (LABEL, spec.label.to_string()),
        (LANE, spec.lane.to_string()),
        (OWNER, spec.owner.clone()),
        (CREATED, seconds(spec.created)),
        (EXPIRES, seconds(spec.expires)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What tags say. None: they are not ours, because [`EPHEMERAL`] is missing or something else than
/// `true`, or because there is no label.
pub fn read(tags: &BTreeMap<String, String>) -> Option<Mark> {
    if tags.get(EPHEMERAL).map(String::as_str) != Some("true") {
        return None;
    }
    let moment = |key| {
        let seconds: u64 = tags.get(key)?.parse().ok()?;
        Some(Moment::after_origin(Duration::from_secs(seconds)))
    };
    Some(Mark {
        label: tags.get(LABEL)?.parse().ok()?,
        lane: tags.get(LANE).and_then(|lane| lane.parse().ok()),
        owner: tags.get(OWNER).cloned().unwrap_or_default(),
        created: moment(CREATED),
        expires: moment(EXPIRES),
    })
}

/// Which machines are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that carry [`EPHEMERAL`].
    All,
    /// Those of one label.
    Label(Label),
    /// The one of one lane.
    Lane(LaneId),
}

impl Which {
    /// Whether a machine with this mark is meant.
    pub fn means(&self, mark: &Mark) -> bool {
        match self {
            Self::All => true,
            Self::Label(label) => mark.label == *label,
            Self::Lane(lane) => mark.lane.as_ref() == Some(lane),
        }
    }
}
