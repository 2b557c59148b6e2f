//! Records on their way: a batch that gathers them, and a batch that has left.

use std::time::Duration;

use corelane_model::limits::QUEUE_DELAY_MAX;
use corelane_model::queue::HEADER_DELIVER_AT;
use corelane_model::{Acks, MonotonicNanos, Now, PartitionIndex, WallMillis};
use corelane_record::{
    BatchBuilder, BatchHead, Compression, MESSAGE_ID_HEADER, ProducerStamp, PushError, SingleBatch, find_message_id,
    partition_for_key,
};

use crate::lanes::SealedBytes;
use crate::tell::Tell;
use crate::{BatchKey, DeliveryError, Placement, ProducerSettings};

/// A record to send; its bytes are copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// Its key; records of one key stay in order. `None` is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order; a name may come more than once.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Its message id, which travels as its first header: a topic that deduplicates takes it once.
    pub message_id: Option<&'a [u8]>,
    /// When a shared queue may hand it out, which travels as the header [`HEADER_DELIVER_AT`]; `None` is at once.
    pub delivery_time: Option<DeliveryTime>,
    /// When it came to be; `None` takes the moment of sending.
    pub timestamp: Option<WallMillis>,
    /// Its partition; `None` leaves that to the key, without one to the message id, and without that to the producer.
    pub partition: Option<PartitionIndex>,
}

/// When a record may be handed out by a shared queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryTime {
    /// At a time.
    At(WallMillis),
    /// So long after it was sent, in whole milliseconds.
    After(Duration),
}

impl DeliveryTime {
    fn at(self, now: WallMillis) -> WallMillis {
        match self {
            Self::At(time) => time,
            Self::After(delay) => {
                WallMillis(now.0.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A delivery time is farther off than shared queues wait: the record would come at once, or be a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a delivery time {days} days from now is over the limit of {limit_days} days; it counts milliseconds since 1970"
)]
pub struct DeliveryTimeError {
    /// How far it is off, rounded up.
    pub days: u64,
    /// The limit.
    pub limit_days: u64,
}

/// Bytes of the longest delivery time as a header's value.
const DELIVERY_TIME_BYTES: usize = 20;

impl NewRecord<'_> {
    /// Adds it to a batch at `now`, which is its timestamp unless it says otherwise.
    ///
    /// # Errors
    /// As [`BatchBuilder::push`].
    pub fn push_into(&self, now: WallMillis, builder: &mut BatchBuilder) -> Result<(), PushError> {
        let timestamp = self.timestamp.unwrap_or(now);
        if self.message_id.is_none() && self.delivery_time.is_none() {
            return builder.push(timestamp, self.key, self.value, self.headers);
        }
        let time = self.delivery_time.map(|time| time.at(now).0.to_string());
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        headers.extend(self.message_id.map(|id| (MESSAGE_ID_HEADER, Some(id))));
        headers.extend(time.as_ref().map(|time| (HEADER_DELIVER_AT, Some(time.as_bytes()))));
        headers.extend_from_slice(self.headers);
        builder.push(timestamp, self.key, self.value, &headers)
    }

    /// Whether it has neither headers nor anything that becomes one.
    const fn is_plain(&self) -> bool {
        self.headers.is_empty() && self.message_id.is_none() && self.delivery_time.is_none()
    }

    /// Its message id, however that was set.
    fn id(&self) -> Option<&[u8]> {
        let id = self.message_id.filter(|id| !id.is_empty());
        id.or_else(|| find_message_id(self.headers.iter().copied()))
    }

    /// Whether it has a message id, however that was set.
    pub(crate) fn has_message_id(&self) -> bool {
        self.id().is_some()
    }

    /// The partition for it among so many: the one that it names, which may not exist; else by its key; else by its message
    /// id, because a partition knows only the ids of its own records; else `sticky`.
    #[must_use]
    pub fn partition_among(&self, partitions: u32, sticky: u32) -> PartitionIndex {
        if let Some(partition) = self.partition {
            return partition;
        }
        let name = self.key.or_else(|| self.id());
        name.map_or(PartitionIndex(sticky), |name| partition_for_key(name, partitions))
    }

    /// Holds its delivery time against the limit of shared queues.
    ///
    /// # Errors
    /// No queue would wait so long from `now` on.
    pub fn check_delivery_time(&self, now: WallMillis) -> Result<(), DeliveryTimeError> {
        let limit = QUEUE_DELAY_MAX;
        match self.delivery_time.map(|time| time.at(now).millis_since(now)) {
            Some(delay_ms) if limit < Duration::from_millis(delay_ms) => {
                Err(DeliveryTimeError { days: delay_ms.div_ceil(DAY_MS), limit_days: limit.as_secs() / (24 * 3600) })
            }
            _ => Ok(()),
        }
    }

    /// What the record costs in the send buffer.
    #[must_use]
    pub fn charge(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
        let id = self.message_id.map_or(0, |id| MESSAGE_ID_HEADER.len() + id.len());
        let time = self.delivery_time.map_or(0, |_| HEADER_DELIVER_AT.len() + DELIVERY_TIME_BYTES);
        let bytes = self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers + id + time;
        crate::settings::RECORD_CHARGE_BYTES + bytes as u64
    }
}

/// Whether somebody holds a ticket for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Somebody waits.
    Ticket,
    /// Nobody does: a failure is counted.
    Detached,
}

/// A producer's settings and the builders that its queues share.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) settings: ProducerSettings,
    /// The topic takes a record with a message id only alone.
    pub(crate) has_message_ids: bool,
    #[expect(clippy::vec_box, reason = "a builder goes from here to a queue and back with each batch")]
    spare: Vec<Box<BatchBuilder>>,
}

