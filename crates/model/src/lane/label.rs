//! Names of lanes.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most characters of a label: with `firelane-` in front it is a host name, a machine's name and a
/// tag at every provider. Those of gcp have 63 characters, and room is left for what is appended.
pub const MAX_LABEL: usize = 40;

/// The name that a lane's user gave it: 1 to [`MAX_LABEL`] of a-z, 0-9 and hyphens, the first a
/// letter, the last no hyphen. It is a host name, a tag's value and a part of file names as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Why a text is not a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Too short or too long.
    #[error("a label has 1 to {MAX_LABEL} characters, not {0}")]
    Length(usize),
    /// A character that is not of a label, or not there.
    #[error(
        "a label begins with a letter, ends with a letter or digit, and has only a-z, 0-9 and hyphens between: character {position}, {found:?}, does not fit"
    )]
    Character {
        /// Which, from 1.
        position: usize,
        /// What it is.
        found: char,
    },
}

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let count = text.chars().count();
        if !(1..=MAX_LABEL).contains(&count) {
            return Err(LabelError::Length(count));
        }
        for (index, found) in text.chars().enumerate() {
            let fits = match found {
                'a'..='z' => true,
                '0'..='9' => index > 0,
                '-' => index > 0 && index + 1 < count,
                _ => false,
            };
            if !fits {
                let position = index + 1;
                return Err(LabelError::Character { position, found });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
