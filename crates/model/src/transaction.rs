//! Words of transactions that more than one crate uses.

use std::fmt;

use crate::group::{check, home_of};
use crate::limits::TRANSACTION_HOMES;
use crate::{GroupNameError, PartitionIndex, ProducerEpoch, ProducerId};

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

/// Name under which a client has its transactions, one after the other, across its restarts: 1 to 249 bytes of printable
/// characters. Of two clients that use one the later shuts the earlier out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionalId(Box<str>);

impl TransactionalId {
    /// Checks an id that came from outside.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(id: &str) -> Result<Self, GroupNameError> {
        check("transactional id", id)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The internal partition that keeps it, in the way of [`crate::GroupName::home`]. It never changes.
    #[must_use]
    pub fn home(&self) -> PartitionIndex {
        home_of(&self.0, TRANSACTION_HOMES)
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
