//! What a coordinator of transactions wants done outside.

use corelane_model::{Decision, Transaction};

use crate::{Fate, Participant, TransactionError};

/// Counts the records that one [`crate::Coordinator`] has appended since it was made or restored, from 1. Whoever writes
/// them says up to which one they are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendPosition(pub u64);

/// Ties an answer to a request; chosen by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestTicket(pub u64);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this record to the id's home partition, after all that came before.
    Append {
        /// Comes back through [`crate::Coordinator::on_durable`].
        position: AppendPosition,
        /// The record's key, always the same for one id.
        key: Vec<u8>,
        /// The record's value; `None` removes the key.
        value: Option<Vec<u8>>,
    },
    /// Answer an initialisation: this is the producer, and its first transaction.
    Initialised {
        /// The ticket.
        ticket: RequestTicket,
        /// The transaction that may begin.
        transaction: Transaction,
    },
    /// Answer a participant: it is written down and may take what it has of the transaction.
    Joined {
        /// The ticket.
        ticket: RequestTicket,
    },
    /// Answer an end: everything that the transaction did is visible, or none of it ever is.
    Ended {
        /// The ticket.
        ticket: RequestTicket,
        /// The transaction that may begin now; `None` when the producer has had as many as it can.
        next: Option<Transaction>,
    },
    /// Answer a request that cannot be done after all.
    Refused {
        /// The ticket.
        ticket: RequestTicket,
        /// Why.
        error: TransactionError,
    },
    /// Tell a participant what was decided; [`crate::Coordinator::on_applied`] says that it has that durably.
    Apply {
        /// Whom.
        participant: Participant,
        /// The transaction.
        transaction: Transaction,
        /// What was decided.
        decision: Decision,
    },
    /// Answer a participant that asked what became of a transaction.
    Fate {
        /// The ticket.
        ticket: RequestTicket,
        /// That.
        fate: Fate,
    },
    /// Nothing of the id is left but a tombstone: forget the machine.
    Remove,
}
