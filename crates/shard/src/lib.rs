//! Everything one core owns; routes a request to its partition, here or next door.
//!
//! A shard is a function from events to effects. A round is: [`Shard::handle`] for every event that is ready,
//! [`Shard::finish_round`], then [`Shard::poll_effect`] until it yields nothing.

mod effect;
mod event;

pub use effect::{Effect, OutStream};
pub use event::Event;

/// Ties an admin answer to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminId(pub u64);

/// What the admin listener asks a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminQuery {
    /// Counters, gauges and health of this shard.
    Status,
}

/// What a shard answers to the admin listener: plain numbers; merging over shards happens outside.
#[derive(Clone, Debug, Default)]
pub struct AdminAnswer {}

/// What shards say to each other.
#[derive(Debug)]
pub struct MeshMessage {}