/// Builders kept for the next batch; each holds on to the memory of its columns.
const SPARE_BUILDERS_MAX: usize = 64;
/// As many more are kept if they are small: a server with a thousand partitions fills as many at each tick.
const SPARE_SMALL_BUILDERS_MAX: usize = 1024;
/// A builder of at most so many bytes is small.
const SMALL_BUILDER_BYTES: usize = 1024;
/// The memory of a batch of at most so many bytes stays with its queue, for the next batch.
pub(super) const SPARE_BATCH_BYTES_MAX: usize = 1024;

impl Workshop {
    pub(crate) const fn new(settings: ProducerSettings) -> Self {
        Self { settings, has_message_ids: false, spare: Vec::new() }
    }

    fn take(&mut self) -> Box<BatchBuilder> {
        self.spare.pop().unwrap_or_else(|| Box::new(BatchBuilder::new(self.settings.compression)))
    }

    fn give_back(&mut self, builder: Box<BatchBuilder>) {
        let is_small = builder.memory_bytes() <= SMALL_BUILDER_BYTES;
        let most = if is_small { SPARE_SMALL_BUILDERS_MAX } else { SPARE_BUILDERS_MAX };
        if builder.is_empty() && self.spare.len() < most {
            self.spare.push(builder);
        }
    }
}

/// The records of a batch that still takes some.
#[derive(Debug)]
enum Contents {
    Single(SingleBatch),
    Many(Box<BatchBuilder>),
}

impl Contents {
    /// Those of a batch that begins with this record, in `memory` if there is some.
    fn new(now: Now, record: &NewRecord<'_>, memory: Vec<u8>, workshop: &mut Workshop) -> Result<Self, PushError> {
        if record.is_plain() && workshop.settings.compression == Compression::None {
            let timestamp = record.timestamp.unwrap_or(now.wall);
            return SingleBatch::new(memory, timestamp, record.key, record.value).map(Self::Single);
        }
        let mut builder = workshop.take();
        builder.reuse(memory);
        match record.push_into(now.wall, &mut builder) {
            Ok(()) => Ok(Self::Many(builder)),
            Err(error) => {
                workshop.give_back(builder);
                Err(error)
            }
        }
    }

    fn len(&self) -> u32 {
        match self {
            Self::Single(_) => 1,
            Self::Many(builder) => u32::try_from(builder.len()).expect("a batch has a limit of records"),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Single(batch) => batch.bytes(),
            Self::Many(builder) => builder.bytes(),
        }
    }

    /// The builder for another record.
    fn many(&mut self, workshop: &mut Workshop) -> &mut BatchBuilder {
        if let Self::Single(_) = self {
            let single = std::mem::replace(self, Self::Many(workshop.take()));
            if let (Self::Single(batch), Self::Many(builder)) = (single, &mut *self) {
                batch.move_into(builder);
            }
        }
        match self {
            Self::Many(builder) => builder,
            Self::Single(_) => unreachable!("it has become many"),
        }
    }
}

