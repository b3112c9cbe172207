//! Paths inside a root file system under construction: relative, without `.` and `..`, with the
//! top-level folders `bin`, `sbin` and `lib*` folded into `usr` (the merged-/usr layout of Debian 12).

/// Top-level folders that are symbolic links into `usr` in the finished tree.
pub(crate) const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Brings a path from an archive or a definition into its place in the tree. `None` when it would leave the
/// tree. The root itself is the empty string.
pub(crate) fn normalise(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part if part.contains('\0') => return None,
            part => parts.push(part),
        }
    }
    if parts.len() > 1 && MERGED.contains(&parts[0]) {
        parts.insert(0, "usr");
    }
    Some(parts.join("/"))
}

/// Whether `pattern` matches `path` or a folder above it. `*` stands for any characters within one
/// component, `**` for any number of components.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_matches('/').split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    components(&pattern, &path)
}

fn components(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], _) => true,
        (["**", rest @ ..], _) => (0..path.len()).any(|skip| components(rest, &path[skip..])),
        ([_, ..], []) => false,
        ([first, rest @ ..], [name, below @ ..]) => {
            component(first.as_bytes(), name.as_bytes()) && components(rest, below)
        }
    }
}

fn component(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skip| component(rest, &name[skip..])),
        ([byte, rest @ ..], [first, below @ ..]) if byte == first => component(rest, below),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative_and_merged_into_usr() {
        fn check(input: &str, expected: Option<&str>) {
            assert_eq!(normalise(input).as_deref(), expected, "{input}");
        }
        check("./etc//passwd", Some("etc/passwd"));
        check("/usr/bin/x/", Some("usr/bin/x"));
        check("bin/sh", Some("usr/bin/sh"));
        check("lib64/ld.so", Some("usr/lib64/ld.so"));
        check("bin", Some("bin"));
        check("./", Some(""));
        check("../etc", None);
        check("usr/../../etc", None);
        check("a\0b", None);
    }

    #[test]
    fn patterns_match_whole_components_and_everything_below() {
        fn check(pattern: &str, path: &str, expected: bool) {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        check("usr/share/doc", "usr/share/doc", true);
        check("usr/share/doc", "usr/share/doc/bash/copyright", true);
        check("usr/share/doc", "usr/share/doc-base", false);
        check("/usr/share/doc/", "usr/share/doc/x", true);
        check(
            "usr/lib/python3*/test",
            "usr/lib/python3.11/test/x.py",
            true,
        );
        check("usr/lib/*.a", "usr/lib/x86_64-linux-gnu/libc.a", false);
        check("usr/lib/**/*.a", "usr/lib/x86_64-linux-gnu/libc.a", true);
        check("**/__pycache__", "usr/lib/python3/__pycache__/x.pyc", true);
        check("usr", "", false);
    }
}
