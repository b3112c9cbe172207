//! Where a request comes from, in the caller's own trace.
//!
//! Source: W3C, "Trace Context" (level 1, recommendation of 2021-11-23), `traceparent`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of version 0, which every later version begins with.
const BYTES: usize = 55;
/// The bit of the flags that says that the caller records its own spans.
const SAMPLED: u8 = 1;

/// The caller's span, of which what is asked for becomes a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not 0.
    pub trace_id: u128,
    /// The caller's span; not 0.
    pub span_id: u64,
    /// The caller records its own spans, and wants those of others.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no `traceparent` of the W3C's Trace Context")]
pub struct BadTraceParent;

impl FromStr for TraceParent {
    type Err = BadTraceParent;

    fn from_str(text: &str) -> Result<TraceParent, BadTraceParent> {
        let (head, more) = text.split_at_checked(BYTES).ok_or(BadTraceParent)?;
        let mut fields = head.split('-');
        let mut field = |digits| fields.next().and_then(|field| hex(field, digits));
        let mut all = || Some((field(2)?, field(32)?, field(16)?, field(2)?));
        let (version, trace_id, span_id, flags) = all().ok_or(BadTraceParent)?;
        let is_version = match version {
            0 => more.is_empty(),
            // Never one; of those to come, what is known of them holds.
            0xff => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let span_id = u64::try_from(span_id).map_err(|_| BadTraceParent)?;
        if !is_version || trace_id == 0 || span_id == 0 || fields.next().is_some() {
            return Err(BadTraceParent);
        }
        Ok(TraceParent {
            trace_id,
            span_id,
            sampled: flags & u128::from(SAMPLED) != 0,
        })
    }
}

/// A number of so many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled) * SAMPLED;
        let (trace, span) = (self.trace_id, self.span_id);
        write!(formatter, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TraceParent, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn what_is_written_is_what_was_read() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
            let parent: TraceParent = text.parse().expect("it is one");
            assert_eq!(parent.to_string(), text);
            assert_eq!(format!("{:032x}", parent.trace_id), TRACE);
            assert_eq!(parent.span_id, 0x00f0_67aa_0ba9_02b7);
            assert_eq!(parent.sampled, flags == "01");
        }
    }

    #[test]
    fn later_versions_begin_like_the_first() {
        let check = |text: &str, expected| {
            let parent = text.parse::<TraceParent>().map(|parent| parent.sampled);
            assert_eq!(parent.ok(), expected, "{text}");
        };
        check(&format!("01-{TRACE}-00f067aa0ba902b7-09"), Some(true));
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-08-what"), Some(false));
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01."), None);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let check =
            |text: &str| assert_eq!(text.parse::<TraceParent>(), Err(BadTraceParent), "{text}");
        check("");
        check("00");
        check(&format!("ff-{TRACE}-00f067aa0ba902b7-01"));
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01-"));
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01x"));
        check(&format!("00-{TRACE}-00f067aa0ba902b7-0"));
        check(&format!(" 0-{TRACE}-00f067aa0ba902b7-01"));
        check(&format!("+0-{TRACE}-00f067aa0ba902b7-01"));
        check(&format!("00-{TRACE}-00F067AA0BA902B7-01"));
        check(&format!("00-{TRACE}-0000000000000000-01"));
        check(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)));
        check(&format!("00_{TRACE}_00f067aa0ba902b7_01"));
        check(&format!("00-{TRACE}a-0f067aa0ba902b7-01"));
        check(&"\u{e9}".repeat(28));
    }
}
