//! Identifiers. None of them is ever reused while something could still remember the old owner.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A topic, counted up by the catalog from 1 and never reused, so that the files and journal entries of a deleted
    /// topic can never be taken for those of a later one with the same name.
    TopicId(u64)
);
id!(
    /// A partition within its topic, dense from 0.
    PartitionIndex(u32)
);
id!(
    /// A shard of this broker: one core, one thread, dense from 0. It is also byte 0 of every QUIC connection id that
    /// the shard hands out, so there are at most 256 (see [`crate::limits::SHARDS_MAX`]).
    ShardId(u8)
);
id!(
    /// A producer, handed out by the broker from blocks that are leased durably; 0 means "not idempotent".
    ProducerId(u64)
);
id!(
    /// Counts the incarnations of one producer; a larger one fences the smaller.
    ProducerEpoch(u16)
);
id!(
    /// Number of a record within one producer epoch and partition, dense from 0. Wraps to 0 after `u32::MAX`.
    Sequence(u32)
);
id!(
    /// Random 128 bits that a client makes once and says in every hello: it joins the client's connections.
    SessionId(u128)
);
id!(
    /// Which start of the broker this is: grows by one with each start from the same data directory.
    Incarnation(u64)
);
id!(
    /// Ties an answer to its request within one connection; chosen by the requester.
    CorrelationId(u64)
);
id!(
    /// A connection on one shard; local to the shard, never reused while it runs.
    ConnectionKey(u64)
);
id!(
    /// A QUIC stream within its connection, by its QUIC stream id.
    StreamKey(u64)
);
id!(
    /// A subscription within one connection; chosen by the client.
    SubscriptionId(u64)
);
id!(
    /// Version of the catalog; grows by one with every change of it.
    CatalogVersion(u64)
);

id!(
    /// A member of a consumer group: random 128 bits that a client makes for each life of a member, never reused.
    MemberId(u128)
);
id!(
    /// Counts the assignments of a consumer group; grows with every change of who is meant to have what, never back.
    Generation(u64)
);

impl ProducerId {
    /// Says that a batch comes from a producer without an identity; such batches are never taken for duplicates.
    pub const NONE: Self = Self(0);
}

impl Sequence {
    /// The sequence `count` records later, wrapping.
    #[must_use]
    pub const fn advance(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }
}

/// One partition of one topic, unique in a cluster for all time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Which of its partitions.
    pub index: PartitionIndex,
}

impl PartitionId {
    /// Joins the two numbers.
    #[must_use]
    pub const fn new(topic: TopicId, index: PartitionIndex) -> Self {
        Self { topic, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}
