//! Somebody reads the dead letters.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_client_core::{ClientCore, SubscribeSettings, SubscriptionKey, TopicInfo};
use corelane_model::{Offset, PartitionId, PartitionIndex, StartAt, TopicClass};
use corelane_record::{RecordBatch, split_batch};

use super::{Client, QueueTodo, Wish};
use crate::{Oracle, QueuePlan, Random, Violation};

/// Reads all partitions of the dead-letter topic.
#[derive(Debug, Default)]
pub(super) struct LetterReader {
    /// The next letter of each partition.
    next: BTreeMap<PartitionId, Offset>,
    /// The furthest high watermark that was told.
    target: BTreeMap<PartitionId, Offset>,
    subscriptions: BTreeMap<SubscriptionKey, PartitionId>,
}

impl LetterReader {
    /// The topic is there. Its partitions.
    pub(super) fn begin(&mut self, oracle: &mut Oracle, info: &TopicInfo) -> impl Iterator<Item = PartitionId> + use<> {
        let id = info.topic;
        let partitions = (0..info.partitions()).map(move |index| PartitionId::new(id, PartitionIndex(index)));
        for partition in partitions.clone() {
            oracle.open_partition(partition, TopicClass::Durable, false);
            self.next.insert(partition, Offset::ZERO);
        }
        partitions
    }

    /// A partition that was not read to where it was told to end.
    pub(super) fn unread(&self) -> Option<PartitionId> {
        let is_unread = |(partition, target): (&PartitionId, &Offset)| {
            (self.next.get(partition) < Some(target)).then_some(*partition)
        };
        self.target.iter().find_map(is_unread)
    }

    fn on_target(&mut self, partition: PartitionId, high_watermark: Offset) {
        let target = self.target.entry(partition).or_default();
        *target = high_watermark.max(*target);
    }

    pub(super) fn read(&mut self, core: &mut ClientCore, random: &mut Random, partition: PartitionId) {
        let start = StartAt::Offset(self.next[&partition]);
        let mut settings = SubscribeSettings::new(QueuePlan::dead_letter_topic(), partition.index, start);
        settings.credit_bytes = random.skewed(2_000..400_000);
        self.subscriptions.insert(core.subscribe(settings), partition);
    }
}

impl Client {
    /// Everything is read once more from the beginning: what was there is still there.
    pub(crate) fn read_letters_again(&mut self, oracle: &mut Oracle) {
        let Some(worker) = self.shared_queue.as_mut().filter(|worker| worker.nth == 0 && !worker.is_retired) else {
            return;
        };
        oracle.queues.forget_letters();
        let reader = &mut worker.letters;
        for subscription in std::mem::take(&mut reader.subscriptions).into_keys() {
            self.core.unsubscribe(subscription);
        }
        reader.next.values_mut().for_each(|next| *next = Offset::ZERO);
        let partitions = reader.next.keys().copied().collect::<Vec<_>>();
        for partition in partitions {
            worker.letters.read(&mut self.core, &mut worker.random, partition);
        }
    }

    /// The broker took a subscription for dead letters.
    pub(crate) fn on_letters_subscribed(&mut self, subscription: SubscriptionKey, high_watermark: Offset) {
        let letters = &mut self.shared_queue.as_mut().expect("only members read dead letters").letters;
        if let Some(&partition) = letters.subscriptions.get(&subscription) {
            letters.on_target(partition, high_watermark);
        }
    }

    /// Dead letters came.
    ///
    /// # Errors
    /// One is not of a record that had to die.
    pub(crate) fn on_letters(
        &mut self,
        oracle: &mut Oracle,
        subscription: SubscriptionKey,
        mut bytes: Bytes,
    ) -> Result<Vec<Wish>, Violation> {
        let worker = self.shared_queue.as_mut().expect("only members read dead letters");
        let length = bytes.len() as u64;
        let Some(&partition) = worker.letters.subscriptions.get(&subscription) else { return Ok(Vec::new()) };
        let next = worker.letters.next.get_mut(&partition).expect("it is read");
        let no_batch = |_| Violation::Foreign { partition, offset: Offset::ZERO, what: "what was pushed is no batch" };
        while let Some(batch) = split_batch(&mut bytes).map_err(no_batch)? {
            let batch = RecordBatch::parse(batch).map_err(no_batch)?;
            let appended = batch.head().append_timestamp;
            for record in batch.iter() {
                if record.offset < *next {
                    continue;
                }
                if *next < record.offset {
                    let what = "a dead letter is missing before it";
                    return Err(Violation::Foreign { partition, offset: record.offset, what });
                }
                *next = record.offset.advance(1);
                oracle.on_letter(worker.name.as_ref().expect("it has begun"), partition, appended, &record)?;
            }
        }
        Ok(vec![worker.soon(20, QueueTodo::Consumed { subscription, bytes: length })])
    }

    /// What dead letters were read with has ended.
    pub(crate) fn on_letters_ended(&mut self, subscription: SubscriptionKey) -> Vec<Wish> {
        let worker = self.shared_queue.as_mut().expect("only members read dead letters");
        let Some(partition) = worker.letters.subscriptions.remove(&subscription) else { return Vec::new() };
        vec![worker.soon(50, QueueTodo::Letters { partition })]
    }
}
