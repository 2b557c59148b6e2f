//! Requests, answers and frames: what a client and a broker say to each other.
//!
//! A frame is a fixed head of 24 bytes, a body that is one rkyv archive, and an attachment of whole record batches that
//! this crate carries without looking inside (docs/formats/frame.md). Access to a body is always checked. There is one
//! struct for each version of each message; a new version is a new struct, never a changed one.
//!
//! This crate knows no stream, no session and no topic; it does no I/O.

#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod admin;
mod body;
mod decoder;
mod frame;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod group;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod groups;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod hello;
mod kind;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod metadata;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod produce;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod queue;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod queues;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod subscribe;
#[expect(
    missing_debug_implementations,
    reason = "rkyv makes resolver types without Debug, and offers no way to add it"
)]
mod transaction;

pub use admin::{
    AlterTopic, AlterTopicAnswer, CreateTopic, CreateTopicAnswer, DeleteTopic, DescribeTopic, DescribeTopicAnswer,
    PartitionDescription, Settings, TopicDescription, TopicDone, TruncatePartition,
};
pub use body::{Body, BodyError, access, decode, encode, encode_long, encode_with};
pub use decoder::FrameDecoder;
pub use frame::{FRAME_HEAD_BYTES, Frame, FrameError, FrameHead, OutFrame};
pub use group::{
    CommitOffsets, GiveUp, GroupAssignment, GroupDone, GroupHeartbeat, HandOver, JoinGroup, JoinGroupAnswer,
    LeaveGroup, MemberFenced, OffsetCommit, OwnedPartition, PartitionRange, ResetPolicy, RevokedPartition, TopicLabel,
};
pub use groups::{
    AlterGroup, DeleteGroup, DescribeGroup, DescribeGroupAnswer, DrainGroup, FetchOffsets, FetchOffsetsAnswer,
    FetchedOffset, GroupMember, GroupPartition, GroupSummary, ListGroups, ListGroupsAnswer, OffsetReset,
    RemoveStaticMember, ResetOffsets, ResumeGroup,
};
pub use hello::{Goaway, Hello, Ping, Pong, Refusal, Welcome};
pub use kind::FrameKind;
pub use metadata::{
    FindOffset, FindOffsetAnswer, Metadata, MetadataAnswer, ProducerIdAnswer, RequestProducerId, TopicMetadata,
};
pub use produce::{
    ArchivedDurableEnd, ArchivedProduceAnswer, DurableEnd, DurableEnds, Produce, ProduceAnswer, ProduceAnswers,
    ProduceMany, StorageStopped,
};
pub use queue::{
    ArchivedLeaseRange, JoinQueue, JoinQueueAnswer, LeaseRange, LeasesAnswer, LeaveQueue, QueueAck, QueueBackoff,
    QueueChange, QueueChangeError, QueueCredit, QueueDeliver, QueueDone, QueueExtend, QueueFenced, QueueNack,
};
pub use queues::{
    AlterQueue, DeleteQueue, DescribeQueue, DescribeQueueAnswer, ListQueues, ListQueuesAnswer, QueueMember,
    QueuePartition, QueueRedriven, QueueSummary, RedriveQueue,
};
pub use subscribe::{Credit, Push, PushMany, Start, Subscribe, SubscribeAnswer, SubscriptionEnded, Unsubscribe};
pub use transaction::{
    EndTransaction, EndTransactionAnswer, InitialiseTransactions, InitialiseTransactionsAnswer, Passed, StageOffsets,
    StageOffsetsAnswer, SubscribeCommitted,
};

/// The application protocol that TLS negotiates; it changes only when the frame head does.
pub const ALPN: &[u8] = b"corelane/1";

/// Oldest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Newest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;
