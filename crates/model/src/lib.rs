//! The vocabulary of Corelane: ids, offsets, epochs, limits, error codes, and time as numbers.
//!
//! Every domain number is a type of its own, so that an offset cannot be handed over where an epoch is asked for. This
//! crate depends on nothing of ours, does no I/O, reads no clock and allocates only for names and in [`PartitionMap`].

mod class;
mod code;
mod group;
mod id;
pub mod limits;
mod name;
mod number;
mod partition_map;
#[cfg(planted)]
pub mod planted;
pub mod queue;
mod time;
mod transaction;

pub use class::{Acks, Cleanup, StartAt, TopicClass, TopicSettings};
pub use code::{ErrorCode, Retry};
pub use group::{GroupName, GroupNameError, ResetPolicy, StaticId, Strategy};
pub use id::{
    CatalogVersion, ConnectionKey, CorrelationId, Generation, Incarnation, MemberId, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, Sequence, SessionId, ShardId, StreamKey, SubscriptionId, TopicId,
};
pub use name::{NameError, TopicName};
pub use number::{LeaderEpoch, Offset};
pub use partition_map::PartitionMap;
pub use queue::{Backoff, Dispatch, QueueSettings, QueueSettingsError, QueueWish};
pub use time::{MonotonicNanos, Now, WallMillis};
pub use transaction::{Decision, Isolation, Transaction, TransactionalId};
