//! How a build tells what it is doing.

/// A step of a build, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Tools, disk space, other builds of the same template.
    Prepare,
    /// Fetching the kernel and taking it apart; passes at once when the store has one.
    Kernel,
    /// Resolving, downloading and unpacking Debian packages.
    Packages,
    /// Compiling the Python byte-code of packages.
    Bytecode,
    /// Downloading wheels and taking files out of them.
    Wheels,
    /// What maintainer scripts would have done.
    FixUps,
    /// Writing the erofs image.
    Image,
    /// Hashing, and the manifest.
    Store,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 8] = [
        Self::Prepare,
        Self::Kernel,
        Self::Packages,
        Self::Bytecode,
        Self::Wheels,
        Self::FixUps,
        Self::Image,
        Self::Store,
    ];

    /// A short name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Kernel => "kernel",
            Self::Packages => "packages",
            Self::Bytecode => "byte-code",
            Self::Wheels => "wheels",
            Self::FixUps => "fix-ups",
            Self::Image => "image",
            Self::Store => "store",
        }
    }

    /// Its place, from 1 to [`Step::ALL`]'s length.
    pub fn position(self) -> usize {
        self as usize + 1
    }
}

/// Told about a build as it goes. Called from the thread that builds.
pub trait Progress {
    /// `step` begins; the one before it is done.
    fn step(&self, step: Step);

    /// A line about the step that runs.
    fn message(&self, text: &str);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: Step) {}

    fn message(&self, _: &str) {}
}
