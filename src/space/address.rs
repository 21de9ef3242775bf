//! Addresses of the target process.

use std::fmt;

/// An address in the target process, as opposed to an offset in the file or in an image.
pub type Va = u64;

/// A half-open range of addresses: `start` is in it, `end` is not.
///
/// It never wraps and is never empty, so no caller has to ask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaRange {
    start: Va,
    end: Va,
}

impl VaRange {
    /// The `size` bytes from `start`, or `None` for an empty or wrapping range.
    pub fn new(start: Va, size: u64) -> Option<Self> {
        Self::between(start, start.checked_add(size)?)
    }

    /// From `start` to `end`, or `None` when that is empty.
    pub fn between(start: Va, end: Va) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first address.
    pub fn start(self) -> Va {
        self.start
    }

    /// The address behind the last.
    pub fn end(self) -> Va {
        self.end
    }

    /// How many bytes.
    pub fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `va` is in it.
    pub fn contains(self, va: Va) -> bool {
        self.start <= va && va < self.end
    }

    /// Whether all of `other` is in it.
    pub fn covers(self, other: VaRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both have.
    pub fn intersection(self, other: VaRange) -> Option<VaRange> {
        Self::between(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Debug for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}
