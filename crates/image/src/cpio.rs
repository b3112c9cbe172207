//! Deterministic "newc" cpio archives, the format of the kernel's initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst): numbered inodes, no owner, time 0,
//! padded to 512 bytes so that archives can be joined end to end.

use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

/// Archives end on a multiple of this many bytes.
const BLOCK: usize = 512;

/// An archive being written into memory.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(crate) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, (0, 0), &[])
    }

    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, ModeFileType::Regular, permissions, (0, 0), content)
    }

    pub(crate) fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        self.entry(name, ModeFileType::Char, permissions, device, &[])
    }

    /// Ends the archive: trailer, then zeros up to the block size.
    pub(crate) fn finish(mut self) -> io::Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(self.bytes)
    }

    fn entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        permissions: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} exceeds 4 GiB"))
        })?;
        self.entries += 1;
        let mut writer = Builder::new(name)
            .ino(self.entries)
            .mode(permissions)
            .set_mode_file_type(kind)
            .rdev_major(device.0)
            .rdev_minor(device.1)
            .write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use cpio::newc::Reader;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.folder("dev").unwrap();
        archive
            .character_device("dev/console", 0o600, (5, 1))
            .unwrap();
        archive.file("init", 0o755, b"#!x").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn the_same_entries_give_the_same_bytes_in_whole_blocks() {
        assert_eq!(sample(), sample());
        assert_eq!(sample().len() % BLOCK, 0);
    }

    #[test]
    fn entries_read_back_with_type_mode_and_device() {
        let mut source = Cursor::new(sample());
        let mut seen = Vec::new();
        loop {
            let mut reader = Reader::new(source).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            let mut fact = (
                entry.name().to_owned(),
                entry.mode(),
                entry.rdev_major(),
                entry.rdev_minor(),
                String::new(),
            );
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
            reader.read_to_string(&mut fact.4).unwrap();
            seen.push(fact);
            source = reader.finish().unwrap();
        }
        let fact = |name: &str, mode, major, minor, text: &str| {
            (name.to_owned(), mode, major, minor, text.to_owned())
        };
        assert_eq!(
            seen,
            [
                fact("dev", 0o040_755, 0, 0, ""),
                fact("dev/console", 0o020_600, 5, 1, ""),
                fact("init", 0o100_755, 0, 0, "#!x"),
            ]
        );
    }
}
