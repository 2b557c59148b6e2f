//! What is asked of a partition's owner, by whom, and what it answers.

use std::ops::Range;

use bytes::Bytes;
use corelane_model::{
    Acks, CatalogVersion, ConnectionKey, CorrelationId, Isolation, Offset, PartitionId, ShardId, StartAt,
    SubscriptionId, TopicId, TopicSettings, WallMillis,
};
use corelane_record::SealedBatch;
use corelane_session::Refused;

use crate::groups::GroupAnswer;
use crate::queues::QueueAnswer;
use crate::transactions::TransactionAnswer;

/// A connection, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    /// The shard that it is on.
    pub(crate) shard: ShardId,
    /// Its key there.
    pub(crate) connection: ConnectionKey,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) peer: Peer,
    pub(crate) correlation: CorrelationId,
}

/// A request that the owner of a partition fulfils.
#[derive(Debug)]
pub(crate) struct PartitionRequest {
    pub(crate) asker: Asker,
    pub(crate) partition: PartitionId,
    pub(crate) ask: Ask,
}

/// What is asked of a partition.
#[derive(Debug)]
pub(crate) enum Ask {
    Append { acks: Acks, batch: SealedBatch },
    Find { start: StartAt, isolation: Isolation },
    Truncate { before: Option<Offset> },
    Subscribe { subscription: SubscriptionId, serial: u64, start: StartAt, credit: u64, isolation: Isolation },
}

/// A request that shard 0 fulfils, because it owns the catalog.
#[derive(Debug)]
pub(crate) struct CatalogRequest {
    /// Nobody when a shard wants something for itself.
    pub(crate) asker: Option<Asker>,
    pub(crate) wish: Wish,
}

/// What is asked of the catalog.
#[derive(Debug)]
pub(crate) enum Wish {
    Create {
        name: String,
        partitions: u32,
        settings: TopicSettings,
    },
    Alter {
        name: String,
        partitions: Option<u32>,
        settings: Option<TopicSettings>,
    },
    Delete {
        name: String,
    },
    /// The topic that keeps the consumer groups.
    CreateGroups,
    /// The topic that keeps the transactional ids.
    CreateTransactions,
}

/// The answer to anything but a produce.
#[derive(Debug)]
pub(crate) enum Answer {
    Found { offset: Offset, log_start: Offset, high_watermark: Offset },
    Truncated { log_start: Offset },
    Subscribed { offset: Offset, log_start: Offset, high_watermark: Offset },
    Created { topic: TopicId, version: CatalogVersion },
    Altered { version: CatalogVersion, keys_moved: bool },
    Deleted,
    Group(GroupAnswer),
    Queue(QueueAnswer),
    Transaction(TransactionAnswer),
}

/// What became of an append: base offset and append timestamp, or why not.
pub(crate) type Outcome = Result<(Offset, WallMillis), Box<Refused>>;

/// Why the broker ends a subscription.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) refused: Refused,
    /// The damaged records, or what the log holds, if that is why.
    pub(crate) range: Option<Range<Offset>>,
}

impl From<Refused> for Ending {
    fn from(refused: Refused) -> Self {
        Self { refused, range: None }
    }
}

/// Batches on their way to a subscription.
#[derive(Debug)]
pub(crate) struct PushBatches {
    pub(crate) connection: ConnectionKey,
    pub(crate) subscription: SubscriptionId,
    /// Which use of the id by the client it is.
    pub(crate) serial: u64,
    pub(crate) high_watermark: Offset,
    pub(crate) batches: Vec<Bytes>,
}
