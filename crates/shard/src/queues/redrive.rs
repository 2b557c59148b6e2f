//! Dead letters on their way back into the topic that they come from.
//!
//! ```text
//!  partition 0 of the dead-letter topic: its bounds ─▶ read ─▶ append ─▶ durable ─┐ how far it has come is written
//!                                                       ▲                         │ with the queue
//!                                                       └─────────────────────────┘ then partition 1 …
//! ```
//!
//! One stage a round, so that nothing here calls itself. A redrive is asked for step by step: one ends after so many records
//! or so much time, and tells where the next begins. Whatever goes wrong ends it too; what was put back until then is
//! remembered and counted, and the next redrive goes on there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_model::limits::{PUSH_BYTES, QUEUE_REDRIVE_TIME};
use corelane_model::queue::{HEADER_DEAD_GROUP, HEADER_DEAD_PARTITION, HEADER_DEAD_PREFIX, HEADER_DEAD_TOPIC};
use corelane_model::{
    ErrorCode, Isolation, MonotonicNanos, Offset, PartitionId, PartitionIndex, StartAt, TopicId, TopicName,
};
use corelane_queue::{RedriveAt, Redriven};
use corelane_record::{
    BatchBuilder, BatchFlags, BatchHead, ProducerStamp, Record, RecordBatch, SealedBatch, partition_for_key,
};

use super::QueueKey;
use super::letters::{Letter, Purpose};
use crate::Shard;
use crate::ask::{Ask, Ending};

/// Where a redrive stands.
#[derive(Debug)]
enum Stage {
    /// The next partition's bounds are to be asked for.
    Next,
    /// The owner of the partition has been asked for its bounds, or for records.
    Waiting,
    /// More is to be read.
    Read,
    /// This was read.
    Append(Vec<Bytes>),
    /// What was found is on its way to the topic.
    Settle,
    /// It has done what it may, or something went wrong.
    End,
}

/// One step of a redrive.
#[derive(Debug)]
pub(super) struct Redriving {
    topic: TopicName,
    id: TopicId,
    partitions: u32,
    /// Where to begin, by partition of the dead-letter topic.
    from: BTreeMap<PartitionIndex, Offset>,
    partition: PartitionIndex,
    /// What lies before it in this partition was looked at.
    position: Offset,
    /// What was there when this partition's turn came, perhaps in an earlier step; a record that fails once more meanwhile
    /// waits for the next redrive.
    end: Option<Offset>,
    /// When nothing more is looked for.
    deadline: MonotonicNanos,
    /// How many more may be put back.
    left: u64,
    records: u64,
    /// Offsets of dead letters that are not durable in the topic yet.
    under_way: BTreeSet<Offset>,
    /// The first that could not be appended.
    failed: Option<Offset>,
    /// What went wrong.
    stopped: String,
    stage: Stage,
}

/// Redrives of the queues of a shard; at most one a queue.
#[derive(Debug, Default)]
pub(super) struct Redrives {
    by_queue: BTreeMap<QueueKey, Redriving>,
    /// Questions and subscriptions, by id.
    asked: BTreeMap<u64, QueueKey>,
}

impl Redriving {
    /// Whether every partition had its turn.
    const fn is_over(&self) -> bool {
        self.partitions <= self.partition.0
    }

    /// Whether this step looks for no more.
    fn is_enough(&self, now: MonotonicNanos) -> bool {
        self.left == 0 || self.deadline <= now
    }

    /// The next partition's turn.
    fn turn(&mut self) {
        self.partition.0 += 1;
        self.end = None;
        self.stage = Stage::Next;
    }

    /// Something went wrong.
    fn stop(&mut self, why: String) -> Stage {
        self.stopped = why;
        Stage::End
    }

    fn into_redriven(self) -> Redriven {
        let is_to_go_on = !self.is_over() && self.stopped.is_empty();
        let next = is_to_go_on.then_some(RedriveAt { partition: self.partition, end: self.end });
        Redriven { records: self.records, next, stopped: self.stopped }
    }
}

impl Shard {
    pub(super) fn start_redrive(
        &mut self,
        key: &QueueKey,
        topic: TopicName,
        (of, from): (TopicId, Vec<(PartitionIndex, Offset)>),
        most: u64,
        at: RedriveAt,
    ) {
        let found = self.catalog.as_ref().and_then(|catalog| catalog.find(topic.as_str()));
        // A topic that is gone has no dead letters.
        let (id, partitions) = found.map_or((TopicId(0), 0), |topic| (topic.id, topic.partition_count()));
        let redriving = Redriving {
            topic,
            id,
            partitions,
            // The topic may have been deleted and made again: then nothing of it was put back.
            from: from.into_iter().filter(|_| of == id).collect(),
            partition: at.partition,
            position: Offset(0),
            end: at.end,
            deadline: self.now.monotonic.after(QUEUE_REDRIVE_TIME),
            left: most,
            records: 0,
            under_way: BTreeSet::new(),
            failed: None,
            stopped: String::new(),
            stage: Stage::Next,
        };
        self.queues.redrives.by_queue.insert(key.clone(), redriving);
        self.touch_queue(key);
    }

