//! Subscriptions of queues to data partitions.

use corelane_model::limits::{QUEUE_HELD_BYTES, QUEUE_HELD_BYTES_MAX, QUEUE_HELD_BYTES_MIN};
use corelane_model::{
    CorrelationId, ErrorCode, Isolation, MonotonicNanos, Offset, PartitionId, PartitionIndex, StartAt, SubscriptionId,
    WallMillis,
};
use corelane_queue::{LeaseRun, Queue, ReadBatch};
use corelane_record::BatchHead;
use corelane_session::Refused;

use super::held::{Held, metas};
use super::letters::Want;
use super::{INSIDE, QueueKey};
use crate::Shard;
use crate::ask::{Answer, Ask, Asker, Ending, PartitionRequest, Peer, PushBatches};
use crate::mesh::Message;

/// A partition that could not be read is tried again after this time.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Nobody is handed a record that may turn out never to have been written.
const ISOLATION: Isolation = Isolation::Committed;

/// How a queue reads one partition.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The subscription that brings new records.
    subscription: Option<u64>,
    /// Where it goes on.
    position: Offset,
    /// Bytes that it may still push; below zero by less than the last batch.
    credit: i64,
    pub(super) held: Held,
    /// Records that are wanted and were dropped from memory.
    pub(super) missing: Vec<(Want, LeaseRun)>,
    /// The subscription that brings the first of them, and where that begins.
    again: Option<(u64, Offset)>,
    /// When the first record that is not done was appended, as its owner said, and which that was.
    pub(super) oldest: Option<(Offset, WallMillis)>,
}

impl Reader {
    fn is_again(&self, id: u64) -> bool {
        self.again.is_some_and(|(again, _)| again == id)
    }

    /// Drops what is no longer wanted: a lease that is over, a dead letter of a record that was skipped.
    fn drop_stale(&mut self, queue: &Queue) {
        for (want, run) in std::mem::take(&mut self.missing) {
            let left = match &want {
                Want::Deliver { member, .. } => queue.still_leased(*member, run),
                Want::Letter(_) if queue.is_dying(run.partition, run.first) => vec![run],
                Want::Letter(_) => Vec::new(),
            };
            self.missing.extend(left.into_iter().map(|run| (want.clone(), run)));
        }
    }

    /// Offsets that are wanted and that the log no longer has: it was read from `first` to `end`, and they did not come.
    fn gone(&self, first: Offset, end: Offset) -> Vec<Offset> {
        let covered = |run: &LeaseRun| {
            let run_end = run.first.0 + u64::from(run.count);
            run.first.0.max(first.0)..run_end.min(end.0)
        };
        let wanted = self.missing.iter().flat_map(|(_, run)| covered(run));
        wanted.filter(|&offset| self.held.record(offset).is_none()).map(Offset).collect()
    }
}

/// Whose a subscription is.
#[derive(Debug)]
pub(super) struct ReaderOf {
    key: QueueKey,
    partition: PartitionIndex,
}

/// What the answer to a question is for.
#[derive(Debug)]
pub(super) struct Question {
    key: QueueKey,
    partition: PartitionIndex,
    /// The queue's beginning is looked for; else the log's, since the queue is before it.
    is_start: bool,
}

/// What has to be tried again, and when.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) at: MonotonicNanos,
    key: QueueKey,
    partition: PartitionIndex,
}

impl Shard {
    const fn inside(&self) -> Peer {
        Peer { shard: self.me(), connection: INSIDE }
    }

    pub(super) fn ask_inside(&mut self, correlation: u64, partition: PartitionId, ask: Ask) {
        let asker = Asker { peer: self.inside(), correlation: CorrelationId(correlation) };
        self.route(PartitionRequest { asker, partition, ask });
    }

    pub(super) fn append_inside(
        &mut self,
        correlation: u64,
        partition: PartitionId,
        batch: corelane_record::SealedBatch,
    ) {
        self.ask_inside(correlation, partition, Ask::Append { acks: corelane_model::Acks::Stored, batch });
    }

