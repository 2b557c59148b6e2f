//! What shards say to each other.

use bytes::Bytes;
use corelane_model::{CatalogVersion, ConnectionKey, CorrelationId, Offset, PartitionId, SubscriptionId, TopicId};
use corelane_session::Refused;
use corelane_wire::{OutFrame, PartitionDescription};

use crate::ask::{Answer, CatalogRequest, Ending, Outcome, PartitionRequest, PushBatches};
use crate::groups::{GroupRequest, LagOf, Listed};
use crate::queues::QueueRequest;
use crate::transactions::{Part, ToCoordinator, ToParticipant, Told};

/// A message from one shard to another. Whoever carries it looks at nothing; it arrives whole, once, and after those that
/// the same shard sent to the same shard before.
#[derive(Debug)]
pub struct MeshMessage(pub(crate) Message);

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<MeshMessage>();
};

/// The insides of a message. Connections are named by their key on the shard that they are on: the receiver's for what
/// goes to a client, the sender's for what comes from one.
#[derive(Debug)]
pub(crate) enum Message {
    /// Shard 0 at its start: the whole catalog.
    Catalog(Bytes),
    /// Shard 0: one step of the catalog, durable.
    Change(Bytes),
    /// To shard 0: that version is applied here.
    Applied(CatalogVersion),
    /// To shard 0: somebody wants the catalog changed.
    Wish(Box<CatalogRequest>),
    /// To an owner: somebody asks something of a partition.
    Request(Box<PartitionRequest>),
    /// The outcome of a forwarded append.
    Outcome {
        connection: ConnectionKey,
        correlation: CorrelationId,
        batch_bytes: u64,
        outcome: Outcome,
        is_end_due: bool,
    },
    /// A durable end that a connection waits for.
    Durable { connection: ConnectionKey, partition: PartitionId, end: Offset },
    /// The answer to a forwarded request; for a subscribe with the subscription and its serial.
    Answer {
        connection: ConnectionKey,
        correlation: CorrelationId,
        subscription: Option<(SubscriptionId, u64)>,
        answer: Box<Result<Answer, Refused>>,
    },
    /// Batches for a subscription.
    Push(PushBatches),
    /// Everything before `next` that a subscription was not pushed was aborted.
    Passed {
        connection: ConnectionKey,
        subscription: SubscriptionId,
        serial: u64,
        next: Offset,
        high_watermark: Offset,
    },
    /// To the owner of a home: something for a coordinator of transactions.
    ToCoordinator(Box<ToCoordinator>),
    /// To an owner: something for a participant of a transaction.
    ToParticipant(Box<ToParticipant>),
    /// To all: what became of a transaction of which a participant of the sender has something?
    Inquire(Box<Part>),
    /// That, as far as the homes of the sender know.
    Fate(Box<(Part, Told)>),
    /// A subscription ended by itself.
    Ended { connection: ConnectionKey, subscription: SubscriptionId, serial: u64, ending: Box<Ending> },
    /// To an owner: more bytes may be pushed.
    Credit { connection: ConnectionKey, subscription: SubscriptionId, bytes: u64 },
    /// To an owner: push no more.
    Unsubscribe { connection: ConnectionKey, subscription: SubscriptionId },
    /// To an owner: push nothing to this connection for now.
    Congested { connection: ConnectionKey },
    /// To an owner: push again.
    Relieved { connection: ConnectionKey },
    /// To an owner: the connection is gone.
    Gone { connection: ConnectionKey },
    /// To an owner: what do your partitions of this topic within the range look like?
    Describe { ticket: u64, topic: TopicId, from: u32, end: u32 },
    /// They look like this.
    Described { ticket: u64, partitions: Vec<PartitionDescription> },
    /// To a coordinator: somebody asks something of a group.
    Group(Box<GroupRequest>),
    /// To a home: somebody asks something of a shared queue.
    Queue(Box<QueueRequest>),
    /// Records for a member of a shared queue, on a push stream of this number.
    QueueRecords { connection: ConnectionKey, slot: u8, frame: OutFrame },
    /// Back: that connection is gone.
    QueueUnsent { connection: ConnectionKey, frame: OutFrame },
    /// A frame for a member of a group or queue.
    Member { connection: ConnectionKey, frame: OutFrame },
    /// To an owner: where do these logs end? Questions are numbered.
    AskEnds { number: u64, partitions: Vec<PartitionId> },
    /// There; nothing for a partition that is not open here.
    Ends { number: u64, ends: Vec<(PartitionId, Option<Offset>)> },
    /// To an owner: how far behind is a group that has done everything below these offsets?
    AskLag { ticket: u64, wants: Vec<(PartitionId, Option<Offset>)> },
    /// That far.
    Lag { ticket: u64, lags: Vec<LagOf> },
    /// Which groups after that name do you coordinate?
    ListGroups { ticket: u64, after: String, most: usize },
    /// These.
    GroupsListed { ticket: u64, listed: Listed },
    /// Which queues after that group and topic do you keep?
    ListQueues { ticket: u64, after: (String, u64), most: usize },
    /// These.
    QueuesListed { ticket: u64, listed: crate::queues::Listed },
    /// The sender's journal failed.
    StorageStopped { text: String },
}
