//! What providers do not take.

use firelane_cloud::provider::UserData;

/// Why a document cannot be given to a provider.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too large.
    #[error("it has {bytes} bytes, and the provider takes {most}")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
    /// `{{` begins a variable for this provider.
    #[error("it has {{{{ in it, at byte {0}, which the provider would replace")]
    Templated(usize),
    /// Some providers take nothing but ASCII.
    #[error("it has something else than ASCII in it, at byte {0}")]
    NotAscii(usize),
}

/// Whether a provider takes it. One that takes gzip compresses what is too large by itself.
pub(super) fn check(text: &str, limits: &UserData) -> Result<(), DocumentError> {
    let (bytes, most) = (text.len(), limits.most_bytes);
    if bytes > most && !limits.gzip {
        return Err(DocumentError::TooLarge { bytes, most });
    }
    if let Some(at) = text.find("{{").filter(|_| limits.templated) {
        return Err(DocumentError::Templated(at));
    }
    match text.bytes().position(|byte| !byte.is_ascii()) {
        Some(at) => Err(DocumentError::NotAscii(at)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: UserData = UserData {
        most_bytes: 10,
        gzip: false,
        templated: true,
    };

    #[test]
    fn each_limit_is_kept() {
        assert_eq!(check("a {b} }} c", &LIMITS), Ok(()));
        let (bytes, most) = (11, 10);
        assert_eq!(
            check("01234567890", &LIMITS),
            Err(DocumentError::TooLarge { bytes, most })
        );
        assert_eq!(check("a {{ b", &LIMITS), Err(DocumentError::Templated(2)));
        assert_eq!(check("a ä", &LIMITS), Err(DocumentError::NotAscii(2)));
        let gzip = UserData {
            gzip: true,
            templated: false,
            ..LIMITS
        };
        assert_eq!(check("0123456789 {{ }}", &gzip), Ok(()));
    }
}
