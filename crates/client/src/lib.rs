//! The native SDK of Corelane, a durable message broker for multiplayer games.
//!
//! Start with [`connect`]; a [`Client`] opens [`Producer`]s and [`Consumer`]s, joins consumer
//! groups ([`GroupConsumer`]), and manages topics with [`Admin`] and groups with [`Groups`]. What it
//! decides is in the crate `corelane-client-core`, without I/O; this crate is its shell on tokio and quinn.
//!
//! * [`Producer::send`] does not wait. It returns a [`Ticket`] with two promises: [`received`](Ticket::received), in the
//!   broker's memory, and [`stored`](Ticket::stored), on disk. A record is never written twice and never out of order for
//!   its producer and partition, whatever happens to connections or to the broker in between; what cannot be known fails
//!   with [`DeliveryError::Unknown`].
//! * A [`Consumer`] is pushed to within a credit of bytes, and lends records where they lie.
//! * Errors are narrow, and each says by `is_retriable` whether trying again is safe.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use corelane::{PartitionIndex, Record, StartAt, TopicSettings};
//!
//! let client = corelane::connect("corelane://127.0.0.1:7420").await?;
//! client.admin().create_topic("chat", 1, TopicSettings::default()).await?;
//!
//! let producer = client.producer("chat").open().await?;
//! let ticket = producer.send(Record::new("hello").key("room-1")).expect("the buffer has room");
//! ticket.stored().await?;
//!
//! let mut consumer = client.consumer("chat").partition(PartitionIndex(0)).from(StartAt::Earliest).open().await?;
//! if let Some(batch) = consumer.next().await {
//!     for record in &batch? {
//!         println!("{} {:?}", record.offset, record.value);
//!     }
//! }
//! client.drain().await;
//! # Ok(())
//! # }
//! ```

mod address;
mod admin;
mod client;
mod clock;
mod consumer;
mod deduplicate;
mod driver;
mod error;
mod gather;
mod group;
mod groups;
mod link;
mod payload;
mod producer;
mod queue;
mod queues;
mod redrive;
mod settlement;
mod shared;
mod ticket;
mod transaction;
mod transport;
mod trust;
mod unsettled;

pub use address::{Address, AddressError, PORT_DEFAULT, Trust};
pub use admin::{Admin, FoundOffset, TopicDescription, TopicList};
pub use client::{Client, Options, connect, connect_with};
pub use consumer::{Batch, Consumer, ConsumerBuilder, Position, Progress};
pub use deduplicate::Deduplicate;
pub use error::{ConnectError, ConsumeError, Error, SendError};
pub use gather::Gathering;
pub use group::{
    Assigned, CommitTicket, Committed, Drain, Event, FollowedBatch, GroupBatch, GroupBuilder, GroupConsumer,
    GroupError, TopicPartition,
};
pub use groups::{GroupChange, GroupDescription, GroupList, Groups};
#[cfg(feature = "serde")]
pub use payload::Json;
pub use payload::{Payload, PayloadError, ReadPayload, SendTypedError};
pub use producer::{Permit, Producer, ProducerBuilder, Record};
pub use queue::{
    Lease, Leased, LeasedRecord, LeasedRecords, Leases, Nack, QueueBuilder, QueueConsumer, QueueDrain, QueueError,
    VerdictTicket,
};
pub use queues::{QueueDescription, QueueList, Queues};
pub use redrive::RedriveSteps;
pub use ticket::{Delivered, Ticket};
pub use transaction::{Transaction, TransactionError, Transactional, TransactionalBuilder};
pub use transport::{BareEndpoint, connect_bare};

pub use corelane_client_core::SendError as RefusedRecord;
pub use corelane_client_core::{
    ClientStats, CommitError, ConnectFailure, DeliveryError, DeliveryTimeError, FenceReason, GroupStart, LostReason,
    MembershipError, OutOfRange, RequestError, SubscriptionError, TopicInfo, VerdictError,
};
pub use corelane_model::{
    Acks, Backoff, CatalogVersion, Decision, Dispatch, ErrorCode, Generation, GroupName, GroupNameError, Isolation,
    LeaderEpoch, MemberId, NameError, Offset, PartitionId, PartitionIndex, QueueWish, ResetPolicy, Retry, ShardId,
    StartAt, StaticId, Strategy, TopicClass, TopicId, TopicName, TopicSettings, WallMillis,
};
pub use corelane_record::{BatchError, BatchHead, Compression, Headers, PushError, RecordBatch, Records};
pub use corelane_wire::{
    GroupMember, GroupPartition, GroupSummary, PartitionDescription, QueueMember, QueuePartition, QueueSummary,
};

/// For `#[derive(rkyv::Archive, rkyv::Serialize)]` of a [`Payload`], in the version and the form that values are read in.
pub use rkyv;

/// One record of a [`Batch`], lent where it lies: offset, timestamp, key, value, headers.
pub type RecordView<'a> = corelane_record::Record<'a>;
