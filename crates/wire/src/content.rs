//! Bytes in JSON: text where they are text, base64 beside it where they are not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that a request brings: text, or base64; not both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// Nothing.
    #[default]
    Nothing,
    /// As UTF-8 text.
    Text(String),
    /// As base64 (RFC 4648, section 4, padded).
    Base64 {
        /// The bytes.
        base64: String,
    },
}

/// The base64 of a [`Content`] is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not base64: {0}")]
pub struct NotBase64(#[from] base64::DecodeError);

impl Content {
    /// How many bytes it is.
    ///
    /// # Errors
    /// [`NotBase64`].
    pub fn count(&self) -> Result<usize, NotBase64> {
        match self {
            Content::Nothing => Ok(0),
            Content::Text(text) => Ok(text.len()),
            Content::Base64 { base64 } => Ok(STANDARD.decode(base64)?.len()),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`NotBase64`].
    pub fn into_bytes(self) -> Result<Vec<u8>, NotBase64> {
        match self {
            Content::Nothing => Ok(Vec::new()),
            Content::Text(text) => Ok(text.into_bytes()),
            Content::Base64 { base64 } => Ok(STANDARD.decode(base64)?),
        }
    }
}

/// Bytes as base64.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes as text, with an exact base64 twin where bytes had to be replaced.
#[must_use]
pub fn text(bytes: Vec<u8>) -> (String, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let bytes = error.as_bytes();
            let text = String::from_utf8_lossy(bytes).into_owned();
            (text, Some(STANDARD.encode(bytes)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_keep_an_exact_twin() {
        assert_eq!(text(b"42\n".to_vec()), ("42\n".into(), None));
        assert_eq!(
            text(vec![b'a', 0xff]),
            ("a\u{fffd}".into(), Some("Yf8=".into()))
        );
    }

    #[test]
    fn content_is_text_or_base64() {
        let check = |json: &str, expected: Option<&[u8]>| {
            let content: Result<Content, _> = serde_json::from_str(json);
            let bytes = content.ok().and_then(|content| content.into_bytes().ok());
            assert_eq!(bytes.as_deref(), expected, "{json}");
        };
        check("null", Some(b""));
        check("\"a\\n\"", Some(b"a\n"));
        check("{\"base64\":\"Yf8=\"}", Some(&[b'a', 0xff]));
        check("{\"base64\":\"Yf8\"}", None);
        check("{\"text\":\"x\"}", None);
        check("7", None);
    }
}
