//! Settling: what goes from the journal's slabs into a segment next.

use bytes::Bytes;
use corelane_model::limits::PARTITION_SEGMENTS_MAX;
use corelane_model::{Offset, WallMillis};

use crate::{CommitLog, Segment};

/// Which segment takes the next batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentChoice {
    /// The active one.
    Append {
        /// Its first offset.
        segment: Offset,
        /// Bytes of its file that count: the next ones go behind them.
        bytes: u64,
    },
    /// A new one; the one before is sealed by this.
    Roll {
        /// Its first offset.
        segment: Offset,
    },
}

impl SegmentChoice {
    /// First offset of the segment.
    #[must_use]
    pub const fn segment(&self) -> Offset {
        match *self {
            Self::Append { segment, .. } | Self::Roll { segment } => segment,
        }
    }
}

/// Durable batches that go into a segment together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// At least one, in order and without a gap.
    pub batches: Vec<Bytes>,
    /// First offset of the first.
    pub base: Offset,
    /// Exclusive end of the last.
    pub end: Offset,
    /// Their bytes together.
    pub bytes: u64,
    /// Append timestamp of the first.
    pub first_timestamp: WallMillis,
    /// Append timestamp of the last.
    pub max_timestamp: WallMillis,
    /// Where they go.
    pub segment: SegmentChoice,
}

/// A plan under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settling {
    pub(crate) segment: Offset,
    /// Whether the journal has the note, which is perhaps not durable yet.
    pub(crate) is_noted: bool,
}

/// The note that batches are in a segment and synced, for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// First offset of the segment.
    pub segment: Offset,
    /// Bytes of the segment's file that count from now on.
    pub segment_bytes: u64,
    /// First offset of the batches.
    pub base: Offset,
    /// Exclusive end of the batches.
    pub end: Offset,
    /// Append timestamp of the first.
    pub first_timestamp: WallMillis,
    /// Append timestamp of the last.
    pub max_timestamp: WallMillis,
}

impl Settle {
    /// The note that these batches are settled and their segment has so many bytes now.
    #[must_use]
    pub const fn settled(&self, segment_bytes: u64) -> Settled {
        Settled {
            segment: self.segment.segment(),
            segment_bytes,
            base: self.base,
            end: self.end,
            first_timestamp: self.first_timestamp,
            max_timestamp: self.max_timestamp,
        }
    }
}

impl CommitLog {
    /// The oldest durable batches that are in no segment yet: as many as fit into `bytes_max`, but at least one.
    ///
    /// `None` when there are none, when a plan is under way, and on memory topics. A plan goes on with
    /// [`CommitLog::note_settled`] and ends with [`CommitLog::on_settled`], or at once with
    /// [`CommitLog::on_settle_failed`]; until its end its segment is not dropped.
    pub fn settle_plan(&mut self, bytes_max: u32) -> Option<Settle> {
        if self.settling.is_some() || !self.settings.class.is_durable() {
            return None;
        }
        let first = self.cache.front().filter(|batch| batch.end <= self.durable_end)?;
        let (base, first_timestamp) = (first.base, first.append_timestamp);
        let segment = self.choose_segment(base, first.len());
        let mut settle = Settle {
            batches: Vec::new(),
            base,
            end: base,
            bytes: 0,
            first_timestamp,
            max_timestamp: first_timestamp,
            segment,
        };
        for batch in self.cache.run_from(base).take_while(|batch| batch.end <= self.durable_end) {
            if !settle.batches.is_empty() && u64::from(bytes_max) < settle.bytes + batch.len() {
                break;
            }
            settle.batches.push(batch.bytes.clone());
            settle.bytes += batch.len();
            settle.end = batch.end;
            settle.max_timestamp = batch.append_timestamp;
        }
        assert!(settle.base < settle.end, "the first durable batch has a record");
        self.settling = Some(Settling { segment: segment.segment(), is_noted: false });
        Some(settle)
    }

