//! Bugs planted on purpose, so that the simulator can show that it would find them.
//!
//! This module exists only in a build with `--cfg planted`, and so must every use of it:
//! ```ignore
//! #[cfg(planted)]
//! if corelane_model::planted::is_planted(Bug::AcknowledgeBeforeSync) { … }
//! ```
//! One build holds them all; the simulator selects one at run time. It is the only global state on floors 0 to 2.

use std::sync::atomic::{AtomicUsize, Ordering};

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every bug.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether the simulator's workload leads to it. The others are found by the random histories of their crate.
            #[must_use]
            pub const fn is_simulated(self) -> bool {
                !matches!(self, Self::TrustUnproven)
            }

            /// The bug of that name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|bug| bug.name() == name)
            }
        }
    };
}

bugs! {
    /// The journal calls an entry durable when it is written, before the sync completes.
    AcknowledgeBeforeSync = "acknowledge-before-sync";
    /// The journal's durable position jumps over an entry that is still in flight.
    DurablePastHole = "durable-past-hole";
    /// The partition appends a batch again whose sequence it has seen.
    NoDuplicateCheck = "no-duplicate-check";
    /// Recovery takes an entry of an earlier use of the journal file for one of this.
    TrustRecycledBlock = "trust-recycled-block";
    /// Recovery syncs what nothing proves to be on disk, and does not write it again.
    TrustUnproven = "trust-unproven";
    /// A write that took fewer bytes than asked counts as whole.
    IgnoreShortWrite = "ignore-short-write";
    /// Recovery starts with an empty producer table.
    ForgetProducers = "forget-producers";
    /// Settled ends are written to the journal before the segment's sync completes.
    SettleBeforeSync = "settle-before-sync";
    /// Consumers see records of a durable topic before they are stored.
    VisibleBeforeDurable = "visible-before-durable";
    /// A shared queue hands out a record that a member has.
    LeaseTwice = "lease-twice";
    /// A shared queue counts a dead letter as done before it is durable in its topic.
    DeadLetterLost = "dead-letter-lost";
    /// Compaction takes keys for one key that begin alike, and leaves out the newest record of all but one of them.
    CompactByPrefix = "compact-by-prefix";
    /// A partition's message ids are not read back after a restart.
    ForgetMessageIds = "forget-message-ids";
    /// A late report, from before a member had the partition that is asked back, counts as giving it up.
    TwoOwners = "two-owners";
    /// Who had a partition in an earlier generation may still commit, also a member that was put out.
    StaleCommit = "stale-commit";
    /// A member's session is measured by the wall clock, which jumps.
    WallClockSession = "wall-clock-session";
    /// An aborted transaction is forgotten when the first of its records is given up, so that the others are seen.
    AbortedVisible = "aborted-visible";
    /// When a transaction ends, the next that holds readers up is the one of the lowest producer, not the earliest.
    StablePastOpen = "stable-past-open";
}

/// 0 for none, else one more than the bug's place in [`Bug::ALL`].
static SELECTED: AtomicUsize = AtomicUsize::new(0);

/// Switches one bug on and all others off, or all off.
pub fn select(bug: Option<Bug>) {
    SELECTED.store(bug.map_or(0, |bug| bug as usize + 1), Ordering::Relaxed);
}

/// Whether this bug is switched on.
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    SELECTED.load(Ordering::Relaxed) == bug as usize + 1
}
