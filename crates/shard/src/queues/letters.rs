//! Records on their way out of a queue: to a member, or as a dead letter to its topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use corelane_model::limits::RECORD_HEADERS_MAX;
use corelane_model::queue::{
    HEADER_DEAD_DELIVERIES, HEADER_DEAD_FIRST_FAILED, HEADER_DEAD_GROUP, HEADER_DEAD_OFFSET, HEADER_DEAD_PARTITION,
    HEADER_DEAD_PREFIX, HEADER_DEAD_REASON, HEADER_DEAD_TOPIC,
};
use corelane_model::{
    CorrelationId, MemberId, MonotonicNanos, Offset, PartitionId, PartitionIndex, TopicName, WallMillis,
};
use corelane_queue::LeaseRun;
use corelane_record::{BatchBuilder, ProducerStamp, Record, SealedBatch, partition_for_key};

use super::QueueKey;
use super::held::Packer;
use super::reading::Again;
use crate::Shard;
use crate::ask::Outcome;

/// What a record is wanted for.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// A member has it for so long, until then. It may have to be read first, and that takes from the time.
    Deliver { member: MemberId, lease: Duration, until: MonotonicNanos },
    /// It is a dead letter.
    Letter(Box<Cause>),
}

/// Why a record is a dead letter.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) topic: TopicName,
    pub(super) deliveries: u32,
    pub(super) first_failed: WallMillis,
    pub(super) reason: String,
}

/// Which way a letter goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To the dead-letter topic.
    Dead,
    /// From there back into the queue's topic.
    Back,
}

/// A record that was sent to a topic.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) key: QueueKey,
    /// Where it comes from.
    pub(super) partition: PartitionIndex,
    pub(super) offset: Offset,
    /// Where it goes.
    pub(super) to: PartitionId,
    pub(super) purpose: Purpose,
}

/// Dead letters on their way, and what is tried again.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Not appended yet, by correlation id.
    sent: BTreeMap<u64, Letter>,
    /// Appended and not durable yet, by partition of the dead-letter topic, with their offset there.
    appended: BTreeMap<PartitionId, VecDeque<(Offset, Letter)>>,
    /// In the order of time.
    pub(super) again: VecDeque<Again>,
}

impl Letters {
    pub(super) fn note(&mut self, id: u64, letter: Letter) {
        self.sent.insert(id, letter);
    }
}

impl Shard {
    /// Sends records where they are wanted, as far as they are in memory; the others are read again first.
    pub(super) fn give_records(&mut self, key: &QueueKey, want: &Want, leases: Vec<LeaseRun>) {
        let mut missing = Vec::new();
        match want {
            Want::Deliver { member, lease, until } => {
                let lease = (*lease, until.since(self.now.monotonic).min(*lease));
                self.pack(key, *member, lease, leases, &mut missing);
            }
            Want::Letter(cause) => {
                for run in leases {
                    if !self.send_letter(key, run, cause) {
                        missing.push(run);
                    }
                }
            }
        }
        let Some(homed) = self.homed(key) else { return };
        let mut partitions = BTreeSet::new();
        for run in missing {
            homed.readers.entry(run.partition).or_default().missing.push((want.clone(), run));
            partitions.insert(run.partition);
        }
        for partition in partitions {
            self.read_missing(key, partition);
        }
    }

    fn pack(
        &mut self,
        key: &QueueKey,
        member: MemberId,
        lease: (Duration, Duration),
        leases: Vec<LeaseRun>,
        missing: &mut Vec<LeaseRun>,
    ) {
        let mut builder = self.take_builder();
        let Some(homed) = self.homed(key) else { return self.return_builder(builder) };
        let Some(peer) = homed.speakers.get(&member).copied() else {
            // Its connection was found to be gone while its records were read again.
            homed.queue.give_back(member, &leases);
            self.return_builder(builder);
            return self.touch_queue(key);
        };
        let mut packer = Packer::new(&mut builder, &key.name, member, lease);
        for run in leases {
            match homed.readers.get(&run.partition) {
                Some(reader) => packer.add(&reader.held, run, missing),
                None => missing.push(run),
            }
        }
        let frames = packer.finish();
        self.return_builder(builder);
        for frame in frames {
            self.push_member(peer, &key.name, frame);
        }
    }

