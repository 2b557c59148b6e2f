//! One transactional id: its producer, its transaction, what was decided and who has yet to hear of it.
//!
//! [`Coordinator`] is a machine without I/O. The shard that owns the id's home partition
//! ([`corelane_model::TransactionalId::home`]) hands in what clients and participants ask, time and durable positions; at
//! the end of a round [`Coordinator::finish_round`] writes what changed, and [`Coordinator::poll_effect`] yields what is to
//! be done. The state is one keyed record and one for each round that added participants (docs/formats/transaction.md), each
//! an [`Effect::Append`]; whatever tells somebody of the change waits until [`Coordinator::on_durable`] reaches it. [`Restore`] makes
//! the same coordinator from the newest record.
//!
//! The record that says commit or abort is the truth about a transaction. Whoever takes part in one is in the record
//! before it takes anything, and is told the decision until it has it durably, over restarts; one that finds something open at
//! its start can ask ([`Coordinator::inquire`]). docs/transactions.md explains
//! the semantics and what each guarantee costs.
//!
//! The crate knows no log, no group's insides, no connection, no clock and no randomness: producer ids are handed in.

mod additions;
mod coordinator;
mod deadlines;
mod effect;
mod encoding;
mod error;
mod inquiry;
mod participant;
mod restore;
mod round;
mod stats;

pub use coordinator::{Coordinator, Phase};
pub use effect::{AppendPosition, Effect, RequestTicket};
pub use encoding::{TRANSACTION_FORMAT, id_of};
pub use error::{DecodeError, TransactionError};
pub use inquiry::Fate;
pub use participant::Participant;
pub use restore::Restore;
pub use stats::TransactionStats;
