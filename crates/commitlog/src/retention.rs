//! Giving up old records: by age, by bytes, on request.

use corelane_model::limits::MEMORY_RING_BYTES_DEFAULT;
use corelane_model::{Cleanup, Now, Offset, TopicClass, TopicSettings, WallMillis};

use crate::cache::CachedBatch;
use crate::{CommitLog, Segment, TruncateError};

/// What a pass of retention gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The log start, if it moved. On a durable topic it is to be noted in the journal.
    pub log_start: Option<Offset>,
    /// Segments whose files may go once the next checkpoint is durable.
    pub dropped: Vec<Segment>,
}

/// The active segment is sealed when its first batch is older than this part of the retention: records then stay at
/// most that much longer than asked.
const ROLLS_PER_RETENTION: i64 = 8;

impl CommitLog {
    /// Moves the log start to `before`, which may lie within a batch. Returns the segments whose files may go once the
    /// next checkpoint is durable. A start that does not move is no error.
    ///
    /// # Errors
    /// `before` is beyond the high watermark.
    pub fn truncate(&mut self, before: Offset) -> Result<Vec<Segment>, TruncateError> {
        let high_watermark = self.high_watermark();
        if high_watermark < before {
            return Err(TruncateError::BeyondEnd { asked: before, high_watermark });
        }
        let dropped = self.move_start(before);
        self.check();
        Ok(dropped)
    }

    /// Gives up what is too old or too much; only whole segments of a durable log, only whole batches of a memory log.
    /// Forgets producers that were silent for too long.
    pub fn apply_retention(&mut self, now: Now) -> Retention {
        self.state.producers.expire(now.monotonic);
        let before = self.log_start();
        let dropped = match self.settings.class {
            TopicClass::Durable => self.retain_segments(now.wall),
            TopicClass::Latest => {
                self.expire_latest(now.wall);
                Vec::new()
            }
            TopicClass::Memory => {
                self.expire_ring(now.wall);
                Vec::new()
            }
        };
        self.check();
        Retention { log_start: Some(self.log_start()).filter(|&start| before < start), dropped }
    }

    /// Gives up batches of a durable log that are too old and still in no segment: where little is written, nothing settles
    /// for long. Returns the log start if it moved; it is to be noted in the journal, which keeps the batches until then.
    ///
    /// All that is too old goes at once, and no sooner than the oldest would have sealed a segment, so that a log start is
    /// noted a few times per retention and not once for each batch.
    pub fn expire_unsettled(&mut self, now: Now) -> Option<Offset> {
        let retention_ms = self.settings.retention_ms.filter(|_| self.settings.class == TopicClass::Durable)?;
        let start = self.log_start();
        if self.settling.is_some() || self.state.segments.iter().any(|segment| start < segment.end) {
            return None;
        }
        let age = |batch: &CachedBatch| now.wall.millis_since(batch.append_timestamp);
        let slack = retention_ms / ROLLS_PER_RETENTION.unsigned_abs();
        self.cache.front().filter(|oldest| retention_ms.saturating_add(slack) < age(oldest))?;
        let durable = self.high_watermark();
        let expired = self.cache.iter().take_while(|batch| batch.end <= durable && retention_ms < age(batch));
        let end = expired.last()?.end;
        let dropped = self.move_start(end);
        assert!(dropped.is_empty(), "there was no segment");
        self.check();
        Some(self.log_start()).filter(|&moved| start < moved)
    }

    /// Forgets producers that were silent for too long, and beyond so many those that were silent for longest, unless they have
    /// a transaction open or were heard of within [`PRODUCER_SPARED`](corelane_model::limits::PRODUCER_SPARED): before a
    /// checkpoint that has room for no more.
    pub fn forget_producers(&mut self, now: Now, keep: usize) {
        self.state.producers.expire(now.monotonic);
        self.state.producers.trim(now.monotonic, keep, &self.state.transactions);
    }

