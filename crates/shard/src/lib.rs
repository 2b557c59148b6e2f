//! Everything one core owns; routes a request to its partition, here or next door.
//!
//! A shard is a function from events to effects. A round is: [`Shard::handle`] for every event that is ready,
//! [`Shard::finish_round`], then [`Shard::poll_effect`] until it yields nothing. [`Shard::next_deadline`] is pulled after
//! each round; a deadline that is not in the future asks for another round at once, with or without an event.
//!
//! Messages between two shards arrive whole, each once, and in the order in which they were sent
//! ([`Effect::Mesh`] → [`Event::Mesh`]). This crate knows no socket, no file descriptor, no clock and no thread.

mod active;
mod admin;
mod ask;
mod boot;
mod changes;
mod committed;
mod config;
mod connections;
mod describe;
mod effect;
mod event;
mod groups;
mod home_log;
mod mesh;
mod metrics;
mod naming;
mod produce;
mod push;
mod queues;
mod router;
mod shard;
mod shard_set;
mod stats;
mod status;
mod subscriptions;
mod transactions;
mod truncate;
mod waiters;

pub use admin::{
    AdminAnswer, AdminId, AdminQuery, GroupLag, GroupStatus, GroupTotals, QueueStatus, QueueTotals, ReactorStatus,
    RecoveryStatus, ShardPhase, ShardStatus, StorageStatus, TopicStatus, TransactionTotals,
};
pub use boot::reshard;
pub use config::{Boot, ShardConfig, ShardExport};
pub use corelane_session::TokenDigest;
pub use effect::{Effect, OutStream};
pub use event::Event;
pub use mesh::MeshMessage;
pub use metrics::expose;
pub use shard::Shard;
pub use stats::{ShardStats, Traffic};

/// Topics whose traffic a status tells one by one.
pub const STATUS_TOPICS_MAX: usize = 256;
/// Groups that a status tells one by one.
pub const STATUS_GROUPS_MAX: usize = 256;
/// Pairs of a group and a topic with samples of their own in the metrics, by shard.
pub const STATUS_LAGS_MAX: usize = 1024;
/// Shared queues in one status, and thus with samples of their own in the metrics, by shard.
pub const STATUS_QUEUES_MAX: usize = 256;
