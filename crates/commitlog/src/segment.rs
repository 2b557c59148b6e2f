//! What the log knows of a segment.

use corelane_model::limits::SEGMENT_BYTES_MAX;
use corelane_model::{Offset, WallMillis};

/// Bytes of a segment's file that are believed when they come from disk: what the largest files of ext4 hold.
pub(crate) const SEGMENT_FILE_BYTES_MAX: u64 = 1 << 44;
const _: () = assert!(SEGMENT_BYTES_MAX < SEGMENT_FILE_BYTES_MAX);

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
    /// How often compaction wrote it anew: 0 has every record, more may have holes. Names its file together with the base.
    pub rewrite: u32,
}

/// What names a segment's file within its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Offset of its first record, or of the first that it ever had.
    pub base: Offset,
    /// How often compaction wrote it anew.
    pub rewrite: u32,
}

impl SegmentName {
    /// The name of a segment that settling writes.
    #[must_use]
    pub const fn settled(base: Offset) -> Self {
        Self { base, rewrite: 0 }
    }
}

impl Segment {
    /// What names its file.
    #[must_use]
    pub const fn name(&self) -> SegmentName {
        SegmentName { base: self.base, rewrite: self.rewrite }
    }

    /// Whether the offset lies within it.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        self.base <= offset && offset < self.end
    }
}