/// A batch that still takes records.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) key: BatchKey,
    contents: Contents,
    pub(super) acks: Acks,
    pub(super) charge: u64,
    pub(super) detached: u32,
    pub(super) opened_at: MonotonicNanos,
    pub(super) is_full: bool,
}

/// Where a batch that has left is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be sent, again or after a new stamp.
    Waiting,
    /// On its way; one answer comes unless the connection breaks.
    Sent,
    /// In the owner's memory; its durable end is awaited.
    Received(Placement),
    /// Told for good. Stays until all before it are, so that the window never spans more batches than the partition
    /// remembers.
    Done,
}

/// A batch that has left at least once, or waits to leave again.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) key: BatchKey,
    pub(super) bytes: SealedBytes,
    pub(super) records: u32,
    pub(super) acks: Acks,
    pub(super) charge: u64,
    pub(super) detached: u32,
    pub(super) opened_at: MonotonicNanos,
    pub(super) phase: Phase,
    /// It may be in the log: it has left, and whether it was taken, or has survived, is not known. Such a batch keeps its
    /// stamp, because the stamp is how the partition's owner recognises it.
    pub(super) is_doubtful: bool,
    pub(super) is_received_told: bool,
    pub(super) was_sent: bool,
}

impl Gathering {
    /// A batch that begins with this record, in `memory` if there is some.
    pub(super) fn new(
        key: BatchKey,
        now: Now,
        record: &NewRecord<'_>,
        delivery: Delivery,
        memory: Vec<u8>,
        workshop: &mut Workshop,
    ) -> Result<Self, PushError> {
        Ok(Self {
            key,
            contents: Contents::new(now, record, memory, workshop)?,
            acks: workshop.settings.acks,
            charge: record.charge(),
            detached: u32::from(delivery == Delivery::Detached),
            opened_at: now.monotonic,
            is_full: workshop.settings.batch_records <= 1,
        })
    }

    /// Adds a record. Returns its place.
    pub(super) fn push(
        &mut self,
        now: Now,
        record: &NewRecord<'_>,
        delivery: Delivery,
        workshop: &mut Workshop,
    ) -> Result<u32, PushError> {
        let index = self.contents.len();
        let (batch_records, batch_bytes) = (workshop.settings.batch_records, workshop.settings.batch_bytes);
        if batch_records <= index || batch_bytes as usize <= self.contents.bytes() {
            return Err(PushError::Full);
        }
        record.push_into(now.wall, self.contents.many(workshop))?;
        self.charge += record.charge();
        if delivery == Delivery::Detached {
            self.detached += 1;
        }
        self.is_full = batch_records <= index + 1;
        Ok(index)
    }

    /// Records so far.
    pub(super) fn len(&self) -> u32 {
        self.contents.len()
    }

    /// The batch as it leaves.
    pub(super) fn seal(self, stamp: ProducerStamp, workshop: &mut Workshop) -> Batch {
        let records = self.len();
        let bytes = match self.contents {
            Contents::Single(batch) => batch.finish(stamp),
            Contents::Many(mut builder) => {
                let bytes = builder.finish_unshared(stamp);
                workshop.give_back(builder);
                bytes
            }
        };
        Batch {
            key: self.key,
            bytes: bytes.into(),
            records,
            acks: self.acks,
            charge: self.charge,
            detached: self.detached,
            opened_at: self.opened_at,
            phase: Phase::Waiting,
            is_doubtful: false,
            is_received_told: false,
            was_sent: false,
        }
    }

    pub(super) fn fail(self, error: DeliveryError, tell: &mut Tell<'_>) {
        tell.failed(self.key, self.len(), self.detached, self.charge, error);
    }
}

impl Batch {
    pub(super) const fn set_waiting(&mut self, is_doubtful: bool) {
        self.phase = Phase::Waiting;
        self.is_doubtful = is_doubtful;
    }

    /// `error`, or that nothing is known when the batch may have been taken.
    pub(super) fn unsettled(&self, error: DeliveryError, reason: &'static str) -> DeliveryError {
        let may_be_stored = self.is_doubtful || matches!(self.phase, Phase::Sent | Phase::Received(_));
        if may_be_stored { DeliveryError::Unknown { reason } } else { error }
    }

    pub(super) fn deliver(&mut self, placement: Placement, is_stored: bool, tell: &mut Tell<'_>) {
        self.phase = Phase::Done;
        tell.delivered(self.key, placement, is_stored, self.records, self.charge);
    }

