//! Putting a log together again from what the journal holds. Nothing here asserts on what was read from disk.
//!
//! The journal is replayed in order. Its oldest file begins with a checkpoint, and so does each later one:
//!
//! ```text
//!   restore(state) → replay(batch) … replay_settled(note) … restore(later state) → replay(batch) … → finish_recovery
//! ```
//! Batches that a checkpoint already counts may still follow, and batches between a checkpoint's settled end and its log
//! end may be missing because a later note says that they were settled. Only at the end is it known what is really
//! missing.

use bytes::Bytes;
use corelane_model::{LeaderEpoch, Now, Offset};
use corelane_record::BatchHead;

use crate::cache::CachedBatch;
use crate::{
    CommitLog, CorruptRange, LogState, OFFSET_MAX, ReplayError, SEGMENT_FILE_BYTES_MAX, Segment, Settled, Transactions,
};

/// How the broker ended the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It wrote its closing mark.
    Clean,
    /// It did not: the leader epoch is raised, so that readers can tell what came after.
    Unclean,
}

impl CommitLog {
    /// Takes over a checkpoint. It is the truth about everything before it; batches above its settled end stay.
    ///
    /// A note of settling may be in the journal before a checkpoint that does not count it yet: what is settled stays
    /// settled. A checkpoint that knows less than was replayed otherwise is left out: journals are replayed in order,
    /// so that it cannot be right.
    pub fn restore(&mut self, state: LogState) {
        if state.log_end < self.state.log_end {
            return;
        }
        let before = std::mem::replace(&mut self.state, state);
        if self.state.settled_end < before.settled_end {
            self.state.settled_end = before.settled_end;
            for segment in before.segments {
                self.add_segment(segment);
            }
        }
        self.state.log_start = self.state.log_start.max(before.log_start);
        self.state.append_timestamp = self.state.append_timestamp.max(before.append_timestamp);
        self.state.leader_epoch = self.state.leader_epoch.max(before.leader_epoch);
        for &CorruptRange { first, end } in before.corrupt.as_slice() {
            // A gap below the settled end is one only of the replay, which began after those batches were settled.
            let first = first.max(self.state.settled_end);
            if first < end {
                self.state.corrupt.add(CorruptRange { first, end });
            }
        }
        self.state.corrupt.drop_below(self.state.log_start);
        self.state.transactions.drop_below(self.state.log_start);
        self.after_replay();
    }

    /// Adds to the checkpoint's segments one that notes before it told of, as far as the checkpoint does not count it.
    fn add_segment(&mut self, segment: Segment) {
        let segments = &mut self.state.segments;
        match segments.last_mut() {
            Some(last) if last.base == segment.base => {
                if last.end < segment.end {
                    // The notes may have begun within the segment and then do not know its beginning.
                    *last = Segment { first_timestamp: last.first_timestamp, ..segment };
                }
            }
            Some(last) if last.end <= segment.base => {
                last.is_sealed = true;
                segments.push(segment);
            }
            Some(_) => {}
            None => segments.push(segment),
        }
    }

    /// A stamped batch from the journal, checked by its checksums already.
    ///
    /// What lies below the settled end is left out without an error.
    ///
    /// # Errors
    /// It does not fit; it is left out.
    pub fn replay(&mut self, head: &BatchHead, bytes: Bytes, position: u64) -> Result<(), ReplayError> {
        let (base, end) = (head.base_offset, head.end_offset());
        if OFFSET_MAX < end.0 {
            return Err(ReplayError::OffsetTooLarge { found: end, limit: OFFSET_MAX });
        }
        let log_end = self.state.log_end;
        if base < log_end && log_end < end {
            return Err(ReplayError::Overlap { base, end, log_end });
        }
        if log_end <= base {
            self.state.log_end = end;
            self.state.append_timestamp = self.state.append_timestamp.max(head.append_timestamp);
            // The last start may have raised the epoch and ended before a checkpoint said so.
            self.state.leader_epoch = self.state.leader_epoch.max(head.leader_epoch);
            self.state.transactions.record(head, base);
            let LogState { producers, transactions, .. } = &mut self.state;
            producers.record(corelane_model::MonotonicNanos(0), head, (base, head.append_timestamp), transactions);
        }
        if end <= self.state.settled_end {
            self.after_replay();
            return Ok(());
        }
        if let Some(last) = self.cache.back()
            && (base < last.end || position < last.position)
        {
            let after = last.end;
            self.after_replay();
            return Err(ReplayError::OutOfOrder { base, end, after });
        }
        self.cache.push(CachedBatch::new(head, bytes, position));
        self.after_replay();
        Ok(())
    }

