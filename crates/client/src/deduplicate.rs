//! Leaving out what was seen already.

use std::collections::{BTreeSet, VecDeque};

use corelane_model::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence};
use corelane_record::{MessageId, MessageIdKey, find_message_id};
use ring::rand::{SecureRandom, SystemRandom};

use crate::Batch;

/// What makes two records the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sameness {
    MessageId,
    Sequence,
}

/// What a record is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Id(MessageId),
    Sequence(PartitionIndex, ProducerId, ProducerEpoch, Sequence),
    Place(PartitionIndex, Offset),
}

/// Remembers the latest records that a consumer was shown and leaves out those that come again: after a seek back, after a
/// partition was handed over without its last commit, or because a message was sent twice.
///
/// What it remembers lies in this process alone and is bounded by a count; some 100 bytes each. One may be used for several
/// partitions and several consumers of one topic.
///
/// ```no_run
/// # async fn example(mut consumer: corelane::Consumer) -> Result<(), corelane::ConsumeError> {
/// let mut seen = corelane::Deduplicate::by_message_id(100_000);
/// while let Some(batch) = consumer.next().await {
///     for record in seen.fresh(&batch?) {
///         println!("{} is new", record.offset);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Deduplicate {
    sameness: Sameness,
    key: MessageIdKey,
    count: usize,
    /// Oldest first.
    order: VecDeque<Name>,
    known: BTreeSet<Name>,
}

impl Deduplicate {
    /// Two records are the same when they have one message id, in whatever partition. Records without an id are all fresh.
    #[must_use]
    pub fn by_message_id(count: usize) -> Self {
        Self::new(Sameness::MessageId, count)
    }

    /// Two records are the same when one producer gave them one sequence, or, if no producer did, when they have one offset
    /// in one partition.
    #[must_use]
    pub fn by_sequence(count: usize) -> Self {
        Self::new(Sameness::Sequence, count)
    }

    fn new(sameness: Sameness, count: usize) -> Self {
        let mut seed = [0; 16];
        SystemRandom::new().fill(&mut seed).expect("the system gives random bytes");
        let key = MessageIdKey::new(u128::from_le_bytes(seed));
        Self { sameness, key, count: count.max(1), order: VecDeque::new(), known: BTreeSet::new() }
    }

    /// The records of a batch that were not seen yet. A record counts as seen when the iterator hands it out.
    pub fn fresh<'a>(&'a mut self, batch: &'a Batch) -> impl Iterator<Item = corelane_record::Record<'a>> {
        batch.iter().filter(move |record| self.name(batch, record).is_none_or(|name| self.remember(name)))
    }

    /// How many records are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn name(&self, batch: &Batch, record: &corelane_record::Record<'_>) -> Option<Name> {
        if self.sameness == Sameness::MessageId {
            return find_message_id(record.headers()).map(|id| Name::Id(self.key.hash(id)));
        }
        let head = batch.head();
        if head.producer_id == ProducerId::NONE {
            return Some(Name::Place(batch.partition(), record.offset));
        }
        let place = u32::try_from(record.offset.since(head.base_offset)).ok()?;
        let sequence = head.base_sequence.advance(place);
        Some(Name::Sequence(batch.partition(), head.producer_id, head.producer_epoch, sequence))
    }

    /// Whether it is new.
    fn remember(&mut self, name: Name) -> bool {
        if !self.known.insert(name) {
            return false;
        }
        self.order.push_back(name);
        if self.count < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{LeaderEpoch, WallMillis};
    use corelane_record::{
        BatchBuilder, Compression, MESSAGE_ID_HEADER, ProducerStamp, RecordBatch, SealedBatch, Stamp, stamp,
    };

    use super::*;

    fn batch(partition: u32, base: u64, producer: ProducerStamp, ids: &[&str]) -> Batch {
        let mut builder = BatchBuilder::new(Compression::None);
        for id in ids {
            let headers = [(MESSAGE_ID_HEADER, Some(id.as_bytes()))];
            builder.push(WallMillis(1), None, Some(id.as_bytes()), &headers).unwrap();
        }
        let mut bytes = SealedBatch::parse(builder.finish(producer)).unwrap().bytes().to_vec();
        let placed = Stamp { base_offset: Offset(base), append_timestamp: WallMillis(1), leader_epoch: LeaderEpoch(0) };
        stamp(&mut bytes, placed);
        let records = RecordBatch::parse(bytes.into()).unwrap();
        Batch::new(PartitionIndex(partition), records, Offset(base), Offset(1000))
    }

    fn fresh(seen: &mut Deduplicate, batch: &Batch) -> Vec<u64> {
        seen.fresh(batch).map(|record| record.offset.0).collect()
    }

    #[test]
    fn a_message_is_shown_once_wherever_it_stands_until_it_is_forgotten() {
        let nobody = ProducerStamp::default();
        let mut seen = Deduplicate::by_message_id(3);
        assert_eq!(fresh(&mut seen, &batch(0, 0, nobody, &["a", "b", "a", ""])), [0, 1, 3], "an empty id is none");
        assert_eq!(fresh(&mut seen, &batch(1, 7, nobody, &["b", "c", ""])), [8, 9]);
        assert_eq!(seen.len(), 3);
        assert_eq!(fresh(&mut seen, &batch(0, 4, nobody, &["d", "a", "d"])), [4, 5], "four do not fit into three");
    }

    #[test]
    fn a_record_that_is_read_again_is_known_by_its_sequence() {
        let from = |producer, epoch, sequence| ProducerStamp {
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
        };
        let mut seen = Deduplicate::by_sequence(100);
        assert_eq!(fresh(&mut seen, &batch(0, 0, from(7, 0, 0), &["x", "x"])), [0, 1]);
        assert!(fresh(&mut seen, &batch(0, 0, from(7, 0, 0), &["x", "x"])).is_empty());
        assert_eq!(fresh(&mut seen, &batch(1, 0, from(7, 0, 0), &["x"])), [0], "each partition counts by itself");
        assert_eq!(fresh(&mut seen, &batch(0, 2, from(7, 0, 1), &["x", "x"])), [3]);
        assert_eq!(fresh(&mut seen, &batch(0, 4, from(7, 1, 0), &["x"])), [4], "and so does each epoch");
        assert_eq!(fresh(&mut seen, &batch(0, 5, ProducerStamp::default(), &["x"])), [5]);
        assert_eq!(fresh(&mut seen, &batch(0, 5, ProducerStamp::default(), &["x", "x"])), [6]);
    }
}
