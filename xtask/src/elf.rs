//! Is a program statically linked?
//!
//! It is when no program header of its ELF file asks for an interpreter (`PT_INTERP`): then the
//! kernel starts it alone. Layout: the System V ABI, "ELF Header" and "Program Header" (64 bit).

use anyhow::{Result, bail};

const MAGIC: &[u8] = b"\x7fELF";
/// `EI_CLASS` 64 bit, `EI_DATA` little-endian.
const CLASS_64_LITTLE: &[u8] = &[2, 1];
const PT_INTERP: u32 = 3;

/// Whether the kernel can start this program without a dynamic linker.
pub(crate) fn is_static(file: &[u8]) -> Result<bool> {
    if file.get(..4) != Some(MAGIC) || file.get(4..6) != Some(CLASS_64_LITTLE) {
        bail!("not a 64-bit little-endian ELF file");
    }
    let offset = usize::try_from(u64::from_le_bytes(field(file, 32)?))?;
    let size = usize::from(u16::from_le_bytes(field(file, 54)?));
    let count = usize::from(u16::from_le_bytes(field(file, 56)?));
    for index in 0..count {
        let at = index
            .checked_mul(size)
            .and_then(|at| at.checked_add(offset));
        let kind = u32::from_le_bytes(field(file, at.unwrap_or(usize::MAX))?);
        if kind == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

fn field<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N]> {
    match file.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
        Some(bytes) => Ok(*bytes),
        None => bail!("the ELF file ends before byte {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file whose program headers have these types.
    fn program(types: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..4].copy_from_slice(MAGIC);
        file[4..6].copy_from_slice(CLASS_64_LITTLE);
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(types.len()).unwrap();
        for kind in types {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    #[test]
    fn an_interpreter_means_dynamic() {
        assert!(is_static(&program(&[1, 2])).unwrap());
        assert!(!is_static(&program(&[1, PT_INTERP])).unwrap());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(is_static(b"#!/bin/sh\n").is_err());
        assert!(is_static(&program(&[1, 2])[..100]).is_err());
    }
}
