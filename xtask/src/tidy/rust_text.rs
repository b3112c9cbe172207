//! Rust source without its comments and literals, so that a rule about code looks at code only.

/// The same text, line for line, with comments gone and the content of string and character
/// literals blanked. Good enough for looking up words; not a parser.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            b'/' if rest.starts_with(b"//") => line_length(rest),
            b'/' if rest.starts_with(b"/*") => block_length(rest),
            b'"' => string_length(rest),
            b'r' if !follows_word(bytes, at) => raw_length(rest).unwrap_or(0),
            b'\'' => character_length(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(char::from(rest[0]));
            at += 1;
        } else {
            let skipped = &rest[..length];
            code.push(' ');
            code.extend(skipped.iter().filter(|byte| **byte == b'\n').map(|_| '\n'));
            at += length;
        }
    }
    code
}

/// Whether `word` stands in `line` as a word of its own.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(is_word)
    })
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    // `br"..."` is a raw string too; `bar` is not the start of one.
    let before = at.checked_sub(1).map(|before| bytes[before]);
    before.is_some_and(|byte| byte != b'b' && is_word(char::from(byte)))
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len())
}

/// Block comments nest.
fn block_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#` and so on; nothing if this is not the start of one.
fn raw_length(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let content = &rest[2 + hashes..];
    let end = content
        .windows(close.len())
        .position(|window| window == close);
    Some(end.map_or(rest.len(), |end| 2 + hashes + end + close.len()))
}

/// `'x'` and `'\n'`; nothing for a lifetime.
fn character_length(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(0, |end| end + 4);
    }
    let text = String::from_utf8_lossy(&rest[..rest.len().min(6)]);
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, words: &[&str], not: &[&str]) {
        let code = code_only(text);
        for word in words {
            assert!(has_word(&code, word), "{word} is in {code:?}");
        }
        for word in not {
            assert!(!has_word(&code, word), "{word} is not in {code:?}");
        }
        assert_eq!(code.lines().count(), text.lines().count(), "{text:?}");
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        check("let a = 1; // b\nc", &["a", "c"], &["b"]);
        check("a /* b /* c */ d */ e", &["a", "e"], &["b", "c", "d"]);
        check(r#"f("a \" b", g)"#, &["f", "g"], &["a", "b"]);
        check("f(r#\"a \" b\n\"#, g)", &["f", "g"], &["a", "b"]);
        check(r"m('a', '\'', 'ü', b)", &["m", "b"], &["a", "ü"]);
        check("fn f<'a>(x: &'a str) {}", &["f", "a", "x", "str"], &[]);
        check("let bar = 1; let r = 2;", &["bar", "r"], &[]);
    }

    #[test]
    fn a_word_is_not_a_part_of_one() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("#![allow(unsafe_code)]", "unsafe"));
    }
}