    /// When [`CommitLog::apply_retention`] or [`CommitLog::expire_unsettled`] next has something to do for the age of
    /// records, as far as is known now. It has passed while the oldest batch is too old before it is durable.
    #[must_use]
    pub fn retention_deadline(&self) -> Option<WallMillis> {
        if let Some(latest) = &self.latest {
            return latest.deadline(self.settings.retention_ms, self.settings.tombstone_ms);
        }
        if self.settings.cleanup == Cleanup::Compact {
            let active = self.state.segments.last().filter(|last| !last.is_sealed)?;
            let grace = i64::try_from(self.settings.tombstone_ms).unwrap_or(i64::MAX);
            return Some(WallMillis(active.first_timestamp.0.saturating_add(grace).saturating_add(1)));
        }
        let retention = i64::try_from(self.settings.retention_ms?).unwrap_or(i64::MAX);
        let due = match self.settings.class {
            TopicClass::Durable => {
                // A segment that is given up already only waits for its last write.
                let mut kept = self.state.segments.iter().filter(|segment| self.log_start() < segment.end);
                let Some(oldest) = kept.next() else {
                    let oldest = self.cache.front()?.append_timestamp.0.saturating_add(retention);
                    return Some(WallMillis(oldest.saturating_add(retention / ROLLS_PER_RETENTION).saturating_add(1)));
                };
                let expiry = oldest.max_timestamp.0.saturating_add(retention);
                let active = self.state.segments.last().filter(|last| !last.is_sealed);
                let roll =
                    active.map(|active| active.first_timestamp.0.saturating_add(retention / ROLLS_PER_RETENTION));
                roll.map_or(expiry, |roll| roll.min(expiry))
            }
            TopicClass::Memory | TopicClass::Latest => self.cache.front()?.append_timestamp.0.saturating_add(retention),
        };
        Some(WallMillis(due.saturating_add(1)))
    }

    /// Seals the active segment of a compacted log when it is older than the grace time of null values, so that what is
    /// written rarely is compacted too.
    fn seal_for_compaction(&mut self, wall: WallMillis) {
        if let Some(active) = self.state.segments.last_mut() {
            active.is_sealed |= self.settings.tombstone_ms < wall.millis_since(active.first_timestamp);
        }
    }

    fn retain_segments(&mut self, wall: WallMillis) -> Vec<Segment> {
        if self.settings.cleanup == Cleanup::Compact {
            self.seal_for_compaction(wall);
            return self.drop_segments_below_start();
        }
        let mut start = self.log_start();
        if let Some(retention_ms) = self.settings.retention_ms {
            if let Some(active) = self.state.segments.last_mut() {
                let age = wall.millis_since(active.first_timestamp);
                active.is_sealed |= retention_ms / ROLLS_PER_RETENTION.unsigned_abs() < age;
            }
            let expired =
                |segment: &&Segment| segment.is_sealed && retention_ms < wall.millis_since(segment.max_timestamp);
            start = self.state.segments.iter().take_while(expired).last().map_or(start, |segment| segment.end);
        }
        if let Some(retention_bytes) = self.settings.retention_bytes {
            let mut bytes = self.disk_bytes() + self.unsettled_bytes();
            for segment in self.state.segments.iter().take_while(|segment| segment.is_sealed) {
                if bytes <= retention_bytes {
                    break;
                }
                bytes -= segment.bytes;
                start = start.max(segment.end);
            }
        }
        self.move_start(start)
    }

    /// Lets the oldest batches of a memory log go until the ring is within its bound; the newest always stays.
    pub(crate) fn keep_ring_bound(&mut self) {
        let bound = self.settings.retention_bytes.unwrap_or(MEMORY_RING_BYTES_DEFAULT);
        while bound < self.cache.bytes() && 1 < self.cache.len() {
            self.drop_oldest_cached();
        }
    }

    /// Keys go by age, the log start stays: what is missing behind it was superseded or expired.
    fn expire_latest(&mut self, wall: WallMillis) {
        let TopicSettings { retention_ms, tombstone_ms, .. } = self.settings;
        self.latest.as_mut().expect("a log of its class has it").expire(wall, retention_ms, tombstone_ms);
    }

    fn expire_ring(&mut self, wall: WallMillis) {
        let Some(ttl_ms) = self.settings.retention_ms else {
            return;
        };
        while self.cache.front().is_some_and(|batch| ttl_ms < wall.millis_since(batch.append_timestamp)) {
            self.drop_oldest_cached();
        }
    }

    fn drop_oldest_cached(&mut self) {
        let end = self.cache.front().expect("the caller has seen a batch").end;
        self.move_start(end);
    }

    /// Moves the log start, if that is forward, and with it what may not lie below it.
    pub(crate) fn move_start(&mut self, to: Offset) -> Vec<Segment> {
        if to <= self.log_start() {
            return self.drop_segments_below_start();
        }
        self.stats.dropped_records += to.since(self.log_start());
        self.state.log_start = to;
        self.state.settled_end = self.state.settled_end.max(to);
        self.cache.drop_below(to);
        if let Some(latest) = &mut self.latest {
            latest.drop_below(to);
        }
        self.state.corrupt.drop_below(to);
        self.state.transactions.drop_below(to);
        self.drop_segments_below_start()
    }

    /// Forgets segments that lie wholly below the log start, but not one that is being written.
    pub(crate) fn drop_segments_below_start(&mut self) -> Vec<Segment> {
        let (start, settling) = (self.state.log_start, self.settling.map(|settling| settling.segment));
        let is_gone = |segment: &&Segment| segment.end <= start && Some(segment.base) != settling;
        let count = self.state.segments.iter().take_while(is_gone).count();
        self.state.segments.drain(..count).collect()
    }
}
