//! Records with a message id, sent again when they are in the log already: the broker must not take them twice.

use std::collections::{BTreeMap, BTreeSet};

use corelane_client_core::{BatchKey, Delivery, NewRecord, ProducerKey};
use corelane_model::{Now, PartitionId, PartitionIndex};

use super::Client;
use crate::oracle::Repeatable;
use crate::{Oracle, Random, RecordId, payload};

/// Records that are kept for repetition; older ones are repeated no more.
const KEPT_MAX: usize = 200;

/// What may be sent again, and what is on its way again. Has chance of its own, so that a workload without ids is what it
/// was before there were any.
#[derive(Debug)]
pub(super) struct Repeats {
    random: Random,
    sent: BTreeMap<BatchKey, (usize, PartitionIndex, u64)>,
    stored: Vec<Repeatable>,
    again: BTreeSet<BatchKey>,
}

impl Repeats {
    pub(super) const fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ 0x1d5), sent: BTreeMap::new(), stored: Vec::new(), again: BTreeSet::new() }
    }

    pub(super) fn is_to_have_id(&mut self) -> bool {
        self.random.is_one_in(4)
    }

    pub(super) fn is_time(&mut self) -> bool {
        self.random.is_one_in(6)
    }

    /// A record with an id left, alone in its batch.
    pub(super) fn on_sent(&mut self, batch: BatchKey, topic: usize, partition: PartitionIndex, length: u64) {
        self.sent.insert(batch, (topic, partition, length));
    }

    pub(super) fn on_delivered(&mut self, oracle: &mut Oracle, batch: BatchKey, record: RecordId, is_stored: bool) {
        self.again.remove(&batch);
        let Some((topic, partition, length)) = self.sent.remove(&batch).filter(|_| is_stored) else { return };
        if KEPT_MAX <= self.stored.len() {
            let at = self.random.index(KEPT_MAX);
            self.stored.swap_remove(at);
        }
        let stored = Repeatable { record, topic, partition, length };
        self.stored.push(stored);
        oracle.on_repeatable(stored);
    }

    /// Whether the batch was a repetition. If nobody knows what became of it, others may send it again.
    pub(super) fn on_failed(
        &mut self,
        oracle: &mut Oracle,
        batch: BatchKey,
        records: &[(PartitionId, RecordId)],
        may_be_stored: bool,
    ) -> bool {
        if let (Some((topic, index, length)), [(partition, record)]) = (self.sent.remove(&batch), records)
            && may_be_stored
        {
            oracle.on_repeated_late(*partition, *record);
            oracle.on_repeatable(Repeatable { record: *record, topic, partition: index, length });
        }
        self.again.remove(&batch)
    }
}

impl Client {
    /// Sends a record of this topic once more that was told to be stored, or that nobody knows about; another client's too.
    pub(super) fn send_again(&mut self, now: Now, oracle: &Oracle, producer: ProducerKey, topic: usize) {
        let is_others = self.topics[topic].1.are_ids_shared && self.repeats.random.is_one_in(2);
        let from = if is_others { oracle.repeatables() } else { &self.repeats.stored };
        if from.is_empty() {
            return;
        }
        let stored = from[self.repeats.random.index(from.len())];
        let info = self.topics[topic].2.as_ref().expect("the producer is open");
        if stored.topic != topic {
            return;
        }
        let Repeatable { record, partition, length, .. } = stored;
        let (value, id) = (payload::encode(record, length), record.to_string());
        let new = NewRecord {
            value: Some(&value),
            message_id: Some(id.as_bytes()),
            partition: Some(partition),
            ..NewRecord::default()
        };
        let partition = PartitionId::new(info.topic, partition);
        // A buffer without room takes it another time.
        if let Ok(sent) = self.core.send(now, producer, &new, Delivery::Ticket) {
            self.pending.entry(sent.batch).or_default().push((partition, record));
            self.repeats.again.insert(sent.batch);
        }
    }
}
