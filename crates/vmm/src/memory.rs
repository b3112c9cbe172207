//! Guest memory that is checked while it is handed out.

use std::fmt::Debug;

use crate::driver::Refusal;

/// The content of a snapshot's memory file, of which no byte is given out that was not checked.
pub trait CheckedMemory: Debug + Send + Sync {
    /// Fills `bytes` with what is at `offset`.
    ///
    /// # Errors
    /// If the file is not, or is no longer, what it should be; or cannot be read. Then the snapshot is of no use.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Refusal>;

    /// Checks what was not asked for yet, so that the file as a whole is known from then on, and can be mapped. Takes as long
    /// as that is read.
    ///
    /// # Errors
    /// As [`CheckedMemory::read_at`].
    fn finish(&self) -> Result<(), Refusal> {
        Ok(())
    }
}
