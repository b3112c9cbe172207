//! The uncompressed kernel (`vmlinux`, an ELF file) out of a bzImage.
//!
//! Format: Documentation/arch/x86/boot.rst. The setup header at 0x1f1 says how many 512-byte sectors
//! the real-mode part has; from protocol 2.08 `payload_offset` and `payload_length` give the place of the
//! compressed kernel relative to the protected-mode part. The build appends the uncompressed size to the
//! payload (4 bytes, little endian) unless the compression format carries it itself.

use std::io::Read;

use liblzma::read::XzDecoder;

/// Largest `vmlinux` accepted, in bytes. Distribution kernels unpack to 30 to 80 MiB.
const VMLINUX_LIMIT: usize = 256 << 20;
/// Most a block of an LZ4 legacy frame can unpack to.
const LZ4_BLOCK: usize = 8 << 20;

/// Why a kernel file could not be unpacked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BzImageError {
    /// The boot sector or the `HdrS` mark is not there.
    #[error("not an x86 boot image")]
    NotBoot,
    /// The boot protocol is older than 2.08 and names no payload.
    #[error("boot protocol {}.{:02} names no payload", version >> 8, version & 0xff)]
    OldProtocol {
        /// Protocol version, major in the upper byte.
        version: u16,
    },
    /// The payload lies outside of the file.
    #[error("payload lies outside of the file")]
    Truncated,
    /// The payload is compressed in a way that is not supported.
    #[error("payload is compressed with {format}, which is not supported")]
    Unsupported {
        /// Name of the format, as far as its first bytes tell.
        format: &'static str,
    },
    /// The payload does not decompress.
    #[error("payload is damaged: {reason}")]
    Damaged {
        /// What the decoder said.
        reason: String,
    },
    /// The payload unpacks to something that is not an ELF file.
    #[error("payload is not an ELF file")]
    NotElf,
}

/// Unpacks the kernel of a bzImage. LZ4 (legacy frames) and XZ are supported.
///
/// # Errors
/// See [`BzImageError`]; never panics on damaged input, and never unpacks more than 256 MiB.
pub(crate) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let payload = payload(image)?;
    let kernel = match payload {
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(payload)?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => xz(payload)?,
        [0x7f, b'E', b'L', b'F', ..] => payload.to_vec(),
        _ => {
            return Err(BzImageError::Unsupported {
                format: format_name(payload),
            });
        }
    };
    if kernel.starts_with(b"\x7fELF") {
        Ok(kernel)
    } else {
        Err(BzImageError::NotElf)
    }
}

fn payload(image: &[u8]) -> Result<&[u8], BzImageError> {
    if image.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) || image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(BzImageError::NotBoot);
    }
    let version = u16::from_le_bytes([
        image[0x1fe + 8],
        *image.get(0x207).ok_or(BzImageError::NotBoot)?,
    ]);
    if version < 0x0208 {
        return Err(BzImageError::OldProtocol { version });
    }
    let sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let offset = word(image, 0x248).ok_or(BzImageError::Truncated)?;
    let length = word(image, 0x24c).ok_or(BzImageError::Truncated)?;
    let start = (sectors + 1) * 512 + offset;
    image
        .get(start..start.saturating_add(length))
        .ok_or(BzImageError::Truncated)
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// LZ4 "legacy" frame: a magic word, then blocks of up to 8 MiB each preceded by its packed size.
fn lz4_legacy(payload: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let damaged = |reason: &str| BzImageError::Damaged {
        reason: reason.to_owned(),
    };
    // The last word is the unpacked size, which no block precedes.
    let end = payload
        .len()
        .checked_sub(4)
        .filter(|end| *end >= 4)
        .ok_or_else(|| damaged("too short"))?;
    let expected = word(payload, end).ok_or_else(|| damaged("too short"))?;
    let mut rest = &payload[4..end];
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while !rest.is_empty() {
        let packed = word(rest, 0).ok_or_else(|| damaged("cut off in a block size"))?;
        let data = rest
            .get(4..packed.saturating_add(4))
            .ok_or_else(|| damaged("cut off in a block"))?;
        let size = lz4_flex::block::decompress_into(data, &mut block).map_err(|error| {
            BzImageError::Damaged {
                reason: error.to_string(),
            }
        })?;
        out.extend_from_slice(&block[..size]);
        if out.len() > VMLINUX_LIMIT {
            return Err(damaged("unpacks to more than 256 MiB"));
        }
        rest = &rest[4 + packed..];
    }
    if out.len() == expected {
        Ok(out)
    } else {
        Err(damaged("unpacked size differs from the recorded one"))
    }
}

