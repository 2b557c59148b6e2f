//! Words of transactions that more than one crate uses.

use std::fmt;

use crate::{ProducerEpoch, ProducerId};

/// One transaction: the producer that has it and the producer's epoch, which counts its transactions. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction {
    /// Who has it.
    pub producer: ProducerId,
    /// Which of the producer's transactions it is.
    pub epoch: ProducerEpoch,
}

impl Transaction {
    /// Joins the two numbers.
    #[must_use]
    pub const fn new(producer: ProducerId, epoch: ProducerEpoch) -> Self {
        Self { producer, epoch }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of producer {}", self.epoch, self.producer)
    }
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// All of it becomes visible.
    Commit,
    /// None of it ever does.
    Abort,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Abort => "abort",
        })
    }
}

/// Which records a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// All that are durable, whatever becomes of their transactions.
    #[default]
    Uncommitted,
    /// None of a transaction that was aborted or is not decided, nor any behind one that is not decided.
    Committed,
}
