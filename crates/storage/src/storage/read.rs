//! Fetches: from memory, or through the reads of segments.

use corelane_commitlog::{Fetch as LogFetch, TimeLookup};
use corelane_model::{Offset, PartitionId, StartAt, TopicClass, WallMillis};
use corelane_record::BatchHead;

use super::Storage;
use crate::reads::{Goal, ReadAnswer, Reply};
use crate::{Fetch, OffsetFor, StorageOutput};

impl Storage {
    /// Visible batches from `from` on, up to `bytes_max` bytes but at least one.
    pub fn fetch(&mut self, partition: PartitionId, from: Offset, bytes_max: u32) -> Fetch {
        if let Some(known) = self.table.open_mut(partition).filter(|known| known.class() == TopicClass::Latest) {
            known.log.prepare_fetch(from, bytes_max);
            self.table.refresh(partition);
        }
        let asked = from;
        let mut from = from;
        // A segment of which compaction left nothing behind `from` is passed over; each takes one turn.
        loop {
            match self.fetch_once(partition, (asked, from), bytes_max) {
                Ok(fetch) => return fetch,
                Err(end) => from = end,
            }
        }
    }

    /// `Err` with the offset to go on with when there is nothing up to there. A loss is counted from where the reader
    /// asked: it would otherwise wait for what lies between.
    fn fetch_once(
        &mut self,
        partition: PartitionId,
        (asked, from): (Offset, Offset),
        bytes_max: u32,
    ) -> Result<Fetch, Offset> {
        let Some(known) = self.table.open(partition).filter(|_| self.is_recovered()) else {
            return Ok(Fetch::Unknown);
        };
        let segment = match known.log.fetch(from, bytes_max) {
            LogFetch::Batches { batches, next } => {
                self.stats.fetches_hot_total += 1;
                return Ok(Fetch::Batches { batches, next });
            }
            LogFetch::AtEnd => return Ok(Fetch::AtEnd),
            LogFetch::OutOfRange { log_start, high_watermark } => {
                return Ok(Fetch::OutOfRange { log_start, high_watermark });
            }
            LogFetch::Corrupt { first, end } => return Ok(Fetch::Corrupt { first: first.min(asked), end }),
            LogFetch::Cold { segment, .. } => segment,
        };
        let view = known.view(segment).expect("the log named one of its segments");
        Ok(match self.reads.look(partition, view, Goal::Records { asked, from, bytes_max }) {
            Reply::Hole { end } => return Err(end),
            Reply::Batches { batches, next } => Fetch::Batches { batches, next },
            Reply::Corrupt { first, end } => Fetch::Corrupt { first, end },
            Reply::Pending(ticket) => Fetch::Pending(ticket),
            Reply::Busy => Fetch::Busy,
            Reply::Found(offset) => unreachable!("a fetch was answered with offset {offset}"),
        })
    }

    /// Where a reader starts. An offset is taken as it is: a fetch says whether it is inside the log.
    pub fn offset_for(&mut self, partition: PartitionId, start: StartAt) -> OffsetFor {
        let Some(known) = self.table.open(partition).filter(|_| self.is_recovered()) else { return OffsetFor::Unknown };
        let time = match start {
            StartAt::Earliest => return OffsetFor::Found(known.log.log_start()),
            StartAt::Latest => return OffsetFor::Found(known.log.high_watermark()),
            StartAt::Offset(offset) => return OffsetFor::Found(offset),
            StartAt::Time(time) => time,
        };
        let segment = match known.log.offset_for_time(time) {
            TimeLookup::At(offset) => return OffsetFor::Found(offset),
            TimeLookup::Segment { segment, .. } => segment,
        };
        let log_start = known.log.log_start();
        let view = known.view(segment).expect("the log named one of its segments");
        match self.reads.look(partition, view, Goal::Time(time)) {
            Reply::Found(offset) => OffsetFor::Found(offset.max(log_start)),
            Reply::Pending(ticket) => OffsetFor::Pending(ticket),
            Reply::Busy => OffsetFor::Busy,
            reply @ (Reply::Batches { .. } | Reply::Corrupt { .. } | Reply::Hole { .. }) => {
                unreachable!("a search for a time was answered with {reply:?}")
            }
        }
    }

    /// When the visible record at this offset was appended, without a look at the disk: as its batch says while that is in
    /// memory; else as it follows from its place between the first and the last batch of its segment.
    #[must_use]
    pub fn append_time(&self, partition: PartitionId, offset: Offset) -> Option<WallMillis> {
        let known = self.table.open(partition)?;
        if let LogFetch::Batches { batches, .. } = known.log.fetch(offset, 0) {
            return BatchHead::parse(batches.first()?).ok().map(|head| head.append_timestamp);
        }
        let segment = known.log.segments().iter().find(|segment| segment.contains(offset))?;
        let span = u128::from(segment.max_timestamp.millis_since(segment.first_timestamp));
        let passed = span * u128::from(offset.since(segment.base)) / u128::from(segment.end.since(segment.base).max(1));
        let passed = i64::try_from(passed).expect("it is within the span");
        Some(WallMillis(segment.first_timestamp.0.saturating_add(passed)))
    }

    /// Late answers become outputs.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.reads.poll_answer() {
            if let ReadAnswer::Records { ticket, result, .. } = &answer
                && self.take_id_read(*ticket, result)
            {
                continue;
            }
            self.outputs.push_back(match answer {
                ReadAnswer::Records { ticket, partition, result } => StorageOutput::Read { ticket, partition, result },
                ReadAnswer::Time { ticket, partition, result } => {
                    let log_start = self.table.get(partition).map_or(Offset::ZERO, |known| known.log.log_start());
                    let result = result.map(|offset| offset.max(log_start));
                    StorageOutput::TimeFound { ticket, partition, result }
                }
            });
        }
    }
}
