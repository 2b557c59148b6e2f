//! One producer: its identity, and a queue for each partition of its topic.

use corelane_model::{MonotonicNanos, PartitionIndex, ProducerEpoch, ProducerId, TopicClass, TopicId, TopicName};

use crate::queue::{NewRecord, Queue, Workshop};
use crate::{ProducerSettings, TopicInfo};

/// What the producer is to the broker.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// Counts the identities: 0 is none. A queue counts sequences under one version.
    pub(crate) version: u32,
    /// A newer one is needed; with the moment before which it is not asked for.
    pub(crate) wanted: Option<MonotonicNanos>,
    pub(crate) is_asked: bool,
    pub(crate) attempts: u32,
    /// The id itself is of no more use.
    pub(crate) is_void: bool,
}

impl Identity {
    /// Asks for a newer identity, if that is not under way already.
    pub(crate) fn want(&mut self) {
        if !self.is_asked && self.wanted.is_none() {
            self.wanted = Some(MonotonicNanos::default());
        }
    }

    /// What to ask for: the id to raise and its epoch, or 0 for a new id.
    pub(crate) const fn question(&self) -> (u64, u16) {
        if self.is_void || self.epoch.0 == u16::MAX { (0, 0) } else { (self.id.0, self.epoch.0) }
    }

    pub(crate) fn on_answer(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        *self = Self { id, epoch, version: self.version + 1, ..Self::default() };
    }
}

/// How far a producer is.
///
/// ```text
///   Opening ── topic and id known ──► Open ── topic deleted ──► Gone
///      │                               └──────── close ─────────┴───► Closing ── all delivered ──► forgotten
///      └── failed ──► forgotten
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Opening { deadline: MonotonicNanos },
    Open,
    Gone,
    Closing,
}

#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) topic: TopicName,
    pub(crate) topic_id: TopicId,
    pub(crate) class: TopicClass,
    pub(crate) state: State,
    pub(crate) identity: Identity,
    pub(crate) workshop: Workshop,
    pub(crate) queues: Vec<Queue>,
    pub(crate) shards: Vec<corelane_model::ShardId>,
    /// Where the next record without key and partition goes, until a batch leaves from there.
    sticky: u32,
}

impl Producer {
    pub(crate) fn new(topic: TopicName, settings: ProducerSettings, deadline: MonotonicNanos) -> Self {
        let mut identity = Identity::default();
        identity.want();
        Self {
            topic,
            topic_id: TopicId::default(),
            class: TopicClass::default(),
            state: State::Opening { deadline },
            identity,
            workshop: Workshop::new(settings),
            queues: Vec::new(),
            shards: Vec::new(),
            sticky: 0,
        }
    }

    /// Follows what is known about the topic. Its id is the same as before, or it had none.
    pub(crate) fn adopt_topic(&mut self, info: &TopicInfo) {
        self.topic_id = info.topic;
        self.class = info.class();
        self.workshop.has_message_ids = info.settings.has_message_ids();
        self.shards.clone_from(&info.shards);
        // Partitions never become fewer.
        while self.queues.len() < self.shards.len() {
            self.queues.push(Queue::new());
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.shards.len()).expect("partitions are counted in 32 bits")
    }

    /// The partition for a record; it may not exist when the record names it.
    pub(crate) fn choose(&self, record: &NewRecord<'_>) -> PartitionIndex {
        record.partition_among(self.partitions(), self.sticky)
    }

    /// A batch has left from this partition: records that may go anywhere go to the next.
    pub(crate) fn on_batch_left(&mut self, index: u32) {
        if index == self.sticky {
            self.sticky = (index + 1) % self.partitions().max(1);
        }
    }
}
