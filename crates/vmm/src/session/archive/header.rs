//! Headers of the entries that we write.

use tar::{EntryType, Header};

use super::BLOCK;

/// Bytes of a name, and of a link's target, that a header holds.
const HELD: usize = 100;

/// What is before an entry's content. Names and targets that a header does not hold are in records
/// before it.
pub(super) fn header(
    kind: EntryType,
    name: &[u8],
    target: &[u8],
    stat: (u32, u64, i64),
) -> Vec<u8> {
    let (mode, size, mtime_ns) = stat;
    let mut records = Vec::new();
    for (key, value) in [("path", name), ("linkpath", target)] {
        if value.len() > HELD {
            records.extend(record(key, value));
        }
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let length = records.len();
        bytes.extend(block(
            EntryType::XHeader,
            b"pax",
            b"",
            (0o644, length as u64, 0),
        ));
        bytes.extend(&records);
        bytes.resize(bytes.len() + filling(length as u64), 0);
    }
    bytes.extend(block(kind, name, target, (mode, size, mtime_ns)));
    bytes
}

/// Bytes that fill the last block of content of this size.
pub(super) fn filling(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

fn block(kind: EntryType, name: &[u8], target: &[u8], stat: (u32, u64, i64)) -> [u8; BLOCK] {
    let (mode, size, mtime_ns) = stat;
    let mut header = Header::new_ustar();
    {
        let fields = header.as_old_mut();
        let (name, target) = (
            &name[..name.len().min(HELD)],
            &target[..target.len().min(HELD)],
        );
        fields.name[..name.len()].copy_from_slice(name);
        fields.linkname[..target.len()].copy_from_slice(target);
    }
    header.set_entry_type(kind);
    // A guest shall not give its host's user a set-user-id program.
    header.set_mode(mode & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(u64::try_from(mtime_ns / 1_000_000_000).unwrap_or(0));
    header.set_cksum();
    *header.as_bytes()
}

/// A record whose length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_digits() {
        let check = |value: usize, length: usize| {
            let record = record("path", &vec![b'a'; value]);
            assert_eq!(record.len(), length, "{value}");
            assert!(record.starts_with(format!("{length} path=a").as_bytes()));
        };
        check(1, 9);
        check(90, 99);
        check(91, 101);
        check(989, 999);
        check(990, 1001);
    }
}
