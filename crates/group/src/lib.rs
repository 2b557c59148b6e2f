//! One consumer group: its members, generation, assignment and committed offsets.
//!
//! [`Group`] is a machine without I/O. The shard that owns the group's home partition ([`GroupName::home`]) hands in what
//! members ask, time and durable positions; at the end of a round [`Group::finish_round`] decides once for everything that
//! happened in it, and [`Group::poll_effect`] yields what is to be done. Every change of state is an [`Effect::Append`] of
//! a keyed record (docs/formats/group.md); whatever tells somebody of the change waits until [`Group::on_durable`] reaches
//! the last record of that round. [`Restore`] builds the same group from the newest record of each key.
//!
//! A partition has at most one owner in effect, because its [`Slot`] has room for one. A rebalance is not a barrier: what
//! a member keeps is not touched, what moves is revoked, and the new owner starts when the old one has given up or is no
//! longer a member. docs/groups.md explains the semantics and what each guarantee costs.
//!
//! The crate knows no log, no topic's name beyond what a subscription says, no pattern language, no connection, no clock
//! and no randomness: ids, resolved topics and ends of logs are handed in.

mod admin;
mod assign;
mod deadlines;
mod description;
mod effect;
mod encoding;
mod error;
mod group;
mod member;
mod membership;
mod offsets;
mod reconcile;
mod restore;
mod round;
mod slot;
mod staged;
mod standbys;
mod stats;
mod subscriptions;
mod targets;

pub use admin::{Change, OffsetReset};
pub use assign::{
    Assignor, Candidate, CooperativeSticky, LeastResponseTime, Problem, Range, RoundRobin, Sticky, Weighted, assignor,
};
pub use corelane_model::{GroupName, GroupNameError as NameError, ResetPolicy, StaticId, Strategy};
pub use description::{GroupDescription, GroupState, MemberDescription, MemberState, PartitionDescription};
pub use effect::{
    AppendPosition, Assignment, Effect, FenceReason, OwnedPartition, RequestTicket, RevokedPartition, Start,
};
pub use encoding::{GROUP_FORMAT, group_of};
pub use error::{DecodeError, GroupError};
pub use group::{Group, Phase, Settings};
pub use member::{Join, Leave, Presence, Report};
pub use offsets::{Commit, CommittedOffset};
pub use restore::Restore;
pub use slot::{Hold, Slot};
pub use staged::StagedOffset;
pub use stats::GroupStats;
pub use subscriptions::{Subscription, TopicShape};
