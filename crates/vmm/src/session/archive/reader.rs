//! Reads an archive, entry by entry, as it comes.

use std::io;

use tar::{EntryType, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::BLOCK;

/// Most bytes of what precedes an entry: its long names and attributes.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
/// Such records before one entry.
const MAX_EXTENSIONS: usize = 8;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
}

/// An entry as the archive tells it, not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawEntry {
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// What a link says.
    pub(super) target: Vec<u8>,
    /// Its content is not simply its bytes.
    pub(super) sparse: bool,
}

/// What records before an entry say of it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    sparse: bool,
}

pub(super) struct Reader<R> {
    source: R,
    /// Bytes up to the next header: content that was not read, and what fills its last block.
    skip: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(source: R) -> Reader<R> {
        Reader { source, skip: 0 }
    }

    /// The next entry, or nothing at the end of the archive.
    pub(super) async fn next(&mut self) -> Result<Option<RawEntry>, ReadError> {
        let mut extension = Extension::default();
        for _ in 0..=MAX_EXTENSIONS {
            let Some(header) = self.header().await? else {
                return Ok(None);
            };
            let size = header
                .entry_size()
                .map_err(|_| ReadError::Malformed("a size that is no number"))?;
            self.skip = padded(size)?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader => {
                    let records = self.extension(size).await?;
                    extension.take(&records)?;
                }
                // Attributes of all entries that follow: none that we keep.
                EntryType::XGlobalHeader => drop(self.extension(size).await?),
                EntryType::GNULongName => extension.name = Some(self.name(size).await?),
                EntryType::GNULongLink => extension.target = Some(self.name(size).await?),
                _ => return extension.complete(&header, size).map(Some),
            }
        }
        Err(ReadError::Malformed("too many records before an entry"))
    }

    /// Content of the entry, at the caller's: exactly the bytes that its size says may be read.
    pub(super) fn content(&mut self, size: u64) -> tokio::io::Take<&mut R> {
        self.skip -= size;
        (&mut self.source).take(size)
    }

    async fn header(&mut self) -> Result<Option<Header>, ReadError> {
        let mut passed = (&mut self.source).take(self.skip);
        if tokio::io::copy(&mut passed, &mut tokio::io::sink()).await? != self.skip {
            return Err(ReadError::Malformed("it ends within an entry"));
        }
        self.skip = 0;
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]).await? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(ReadError::Malformed("it ends within a header")),
                count => filled += count,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        // The sum counts its own field as spaces.
        if header.cksum().ok() != Some(sum - field + 8 * u32::from(b' ')) {
            return Err(ReadError::Malformed("a header whose checksum is wrong"));
        }
        Ok(Some(header.clone()))
    }

    async fn extension(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        if size > MAX_EXTENSION_BYTES {
            return Err(ReadError::Malformed("a record before an entry is too long"));
        }
        let mut bytes = Vec::new();
        self.content(size).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 != size {
            return Err(ReadError::Malformed("it ends within an entry"));
        }
        Ok(bytes)
    }

    /// A long name, which ends with a NUL.
    async fn name(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        let mut name = self.extension(size).await?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

impl Extension {
    /// Records of the form `<length> <key>=<value>\n`; the length is of the whole record, in decimal.
    fn take(&mut self, mut records: &[u8]) -> Result<(), ReadError> {
        let malformed = ReadError::Malformed("a record before an entry is malformed");
        while !records.is_empty() {
            let Some((record, rest)) = split_record(records) else {
                return Err(malformed);
            };
            let Some(equals) = record.iter().position(|byte| *byte == b'=') else {
                return Err(malformed);
            };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(value.to_vec()),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }

    fn complete(self, header: &Header, size: u64) -> Result<RawEntry, ReadError> {
        if let Some(told) = self.size
            && str::from_utf8(&told).ok().and_then(|t| t.parse().ok()) != Some(size)
        {
            // Only files over 8 GiB need that, which are over our cap.
            return Err(ReadError::Malformed("an entry with two sizes"));
        }
        let target = header.link_name_bytes().map(|t| t.to_vec());
        Ok(RawEntry {
            name: self.name.unwrap_or_else(|| header.path_bytes().to_vec()),
            kind: header.entry_type(),
            mode: header
                .mode()
                .map_err(|_| ReadError::Malformed("a mode that is no number"))?,
            size,
            target: self.target.or(target).unwrap_or_default(),
            sparse: self.sparse,
        })
    }
}

/// The first record without its length, and what follows it.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &records[length..]))
}

/// Bytes that content of this size takes in an archive.
fn padded(size: u64) -> Result<u64, ReadError> {
    size.checked_next_multiple_of(BLOCK as u64)
        .ok_or(ReadError::Malformed("a size that no archive can have"))
}