    /// Appends a dead letter to its topic, if the record is in memory. Whether it is on its way.
    fn send_letter(&mut self, key: &QueueKey, run: LeaseRun, cause: &Cause) -> bool {
        let now = self.now;
        let found = self.catalog.as_ref().and_then(|catalog| catalog.find(cause.topic.as_str()));
        let place = found.map(|topic| (topic.id, topic.partition_count()));
        let mut builder = self.take_builder();
        let Some(homed) = self.homed(key) else {
            self.return_builder(builder);
            return true;
        };
        let Some((topic, partitions)) = place else {
            // It is tried again each second until somebody makes the topic.
            homed.queue.on_dead_letter_failed(now, run.partition, run.first);
            self.return_builder(builder);
            return true;
        };
        let reader = homed.readers.get(&run.partition);
        let Some(record) = reader.and_then(|reader| reader.held.record(run.first.0)) else {
            self.return_builder(builder);
            return false;
        };
        let index = match record.key {
            Some(name) => partition_for_key(name, partitions),
            None => PartitionIndex(u32::try_from(run.first.0 % u64::from(partitions)).expect("below 2^32")),
        };
        build_letter(&mut builder, key, homed.topic.as_str(), run, &record, cause);
        let batch =
            SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("the builder makes whole batches");
        self.return_builder(builder);
        let (id, to) = (self.queues.next_id(), PartitionId::new(topic, index));
        let letter =
            Letter { key: key.clone(), partition: run.partition, offset: run.first, to, purpose: Purpose::Dead };
        self.queues.letters.note(id, letter);
        self.append_inside(id, to, batch);
        true
    }

    /// The outcome of an append of the queues of this shard.
    pub(crate) fn on_inside_outcome(&mut self, correlation: CorrelationId, outcome: &Outcome) {
        let Some(letter) = self.queues.letters.sent.remove(&correlation.0) else { return };
        match outcome {
            Ok((offset, _)) => {
                self.queues.letters.appended.entry(letter.to).or_default().push_back((*offset, letter));
            }
            Err(refused) => self.on_letter_ended(&letter, Err(&refused.text)),
        }
    }

    /// A letter is durable where it goes, or could not be appended there.
    fn on_letter_ended(&mut self, letter: &Letter, stored: Result<(), &str>) {
        let now = self.now;
        let Letter { key, partition, offset, .. } = letter;
        if let Purpose::Back = letter.purpose {
            return self.on_put_back(key, *offset, stored);
        }
        if let Some(homed) = self.homed(key) {
            if stored.is_ok() {
                homed.queue.on_dead_letter_stored(now, *partition, *offset);
            } else {
                homed.queue.on_dead_letter_failed(now, *partition, *offset);
            }
            self.touch_queue(key);
        }
    }

    /// A partition to which the queues of this shard appended is durable up to here.
    pub(crate) fn on_inside_durable(&mut self, partition: PartitionId, end: Offset) {
        let Some(letters) = self.queues.letters.appended.get_mut(&partition) else { return };
        let (durable, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(letters).into_iter().partition(|&(offset, _)| offset < end);
        if rest.is_empty() {
            self.queues.letters.appended.remove(&partition);
        } else {
            *letters = rest;
        }
        for (_, letter) in durable {
            self.on_letter_ended(&letter, Ok(()));
        }
    }
}

/// The record with headers that say what became of it. What has no room is left out: first the record's own headers, then
/// its value.
fn build_letter(
    builder: &mut BatchBuilder,
    key: &QueueKey,
    topic: &str,
    run: LeaseRun,
    record: &Record<'_>,
    cause: &Cause,
) {
    let texts = [
        (HEADER_DEAD_REASON, cause.reason.clone()),
        (HEADER_DEAD_DELIVERIES, cause.deliveries.to_string()),
        (HEADER_DEAD_GROUP, key.name.group.as_str().to_owned()),
        (HEADER_DEAD_TOPIC, topic.to_owned()),
        (HEADER_DEAD_PARTITION, run.partition.to_string()),
        (HEADER_DEAD_OFFSET, run.first.to_string()),
        (HEADER_DEAD_FIRST_FAILED, cause.first_failed.to_string()),
    ];
    let ours: Vec<_> = texts.iter().map(|(name, text)| (*name, Some(text.as_bytes()))).collect();
    // A record may have died before, in another queue.
    let own = record.headers().filter(|(name, _)| !name.starts_with(HEADER_DEAD_PREFIX));
    let all: Vec<_> = own.take(RECORD_HEADERS_MAX - ours.len()).chain(ours.iter().copied()).collect();
    builder.clear();
    let whole = builder.push(record.timestamp, record.key, record.value, &all);
    let lean = whole.or_else(|_| builder.push(record.timestamp, record.key, record.value, &ours));
    let bare = lean.or_else(|_| builder.push(record.timestamp, None, None, &ours));
    bare.expect("a few headers fit into a batch");
}
