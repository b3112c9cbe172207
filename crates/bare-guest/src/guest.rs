//! What all sessions of the guest share: its counter, its names, and whether it may run programs.

use alloc::format;
use alloc::string::String;

use firelane_guest_proto::message::{Refused, RefusedCode, RenewSpec, SEED_BYTES};

/// Programs that hold input, in the whole guest; each may hold a window full.
pub const MAX_HOLDING: usize = 8;
/// Longest name that a renewal may give, in bytes.
const MAX_HOSTNAME: usize = 63;

/// The hardware as programs see it.
pub trait Machine {
    /// Microseconds since the machine started.
    fn now_us(&mut self) -> u64;
    /// Fresh random bytes; what is missing, if there are none.
    ///
    /// # Errors
    /// Why there are none, for people.
    fn random(&mut self) -> Result<[u8; 16], &'static str>;
    /// Pages of memory that nothing else uses.
    fn pages(&self) -> u64;
    /// Writes the first word of such a page.
    fn write_page(&mut self, page: u64, word: u64);
    /// Reads it.
    fn read_page(&self, page: u64) -> u64;
}

/// What the welcome tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// When the program started, in microseconds since the machine did.
    pub started_us: u64,
    /// When it listened.
    pub ready_us: u64,
}

/// The names that a renewal gave.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) hostname: String,
    pub(crate) machine_id: [u8; 16],
}

/// What sessions share.
#[derive(Debug, Default)]
pub struct Guest {
    pub(crate) facts: Facts,
    counter: u64,
    stale: bool,
    frozen: bool,
    pub(crate) identity: Option<Identity>,
    holding: usize,
}

impl Guest {
    /// A guest that has just booted.
    #[must_use]
    pub fn new(facts: Facts) -> Guest {
        Guest {
            facts,
            ..Guest::default()
        }
    }

    /// A guest that goes on where another one was: with its counter, and as stale as it was.
    #[must_use]
    pub fn again(facts: Facts, counter: u64, stale: bool) -> Guest {
        Guest {
            facts,
            counter,
            stale,
            ..Guest::default()
        }
    }

    /// The last number that was counted.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Whether it does nothing until it is renewed.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The next number of the counter, from 1.
    pub(crate) fn count(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        self.counter
    }

    /// Refuses what a stale guest must not do.
    pub(crate) fn require_fresh(&self) -> Result<(), Refused> {
        if !self.stale {
            return Ok(());
        }
        Err(refused(
            RefusedCode::Stale,
            "this guest was warmed or frozen for a snapshot and has not been renewed since",
        ))
    }

    /// Whether programs stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(crate) fn warm(&mut self) -> Result<(), Refused> {
        self.require_fresh()?;
        self.stale = true;
        Ok(())
    }

    pub(crate) fn freeze(&mut self) -> Result<(), Refused> {
        self.require_fresh()?;
        self.stale = true;
        self.frozen = true;
        Ok(())
    }

    pub(crate) fn renew(&mut self, spec: RenewSpec) -> Result<(), Refused> {
        check_seed(&spec.seed)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let name = &spec.hostname;
        if !(1..=MAX_HOSTNAME).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(refused(
                RefusedCode::Invalid,
                "a host name has 1 to 63 letters, digits and hyphens",
            ));
        }
        self.identity = Some(Identity {
            hostname: spec.hostname,
            machine_id: spec.machine_id,
        });
        self.go_on();
        Ok(())
    }

    pub(crate) fn thaw(&mut self, seed: &[u8]) -> Result<(), Refused> {
        check_seed(seed)?;
        if !self.frozen {
            return Err(refused(RefusedCode::Invalid, "this guest is not frozen"));
        }
        self.go_on();
        Ok(())
    }

    fn go_on(&mut self) {
        self.stale = false;
        self.frozen = false;
    }

    /// One more program that holds input.
    pub(crate) fn hold(&mut self) -> Result<(), Refused> {
        if self.holding >= MAX_HOLDING {
            let message = format!("the guest has {MAX_HOLDING} programs that read input already");
            return Err(refused(RefusedCode::Exhausted, &message));
        }
        self.holding += 1;
        Ok(())
    }

    /// It has ended.
    pub(crate) fn release(&mut self) {
        self.holding = self.holding.saturating_sub(1);
    }
}

pub(crate) fn refused(code: RefusedCode, message: &str) -> Refused {
    Refused {
        code,
        message: message.into(),
    }
}

fn check_seed(seed: &[u8]) -> Result<(), Refused> {
    if seed.len() == SEED_BYTES {
        return Ok(());
    }
    let message = format!("the seed has {} bytes, not {SEED_BYTES}", seed.len());
    Err(refused(RefusedCode::Invalid, &message))
}
