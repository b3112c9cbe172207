//! Hardware for tests.

use alloc::vec;
use alloc::vec::Vec;

use crate::guest::Machine;

/// Hardware with a clock that is set by hand and sixteen MiB of memory.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) now_us: u64,
    pub(crate) entropy: bool,
    pub(crate) pages: Vec<u64>,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake {
            now_us: 0,
            entropy: true,
            pages: vec![0; 16 * 256],
        }
    }
}

impl Machine for Fake {
    fn now_us(&mut self) -> u64 {
        self.now_us
    }

    fn random(&mut self) -> Result<[u8; 16], &'static str> {
        self.entropy
            .then_some([0xab; 16])
            .ok_or("this machine has no entropy device")
    }

    fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    fn write_page(&mut self, page: u64, word: u64) {
        self.pages[usize::try_from(page).unwrap()] = word;
    }

    fn read_page(&self, page: u64) -> u64 {
        self.pages[usize::try_from(page).unwrap()]
    }
}