fn xz(payload: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let mut out = Vec::new();
    let limit = VMLINUX_LIMIT as u64 + 1;
    XzDecoder::new(payload)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| BzImageError::Damaged {
            reason: error.to_string(),
        })?;
    if out.len() > VMLINUX_LIMIT {
        return Err(BzImageError::Damaged {
            reason: "unpacks to more than 256 MiB".to_owned(),
        });
    }
    Ok(out)
}

fn format_name(payload: &[u8]) -> &'static str {
    match payload {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0x5d, 0, 0, ..] => "lzma",
        [0x89, b'L', b'Z', b'O', ..] => "lzo",
        _ => "an unknown format",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::write::XzEncoder;

    use super::*;

    const SECTORS: u8 = 3;
    const OFFSET: usize = 24;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; (usize::from(SECTORS) + 1) * 512 + OFFSET];
        image[0x1f1] = SECTORS;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&u32::try_from(OFFSET).unwrap().to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"trailing bytes of the image");
        image
    }

    fn kernel() -> Vec<u8> {
        let mut kernel = b"\x7fELF".to_vec();
        kernel.extend((0..100_000_u32).flat_map(u32::to_le_bytes));
        kernel
    }

    fn lz4(kernel: &[u8], chunk: usize) -> Vec<u8> {
        let mut out = vec![0x02, 0x21, 0x4c, 0x18];
        for block in kernel.chunks(chunk) {
            let packed = lz4_flex::block::compress(block);
            out.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            out.extend(packed);
        }
        out.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        out
    }

    fn check(image: &[u8], expected: &Result<Vec<u8>, BzImageError>) {
        assert_eq!(&vmlinux(image), expected);
    }

    #[test]
    fn lz4_xz_and_plain_payloads_unpack() {
        let kernel = kernel();
        check(&image(&lz4(&kernel, 1 << 16)), &Ok(kernel.clone()));
        let mut encoder = XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&kernel).unwrap();
        let mut xz = encoder.finish().unwrap();
        xz.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        check(&image(&xz), &Ok(kernel.clone()));
        check(&image(&kernel), &Ok(kernel));
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused_by_name() {
        check(&[], &Err(BzImageError::NotBoot));
        check(&vec![0; 4096], &Err(BzImageError::NotBoot));
        check(
            &image(b"\x1f\x8b\x08rest"),
            &Err(BzImageError::Unsupported { format: "gzip" }),
        );
        check(
            &image(&lz4(b"not an elf file", 64)),
            &Err(BzImageError::NotElf),
        );
        let mut old = image(b"");
        old[0x206] = 7;
        old[0x207] = 2;
        check(&old, &Err(BzImageError::OldProtocol { version: 0x0207 }));
        let mut long = image(b"");
        long[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        check(&long, &Err(BzImageError::Truncated));
    }

    #[test]
    fn every_cut_of_an_image_is_refused() {
        let whole = image(&lz4(&kernel(), 1 << 16));
        let payload_end = whole.len() - b"trailing bytes of the image".len();
        for end in (0..payload_end).step_by(97) {
            assert!(vmlinux(&whole[..end]).is_err(), "cut at {end}");
        }
    }
}
