//! What a client wants done, and what it has to tell.

use std::ops::Range;

use bytes::Bytes;
use corelane_model::{ConnectionKey, ErrorCode, Offset, PartitionIndex, ShardId, TopicClass, WallMillis};
use corelane_wire::OutFrame;

use crate::{
    Answer, BatchKey, ConnectFailure, DeliveryError, FollowKey, GroupKey, GroupNews, OperationKey, ProducerKey,
    QueueMemberKey, QueueNews, RequestError, SubscriptionError, SubscriptionKey,
};

/// The stream that a frame leaves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutStream {
    /// The sending half of the control stream, the first bidirectional stream, which the client opens.
    Control,
    /// A unidirectional stream for produce frames, `0..SESSION_DATA_STREAMS_MAX`; it is opened at its first frame.
    Produce(u8),
}

/// Where a record batch lies in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Offset of its first record; the others follow without holes.
    pub base_offset: Offset,
    /// When the partition's owner took it.
    pub append_timestamp: WallMillis,
}

/// One thing to do or to tell, in the order of [`crate::ClientCore::poll_effect`].
#[derive(Debug)]
pub enum Effect {
    /// Make a connection whose initial destination id has `shard` as byte 0; report
    /// [`crate::Event::Connected`] or [`crate::Event::ConnectFailed`].
    Connect {
        /// The key for everything about it from now on.
        connection: ConnectionKey,
        /// The shard that should take it.
        shard: ShardId,
    },
    /// Send a frame. Frames of one stream leave in order; those of a connection that is gone are dropped.
    Send {
        /// The connection.
        connection: ConnectionKey,
        /// The stream.
        stream: OutStream,
        /// The frame.
        frame: OutFrame,
    },
    /// Close a connection, after what was sent on it before. No event about it is expected any more.
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// The application's close code; `None` for an orderly end.
        code: Option<ErrorCode>,
        /// For the peer's log.
        reason: String,
    },
    /// A connection is ready for requests.
    Ready {
        /// The shard that it was made for.
        shard: ShardId,
    },
    /// A connection could not be made or broke. It is tried again by itself for as long as something needs it.
    Unreachable {
        /// The shard that it was made for.
        shard: ShardId,
        /// Why.
        failure: ConnectFailure,
    },
    /// A producer can take records.
    ProducerOpened {
        /// The producer.
        producer: ProducerKey,
        /// Partitions of its topic.
        partitions: u32,
        /// Class of its topic.
        class: TopicClass,
    },
    /// A producer could not be opened and is gone.
    ProducerFailed {
        /// The producer.
        producer: ProducerKey,
        /// Why.
        error: RequestError,
    },
    /// The partition's owner has a batch in memory. Told at most once for each batch, and not when it is delivered with that.
    Received {
        /// The batch.
        batch: BatchKey,
        /// Where it lies.
        placement: Placement,
    },
    /// A batch is delivered for good: stored, or received where nothing more was asked for. The last word about it.
    Delivered {
        /// The batch.
        batch: BatchKey,
        /// Where it lies; differs from what was received when a crash of the broker came between.
        placement: Placement,
        /// Whether it survives a crash of the broker.
        is_stored: bool,
    },
    /// A batch is not delivered. The last word about it.
    Failed {
        /// The batch.
        batch: BatchKey,
        /// Its records that nobody holds a ticket for.
        detached: u32,
        /// Why.
        error: DeliveryError,
    },
    /// The broker took a subscription, for the first time or again after a reconnect.
    Subscribed {
        /// The subscription.
        subscription: SubscriptionKey,
        /// The first offset that will come.
        next: Offset,
        /// Log start offset at that moment.
        log_start: Offset,
        /// High watermark at that moment.
        high_watermark: Offset,
    },
    /// Record batches for a subscription, whole and in order, heads checked. Call
    /// [`crate::ClientCore::consumed`] with `bytes.len()` when the application has them.
    Deliver {
        /// The subscription.
        subscription: SubscriptionKey,
        /// The batches, one after another.
        bytes: Bytes,
        /// Records before this offset are not wanted.
        from: Offset,
        /// High watermark when they left the broker.
        high_watermark: Offset,
    },
    /// A reader of committed records is past records that were aborted, without getting any that follow: nothing before
    /// `next` will come.
    Passed {
        /// The subscription.
        subscription: SubscriptionKey,
        /// The offset from which on something may still come.
        next: Offset,
        /// Last stable offset when the broker said so.
        high_watermark: Offset,
    },
    /// Records were gone before they could be read, dropped by age or size or with the broker's memory: the subscription goes
    /// on behind them, as [`crate::OutOfRange`] says; with `Latest` those that are still there are among them. Told behind [`Effect::Subscribed`], before anything that follows them.
    Missed {
        /// The subscription.
        subscription: SubscriptionKey,
        /// Their offsets. Not every one need have had a record: a topic in memory goes on behind a block of them when the
        /// broker was started anew.
        offsets: Range<Offset>,
    },
    /// A topic that is followed has a partition more, which is read from its beginning.
    Grown {
        /// The wish.
        follow: FollowKey,
        /// The partition.
        partition: PartitionIndex,
        /// What it is read with.
        subscription: SubscriptionKey,
    },
    /// A subscription ended by itself and is gone.
    Ended {
        /// The subscription.
        subscription: SubscriptionKey,
        /// Why.
        error: SubscriptionError,
    },
    /// Something about a membership of a consumer group.
    Group {
        /// The membership.
        group: GroupKey,
        /// What.
        news: GroupNews,
    },
    /// Something about a membership of a shared queue.
    Queue {
        /// The membership.
        queue: QueueMemberKey,
        /// What.
        news: QueueNews,
    },
    /// The answer to a request.
    Done {
        /// The request.
        operation: OperationKey,
        /// The answer.
        result: Box<Result<Answer, RequestError>>,
    },
}

const _: () = assert!(size_of::<Effect>() <= 128, "effects are moved by the thousand");
