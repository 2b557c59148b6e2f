//! Where something lies in a journal.

use std::fmt;

/// Number of a file within its journal: counts up from 1 with every file that is begun, never repeats, and tells what
/// was written now from what an earlier use of the same slot left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileSequence(pub u32);

impl FileSequence {
    /// The first file of a journal.
    pub const FIRST: Self = Self(1);

    /// The last that is believed when it is read from disk: at 16 MiB a file it is reached after 32 PiB.
    pub const LAST: Self = Self(1 << 31);

    /// The file after this one. Panics after 2^32 files.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a journal has fewer than 2^32 files"))
    }
}

impl fmt::Display for FileSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A byte of a journal: file sequence and byte within the file. Ordered as the journal was written.
///
/// As the end of something it is exclusive. Between the end of one file's last entry and the beginning of the next
/// file lies nothing, so both bound the same entries.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalPosition(u64);

impl JournalPosition {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// Joins the two.
    #[must_use]
    pub const fn new(sequence: FileSequence, byte: u32) -> Self {
        Self(((sequence.0 as u64) << 32) | byte as u64)
    }

    /// The file.
    #[must_use]
    pub const fn sequence(self) -> FileSequence {
        FileSequence((self.0 >> 32) as u32)
    }

    /// The byte within the file.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn byte(self) -> u32 {
        self.0 as u32
    }

    /// One number that is ordered like the position: what [`JournalPosition::from_u64`] takes back.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The position of a number from [`JournalPosition::to_u64`].
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The position `bytes` later in the same file.
    #[must_use]
    pub fn advance(self, bytes: u32) -> Self {
        Self::new(self.sequence(), self.byte().checked_add(bytes).expect("a journal file is shorter than 4 GiB"))
    }
}

impl fmt::Display for JournalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.sequence(), self.byte())
    }
}

impl fmt::Debug for JournalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
