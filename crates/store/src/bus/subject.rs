//! Names of what can be asked: tokens with dots between them.

use super::error::BusError;
use super::limits::MAX_SUBJECT_BYTES;

/// Accepts tokens of ASCII letters, digits, `-` and `_`, with single dots between them, at most
/// [`MAX_SUBJECT_BYTES`] in all. So a subject holds no wildcard of NATS, no space and no line end.
pub fn check_subject(subject: &str) -> Result<(), BusError> {
    let reason = if subject.len() > MAX_SUBJECT_BYTES {
        "it is too long"
    } else if subject.split('.').any(str::is_empty) {
        "a token is empty"
    } else if !subject.bytes().all(|byte| byte == b'.' || in_token(byte)) {
        "tokens are letters, digits, '-' and '_'"
    } else {
        return Ok(());
    };
    Err(bad(subject, reason))
}

fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn bad(subject: &str, reason: &'static str) -> BusError {
    let subject = subject.chars().take(MAX_SUBJECT_BYTES).collect();
    BusError::BadSubject { subject, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_tokens_with_dots_between() {
        let longest = "x".repeat(MAX_SUBJECT_BYTES);
        for good in ["a", "runs.start", "host.h-1.Runs_2.x", &longest] {
            assert_eq!(check_subject(good), Ok(()), "{good}");
        }
        let too_long = "x".repeat(MAX_SUBJECT_BYTES + 1);
        for bad in [
            "", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "ä", "a\n", "a\0", &too_long,
        ] {
            let refused = check_subject(bad).unwrap_err();
            assert!(
                matches!(refused, BusError::BadSubject { .. }),
                "{bad}: {refused}"
            );
        }
    }
}
