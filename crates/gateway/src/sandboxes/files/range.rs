//! Parts of files. Source: RFC 9110, section 14 (one range of bytes; several, or a range of something
//! else, are ignored, as they may be).

use axum::http::{HeaderMap, header};
use firelane_wire::problem::{Code, Problem};

/// What of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    All,
    /// From the first byte on, to the last or to the end.
    From {
        /// Its number, from 0.
        first: u64,
        /// Its number; none before `first`.
        last: Option<u64>,
    },
    /// So many bytes at the end.
    Last(u64),
}

/// What the headers ask for.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Wanted, Problem> {
    let Some(value) = headers.get(header::RANGE) else {
        return Ok(Wanted::All);
    };
    if headers.contains_key(header::IF_RANGE) {
        // There are no entity tags, and dates are of whole seconds: nothing is known to be the same.
        return Ok(Wanted::All);
    }
    let text = value.to_str().unwrap_or_default();
    let Some((unit, set)) = text.split_once('=') else {
        return Err(bad(text));
    };
    if !unit.eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Ok(Wanted::All);
    }
    one(set.trim()).ok_or_else(|| bad(text))
}

fn one(range: &str) -> Option<Wanted> {
    let (first, last) = range.split_once('-')?;
    if first.is_empty() {
        return number(last).map(Wanted::Last);
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(Wanted::From { first, last: None });
    }
    let last = number(last)?;
    (first <= last).then_some(Wanted::From {
        first,
        last: Some(last),
    })
}

/// Digits, and nothing else; what is larger than any file is as good as the largest number.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn bad(text: &str) -> Problem {
    let cause = format!("Range is {text:?}, which is no range of bytes");
    Problem::new(Code::BadRange, cause).with_remedy("bytes=0-99, bytes=100- or bytes=-100")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        let check = |value: &str, expected: Option<Wanted>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, value.parse().expect("it is a value"));
            assert_eq!(wanted(&headers).ok(), expected, "{value}");
        };
        let from = |first, last| Some(Wanted::From { first, last });
        check("bytes=0-0", from(0, Some(0)));
        check("Bytes=5-9", from(5, Some(9)));
        check("bytes=5-", from(5, None));
        check("bytes=-3", Some(Wanted::Last(3)));
        check("bytes=-0", Some(Wanted::Last(0)));
        check("bytes=0-99999999999999999999999", from(0, Some(u64::MAX)));
        check("bytes=0-1,3-4", Some(Wanted::All));
        check("lines=0-1", Some(Wanted::All));
        for wrong in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=9-5",
            "bytes=+1-2",
            "bytes=a-b",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn without_a_range_or_with_a_condition_it_is_all() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers), Ok(Wanted::All));
        headers.insert(header::RANGE, "bytes=0-1".parse().expect("it is a value"));
        headers.insert(header::IF_RANGE, "\"a\"".parse().expect("it is a value"));
        assert_eq!(wanted(&headers), Ok(Wanted::All));
    }
}
