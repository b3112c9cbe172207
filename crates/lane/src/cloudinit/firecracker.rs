//! The Firecracker that a machine gets, and where from.

use std::fmt;
use std::str::FromStr;

/// An archive of a release, as the machine downloads it.
///
/// Its name is of the form `release-vX-x86_64/firecracker-vX-x86_64` inside, and the same of the jailer:
/// so Firecracker's releases are (docs/getting-started.md of v1.16.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    url: String,
    sha256: String,
}

impl Download {
    /// The release that Firelane is tested with: 1.16.1, for x86-64. The sum is the one that is published
    /// beside it, `firecracker-v1.16.1-x86_64.tgz.sha256.txt`.
    #[must_use]
    pub fn pinned() -> Download {
        Download {
            url: "https://github.com/firecracker-microvm/firecracker/releases/download/v1.16.1/firecracker-v1.16.1-x86_64.tgz".into(),
            sha256: "382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6".into(),
        }
    }

    /// As the preparing script reads it: a URL and a sum, without anything that a shell knows.
    pub(super) fn settings(download: Option<&Download>) -> String {
        let (url, sha256) = download.map_or(("", ""), |it| (&*it.url, &*it.sha256));
        format!("FIRECRACKER_URL='{url}' FIRECRACKER_SHA256='{sha256}'")
    }
}

/// `URL#sha256=HEX`, as it is read.
impl fmt::Display for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}#sha256={}", self.url, self.sha256)
    }
}

/// A text that names no archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// Without a sum nobody knows what was got.
    #[error("a URL needs the archive's SHA-256: URL#sha256=HEX, with 64 digits of lower-case hex")]
    Sum,
    /// A URL of another kind, or with what a shell would read.
    #[error("it is no URL that begins with https://, http:// or file:///")]
    Url,
}

impl FromStr for Download {
    type Err = DownloadError;

    /// `URL#sha256=HEX`.
    fn from_str(text: &str) -> Result<Download, DownloadError> {
        let (url, sha256) = text.split_once("#sha256=").ok_or(DownloadError::Sum)?;
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        if sha256.len() != 64 || !sha256.chars().all(is_hex) {
            return Err(DownloadError::Sum);
        }
        let known = ["https://", "http://", "file:///"];
        let rest = known.iter().find_map(|scheme| url.strip_prefix(scheme));
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/?@[]%+,;=&".contains(c);
        match rest {
            Some(rest) if !rest.is_empty() && rest.chars().all(fits) => Ok(Download {
                url: url.into(),
                sha256: sha256.into(),
            }),
            _ => Err(DownloadError::Url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6";

    #[test]
    fn what_is_pinned_can_be_said() {
        let pinned = Download::pinned();
        assert_eq!(pinned.to_string().parse(), Ok(pinned));
    }

    #[test]
    fn what_is_not_pinned_or_could_steer_a_shell_is_refused() {
        let check = |text: &str, expected| {
            let refused = text.parse::<Download>().map(|_| ());
            assert_eq!(refused, Err(expected), "{text}");
        };
        check("https://h/f.tgz", DownloadError::Sum);
        check("https://h/f.tgz#sha256=", DownloadError::Sum);
        check(
            &format!("https://h/f.tgz#sha256={}", SUM.to_uppercase()),
            DownloadError::Sum,
        );
        check(
            &format!("https://h/f.tgz#sha256={SUM}0"),
            DownloadError::Sum,
        );
        for url in [
            "ftp://h/f",
            "https://",
            "https://h/'f",
            "https://h/$f",
            "https://h/ f",
            "f.tgz",
        ] {
            check(&format!("{url}#sha256={SUM}"), DownloadError::Url);
        }
    }
}
