//! What a group consumer yields: data and ownership, in one stream.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use corelane_client_core::{GroupStart, LostReason};
use corelane_model::{Generation, Offset, PartitionId, PartitionIndex, TopicName};
use corelane_record::Records;

use crate::{Batch, RecordView};

/// A partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// Which of its partitions.
    pub partition: PartitionIndex,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A partition that this member has from now on.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Which.
    pub partition: Arc<TopicPartition>,
    /// Where the group begins: what comes before is done.
    pub start: GroupStart,
    /// The first record that was not handed out while this member followed the partition; `None` if it did not. What lies
    /// between it and a committed offset after it comes first, as [`Event::Followed`]; what lies between a committed offset
    /// and it comes again, because the old owner had not done it.
    pub followed: Option<Offset>,
    /// What the old owner left for this one, see [`crate::GroupConsumer::give_up`].
    pub blob: Option<Bytes>,
}

/// Something from a [`crate::GroupConsumer`].
#[derive(Debug)]
pub enum Event {
    /// Records, in order within their partition.
    Batch(GroupBatch),
    /// These partitions are this member's from now on; their records follow.
    Assigned(Vec<Assigned>),
    /// These partitions are to go to others. Nothing more comes for them. Commit what is done; asking for the next event
    /// gives up what was not given up by [`crate::GroupConsumer::give_up`].
    Revoking {
        /// Which.
        partitions: Vec<Arc<TopicPartition>>,
        /// A member that has not given up all of them by then is put out of its group.
        deadline: Instant,
    },
    /// These partitions are another's already: the member was put out of its group, from which it comes back by itself, or
    /// a topic was deleted. Nothing can be committed for them; what was done and not committed is done again.
    Lost {
        /// Which.
        partitions: Vec<Arc<TopicPartition>>,
        /// Why.
        reason: LostReason,
    },
    /// These are the partitions, and no others, that this member stands by for. With
    /// [`crate::GroupBuilder::follow_standbys`] their records come as [`Event::Followed`].
    Standby(Vec<Arc<TopicPartition>>),
    /// Records that are another's to work on, or were when they were done: they keep the state of a standby warm.
    Followed(FollowedBatch),
    /// Records of a partition that this member has or follows were gone before they could be read, dropped by age or size or
    /// with the broker's memory. Reading goes on behind them, as the group's reset policy says.
    Missed {
        /// Which.
        partition: Arc<TopicPartition>,
        /// Their offsets; not every one need have had a record, see [`crate::Progress::Missed`].
        offsets: Range<Offset>,
    },
    /// A partition is behind by more records than was set by [`crate::GroupBuilder::lagging_above`]. Told again when it
    /// has caught up to half of that and fallen behind anew.
    Lagging {
        /// Which.
        partition: Arc<TopicPartition>,
        /// Records that could be read and were not handed out.
        lag: u64,
    },
}

/// A record batch of a partition that this member has; lends its records in place.
#[derive(Clone, Debug)]
pub struct GroupBatch {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) id: PartitionId,
    pub(super) turn: Generation,
    pub(super) batch: Batch,
}

impl GroupBatch {
    /// Its partition, with the topic.
    #[must_use]
    pub const fn topic_partition(&self) -> &Arc<TopicPartition> {
        &self.partition
    }

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.partition.topic
    }

    /// Records that could be read and come after this batch, when the batch left the broker.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.batch.high_watermark().since(self.batch.end_offset())
    }
}

/// A record batch of a partition that this member stands by for; lends its records in place. It cannot be committed.
#[derive(Clone, Debug)]
pub struct FollowedBatch {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) batch: Batch,
}

impl FollowedBatch {
    /// Its partition, with the topic.
    #[must_use]
    pub const fn topic_partition(&self) -> &Arc<TopicPartition> {
        &self.partition
    }

    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.partition.topic
    }

    /// How many records this standby was behind when the batch left the broker.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.batch.high_watermark().since(self.batch.end_offset())
    }
}

impl Deref for FollowedBatch {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl<'a> IntoIterator for &'a FollowedBatch {
    type Item = RecordView<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.batch.iter()
    }
}

impl Deref for GroupBatch {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl<'a> IntoIterator for &'a GroupBatch {
    type Item = RecordView<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.batch.iter()
    }
}
