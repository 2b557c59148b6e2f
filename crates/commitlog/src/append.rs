//! Taking a batch into the log: is it new, which offset does it get, where do its bytes lie.

use bytes::Bytes;
use corelane_model::limits::MEMORY_RING_BYTES_DEFAULT;
use corelane_model::{Now, Offset, WallMillis};
use corelane_record::{BatchHead, BatchKeys, Stamp};

use crate::cache::CachedBatch;
use crate::producers::Verdict;
use crate::{AppendError, CommitLog, LogState};

/// What becomes of a batch that a producer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// It is new. The log end and the producer's sequence have moved; the stamped bytes must follow by
    /// [`CommitLog::attach`] before the round ends.
    Accept(Stamp),
    /// It was appended before. Nothing has moved.
    Duplicate {
        /// Offset of its first record, then.
        base_offset: Offset,
        /// Its append timestamp, then.
        append_timestamp: WallMillis,
        /// Exclusive end of its offsets: it is stored when the durable end has reached this.
        end_offset: Offset,
    },
}

impl CommitLog {
    /// Decides on a batch by its head; the bytes are not copied. Append timestamps never go back, even if the wall
    /// clock does.
    ///
    /// # Errors
    /// The producer's epoch or sequence does not fit, or its transaction does not; the log is as it was before.
    pub fn append(&mut self, now: Now, head: &BatchHead) -> Result<Append, AppendError> {
        let append_timestamp = self.state.append_timestamp.max(now.wall);
        let stamp = Stamp { base_offset: self.state.log_end, append_timestamp, leader_epoch: self.state.leader_epoch };
        let place = (stamp.base_offset, append_timestamp);
        let LogState { producers, transactions, .. } = &mut self.state;
        let is_plain = head.transaction().is_none() && transactions.is_none_open();
        // Nearly every batch comes next of a producer that is known; then it is looked up once.
        if !(is_plain && producers.record_next(now.monotonic, head, place)) {
            if let Verdict::Duplicate(seen) = self.judge(head).inspect_err(|_| self.stats.refused_batches += 1)? {
                self.stats.duplicate_batches += 1;
                return Ok(Append::Duplicate {
                    base_offset: seen.base_offset,
                    append_timestamp: seen.append_timestamp,
                    end_offset: seen.end_offset(),
                });
            }
            let LogState { producers, transactions, .. } = &mut self.state;
            transactions.record(head, stamp.base_offset);
            producers.record(now.monotonic, head, place, transactions);
        }
        self.state.append_timestamp = append_timestamp;
        self.state.log_end = self.state.log_end.advance(u64::from(head.offset_span));
        self.stats.appended_batches += 1;
        self.stats.appended_records += u64::from(head.record_count);
        self.stats.appended_bytes += u64::from(head.batch_bytes());
        self.check();
        Ok(Append::Accept(stamp))
    }

    /// Whether a batch is new, was appended before, or fits neither its producer nor its transaction.
    fn judge(&self, head: &BatchHead) -> Result<Verdict, AppendError> {
        self.judge_known(head)?;
        let verdict = self.state.producers.judge(head)?;
        if verdict == Verdict::Fresh {
            self.judge_transaction(head)?;
        }
        Ok(verdict)
    }

    /// A transaction that is open here has had its first batch. If nothing is remembered of its producer, a batch with the
    /// first sequence is that one, sent again, and not a new one.
    fn judge_known(&self, head: &BatchHead) -> Result<(), AppendError> {
        match head.transaction() {
            Some(transaction) if self.is_open(transaction) && !self.state.producers.knows(head) => {
                let (producer, found) = (head.producer_id, head.base_sequence);
                Err(AppendError::UnknownProducer { producer, found })
            }
            _ => Ok(()),
        }
    }

    /// Whether a batch finds room among the newest records of a log of class `latest`; other logs do not ask.
    ///
    /// # Errors
    /// The bound that stands against it; nothing is changed.
    pub fn admit(&self, keys: &BatchKeys) -> Result<(), AppendError> {
        let limit_bytes = self.settings.retention_bytes.unwrap_or(MEMORY_RING_BYTES_DEFAULT);
        self.latest.as_ref().map_or(Ok(()), |latest| latest.admit(keys, limit_bytes))
    }

    /// The stamped batch as it now lies in memory, in the order of appends. `position` is where it lies in the journal,
    /// as a number that never goes back.
    ///
    /// On a memory topic the batch is durable and visible with this, and the oldest ones give way when the ring is
    /// over its bound.
    pub fn attach(&mut self, bytes: Bytes, position: u64) {
        let head = BatchHead::of_checked(&bytes);
        assert_eq!(head.base_offset, self.attached_end, "batches are attached in the order of appends");
        assert_eq!(head.batch_bytes() as usize, bytes.len(), "a whole batch is attached");
        if let Some(last) = self.cache.back() {
            assert!(last.position <= position, "journal position {position} is behind {}", last.position);
        }
        self.attached_end = head.end_offset();
        match &mut self.latest {
            Some(latest) => latest.attach(bytes),
            None => self.cache.push(CachedBatch::new(&head, bytes, position)),
        }
        if !self.settings.class.is_durable() {
            self.durable_end = self.attached_end;
            self.keep_ring_bound();
        }
        self.check();
    }

    /// Everything below `end` is on disk. Moves the durable end, never back; a call that brings nothing new is allowed.
    pub fn on_durable(&mut self, end: Offset) {
        assert!(end <= self.attached_end, "durable end {end} is beyond the attached end {}", self.attached_end);
        self.durable_end = self.durable_end.max(end);
        self.check();
    }
}
