//! A log, a clock, and the helper that knows the API.

use bytes::Bytes;
use corelane_commitlog::{Append, AppendError, CommitLog, Fetch, LogState, SegmentChoice};
use corelane_model::{
    MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicClass, TopicId,
    TopicSettings, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, stamp};

pub(crate) const PARTITION: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));

/// A log, a clock, and the helper that knows the API.
pub(crate) struct Rig {
    pub(crate) log: CommitLog,
    pub(crate) now: Now,
    position: u64,
}

impl Rig {
    pub(crate) fn new(settings: TopicSettings) -> Self {
        let now = Now { monotonic: MonotonicNanos(5), wall: WallMillis(1000) };
        Self { log: CommitLog::new(PARTITION, settings, LogState::default()), now, position: 0 }
    }

    pub(crate) fn durable() -> Self {
        Self::new(TopicSettings { retention_ms: None, segment_bytes: 1000, ..TopicSettings::default() })
    }

    pub(crate) fn memory(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> Self {
        Self::new(TopicSettings {
            class: TopicClass::Memory,
            retention_ms,
            retention_bytes,
            ..TopicSettings::default()
        })
    }

    /// Appends without attaching.
    pub(crate) fn decide(&mut self, producer: (u64, u16, u32), records: u32) -> Result<Append, AppendError> {
        self.log.append(self.now, &BatchHead::parse(&batch(producer, records)).expect("sound"))
    }

    pub(crate) fn append_as(&mut self, producer: (u64, u16, u32), records: u32) -> Result<Append, AppendError> {
        let outcome = self.decide(producer, records)?;
        if let Append::Accept(given) = outcome {
            let mut bytes = batch(producer, records).to_vec();
            stamp(&mut bytes, given);
            self.position += 1;
            self.log.attach(bytes.into(), self.position);
        }
        Ok(outcome)
    }

    pub(crate) fn append(&mut self, records: u32) {
        self.append_as((0, 0, 0), records).expect("a producer without an identity is always taken");
    }

    pub(crate) fn sync(&mut self) {
        self.log.on_durable(self.log.log_end());
    }

    /// Settles everything that is durable, in extents of one batch.
    pub(crate) fn settle(&mut self) {
        while let Some(plan) = self.log.settle_plan(1) {
            let before = match plan.segment {
                SegmentChoice::Append { bytes, .. } => bytes,
                SegmentChoice::Roll { .. } => 0,
            };
            self.log.note_settled(&plan.settled(before + plan.bytes));
            assert!(self.log.on_settled().is_empty());
        }
    }

    pub(crate) fn wait(&mut self, millis: i64) {
        self.now.wall.0 += millis;
        self.now.monotonic.0 += millis.unsigned_abs() * 1_000_000;
    }

    /// Log start, settled end, durable end, log end.
    pub(crate) fn ends(&self) -> [u64; 4] {
        let log = &self.log;
        [log.log_start().0, log.settled_end().0, log.durable_end().0, log.log_end().0]
    }

    pub(crate) fn segments(&self) -> Vec<(u64, u64, bool)> {
        self.log.segments().iter().map(|segment| (segment.base.0, segment.end.0, segment.is_sealed)).collect()
    }

    /// First offsets of the batches that a fetch lends, or what it says instead.
    pub(crate) fn fetch(&self, from: u64, bytes_max: u32) -> String {
        match self.log.fetch(Offset(from), bytes_max) {
            Fetch::Batches { batches, next } => {
                let bases = batches.iter().map(|bytes| BatchHead::parse(bytes).expect("sound").base_offset.to_string());
                format!("{} then {next}", bases.collect::<Vec<_>>().join(" "))
            }
            Fetch::Cold { segment, end, .. } => format!("cold in {segment} to {end}"),
            Fetch::AtEnd => "at end".to_owned(),
            Fetch::OutOfRange { log_start, high_watermark } => format!("out of {log_start} to {high_watermark}"),
            Fetch::Corrupt { first, end } => format!("corrupt {first} to {end}"),
        }
    }
}

pub(crate) fn batch((producer, epoch, sequence): (u64, u16, u32), records: u32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(0), None, Some(&[7; 100]), &[]).expect("small");
    }
    builder.finish(ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    })
}

pub(crate) fn is_accepted(outcome: &Result<Append, AppendError>) -> bool {
    matches!(outcome, Ok(Append::Accept(_)))
}
