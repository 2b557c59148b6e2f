//! Who has one partition.

use corelane_model::{Generation, MemberId, MonotonicNanos};

/// Who has a partition in effect, that is who may commit for it and is believed about it.
///
/// ```text
///                 assigned                     another is meant to have it
///   (no slot) ──────────────▶ Owned ────────────────────────────────▶ Revoking ──┐
///       ▲                       ▲ │                                     │ │ ▲    │ who is next
///       │                       │ │ the owner is gone                   │ │ └────┘ changes
///       │                       │ ▼                                     │ │
///       │                       └── next, when the owner has given up ◀─┘ │
///       │                           or is gone                            │
///       └────────────────────────── nobody is next ◀──────────────────────┘
/// ```
///
/// There is room for one owner, so two at once cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The owner has it and is meant to have it.
    Owned {
        /// Who.
        owner: MemberId,
        /// Since which generation; an older one is stale.
        since: Generation,
    },
    /// The owner has it and was asked to give it up. It may commit until it has.
    Revoking {
        /// Who.
        owner: MemberId,
        /// Since which generation it has it.
        since: Generation,
        /// The generation in which it was asked back: only who has seen this one can have given it up.
        revoked: Generation,
        /// Who gets it then. This may be the owner again, which still has to give it up first, because it may already
        /// be about to.
        next: Option<MemberId>,
        /// Until when the owner is waited for. Not durable; a restored group waits anew.
        deadline: MonotonicNanos,
    },
}

impl Hold {
    /// Who has it in effect.
    #[must_use]
    pub const fn owner(&self) -> MemberId {
        match self {
            Self::Owned { owner, .. } | Self::Revoking { owner, .. } => *owner,
        }
    }

    /// Since which generation the owner has it.
    #[must_use]
    pub const fn since(&self) -> Generation {
        match self {
            Self::Owned { since, .. } | Self::Revoking { since, .. } => *since,
        }
    }

    /// Who is meant to have it.
    #[must_use]
    pub const fn target(&self) -> Option<MemberId> {
        match self {
            Self::Owned { owner, .. } => Some(*owner),
            Self::Revoking { next, .. } => *next,
        }
    }
}

/// A partition of the group that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who.
    pub hold: Hold,
    /// Who follows it, ready to take over; never who is meant to have it.
    pub standbys: Vec<MemberId>,
}
