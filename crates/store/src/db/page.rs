//! Long lists in pages.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The most that one page holds.
pub const MAX_PAGE: u32 = 500;

/// Where a page ended: the place of its last item. Good for as long as the database is, also when
/// items before or after it come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Cursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Cursor)
    }
}

/// Which page.
#[derive(Clone, Copy, Debug)]
pub struct PageOf {
    /// Where the page before it ended; none for the first.
    pub after: Option<Cursor>,
    /// How many items, 1 to [`MAX_PAGE`]: other numbers are taken to the nearer of the two.
    pub limit: u32,
}

impl PageOf {
    /// The first page.
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    /// Items to look for: one more than wanted, to know whether there is another page.
    pub(super) fn look_for(self) -> u32 {
        self.wanted() + 1
    }

    fn wanted(self) -> u32 {
        self.limit.clamp(1, MAX_PAGE)
    }

    /// Where to begin in a list that goes down.
    pub(super) fn below(self) -> i64 {
        self.after.map_or(i64::MAX, |cursor| cursor.0)
    }

    /// Where to begin in a list that goes up.
    pub(super) fn above(self) -> i64 {
        self.after.map_or(0, |cursor| cursor.0)
    }

    /// Makes the page of what was found, with the place of each.
    pub(super) fn of<T>(self, mut found: Vec<(i64, T)>) -> Page<T> {
        let wanted = self.wanted() as usize;
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next = found.last().map(|(place, _)| Cursor(*place));
        Page {
            next: next.filter(|_| more),
            items: found.into_iter().map(|(_, item)| item).collect(),
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Where this page ended, if there are more.
    pub next: Option<Cursor>,
}
