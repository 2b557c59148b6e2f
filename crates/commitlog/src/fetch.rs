//! Reading: a plan of bytes that are there, or where to find them.

use bytes::Bytes;
use corelane_model::{Offset, WallMillis};

use crate::{CommitLog, CorruptRange};

/// What a read at an offset comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Visible batches from memory, in order; without a gap unless the log keeps the newest records only.
    Batches {
        /// At least one; the first may begin before the offset that was asked for.
        batches: Vec<Bytes>,
        /// The offset to go on with: the end of the last batch.
        next: Offset,
    },
    /// The batches lie in a segment.
    Cold {
        /// First offset of the segment.
        segment: Offset,
        /// Bytes of its file that count.
        bytes: u64,
        /// Where to stop at the latest: the segment's end, or damage before it.
        end: Offset,
    },
    /// Everything that is visible was read.
    AtEnd,
    /// The offset is below the log start or beyond the high watermark.
    OutOfRange {
        /// The first offset that can be read.
        log_start: Offset,
        /// The exclusive end of what can be read.
        high_watermark: Offset,
    },
    /// The offset is lost to damage; go on at `end`.
    Corrupt {
        /// The first lost offset.
        first: Offset,
        /// The exclusive end of the loss, or of what is visible.
        end: Offset,
    },
}

/// Where the first record lies that was not appended before a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLookup {
    /// Here. The high watermark if everything visible is older.
    At(Offset),
    /// In this segment: it is the first record of the first batch whose append timestamp is not before the moment, or
    /// the log start if that lies behind it.
    Segment {
        /// First offset of the segment.
        segment: Offset,
        /// Bytes of its file that count.
        bytes: u64,
    },
}

impl CommitLog {
    /// To be called before [`CommitLog::fetch`] with the same arguments: on a log that keeps the newest records only, it
    /// takes superseded ones out of what will be fetched. Others are left as they are.
    pub fn prepare_fetch(&mut self, from: Offset, bytes_max: u32) {
        if let Some(latest) = &mut self.latest {
            latest.prepare(from, bytes_max);
        }
    }

    /// Batches from `from` on: as many as fit into `bytes_max`, but at least one.
    #[must_use]
    pub fn fetch(&self, from: Offset, bytes_max: u32) -> Fetch {
        let (log_start, high_watermark) = (self.log_start(), self.high_watermark());
        if from < log_start || high_watermark < from {
            return Fetch::OutOfRange { log_start, high_watermark };
        }
        if from == high_watermark {
            return Fetch::AtEnd;
        }
        if let Some(latest) = &self.latest {
            let (batches, next) = latest.batches_from(from, bytes_max);
            return if batches.is_empty() { Fetch::AtEnd } else { Fetch::Batches { batches, next } };
        }
        if let Some(CorruptRange { first, end }) = self.state.corrupt.find(from) {
            return Fetch::Corrupt { first, end: end.min(high_watermark) };
        }
        let mut batches = Vec::new();
        let mut next = from;
        let mut bytes = 0;
        for batch in self.cache.run_from(from).take_while(|batch| batch.end <= high_watermark) {
            bytes += batch.len();
            if !batches.is_empty() && u64::from(bytes_max) < bytes {
                break;
            }
            batches.push(batch.bytes.clone());
            next = batch.end;
        }
        if batches.is_empty() { self.fetch_cold(from) } else { Fetch::Batches { batches, next } }
    }

    /// `from` is visible, not known to be damaged, and not in memory.
    fn fetch_cold(&self, from: Offset) -> Fetch {
        let segments = &self.state.segments;
        let damage = self.state.corrupt.next_after(from).map(|range| range.first);
        let at = segments.partition_point(|segment| segment.end <= from);
        match segments.get(at) {
            Some(segment) if segment.base <= from => {
                let end = damage.map_or(segment.end, |damage| damage.min(segment.end));
                Fetch::Cold { segment: segment.base, bytes: segment.bytes, end }
            }
            // Neither in memory nor in a segment: whatever was there is lost, up to the next thing that is there.
            next => {
                let cached = self.cache.iter().map(|batch| batch.base).find(|&base| from < base);
                let known = [next.map(|segment| segment.base), cached, damage, Some(self.high_watermark())];
                let end = known.into_iter().flatten().min().expect("the high watermark is known");
                Fetch::Corrupt { first: from, end }
            }
        }
    }

    /// Where the first visible record lies that was not appended before `moment`.
    #[must_use]
    pub fn offset_for_time(&self, moment: WallMillis) -> TimeLookup {
        // A segment that is given up but still written to is of no more interest.
        let mut kept = self.state.segments.iter().skip_while(|segment| segment.end <= self.log_start());
        if let Some(segment) = kept.find(|segment| moment <= segment.max_timestamp) {
            // All of the first segment may be young enough; then the log start, which can lie within it, is the answer.
            return if segment.base <= self.log_start() && moment <= segment.first_timestamp {
                TimeLookup::At(self.log_start())
            } else {
                TimeLookup::Segment { segment: segment.base, bytes: segment.bytes }
            };
        }
        let found = match &self.latest {
            Some(latest) => latest.at_time(moment),
            None => self.cache.at_time(moment).map(|batch| batch.base),
        };
        let found = found.unwrap_or_else(|| self.high_watermark());
        TimeLookup::At(found.max(self.log_start()).min(self.high_watermark()))
    }
}
