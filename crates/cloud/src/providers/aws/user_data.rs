//! What cloud-init reads, within EC2's limit.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::client::RUN_INSTANCES;
use crate::error::{Class, CloudError};

/// Most bytes before base64: "User data is limited to 16 KB, in raw form" (EC2 user guide).
pub(super) const MOST_BYTES: usize = 16 << 10;

/// A document as it goes to the machine: compressed, if it is too large. cloud-init unpacks it.
pub(super) fn packed(text: &str) -> Result<Vec<u8>, CloudError> {
    if text.len() <= MOST_BYTES {
        return Ok(text.as_bytes().to_vec());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder
        .write_all(text.as_bytes())
        .and_then(|()| encoder.finish())
        .map_err(|error| RUN_INSTANCES.error(Class::Invalid, format!("user-data: {error}")))?;
    if packed.len() <= MOST_BYTES {
        return Ok(packed);
    }
    let (raw, small) = (text.len(), packed.len());
    let message =
        format!("the user-data has {raw} bytes, {small} compressed, and AWS takes {MOST_BYTES}");
    Err(RUN_INSTANCES
        .error(Class::Invalid, message)
        .with_remedy("move files out of the cloud-init document"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn only_what_is_too_large_is_packed_and_what_stays_so_is_refused() {
        let fits = "a".repeat(MOST_BYTES);
        assert_eq!(packed(&fits).unwrap(), fits.as_bytes());
        let large = "a".repeat(MOST_BYTES + 1);
        let small = packed(&large).unwrap();
        let mut back = String::new();
        flate2::read::GzDecoder::new(&*small)
            .read_to_string(&mut back)
            .unwrap();
        assert_eq!(back, large);
        let mut dice = fastrand::Rng::with_seed(1);
        let noise: String = (0..40_000).map(|_| dice.alphanumeric()).collect();
        let error = packed(&noise).unwrap_err();
        assert!(
            error.message.starts_with("the user-data has 40000 bytes, "),
            "{error}"
        );
    }
}
