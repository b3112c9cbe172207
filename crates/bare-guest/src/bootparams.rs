//! What the VMM tells at boot: the command line and the memory map.
//!
//! Source: Linux, `Documentation/admin-guide/kernel-parameters.txt`, `virtio_mmio.device=`;
//! `arch/x86/include/uapi/asm/bootparam.h`, `struct boot_params`.

/// Bytes of the zero page.
pub const ZERO_PAGE_BYTES: usize = 4096;
/// The longest command line that is read, in bytes. Firecracker's has at most 2048.
pub const MAX_COMMAND_LINE: usize = 4096;

/// Offset of `e820_entries`, u8.
const E820_ENTRIES: usize = 0x1e8;
/// Offset of `hdr.cmd_line_ptr`, u32.
const COMMAND_LINE_POINTER: usize = 0x228;
/// Offset of `e820_table`.
const E820_TABLE: usize = 0x2d0;
/// Bytes of one entry: u64 address, u64 size, u32 type.
const E820_ENTRY_BYTES: usize = 20;
/// Most entries of the table.
const MAX_E820: usize = 128;
/// Type of an entry that is memory to be used.
const E820_RAM: u32 = 1;

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it begins.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// A virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioDevice {
    /// Where its registers are.
    pub address: u64,
    /// The line of its interrupt.
    pub interrupt: u8,
}

/// Where the command line is.
#[must_use]
pub fn command_line_address(zero_page: &[u8; ZERO_PAGE_BYTES]) -> u64 {
    field::<4>(zero_page, COMMAND_LINE_POINTER).map_or(0, |bytes| u32::from_le_bytes(bytes).into())
}

/// The memory that may be used.
pub fn memory(zero_page: &[u8; ZERO_PAGE_BYTES]) -> impl Iterator<Item = Region> + '_ {
    let count = usize::from(zero_page[E820_ENTRIES]).min(MAX_E820);
    (0..count).filter_map(|index| {
        let at = E820_TABLE + index * E820_ENTRY_BYTES;
        let start = u64::from_le_bytes(field(zero_page, at)?);
        let bytes = u64::from_le_bytes(field(zero_page, at + 8)?);
        let kind = u32::from_le_bytes(field(zero_page, at + 16)?);
        (kind == E820_RAM).then_some(Region { start, bytes })
    })
}

/// All of it together, in bytes.
#[must_use]
pub fn memory_bytes(zero_page: &[u8; ZERO_PAGE_BYTES]) -> u64 {
    memory(zero_page).fold(0, |sum, region| sum.saturating_add(region.bytes))
}

/// The virtio devices that the command line names, in its order. A word that does
/// not have the form `virtio_mmio.device=<size>@<address>:<interrupt>` is passed over.
pub fn virtio_devices(command_line: &[u8]) -> impl Iterator<Item = VirtioDevice> + '_ {
    command_line
        .split(u8::is_ascii_whitespace)
        .filter_map(|word| {
            let value = word.strip_prefix(b"virtio_mmio.device=")?;
            let (_size, rest) = core::str::from_utf8(value).ok()?.split_once('@')?;
            let (address, interrupt) = rest.split_once(':')?;
            Some(VirtioDevice {
                address: u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?,
                interrupt: interrupt.parse().ok()?,
            })
        })
}

fn field<const N: usize>(page: &[u8], at: usize) -> Option<[u8; N]> {
    page.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn devices_are_read_from_the_command_line() {
        let check = |line: &str, expected: &[(u64, u8)]| {
            let found: Vec<(u64, u8)> = virtio_devices(line.as_bytes())
                .map(|device| (device.address, device.interrupt))
                .collect();
            assert_eq!(found, expected, "{line}");
        };
        check("", &[]);
        check("reboot=k panic=1", &[]);
        check(
            "pci=off virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=4K@0xc0002000:6",
            &[(0xc000_1000, 5), (0xc000_2000, 6)],
        );
        check("virtio_mmio.device=4K@c0001000:5", &[]);
        check("virtio_mmio.device=4K@0xc0001000", &[]);
        check("virtio_mmio.device=4K@0xc0001000:256", &[]);
        check("virtio_mmio.device=4K@0x10000000000000000:5", &[]);
        check("xvirtio_mmio.device=4K@0x1000:5", &[]);
    }

    #[test]
    fn the_memory_is_what_the_map_calls_so() {
        let mut page = [0; ZERO_PAGE_BYTES];
        page[E820_ENTRIES] = 3;
        for (index, (start, bytes, kind)) in [
            (0_u64, 0x9_fc00_u64, 1_u32),
            (0xf_0000, 0x1_0000, 2),
            (0x10_0000, 0x7f0_0000, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let at = E820_TABLE + index * E820_ENTRY_BYTES;
            page[at..at + 8].copy_from_slice(&start.to_le_bytes());
            page[at + 8..at + 16].copy_from_slice(&bytes.to_le_bytes());
            page[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        }
        page[COMMAND_LINE_POINTER..COMMAND_LINE_POINTER + 4]
            .copy_from_slice(&0x2_0000_u32.to_le_bytes());
        assert_eq!(command_line_address(&page), 0x2_0000);
        assert_eq!(memory_bytes(&page), 0x9_fc00 + 0x7f0_0000);
        let last = memory(&page).last();
        let expected = Region {
            start: 0x10_0000,
            bytes: 0x7f0_0000,
        };
        assert_eq!(last, Some(expected));
    }

    proptest! {
        #[test]
        fn fuzz_no_command_line_and_no_map_is_too_strange(
            line in "[ -~]{0,60}( virtio_mmio.device=[0-9K@x:a-f]{0,20}){0,3}",
            fill in any::<u8>(),
        ) {
            virtio_devices(line.as_bytes()).for_each(drop);
            let page = [fill; ZERO_PAGE_BYTES];
            prop_assert!(memory(&page).count() <= MAX_E820);
        }
    }
}
