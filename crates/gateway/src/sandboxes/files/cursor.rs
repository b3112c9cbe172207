//! Cursors of folders: the name that the next page begins after, in hex. Names are bytes, and a
//! query is text.

use firelane_wire::content::Content;
use firelane_wire::file::Entry;
use firelane_wire::problem::{Code, Problem};

/// The cursor of the page after this entry.
pub(super) fn after(entry: &Entry) -> String {
    let bytes = match &entry.name_base64 {
        Some(base64) => {
            let base64 = base64.clone();
            // What an agent writes is base64; if it were not, the text is as near as can be.
            let bytes = Content::Base64 { base64 }.into_bytes();
            bytes.unwrap_or_else(|_| entry.name.clone().into_bytes())
        }
        None => entry.name.clone().into_bytes(),
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a cursor.
pub(super) fn name(cursor: &str) -> Result<Vec<u8>, Problem> {
    let digits: Option<Vec<u32>> = cursor.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits.filter(|digits| digits.len() % 2 == 0);
    let Some(digits) = pairs else {
        let problem = Problem::new(Code::Invalid, "cursor is not one of a folder");
        return Err(problem.with_remedy("give the next_cursor of the page before, as it is"));
    };
    let bytes = digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default());
    Ok(bytes.collect())
}

#[cfg(test)]
mod tests {
    use firelane_wire::file::EntryKind;

    use super::*;

    fn entry(name: &str, name_base64: Option<&str>) -> Entry {
        Entry {
            name: name.into(),
            name_base64: name_base64.map(str::to_owned),
            kind: EntryKind::File,
            size: 0,
            mode: 0o644,
            modified_at: "2026-01-01T00:00:00Z".into(),
            target: None,
        }
    }

    #[test]
    fn a_cursor_gives_back_the_bytes_of_its_name() {
        let check = |entry: &Entry, bytes: &[u8]| {
            assert_eq!(name(&after(entry)).as_deref(), Ok(bytes), "{entry:?}");
        };
        check(&entry("a.txt", None), b"a.txt");
        check(&entry("ä +%", None), "ä +%".as_bytes());
        check(&entry("a\u{fffd}", Some("Yf8=")), b"a\xff");
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        assert_eq!(name(""), Ok(Vec::new()));
        for cursor in ["6", "6g", "äb", "a.txt"] {
            assert!(name(cursor).is_err(), "{cursor}");
        }
    }
}
