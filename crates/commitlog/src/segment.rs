//! What the log knows of a segment.

use corelane_model::{Offset, WallMillis};

/// One segment of the log; its file is somebody else's matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its first record, which names it.
    pub base: Offset,
    /// Exclusive end of its offsets.
    pub end: Offset,
    /// Bytes of the file that count; what lies behind them does not exist.
    pub bytes: u64,
    /// Append timestamp of its first batch.
    pub first_timestamp: WallMillis,
    /// Append timestamp of its last batch, which is the largest: append timestamps never go back.
    pub max_timestamp: WallMillis,
    /// Whether nothing will be added.
    pub is_sealed: bool,
}

impl Segment {
    /// Whether the offset lies within it.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        self.base <= offset && offset < self.end
    }
}
