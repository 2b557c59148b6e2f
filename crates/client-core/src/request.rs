//! Requests of an application that are answered once.

mod group;
mod queue;
mod transaction;

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::limits::QUEUE_VERDICTS_CONNECTION_MAX;
use corelane_model::{
    CatalogVersion, ConnectionKey, CorrelationId, Isolation, MonotonicNanos, Offset, PartitionIndex, ShardId, StartAt,
    TopicId, TopicName, TopicSettings,
};
use corelane_wire::PartitionDescription;

use crate::leasing::LeaseAsked;
use crate::membership::Asked;
use crate::{GroupKey, OperationKey, ProducerKey, QueueMemberKey, SubscriptionKey, TopicInfo};
pub use group::{GroupAnswer, GroupRequest};
pub use queue::{QueueAnswer, QueueRequest};
pub use transaction::{TransactionAnswer, TransactionRequest};

/// A request of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which topics there are: these, or all when the list is empty.
    ListTopics {
        /// Names; those that are no topics are left out of the answer.
        names: Vec<TopicName>,
    },
    /// Create a topic.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// How many partitions.
        partitions: u32,
        /// Its settings.
        settings: TopicSettings,
    },
    /// Change a topic; what is `None` stays.
    AlterTopic {
        /// Its name.
        name: TopicName,
        /// The new number of partitions, not below today's.
        partitions: Option<u32>,
        /// The new settings; the class cannot change.
        settings: Option<TopicSettings>,
    },
    /// Delete a topic and its records.
    DeleteTopic {
        /// Its name.
        name: TopicName,
    },
    /// Raise the log start offset of a partition.
    TruncatePartition {
        /// Its topic.
        topic: TopicName,
        /// Its index.
        partition: PartitionIndex,
        /// The new log start; `None` drops everything that is durable.
        before: Option<Offset>,
    },
    /// Settings and partitions of a topic in full.
    DescribeTopic {
        /// Its name.
        name: TopicName,
        /// The first partition to describe.
        from: PartitionIndex,
        /// How many at most; the answer may hold fewer.
        most: u32,
    },
    /// Which offset a start position means at the moment.
    FindOffset {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        start: StartAt,
        /// For which readers: the end of those of committed records is the last stable offset.
        isolation: Isolation,
    },
    /// Something about consumer groups.
    Group(GroupRequest),
    /// Something about shared queues.
    Queue(QueueRequest),
    /// Something about transactions.
    Transaction(TransactionRequest),
    /// Append a record batch that was made with a producer and a sequence, so that it may be repeated.
    Append {
        /// The topic, which is durable.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// The batch.
        batch: Bytes,
    },
}

impl Request {
    /// Whether it may be repeated: it changes nothing, or the broker knows it again.
    pub(crate) const fn is_read(&self) -> bool {
        match self {
            Self::ListTopics { .. } | Self::DescribeTopic { .. } | Self::FindOffset { .. } => true,
            Self::Transaction(_) | Self::Append { .. } => true,
            Self::Group(request) => request.is_read(),
            Self::Queue(request) => request.is_read(),
            Self::CreateTopic { .. }
            | Self::AlterTopic { .. }
            | Self::DeleteTopic { .. }
            | Self::TruncatePartition { .. } => false,
        }
    }

