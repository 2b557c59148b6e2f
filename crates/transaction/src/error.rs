//! Why a coordinator of transactions says no.

use corelane_model::{Decision, ErrorCode, GroupNameError, Transaction, TransactionalId};

/// Why a request is refused. The transaction is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The text cannot be a transactional id.
    #[error(transparent)]
    Name(#[from] GroupNameError),
    /// The id was never initialised, or was not used for so long that it was forgotten.
    #[error("transactional id {id:?} has no producer; initialise it")]
    Unknown {
        /// The id.
        id: String,
    },
    /// Another client has the id now, or the same one initialised it again.
    #[error("the producer of transaction {asked} no longer has the transactional id {id:?}: it was initialised again")]
    Fenced {
        /// The id.
        id: String,
        /// What was asked about.
        asked: Transaction,
    },
    /// It was decided already.
    #[error("transaction {asked} is over, the decision was to {decision} it")]
    Ended {
        /// What was asked about.
        asked: Transaction,
        /// What was decided.
        decision: Decision,
    },
    /// It was over so long ago that the decision is forgotten.
    #[error("transaction {asked} is over")]
    Past {
        /// What was asked about.
        asked: Transaction,
    },
    /// It was not begun, and cannot be before the one that goes on is over.
    #[error("transaction {asked} cannot begin: the next one is {next}")]
    Future {
        /// What was asked about.
        asked: Transaction,
        /// What can begin.
        next: Transaction,
    },
    /// The one before is not yet decided everywhere.
    #[error("transaction {before} is not over everywhere yet; try again in a moment")]
    Busy {
        /// The one before.
        before: Transaction,
    },
    /// A newer initialisation came while this one waited.
    #[error("the transactional id {id:?} was initialised again while this request waited")]
    Superseded {
        /// The id.
        id: String,
    },
    /// A number is out of its bounds.
    #[error("time-out of {value} ms is out of bounds: {min} to {max}")]
    OutOfBounds {
        /// What was asked for.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A limit is reached.
    #[error("the transaction would have {would} {what}, over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        would: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Too many answers wait for the disk.
    #[error("{waiting} answers of the transactional id wait for the disk; try again")]
    Waiting {
        /// How many.
        waiting: usize,
    },
}

impl TransactionError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::InvalidTransactionalId,
            Self::Unknown { .. } => ErrorCode::UnknownTransaction,
            Self::Fenced { .. } | Self::Superseded { .. } => ErrorCode::ProducerFenced,
            Self::Ended { .. } | Self::Past { .. } => ErrorCode::TransactionEnded,
            Self::Future { .. } => ErrorCode::TransactionMismatch,
            Self::Busy { .. } | Self::Waiting { .. } => ErrorCode::Busy,
            Self::OutOfBounds { .. } => ErrorCode::InvalidSetting,
            Self::Limit { .. } => ErrorCode::LimitReached,
        }
    }

    pub(crate) fn unknown(id: &TransactionalId) -> Self {
        Self::Unknown { id: id.as_str().to_owned() }
    }
}

/// Why bytes are no record of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("transaction format {found} is not known to this version, which reads format {known}")]
    Format {
        /// What the bytes say.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A kind of record of another version.
    #[error("transaction records have no kind {kind}")]
    Kind {
        /// What the bytes say.
        kind: u8,
    },
    /// Not what stands at this place.
    #[error("{what} expected at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
        /// What should be there.
        what: &'static str,
    },
    /// More than there may be.
    #[error("{found} {what} are over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many the bytes say.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A record of another id.
    #[error("a record of transactional id {found:?} among those of {expected:?}")]
    Id {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}