    /// Asks which offset a position means.
    pub(super) fn ask_offset(&mut self, key: &QueueKey, partition: PartitionIndex, start: StartAt, is_start: bool) {
        let id = self.queues.next_id();
        self.queues.questions.insert(id, Question { key: key.clone(), partition, is_start });
        self.ask_inside(id, PartitionId::new(key.name.topic, partition), Ask::Find { start, isolation: ISOLATION });
    }

    /// More of a partition is wanted.
    pub(super) fn read_queue(&mut self, key: &QueueKey, partition: PartitionIndex, from: Offset, bytes: u64) {
        let Some(homed) = self.homed(key) else { return };
        let reader = homed.readers.entry(partition).or_default();
        let bytes = bytes.cast_signed();
        if let Some(subscription) = reader.subscription.filter(|_| reader.position == from) {
            // What the last batch took beyond is given on top: the queue knows nothing of it.
            let grant = bytes - reader.credit.min(0);
            reader.credit += grant;
            return self.credit_inside(key, partition, subscription, grant.cast_unsigned());
        }
        let before = reader.subscription.take();
        reader.position = from;
        reader.credit = bytes;
        if let Some(before) = before {
            self.unsubscribe_inside(key, partition, before);
        }
        let id = self.subscribe_inside(key, partition, from, bytes.cast_unsigned());
        // It may have ended at once.
        if self.queues.readers.contains_key(&id)
            && let Some(homed) = self.homed(key)
        {
            homed.readers.entry(partition).or_default().subscription = Some(id);
        }
    }

    fn subscribe_inside(&mut self, key: &QueueKey, partition: PartitionIndex, from: Offset, credit: u64) -> u64 {
        let id = self.queues.next_id();
        self.queues.readers.insert(id, ReaderOf { key: key.clone(), partition });
        let (subscription, start) = (SubscriptionId(id), StartAt::Offset(from));
        let ask = Ask::Subscribe { subscription, serial: id, start, credit, isolation: ISOLATION };
        self.ask_inside(id, PartitionId::new(key.name.topic, partition), ask);
        id
    }

    fn credit_inside(&mut self, key: &QueueKey, partition: PartitionIndex, id: u64, bytes: u64) {
        let subscription = SubscriptionId(id);
        match self.owner_of(PartitionId::new(key.name.topic, partition)) {
            Some(owner) if owner == self.me() => self.add_credit(self.inside(), subscription, bytes),
            Some(owner) => self.send_mesh(owner, Message::Credit { connection: INSIDE, subscription, bytes }),
            None => {}
        }
    }

    fn unsubscribe_inside(&mut self, key: &QueueKey, partition: PartitionIndex, id: u64) {
        self.queues.readers.remove(&id);
        self.leave_inside(PartitionId::new(key.name.topic, partition), id);
    }

    /// Ends a subscription of this shard's queues at the partition's owner.
    pub(super) fn leave_inside(&mut self, partition: PartitionId, id: u64) {
        let subscription = SubscriptionId(id);
        match self.owner_of(partition) {
            Some(owner) if owner == self.me() => self.end_subscription(self.inside(), subscription),
            Some(owner) => self.send_mesh(owner, Message::Unsubscribe { connection: INSIDE, subscription }),
            None => {}
        }
    }

    fn owner_of(&self, partition: PartitionId) -> Option<corelane_model::ShardId> {
        self.catalog.as_ref()?.topic(partition.topic)?.shards.get(partition.index.0 as usize).copied()
    }

    /// The queue is gone: nothing is read for it any more.
    pub(super) fn stop_reading(&mut self, key: &QueueKey) {
        let ids: Vec<_> =
            self.queues.readers.iter().filter(|(_, of)| of.key == *key).map(|(&id, of)| (id, of.partition)).collect();
        for (id, partition) in ids {
            self.unsubscribe_inside(key, partition, id);
        }
        self.stop_redrive(key);
        self.queues.questions.retain(|_, question| question.key != *key);
    }

    /// An answer for the queues of this shard.
    pub(crate) fn on_inside_answer(&mut self, correlation: CorrelationId, answer: Result<Answer, Refused>) {
        if let Some(question) = self.queues.questions.remove(&correlation.0) {
            return self.on_offset_found(&question, answer);
        }
        if let Ok(Answer::Found { log_start, high_watermark, .. }) = answer {
            return self.on_redrive_bounds(correlation.0, log_start, high_watermark);
        }
        if let Err(refused) = answer {
            // A subscription that was not taken has the id of its request.
            self.on_inside_ended(SubscriptionId(correlation.0), Ending { refused, range: None });
        }
    }