    /// The topic whose id and owner must be known before it can be sent.
    pub(crate) const fn target(&self) -> Option<(&TopicName, PartitionIndex)> {
        match self {
            Self::TruncatePartition { topic, partition, .. }
            | Self::FindOffset { topic, partition, .. }
            | Self::Append { topic, partition, .. } => Some((topic, *partition)),
            _ => None,
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::ListTopics`].
    Topics {
        /// Version of the catalog that it was read from.
        catalog_version: CatalogVersion,
        /// How many shards there are.
        shards: u16,
        /// The topics, by name.
        topics: Vec<TopicInfo>,
        /// Whether topics are missing because the frame was full.
        is_cut: bool,
    },
    /// To [`Request::CreateTopic`].
    TopicCreated {
        /// Its id.
        topic: TopicId,
        /// The catalog that knows it.
        catalog_version: CatalogVersion,
    },
    /// To [`Request::AlterTopic`].
    TopicAltered {
        /// The catalog that knows it.
        catalog_version: CatalogVersion,
        /// Whether keys now go to other partitions than before.
        keys_moved: bool,
    },
    /// To [`Request::DeleteTopic`].
    TopicDeleted,
    /// To [`Request::TruncatePartition`].
    Truncated {
        /// The log start offset that now holds.
        log_start: Offset,
    },
    /// To [`Request::DescribeTopic`].
    Topic {
        /// Its name.
        name: TopicName,
        /// Its id.
        topic: TopicId,
        /// Its settings.
        settings: TopicSettings,
        /// How many partitions it has.
        partition_count: u32,
        /// The partitions that the answer holds, by index.
        partitions: Vec<PartitionDescription>,
    },
    /// To [`Request::FindOffset`].
    Offset {
        /// The offset.
        offset: Offset,
        /// Log start offset at that moment.
        log_start: Offset,
        /// High watermark at that moment.
        high_watermark: Offset,
    },
    /// To [`Request::Group`].
    Group(GroupAnswer),
    /// To [`Request::Queue`].
    Queue(QueueAnswer),
    /// To [`Request::Transaction`].
    Transaction(TransactionAnswer),
    /// To [`Request::Append`]: it is durable.
    Appended {
        /// Offset of its first record.
        base_offset: Offset,
    },
}

/// Who asked.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// The machine, about these names.
    Metadata(Vec<TopicName>),
    /// A producer, for an id or a newer epoch.
    ProducerId(ProducerKey),
    /// A subscription.
    Subscription(SubscriptionKey),
    /// The application.
    Operation(OperationKey),
    /// Memberships, about the homes of their groups.
    Homes,
    /// A membership.
    Group(GroupKey, Asked),
    /// A membership of a shared queue.
    Queue(QueueMemberKey, LeaseAsked),
}

impl Asker {
    const fn is_verdict(&self) -> bool {
        matches!(self, Self::Queue(_, LeaseAsked::Verdict(_)))
    }
}

/// A request of the application that is not answered.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) request: Request,
    pub(crate) deadline: MonotonicNanos,
    /// Its request on the wire, once it has left.
    pub(crate) correlation: Option<CorrelationId>,
    pub(crate) retry_at: MonotonicNanos,
    pub(crate) attempts: u32,
}

/// Requests on the wire and operations behind them.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    next_correlation: u64,
    next_operation: u64,
    on_wire: BTreeMap<CorrelationId, (ConnectionKey, Asker)>,
    /// Frames with verdicts among them, by connection.
    verdicts: BTreeMap<ConnectionKey, usize>,
    pub(crate) operations: BTreeMap<OperationKey, Operation>,
}

impl Requests {
    pub(crate) fn add_operation(&mut self, request: Request, deadline: MonotonicNanos) -> OperationKey {
        let key = OperationKey(self.next_operation);
        self.next_operation += 1;
        let retry_at = MonotonicNanos::default();
        self.operations.insert(key, Operation { request, deadline, correlation: None, retry_at, attempts: 0 });
        key
    }

    /// A correlation id for a request that leaves now.
    pub(crate) fn add(&mut self, connection: ConnectionKey, asker: Asker) -> CorrelationId {
        self.next_correlation += 1;
        let correlation = CorrelationId(self.next_correlation);
        if asker.is_verdict() {
            *self.verdicts.entry(connection).or_default() += 1;
        }
        self.on_wire.insert(correlation, (connection, asker));
        correlation
    }

    /// Who waits for the answer that came.
    pub(crate) fn take(&mut self, connection: ConnectionKey, correlation: CorrelationId) -> Option<Asker> {
        let (expected, _) = self.on_wire.get(&correlation)?;
        if *expected != connection {
            return None;
        }
        let (_, asker) = self.on_wire.remove(&correlation)?;
        if asker.is_verdict()
            && let Some(under_way) = self.verdicts.get_mut(&connection)
        {
            *under_way -= 1;
        }
        Some(asker)
    }

    /// How many more frames with verdicts may be under way on a connection.
    pub(crate) fn verdicts_room(&self, connection: ConnectionKey) -> usize {
        let under_way = self.verdicts.get(&connection).copied().unwrap_or_default();
        QUEUE_VERDICTS_CONNECTION_MAX.saturating_sub(under_way)
    }

    /// Nobody waits for that answer any more.
    pub(crate) fn forget(&mut self, correlation: CorrelationId) {
        self.on_wire.remove(&correlation);
    }

    /// Whose answers will never come because the connection is gone.
    pub(crate) fn take_lost(&mut self, connection: ConnectionKey) -> Vec<Asker> {
        self.verdicts.remove(&connection);
        let lost: Vec<CorrelationId> =
            self.on_wire.iter().filter(|(_, (on, _))| *on == connection).map(|(&correlation, _)| correlation).collect();
        lost.iter().filter_map(|correlation| self.on_wire.remove(correlation)).map(|(_, asker)| asker).collect()
    }
}

/// The shard that a request is best sent to.
pub(crate) fn preferred_shard(info: Option<&TopicInfo>, request: &Request) -> Option<ShardId> {
    match request.target() {
        Some((_, partition)) => info.and_then(|info| info.shard(partition)),
        // Changes of the catalog are made on shard 0.
        None => Some(ShardId(0)),
    }
}
