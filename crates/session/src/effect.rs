//! What a frame leads to.

use corelane_model::{CatalogVersion, Incarnation, ShardId, WallMillis};
use corelane_wire::OutFrame;

use crate::{Refused, Request, TokenDigest};

/// What the shard knows and a session needs to greet its peer.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which start of the broker this is.
    pub incarnation: Incarnation,
    /// How many shards there are.
    pub shards: u16,
    /// The shard at this end.
    pub shard: ShardId,
    /// The catalog as the shard knows it.
    pub catalog_version: CatalogVersion,
    /// The wall clock.
    pub wall: WallMillis,
    /// Digests of the tokens that are let in; none lets everybody in.
    pub tokens: &'a [TokenDigest],
}

/// What a frame leads to.
#[derive(Debug)]
pub enum Step {
    /// The session answers by itself.
    Reply(OutFrame),
    /// The session answers by itself with the gathered frames of the round.
    Gathered,
    /// The shard is to act.
    Request(Request),
    /// Nothing more is read from the connection; it is to be closed with this code and text.
    Close(Refused),
    /// The connection is being closed already; the frame is dropped.
    Ignored,
}
