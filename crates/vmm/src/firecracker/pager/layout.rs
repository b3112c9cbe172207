//! Where a guest's memory lies in its VMM and in the snapshot's file, as the VMM tells it.
//!
//! Source: Firecracker, `docs/snapshotting/handling-page-faults-on-snapshot-resume.md` and, for the fields' names,
//! `src/vmm/src/persist.rs`, `GuestRegionUffdMapping`, v1.16.1. Nothing of it is believed: whatever does not
//! describe exactly the machine that was asked for is refused.

use std::ops::Range;

use firelane_sys::userfault::PAGE_BYTES;
use serde::Deserialize;

/// Regions that a guest's memory has at most: Firecracker makes one, and another above 4 GiB.
const MAX_REGIONS: usize = 8;
/// The first address that no program has. Source: Linux, `Documentation/arch/x86/x86_64/mm.rst`.
const END_OF_ADDRESSES: u64 = 1 << 47;

/// What is told of one region. Fields that we do not need are left out.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    /// In bytes.
    page_size: u64,
}

/// Why it is not the memory of the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There are none, or too many.
    #[error("it has {found} regions of memory")]
    Number {
        /// How many.
        found: usize,
    },
    /// Pages of a size that we do not make.
    #[error("its pages have {found} bytes")]
    Pages {
        /// Their size.
        found: u64,
    },
    /// A region is empty, in no place where one could be, or not made of whole pages.
    #[error("region {number} is nowhere")]
    Place {
        /// Which one, from 0.
        number: usize,
    },
    /// Two regions share addresses or parts of the file.
    #[error("region {number} overlaps with another")]
    Overlap {
        /// The second of them.
        number: usize,
    },
    /// They are not as large as the machine's memory, or reach beyond it.
    #[error("its regions do not make up {expected} bytes of memory")]
    Size {
        /// The machine's memory.
        expected: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Region {
    addresses: Range<u64>,
    /// Where the region begins in the file.
    offset: u64,
}

impl Region {
    fn len(&self) -> u64 {
        self.addresses.end - self.addresses.start
    }

    fn file(&self) -> Range<u64> {
        self.offset..self.offset + self.len()
    }
}

/// The memory of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    regions: Vec<Region>,
}

impl Layout {
    /// Checks what was told of a machine with this much memory.
    pub(super) fn check(mappings: &[Mapping], memory_bytes: u64) -> Result<Layout, LayoutError> {
        let found = mappings.len();
        if !(1..=MAX_REGIONS).contains(&found) {
            return Err(LayoutError::Number { found });
        }
        let mut regions: Vec<Region> = Vec::with_capacity(found);
        for (number, mapping) in mappings.iter().enumerate() {
            if mapping.page_size != PAGE_BYTES {
                let found = mapping.page_size;
                return Err(LayoutError::Pages { found });
            }
            let region = region(mapping).ok_or(LayoutError::Place { number })?;
            let meets = |other: &Region| {
                overlap(&other.addresses, &region.addresses)
                    || overlap(&other.file(), &region.file())
            };
            if regions.iter().any(meets) {
                return Err(LayoutError::Overlap { number });
            }
            regions.push(region);
        }
        // Without overlaps, regions that end within the file and are as large as it are all of it.
        let expected = memory_bytes;
        let within = regions.iter().all(|region| region.file().end <= expected);
        let total: u64 = regions.iter().map(Region::len).sum();
        if !within || total != expected {
            return Err(LayoutError::Size { expected });
        }
        Ok(Layout { regions })
    }

    /// Pages of all regions.
    pub(super) fn pages(&self) -> u64 {
        let bytes: u64 = self.regions.iter().map(Region::len).sum();
        bytes / PAGE_BYTES
    }

    /// Where an address is in the file.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        let mut regions = self.regions.iter();
        let region = regions.find(|region| region.addresses.contains(&address))?;
        Some(region.offset + (address - region.addresses.start))
    }

    /// The piece of a block of the file that is in one region with the byte at `offset`: where it is in the file, and its
    /// address.
    pub(super) fn piece(&self, block: &Range<u64>, offset: u64) -> Option<(Range<u64>, u64)> {
        let mut regions = self.regions.iter();
        let region = regions.find(|region| region.file().contains(&offset))?;
        let file = region.file();
        let piece = block.start.max(file.start)..block.end.min(file.end);
        let address = region.addresses.start + (piece.start - region.offset);
        Some((piece, address))
    }

    /// The parts of the file that these addresses are of.
    pub(super) fn offsets_of(&self, addresses: &Range<u64>) -> Vec<Range<u64>> {
        let within = |region: &Region| {
            let start = region.addresses.start.max(addresses.start);
            let end = region.addresses.end.min(addresses.end);
            (start < end).then(|| {
                let offset = region.offset + (start - region.addresses.start);
                offset..offset + (end - start)
            })
        };
        self.regions.iter().filter_map(within).collect()
    }
}