    fn on_offset_found(&mut self, question: &Question, answer: Result<Answer, Refused>) {
        let Question { key, partition, is_start } = question;
        let now = self.now;
        let Some(homed) = self.homed(key) else { return };
        match answer {
            Ok(Answer::Found { offset, high_watermark, .. }) if *is_start => {
                homed.queue.on_start(*partition, offset);
                homed.queue.on_high_watermark(*partition, high_watermark);
            }
            // The queue is beyond the log's end: a crash may have taken records that nobody was told of.
            Ok(Answer::Found { offset, .. }) if offset <= homed.queue.done_end(*partition) => {
                return self.read_again_later(key.clone(), *partition);
            }
            Ok(Answer::Found { offset, .. }) => {
                homed.queue.skip(now, *partition, Offset(0), offset);
                homed.queue.on_read_ended(*partition);
                self.read_missing(key, *partition);
            }
            Ok(other) => panic!("a question for an offset was answered with {other:?}"),
            Err(_) => return self.read_again_later(key.clone(), *partition),
        }
        self.touch_queue(key);
    }

    /// Batches for a queue of this shard.
    pub(crate) fn on_inside_push(&mut self, push: PushBatches) {
        let PushBatches { subscription, high_watermark, batches, .. } = push;
        if self.is_redrive(subscription.0) {
            return self.on_redrive_push(subscription.0, &batches);
        }
        let Some(ReaderOf { key, partition }) = self.queues.readers.get(&subscription.0) else { return };
        let (key, partition, now) = (key.clone(), *partition, self.now);
        let Some(homed) = self.homed(&key) else { return };
        let has_order = homed.queue.settings().order_per_key;
        let reader = homed.readers.entry(partition).or_default();
        let is_again = reader.is_again(subscription.0);
        let mut damaged = Vec::new();
        let mut pushed_end = Offset(0);
        for bytes in &batches {
            let Ok(batch) = reader.held.insert(bytes) else {
                // What the owner could read and we cannot is damaged for good.
                let head = BatchHead::parse(bytes).ok();
                damaged.extend(head.map(|head| (head.base_offset, head.end_offset())));
                continue;
            };
            let end = batch.head().end_offset();
            pushed_end = pushed_end.max(end);
            if is_again {
                continue;
            }
            let read = ReadBatch {
                partition,
                from: reader.position,
                end,
                timestamp: batch.head().append_timestamp,
                bytes: bytes.len() as u64,
                high_watermark,
            };
            reader.credit -= (bytes.len() as u64).cast_signed();
            reader.position = reader.position.max(end);
            homed.queue.on_records(now, read, metas(batch, has_order));
        }
        for (first, end) in damaged {
            homed.queue.skip(now, partition, first, end);
        }
        if is_again {
            self.on_read_again(&key, partition, pushed_end);
        } else {
            self.trim_held(&key, partition);
        }
        self.touch_queue(&key);
    }

    /// A subscription of a queue of this shard has passed records of aborted transactions.
    pub(crate) fn on_inside_passed(&mut self, subscription: SubscriptionId, next: Offset, end: Offset) {
        let Some(ReaderOf { key, partition }) = self.queues.readers.get(&subscription.0) else { return };
        let (key, partition) = (key.clone(), *partition);
        let Some(homed) = self.homed(&key) else { return };
        let reader = homed.readers.entry(partition).or_default();
        // One that brings a record again has no need to come further.
        if reader.subscription != Some(subscription.0) {
            return;
        }
        let from = std::mem::replace(&mut reader.position, next);
        homed.queue.on_high_watermark(partition, end);
        homed.queue.on_passed(partition, from, next);
        self.touch_queue(&key);
    }