    /// The queue is gone, and its redrive with it.
    pub(super) fn stop_redrive(&mut self, key: &QueueKey) {
        self.queues.redrives.by_queue.remove(key);
        self.queues.redrives.asked.retain(|_, of| of != key);
    }

    /// One step of a queue's redrive, before the queue's round ends.
    pub(super) fn step_redrive(&mut self, key: &QueueKey) {
        let now = self.now.monotonic;
        let Some(redriving) = self.queues.redrives.by_queue.get_mut(key) else { return };
        match std::mem::replace(&mut redriving.stage, Stage::Waiting) {
            Stage::Next if redriving.is_over() || redriving.is_enough(now) => self.end_redrive(key),
            Stage::Next => {
                self.ask_redrive(key, |_, _| Ask::Find { start: StartAt::Earliest, isolation: Isolation::Uncommitted });
            }
            Stage::Waiting => {}
            Stage::Read => self.ask_redrive(key, |id, from| Ask::Subscribe {
                subscription: corelane_model::SubscriptionId(id),
                serial: id,
                start: StartAt::Offset(from),
                credit: u64::from(PUSH_BYTES),
                isolation: Isolation::Uncommitted,
            }),
            Stage::Append(batches) => self.put_back(key, &batches),
            Stage::Settle if redriving.under_way.is_empty() => self.settle_redrive(key),
            Stage::Settle => redriving.stage = Stage::Settle,
            Stage::End => self.end_redrive(key),
        }
    }

    fn ask_redrive(&mut self, key: &QueueKey, ask: impl FnOnce(u64, Offset) -> Ask) {
        let id = self.queues.next_id();
        let Some(redriving) = self.queues.redrives.by_queue.get(key) else { return };
        let (partition, ask) = (PartitionId::new(redriving.id, redriving.partition), ask(id, redriving.position));
        // Noted before it is sent: the answer may come at once.
        self.queues.redrives.asked.insert(id, key.clone());
        self.ask_inside(id, partition, ask);
    }

    fn end_redrive(&mut self, key: &QueueKey) {
        let Some(redriving) = self.queues.redrives.by_queue.remove(key) else { return };
        if let Some(homed) = self.homed(key) {
            homed.queue.on_redrive_done(redriving.into_redriven());
        }
        self.touch_queue(key);
    }

    /// Whether a question or a subscription is a redrive's.
    pub(super) fn is_redrive(&self, id: u64) -> bool {
        self.queues.redrives.asked.contains_key(&id)
    }

    fn redrive_of(&mut self, id: u64) -> Option<(QueueKey, &mut Redriving)> {
        let key = self.queues.redrives.asked.remove(&id)?;
        let redriving = self.queues.redrives.by_queue.get_mut(&key)?;
        Some((key, redriving))
    }

    /// The bounds of the partition whose turn it is.
    pub(super) fn on_redrive_bounds(&mut self, id: u64, log_start: Offset, end: Offset) {
        let Some((key, redriving)) = self.redrive_of(id) else { return };
        let from = redriving.from.get(&redriving.partition).copied().unwrap_or(Offset(0));
        let end = redriving.end.map_or(end, |known| known.min(end));
        (redriving.position, redriving.end) = (from.max(log_start), Some(end));
        if redriving.position < end {
            redriving.stage = Stage::Read;
        } else {
            redriving.turn();
        }
        self.touch_queue(&key);
    }

    /// Records of the partition whose turn it is. One push is taken of each subscription.
    pub(super) fn on_redrive_push(&mut self, id: u64, batches: &[Bytes]) {
        let Some((key, redriving)) = self.redrive_of(id) else { return };
        // Copies: a slice of the journal's memory would keep all of it.
        redriving.stage = Stage::Append(batches.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect());
        let partition = PartitionId::new(redriving.id, redriving.partition);
        self.leave_inside(partition, id);
        self.touch_queue(&key);
    }

    /// What was asked for does not come.
    pub(super) fn on_redrive_ended(&mut self, id: u64, ending: &Ending) {
        let Some((key, redriving)) = self.redrive_of(id) else { return };
        redriving.stage = match (&ending.range, ending.refused.code) {
            (Some(damaged), ErrorCode::CorruptLog) if redriving.position < damaged.end => {
                redriving.position = damaged.end;
                Stage::Settle
            }
            _ => redriving.stop(ending.refused.text.clone()),
        };
        self.touch_queue(&key);
    }

