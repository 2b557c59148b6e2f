//! What an SDK decides: connections, batching, routing, retries, subscriptions; no I/O.
//!
//! [`ClientCore`] is one client as a function from events and calls to effects. A round is: [`ClientCore::handle`] for
//! every event, calls of the application ([`ClientCore::send`], [`ClientCore::subscribe`], …) in any order,
//! [`ClientCore::finish_round`], then [`ClientCore::poll_effect`] until it yields nothing. [`ClientCore::next_deadline`] is
//! pulled. The moment is always handed in, and so is the seed of the jitter in back-off.
//!
//! # What a record may count on
//! Each record that was taken gets exactly one last word: [`Effect::Delivered`] or [`Effect::Failed`]. As long as it has
//! none, its batch is kept and sent again after a lost connection or a restart of the broker, with the stamp {producer,
//! epoch, sequence} that it had, by which the partition's owner recognises what it has already. Only when the owner said
//! that a batch is missing does it get a new stamp, and then always under a newer epoch, which fences copies of the old
//! one. What cannot be known fails with [`DeliveryError::Unknown`]. So nothing is written twice, and the records of one
//! producer and partition keep their order.
//!
//! The window of a partition spans at most [`corelane_model::limits::PRODUCER_BATCHES_MAX`] batches from the oldest
//! without a last word: more than that the owner does not remember.
//!
//! This crate knows no socket, no clock and no thread.

mod chance;
mod core;
mod effect;
mod error;
mod event;
mod group;
mod groups;
mod lanes;
mod lease;
mod leasing;
mod leasings;
mod links;
mod membership;
mod producer;
mod queue;
mod request;
mod settings;
mod stats;
mod subscription;
mod tell;
mod timers;
mod topics;
mod waiters;

pub use self::core::{ClientCore, Sent};
pub use effect::{Effect, OutStream, Placement};
pub use error::{ConnectFailure, DeliveryError, RequestError, SendError, SubscriptionError};
pub use event::Event;
pub use group::{
    AssignedPartition, CommitError, CommitKey, CommitOffset, FenceReason, GroupKey, GroupNews, GroupSettings,
    GroupStart, LostReason, MembershipError, StandbyPartition,
};
pub use lease::{
    DeliveryKey, QueueMemberKey, QueueMemberSettings, QueueNews, SaidOfLeases, Verdict, VerdictError, VerdictKey,
};
pub use queue::{Delivery, DeliveryTime, DeliveryTimeError, NewRecord};
pub use request::{
    Answer, GroupAnswer, GroupRequest, QueueAnswer, QueueRequest, Request, TransactionAnswer, TransactionRequest,
};
pub use settings::{
    BATCH_BYTES_DEFAULT, BUFFER_BYTES_DEFAULT, BUFFER_RECORDS_DEFAULT, ClientSettings, OutOfRange, ProducerSettings,
    RECORD_CHARGE_BYTES, SubscribeSettings,
};
pub use stats::ClientStats;
pub use tell::Reservation;
pub use topics::TopicInfo;

/// A record batch of this client; its records share their fate. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey(pub u64);

impl BatchKey {
    /// The bits that go into a correlation id.
    pub(crate) const fn low(self) -> u64 {
        self.0 & ((1 << core::ORDINAL_BITS) - 1)
    }
}

/// A producer of this client. Reused after the producer was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey(pub u32);

/// A subscription of this client. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(pub u64);

/// A wish to read all partitions of a topic, those to come included. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FollowKey(pub u64);

/// A request of the application. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationKey(pub u64);
