//! A queue from its records.

use std::collections::BTreeMap;

use corelane_model::limits::TOPIC_PARTITIONS_MAX;
use corelane_model::{QueueSettings, TopicId};

use crate::encoding::{
    Key, PartitionRecord, SettingsRecord, decode_key, decode_partition, decode_redrive, decode_settings, done_set,
    encode_key,
};
use crate::partition::Partition;
use crate::{DecodeError, Queue, QueueName};

/// Takes the records of one queue in the order in which they were appended, compacted or not, and makes the queue.
#[derive(Debug)]
pub struct Restore {
    name: QueueName,
    settings: Option<SettingsRecord>,
    partitions: BTreeMap<u32, PartitionRecord>,
    redriven: (TopicId, BTreeMap<u32, u64>),
}

impl Restore {
    /// Nothing yet.
    #[must_use]
    pub const fn new(name: QueueName) -> Self {
        Self { name, settings: None, partitions: BTreeMap::new(), redriven: (TopicId(0), BTreeMap::new()) }
    }

    /// One record.
    ///
    /// # Errors
    /// It is of another format, malformed, or another queue's. Nothing is changed by it.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        let (name, key) = decode_key(key)?;
        if name != self.name {
            return Err(DecodeError::Queue { found: name.to_string(), expected: self.name.to_string() });
        }
        match key {
            Key::Settings => self.settings = value.map(decode_settings).transpose()?,
            Key::Redrive => self.redriven = value.map(decode_redrive).transpose()?.unwrap_or_default(),
            Key::Partition(index) => {
                if TOPIC_PARTITIONS_MAX <= index {
                    return Err(DecodeError::Malformed { at: 1, what: "a partition" });
                }
                match value.map(decode_partition).transpose()? {
                    Some(record) => self.partitions.insert(index, record),
                    None => self.partitions.remove(&index),
                };
            }
        }
        Ok(())
    }

    /// The keys of the records that live.
    pub fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        let settings = self.settings.is_some().then_some(Key::Settings);
        let redrive = (!self.redriven.1.is_empty()).then_some(Key::Redrive);
        let partitions = self.partitions.keys().map(|&index| Key::Partition(index));
        settings.into_iter().chain(redrive).chain(partitions).map(|key| encode_key(&self.name, key))
    }

    /// Whether nothing but tombstones came: there is no such queue (any more).
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.settings.is_none() && self.partitions.is_empty()
    }

    /// The queue, of a topic with so many partitions today, without members. Everything that is not done is handed out
    /// again; what has failed rests as long as it had to. `seed` is as for [`Queue::new`].
    ///
    /// A crash may have cut the round that made the queue; nobody was told of it then.
    #[must_use]
    pub fn finish(self, partitions: u32, seed: u64) -> Queue {
        let record = self.settings;
        let settings = record.as_ref().map_or_else(QueueSettings::default, |record| record.settings.clone());
        let mut queue = Queue::bare(self.name, settings, seed);
        if let Some(record) = record {
            queue.start = record.start;
            queue.first_partitions = record.first_partitions;
        } else {
            queue.round.settings = true;
        }
        (queue.redrive.of, queue.redrive.positions) = self.redriven;
        let mut records = self.partitions;
        let known = records.last_key_value().map_or(0, |(&index, _)| index + 1);
        for index in 0..partitions.max(known) {
            let has_order = queue.settings.order_per_key;
            let mut partition = Partition::new(corelane_model::PartitionIndex(index), has_order);
            if let Some(record) = records.remove(&index) {
                restore_partition(&mut partition, record);
                queue.partitions.push(partition);
            } else {
                queue.partitions.push(partition);
                queue.find_start(index);
            }
        }
        queue
    }
}

fn restore_partition(partition: &mut Partition, record: PartitionRecord) {
    partition.start(record.done_end);
    let done_end = record.done.last().map_or(record.done_end, |&(_, end)| end);
    let failed_end = record.failed.last_key_value().map_or(record.done_end, |(&offset, _)| offset + 1);
    partition.restored_end = done_end.max(failed_end);
    partition.done = done_set(&record);
    partition.dead = record.dead;
    partition.failed = record.failed;
}