fn region(mapping: &Mapping) -> Option<Region> {
    let whole = |number: u64| number.is_multiple_of(PAGE_BYTES);
    let Mapping {
        base_host_virt_addr: base,
        size,
        offset,
        ..
    } = *mapping;
    let end = base.checked_add(size)?;
    offset.checked_add(size)?;
    let somewhere = base > 0 && size > 0 && end <= END_OF_ADDRESSES;
    (somewhere && whole(base) && whole(size) && whole(offset)).then_some(Region {
        addresses: base..end,
        offset,
    })
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn mapping(base: u64, size: u64, offset: u64) -> Mapping {
        Mapping {
            base_host_virt_addr: base,
            size,
            offset,
            page_size: PAGE_BYTES,
        }
    }

    #[test]
    fn a_machine_in_two_regions_is_found_by_address_and_by_offset() {
        let told = [
            mapping(0x7000_0000_0000, 3 * MIB, 0),
            mapping(0x7100_0000_0000, MIB, 3 * MIB),
        ];
        let layout = Layout::check(&told, 4 * MIB).unwrap();
        assert_eq!(layout.offset_of(0x7000_0000_1000), Some(0x1000));
        assert_eq!(layout.offset_of(0x7100_0000_1000), Some(3 * MIB + 0x1000));
        assert_eq!(layout.offset_of(0x7000_0000_0000 + 3 * MIB), None);
        // A block that is in both is cut where one ends.
        let block = 3 * MIB - 0x2000..3 * MIB + 0x2000;
        let piece = layout.piece(&block, 3 * MIB - 1);
        assert_eq!(
            piece,
            Some((
                3 * MIB - 0x2000..3 * MIB,
                0x7000_0000_0000 + 3 * MIB - 0x2000
            ))
        );
        let piece = layout.piece(&block, 3 * MIB);
        assert_eq!(piece, Some((3 * MIB..3 * MIB + 0x2000, 0x7100_0000_0000)));
        assert_eq!(layout.piece(&block, 4 * MIB), None);
        let removed = layout.offsets_of(&(0x7000_0000_0000..0x7200_0000_0000));
        assert_eq!(removed, [0..3 * MIB, 3 * MIB..4 * MIB]);
    }

    #[test]
    fn whatever_is_not_exactly_the_machine_is_refused() {
        let check = |told: &[Mapping], expected| {
            assert_eq!(Layout::check(told, 4 * MIB), Err(expected), "{told:?}");
        };
        let base = 0x7000_0000_0000;
        check(&[], LayoutError::Number { found: 0 });
        check(
            &[mapping(base, MIB, 0); 9],
            LayoutError::Number { found: 9 },
        );
        let huge = Mapping {
            page_size: 2 * MIB,
            ..mapping(base, 4 * MIB, 0)
        };
        check(&[huge], LayoutError::Pages { found: 2 * MIB });
        for nowhere in [
            mapping(0, 4 * MIB, 0),
            mapping(base, 0, 0),
            mapping(base + 1, 4 * MIB, 0),
            mapping(base, 4 * MIB + 1, 0),
            mapping(base, 4 * MIB, 7),
            mapping(u64::MAX - 0xfff, 4 * MIB, 0),
            mapping(END_OF_ADDRESSES - MIB, 4 * MIB, 0),
            mapping(base, 4 * MIB, u64::MAX - 0xfff),
        ] {
            check(&[nowhere], LayoutError::Place { number: 0 });
        }
        let twice = [mapping(base, 2 * MIB, 0), mapping(base + MIB, MIB, 2 * MIB)];
        check(&twice, LayoutError::Overlap { number: 1 });
        let same = [
            mapping(base, 2 * MIB, 0),
            mapping(base - 16 * MIB, MIB, MIB),
        ];
        check(&same, LayoutError::Overlap { number: 1 });
        let expected = 4 * MIB;
        for wrong in [
            mapping(base, 3 * MIB, 0),
            mapping(base, 5 * MIB, 0),
            mapping(base, 4 * MIB, MIB),
        ] {
            check(&[wrong], LayoutError::Size { expected });
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_within_the_file(
            told in proptest::collection::vec((any::<u32>(), 0..6_u64, 0..6_u64), 0..4)
        ) {
            let told: Vec<Mapping> = told
                .iter()
                .map(|(base, size, offset)| mapping(u64::from(*base) << 12, size * MIB, offset * MIB))
                .collect();
            if let Ok(layout) = Layout::check(&told, 4 * MIB) {
                for region in &layout.regions {
                    prop_assert!(region.file().end <= 4 * MIB);
                    prop_assert_eq!(layout.offset_of(region.addresses.start), Some(region.offset));
                    prop_assert_eq!(layout.offset_of(region.addresses.end - 1), Some(region.file().end - 1));
                }
            }
        }
    }
}
