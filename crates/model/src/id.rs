//! Ids of what the service keeps: a prefix that says of what, and 128 bits in lower-case hex.
//!
//! They are used as they are in file names, URLs and records: one thing has one spelling, and
//! nothing else parses.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Characters after the prefix: 128 bits.
const DIGITS: usize = 32;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// It does not begin as ids of this kind do.
    #[error("the id of a {kind} begins with `{prefix}`")]
    Prefix {
        /// What was to be named.
        kind: &'static str,
        /// How its ids begin.
        prefix: &'static str,
    },
    /// Too much or too little follows the prefix.
    #[error("{DIGITS} characters follow the prefix of an id, not {found}")]
    Length {
        /// How many characters follow it.
        found: usize,
    },
    /// Something other than 0-9 and a-f follows the prefix.
    #[error("character {position} of the id, {found:?}, is not one of 0-9 and a-f")]
    Digit {
        /// Which character of the id, from 1.
        position: usize,
        /// The character.
        found: char,
    },
}

/// The bits of an id.
fn parse(text: &str, kind: &'static str, prefix: &'static str) -> Result<u128, IdError> {
    let digits = text
        .strip_prefix(prefix)
        .ok_or(IdError::Prefix { kind, prefix })?;
    let mut bits = 0;
    for (index, found) in digits.chars().enumerate() {
        let value = match found {
            '0'..='9' => u32::from(found) - u32::from('0'),
            'a'..='f' => u32::from(found) - u32::from('a') + 10,
            _ => {
                let position = prefix.len() + index + 1;
                return Err(IdError::Digit { position, found });
            }
        };
        // What is shifted out is of an id that is too long, and refused below.
        bits = bits << 4 | u128::from(value);
    }
    match digits.len() {
        DIGITS => Ok(bits),
        found => Err(IdError::Length { found }),
    }
}

/// Reads an id from a string of any format.
struct FromText<T>(PhantomData<T>);

impl<T: FromStr<Err = IdError>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! ids {
    ($($name:ident, $kind:literal, $prefix:literal;)*) => {$(
        #[doc = concat!("Names one ", $kind, ": `", $prefix, "` and 32 characters of lower-case hex.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// How all of them begin.
            pub const PREFIX: &str = $prefix;

            /// The id with these bits. Where ids must not be guessed, the bits are random.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits it was made from.
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}{:0width$x}", $prefix, self.0, width = DIGITS)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text, $kind, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText(PhantomData))
            }
        }
    )*};
}

ids! {
    RunId, "run", "run-";
    SandboxId, "sandbox", "sbx-";
    ExecId, "exec", "exe-";
    KeyId, "key", "key-";
    SnapshotId, "snapshot", "snp-";
    BuildId, "build", "bld-";
    LaneId, "lane", "lane-";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    const ONE: &str = "run-00000000000000000000000000000001";

    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<RunId>().unwrap_err().to_string(), expected);
    }

    #[test]
    fn what_is_wrong_with_an_id_is_named() {
        check("", "the id of a run begins with `run-`");
        check(
            "sbx-00000000000000000000000000000001",
            "the id of a run begins with `run-`",
        );
        check(
            "RUN-00000000000000000000000000000001",
            "the id of a run begins with `run-`",
        );
        check("run-", "32 characters follow the prefix of an id, not 0");
        check(
            "run-0123",
            "32 characters follow the prefix of an id, not 4",
        );
        check(
            &format!("{ONE}0"),
            "32 characters follow the prefix of an id, not 33",
        );
        check(
            "run-0000000000000000000000000000000A",
            "character 36 of the id, 'A', is not one of 0-9 and a-f",
        );
        check(
            "run-../../etc",
            "character 5 of the id, '.', is not one of 0-9 and a-f",
        );
        check(
            "run-+0000000000000000000000000000001",
            "character 5 of the id, '+', is not one of 0-9 and a-f",
        );
        check(
            &format!("{ONE}\n"),
            "character 37 of the id, '\\n', is not one of 0-9 and a-f",
        );
    }

    #[test]
    fn ids_are_strings_in_every_format() {
        struct Shown(RunId);
        impl fmt::Display for Shown {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.serialize(formatter)
            }
        }
        assert_eq!(Shown(RunId::from_bits(1)).to_string(), ONE);

        let read = |text: &'static str| {
            let text: StrDeserializer<'_, Error> = text.into_deserializer();
            RunId::deserialize(text)
        };
        assert_eq!(read(ONE).unwrap(), RunId::from_bits(1));
        assert_eq!(
            read("1").unwrap_err().to_string(),
            "the id of a run begins with `run-`"
        );
    }

    #[test]
    fn each_kind_has_its_prefix() {
        assert_eq!(SandboxId::from_bits(0).to_string()[..4], *SandboxId::PREFIX);
        assert_eq!(ExecId::from_bits(0).to_string()[..4], *"exe-");
        assert_eq!(KeyId::from_bits(0).to_string()[..4], *"key-");
        assert_eq!(SnapshotId::from_bits(0).to_string()[..4], *"snp-");
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_is_written(bits: u128) {
            let id = SandboxId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn one_id_has_one_spelling(text in "(run-)?[0-9a-fA-F]{30,34}") {
            if let Ok(id) = text.parse::<RunId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