    /// Appends what is the queue's of these batches.
    fn put_back(&mut self, key: &QueueKey, batches: &[Bytes]) {
        let Some((name, topic_partitions)) =
            self.homed(key).map(|homed| (homed.topic.clone(), homed.queue.partitions_len()))
        else {
            return;
        };
        let Some(redriving) = self.queues.redrives.by_queue.get_mut(key) else { return };
        let mut builder = BatchBuilder::new(corelane_record::Compression::None);
        let mut found = Vec::new();
        let (before, end) = (redriving.position, redriving.end.expect("it was asked for before records were"));
        'batches: for bytes in batches {
            let Ok(batch) = RecordBatch::parse(bytes.clone()) else {
                // What the owner could read and we cannot is damaged for good.
                let end = BatchHead::parse(bytes).map_or(redriving.position, |head| head.end_offset());
                redriving.position = redriving.position.max(end);
                continue;
            };
            let is_control = batch.head().flags.contains(BatchFlags::CONTROL);
            for record in batch.iter().filter(|_| !is_control) {
                let is_in_turn = redriving.position <= record.offset && record.offset < end;
                if !is_in_turn || !is_letter_of(&record, key, &name) {
                    continue;
                }
                if redriving.left == 0 {
                    redriving.position = record.offset;
                    break 'batches;
                }
                redriving.left -= 1;
                redriving.under_way.insert(record.offset);
                let back = build_back(&mut builder, &record);
                found.push((record.offset, home_of(&record, topic_partitions.max(1)), back));
            }
            redriving.position = redriving.position.max(batch.head().end_offset());
        }
        // What was read may reach beyond; that waits for the next redrive.
        redriving.position = redriving.position.min(end);
        let is_stuck = found.is_empty() && redriving.position == before && redriving.left != 0;
        let partition = redriving.partition;
        redriving.stage = if is_stuck {
            redriving
                .stop(format!("nothing can be read of partition {partition} of the dead-letter topic from {before} on"))
        } else {
            Stage::Settle
        };
        for (offset, index, batch) in found {
            let (id, to) = (self.queues.next_id(), PartitionId::new(key.name.topic, index));
            let letter = Letter { key: key.clone(), partition, offset, to, purpose: Purpose::Back };
            self.queues.letters.note(id, letter);
            self.append_inside(id, to, batch);
        }
        self.touch_queue(key);
    }

    /// A dead letter is durable in the topic again, or could not be appended.
    pub(super) fn on_put_back(&mut self, key: &QueueKey, offset: Offset, stored: Result<(), &str>) {
        let Some(redriving) = self.queues.redrives.by_queue.get_mut(key) else { return };
        if !redriving.under_way.remove(&offset) {
            return;
        }
        match stored {
            Ok(()) => redriving.records += 1,
            Err(why) => {
                redriving.failed = Some(redriving.failed.map_or(offset, |failed| failed.min(offset)));
                why.clone_into(&mut redriving.stopped);
            }
        }
        self.touch_queue(key);
    }

    /// Everything that was found is back.
    fn settle_redrive(&mut self, key: &QueueKey) {
        let now = self.now.monotonic;
        let Some(redriving) = self.queues.redrives.by_queue.get_mut(key) else { return };
        let (id, partition, topic) = (redriving.id, redriving.partition, redriving.topic.clone());
        let before = redriving.failed.unwrap_or(redriving.position);
        if redriving.failed.is_some() {
            redriving.stage = Stage::End;
        } else if redriving.end.is_none_or(|end| end <= redriving.position) {
            redriving.turn();
        } else {
            redriving.stage = if redriving.is_enough(now) { Stage::End } else { Stage::Read };
        }
        if let Some(homed) = self.homed(key)
            // The queue may have been given another dead-letter topic meanwhile, whose offsets are others.
            && homed.queue.settings().dead_letter.as_ref() == Some(&topic)
        {
            homed.queue.on_redriven(id, partition, before);
        }
        self.touch_queue(key);
    }
}

fn header<'a>(record: &Record<'a>, name: &str) -> Option<&'a [u8]> {
    record.headers().find(|&(found, _)| found == name)?.1
}

/// Whether a record of the dead-letter topic comes from this queue; others may use the topic too.
fn is_letter_of(record: &Record<'_>, key: &QueueKey, topic: &TopicName) -> bool {
    header(record, HEADER_DEAD_GROUP) == Some(key.name.group.as_str().as_bytes())
        && header(record, HEADER_DEAD_TOPIC) == Some(topic.as_str().as_bytes())
}

/// The partition that it comes from, or that of its key if it names none that there is.
fn home_of(record: &Record<'_>, partitions: u32) -> PartitionIndex {
    let named = header(record, HEADER_DEAD_PARTITION).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match named.filter(|&index: &u32| index < partitions) {
        Some(index) => PartitionIndex(index),
        None => record.key.map_or(PartitionIndex(0), |key| partition_for_key(key, partitions)),
    }
}

/// The record as it was before it died, as far as its dead letter has it.
fn build_back(builder: &mut BatchBuilder, record: &Record<'_>) -> SealedBatch {
    let own: Vec<_> = record.headers().filter(|(name, _)| !name.starts_with(HEADER_DEAD_PREFIX)).collect();
    builder.clear();
    let pushed = builder.push(record.timestamp, record.key, record.value, &own);
    pushed.expect("a dead letter without some of its headers fits into a batch");
    SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("the builder makes whole batches")
}