    fn trim_held(&mut self, key: &QueueKey, partition: PartitionIndex) {
        let Some(homed) = self.homed(key) else { return };
        let share = QUEUE_HELD_BYTES / u64::from(homed.queue.partitions_len().max(1));
        let done_end = homed.queue.done_end(partition);
        if let Some(reader) = homed.readers.get_mut(&partition) {
            reader.held.trim(done_end, share.clamp(QUEUE_HELD_BYTES_MIN, QUEUE_HELD_BYTES_MAX));
        }
    }

    /// Reads the first record that is wanted and not in memory.
    pub(super) fn read_missing(&mut self, key: &QueueKey, partition: PartitionIndex) {
        let Some(homed) = self.homed(key) else { return };
        let Some(reader) = homed.readers.get_mut(&partition) else { return };
        if reader.again.is_some() {
            return;
        }
        reader.drop_stale(&homed.queue);
        let Some(first) = reader.missing.iter().map(|(_, run)| run.first).min() else { return };
        // One byte of credit brings one batch. The push must find its purpose, so the id is noted before it is sent.
        let id = self.queues.last_id + 1;
        if let Some(reader) = self.homed(key).and_then(|homed| homed.readers.get_mut(&partition)) {
            reader.again = Some((id, first));
        }
        let used = self.subscribe_inside(key, partition, first, 1);
        assert_eq!(id, used, "ids are dense");
    }

    /// Records came that were dropped from memory, up to `end`.
    fn on_read_again(&mut self, key: &QueueKey, partition: PartitionIndex, end: Offset) {
        let now = self.now;
        let Some(homed) = self.homed(key) else { return };
        let Some(reader) = homed.readers.get_mut(&partition) else { return };
        let Some((id, first)) = reader.again.take() else { return };
        // Compaction may have taken a record while a member had it, or while it rested.
        for offset in reader.gone(first, end) {
            homed.queue.skip(now, partition, offset, Offset(offset.0 + 1));
        }
        reader.drop_stale(&homed.queue);
        let missing = std::mem::take(&mut reader.missing);
        self.unsubscribe_inside(key, partition, id);
        for (want, run) in missing {
            self.give_records(key, &want, vec![run]);
        }
        self.trim_held(key, partition);
        self.read_missing(key, partition);
    }

    /// A subscription of a queue ended by itself, or was not taken.
    pub(crate) fn on_inside_ended(&mut self, subscription: SubscriptionId, ending: Ending) {
        if self.is_redrive(subscription.0) {
            return self.on_redrive_ended(subscription.0, &ending);
        }
        let Some(ReaderOf { key, partition }) = self.queues.readers.remove(&subscription.0) else { return };
        let now = self.now;
        let Some(homed) = self.homed(&key) else { return };
        let reader = homed.readers.entry(partition).or_default();
        let is_again = reader.is_again(subscription.0);
        if is_again {
            reader.again = None;
        } else if reader.subscription == Some(subscription.0) {
            reader.subscription = None;
        }
        match (ending.refused.code, ending.range) {
            (ErrorCode::CorruptLog, Some(range)) => homed.queue.skip(now, partition, range.start, range.end),
            (ErrorCode::OffsetOutOfRange, Some(range)) => homed.queue.skip(now, partition, Offset(0), range.start),
            (ErrorCode::OffsetOutOfRange, None) => {
                return self.ask_offset(&key, partition, StartAt::Earliest, false);
            }
            _ => return self.read_again_later(key, partition),
        }
        if is_again {
            // Whatever is gone was counted as done; what is left is looked for again.
            self.read_missing(&key, partition);
        } else {
            homed.queue.on_read_ended(partition);
        }
        self.touch_queue(&key);
    }

    fn read_again_later(&mut self, key: QueueKey, partition: PartitionIndex) {
        let at = self.now.monotonic.after(RETRY);
        self.queues.letters.again.push_back(Again { at, key, partition });
    }

    /// Tries again what could not be read.
    pub(crate) fn retry_reads(&mut self) {
        while self.queues.letters.again.front().is_some_and(|again| again.at <= self.now.monotonic) {
            let Again { key, partition, .. } = self.queues.letters.again.pop_front().expect("it was there");
            if let Some(homed) = self.homed(&key) {
                homed.queue.find_start_again(partition);
                homed.queue.on_read_ended(partition);
                self.read_missing(&key, partition);
                self.touch_queue(&key);
            }
        }
    }
}