    fn choose_segment(&self, base: Offset, bytes: u64) -> SegmentChoice {
        let is_full = PARTITION_SEGMENTS_MAX <= self.state.segments.len();
        let takes = |last: &&Segment| {
            let is_room = last.bytes.saturating_add(bytes) <= self.settings.segment_bytes;
            is_full || (!last.is_sealed && is_room)
        };
        match self.state.segments.last().filter(takes) {
            Some(active) => SegmentChoice::Append { segment: active.base, bytes: active.bytes },
            None => SegmentChoice::Roll { segment: base },
        }
    }

    /// The extent of the plan under way is on disk, and the note of it goes into the journal now, in the same breath.
    ///
    /// From here on [`CommitLog::state`] counts it, so that a checkpoint behind the note in the journal holds what the
    /// note says, and the note may be recycled. The batches stay in memory, and the journal keeps them, until the note is
    /// durable.
    pub fn note_settled(&mut self, settled: &Settled) {
        let planned = Settling { segment: settled.segment, is_noted: false };
        assert_eq!(self.settling, Some(planned), "a plan is settled once, into the segment that it chose");
        assert!(settled.base < settled.end, "batches from {} to {} are none", settled.base, settled.end);
        assert!(settled.end <= self.durable_end, "settled up to {}, durable to {}", settled.end, self.durable_end);
        self.settling = Some(Settling { is_noted: true, ..planned });
        self.extend_segments(settled);
        self.check();
    }

    /// The note of the plan under way is durable. The batches leave memory, and another plan can be made. Returns
    /// segments that were given up meanwhile and whose files may go once the next checkpoint is durable.
    pub fn on_settled(&mut self) -> Vec<Segment> {
        let settling = self.settling.take();
        assert!(settling.is_some_and(|settling| settling.is_noted), "the note of {settling:?} cannot be durable");
        self.stats.settled_bytes += self.cache.drop_below(self.state.settled_end);
        let dropped = self.drop_segments_below_start();
        self.check();
        dropped
    }

    /// The plan under way came to nothing before it was noted: the same batches will be planned again.
    pub fn on_settle_failed(&mut self) {
        let settling = self.settling.take();
        assert!(settling.is_some_and(|settling| !settling.is_noted), "{settling:?} cannot fail");
    }

    /// Seals the active segment: the next plan begins a new one. For a file that cannot be trusted with more.
    pub fn seal(&mut self) {
        assert!(self.settling.is_none(), "a plan is under way");
        if let Some(active) = self.state.segments.last_mut() {
            active.is_sealed = true;
        }
    }

    /// Moves the settled end and notes it in the last segment or in a new one.
    pub(crate) fn extend_segments(&mut self, settled: &Settled) {
        self.state.settled_end = self.state.settled_end.max(settled.end);
        let segments = &mut self.state.segments;
        if let Some(last) = segments.last_mut() {
            if last.base == settled.segment {
                assert!(last.end <= settled.base, "segment up to {} grows from {}", last.end, settled.base);
                assert!(last.bytes <= settled.segment_bytes, "segment shrinks to {} bytes", settled.segment_bytes);
                last.end = settled.end;
                last.bytes = settled.segment_bytes;
                last.max_timestamp = last.max_timestamp.max(settled.max_timestamp);
                return;
            }
            assert!(last.end <= settled.segment, "segment from {} within one up to {}", settled.segment, last.end);
            last.is_sealed = true;
        }
        segments.push(Segment {
            base: settled.segment,
            end: settled.end,
            bytes: settled.segment_bytes,
            first_timestamp: settled.first_timestamp,
            max_timestamp: settled.max_timestamp,
            is_sealed: false,
            rewrite: 0,
        });
    }

    /// Position in the journal of the oldest batch that lies nowhere else; the journal may not recycle it.
    ///
    /// Batches below the log start do not count, so that the caller recycles nothing while the note of a moved log start
    /// is not durable: without the note the log would look for them after a crash.
    #[must_use]
    pub fn oldest_unsettled(&self) -> Option<u64> {
        if !self.settings.class.is_durable() {
            return None;
        }
        self.cache.front().map(|batch| batch.position)
    }

    /// Bytes of batches that are in no segment yet.
    #[must_use]
    pub fn unsettled_bytes(&self) -> u64 {
        if !self.settings.class.is_durable() { 0 } else { self.cache.bytes() }
    }
}