    /// A note from the journal that batches were settled.
    ///
    /// # Errors
    /// It names an impossible segment; it is left out.
    pub fn replay_settled(&mut self, settled: &Settled) -> Result<(), ReplayError> {
        if settled.end <= self.state.settled_end
            && self.state.segments.last().is_some_and(|last| settled.end <= last.end)
        {
            return Ok(());
        }
        if OFFSET_MAX < settled.end.0 {
            return Err(ReplayError::OffsetTooLarge { found: settled.end, limit: OFFSET_MAX });
        }
        if SEGMENT_FILE_BYTES_MAX < settled.segment_bytes {
            return Err(ReplayError::SegmentTooLarge { segment: settled.segment, bytes: settled.segment_bytes });
        }
        let last = self.state.segments.last();
        let is_possible = settled.segment <= settled.base
            && settled.base < settled.end
            && last.is_none_or(|last| {
                let is_same = last.base == settled.segment;
                let grows = last.end <= settled.base && last.bytes <= settled.segment_bytes;
                if is_same { grows } else { last.end <= settled.segment }
            });
        if !is_possible {
            let last = last.map_or(Offset::ZERO, |last| last.base);
            return Err(ReplayError::Settled { segment: settled.segment, end: settled.end, last });
        }
        self.state.corrupt.remove(CorruptRange { first: settled.base, end: settled.end });
        if self.state.settled_end < settled.base {
            // Settling leaves nothing out: what lies between was lost before. The segment may close over it, so that
            // this is the last chance to see it.
            self.state.corrupt.add(CorruptRange { first: self.state.settled_end, end: settled.base });
        }
        self.extend_segments(settled);
        self.state.log_end = self.state.log_end.max(settled.end);
        self.state.append_timestamp = self.state.append_timestamp.max(settled.max_timestamp);
        self.after_replay();
        Ok(())
    }

    /// A note from the journal that the log start moved. The files of segments below it are dealt with by
    /// [`CommitLog::finish_recovery`].
    ///
    /// # Errors
    /// It is beyond what any log reaches; it is left out.
    pub fn replay_log_start(&mut self, log_start: Offset) -> Result<(), ReplayError> {
        if OFFSET_MAX < log_start.0 {
            return Err(ReplayError::OffsetTooLarge { found: log_start, limit: OFFSET_MAX });
        }
        if self.state.log_start < log_start {
            self.state.log_start = log_start;
            self.state.settled_end = self.state.settled_end.max(log_start);
            self.state.log_end = self.state.log_end.max(log_start);
            self.state.corrupt.drop_below(log_start);
            self.state.transactions.drop_below(log_start);
        }
        self.after_replay();
        Ok(())
    }

    /// Offsets that the journal held and that were found damaged. They count as appended: the next record gets none of
    /// them. If they are settled after all, a note of that takes this back.
    ///
    /// # Errors
    /// The range is beyond what any log reaches; it is left out.
    pub fn replay_corrupt(&mut self, range: CorruptRange) -> Result<(), ReplayError> {
        if OFFSET_MAX < range.end.0 {
            return Err(ReplayError::OffsetTooLarge { found: range.end, limit: OFFSET_MAX });
        }
        self.on_corrupt(range);
        self.state.log_end = self.state.log_end.max(range.end);
        self.after_replay();
        Ok(())
    }

    /// What was replayed came from disk: it is durable and visible.
    pub(crate) fn after_replay(&mut self) {
        self.cache.drop_below(self.state.settled_end);
        // A batch is never settled in part; only what does not belong together looks like that.
        let segments_end = self.state.segments.last().map_or(Offset::ZERO, |last| last.end);
        while self.cache.front().is_some_and(|batch| batch.base < segments_end) {
            self.cache.pop_front();
        }
        self.durable_end = self.state.log_end;
        self.attached_end = self.state.log_end;
        self.check();
    }

    /// The journal is replayed to its end. Offsets that lie neither in a segment nor in memory are noted as damaged and
    /// returned, with those noted before; so are segments whose files may go.
    pub fn finish_recovery(&mut self, now: Now, shutdown: Shutdown) -> (Vec<CorruptRange>, Vec<Segment>) {
        if !self.settings.class.is_durable() {
            // Its records are gone with the process; its offsets go on.
            self.state.corrupt.drop_below(self.state.log_end);
            self.state.transactions = Transactions::default();
            self.state.log_start = self.state.log_end;
            self.state.settled_end = self.state.log_end;
            self.after_replay();
        }
        for gap in self.gaps() {
            self.state.corrupt.add(gap);
        }
        if shutdown == Shutdown::Unclean {
            self.state.leader_epoch = LeaderEpoch(self.state.leader_epoch.0.saturating_add(1));
        }
        self.state.producers.restart(now.monotonic);
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::ForgetProducers) {
            self.state.producers.forget();
        }
        let dropped = self.drop_segments_below_start();
        self.check();
        (self.state.corrupt.as_slice().to_vec(), dropped)
    }

    /// Everything from the log start to the log end that lies neither in a segment nor in memory.
    fn gaps(&self) -> Vec<CorruptRange> {
        let mut gaps = Vec::new();
        let mut expected = self.log_start();
        let segments = self.state.segments.iter().map(|segment| (segment.base, segment.end));
        let cached = self.cache.iter().map(|batch| (batch.base, batch.end));
        let end = [(self.state.log_end, self.state.log_end)];
        for (base, end) in segments.chain(cached).chain(end) {
            if expected < base {
                gaps.push(CorruptRange { first: expected, end: base });
            }
            expected = expected.max(end);
        }
        gaps
    }
}