    pub(super) fn fail(&mut self, error: DeliveryError, tell: &mut Tell<'_>) {
        assert_ne!(self.phase, Phase::Done, "a batch has one last word");
        self.phase = Phase::Done;
        tell.failed(self.key, self.records, self.detached, self.charge, error);
    }

    /// Gives the batch another producer's stamp; the payload stays.
    pub(super) fn restamp(&mut self, stamp: ProducerStamp) {
        let mut head = BatchHead::parse(&self.bytes).expect("a batch of ours has a head");
        head.producer_id = stamp.producer_id;
        head.producer_epoch = stamp.producer_epoch;
        head.base_sequence = stamp.base_sequence;
        match &mut self.bytes {
            SealedBytes::Own(bytes) => head.write(bytes),
            SealedBytes::Shared(bytes) => {
                // What has left shares the memory as it was.
                let mut anew = bytes.to_vec();
                head.write(&mut anew);
                *bytes = anew.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use corelane_record::{Compression, RecordBatch};

    use super::*;

    #[test]
    fn a_message_id_chooses_the_partition_where_nothing_else_does() {
        let plain = NewRecord { value: Some(b"x"), ..NewRecord::default() };
        let id = NewRecord { message_id: Some(b"order 7"), ..plain };
        let header = [("source", None), (MESSAGE_ID_HEADER, Some(&b"order 7"[..]))];
        let chosen = partition_for_key(b"order 7", 64);
        assert_ne!(chosen, PartitionIndex(5));
        assert_eq!(id.partition_among(64, 5), chosen);
        assert_eq!(NewRecord { headers: &header, ..plain }.partition_among(64, 5), chosen, "however it was set");
        assert_eq!(NewRecord { key: Some(b"a"), ..id }.partition_among(64, 5), partition_for_key(b"a", 64));
        assert_eq!(NewRecord { partition: Some(PartitionIndex(9)), ..id }.partition_among(64, 5), PartitionIndex(9));
        assert_eq!(NewRecord { message_id: Some(b""), ..plain }.partition_among(64, 5), PartitionIndex(5), "is none");
    }

    #[test]
    fn a_delivery_time_that_no_queue_waits_for_is_refused() {
        let (now, week) = (WallMillis(1_700_000_000_000), 7 * DAY_MS);
        let check = |time| NewRecord { delivery_time: Some(time), ..NewRecord::default() }.check_delivery_time(now);
        let after = |millis| check(DeliveryTime::After(Duration::from_millis(millis)));
        assert_eq!([after(0), after(week)], [Ok(()), Ok(())]);
        assert_eq!(after(week + 1), Err(DeliveryTimeError { days: 8, limit_days: 7 }));
        assert_eq!(check(DeliveryTime::At(WallMillis(0))), Ok(()), "long ago");
        let micros = check(DeliveryTime::At(WallMillis(now.0 * 1000))).unwrap_err();
        assert!(micros.to_string().contains("over the limit of 7 days"), "{micros}");
        assert!(after(u64::MAX).is_err());
    }

    /// The headers of a record that is pushed at this time.
    fn headers(now: i64, record: &NewRecord<'_>) -> Vec<(String, String)> {
        let mut builder = BatchBuilder::new(Compression::None);
        record.push_into(WallMillis(now), &mut builder).unwrap();
        let batch = RecordBatch::parse(builder.finish(ProducerStamp::default())).unwrap();
        let record = batch.iter().next().unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect()
    }

    #[test]
    fn a_delivery_time_travels_as_a_header_behind_the_message_id() {
        let own = [("source", Some(&b"x"[..]))];
        let time = DeliveryTime::After(Duration::from_secs(5));
        let record =
            NewRecord { headers: &own, message_id: Some(b"7"), delivery_time: Some(time), ..NewRecord::default() };
        let pairs = [(MESSAGE_ID_HEADER, "7"), (HEADER_DELIVER_AT, "6000"), ("source", "x")];
        assert_eq!(headers(1000, &record), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let at = NewRecord { delivery_time: Some(DeliveryTime::At(WallMillis(42))), ..NewRecord::default() };
        assert_eq!(headers(1000, &at), [(HEADER_DELIVER_AT.to_owned(), "42".to_owned())]);
        let far = DeliveryTime::After(Duration::MAX).at(WallMillis(1)).0.to_string();
        assert!(far.len() <= DELIVERY_TIME_BYTES, "{far}");
    }
}
