//! Errors of transactions.

use corelane_client_core::{CommitError, DeliveryTimeError, RequestError};
use corelane_model::{Decision, ErrorCode, NameError};
use corelane_record::PushError;

/// Why something of a transaction was not done. Each says what state is left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The name cannot be a topic's. Nothing has changed.
    #[error(transparent)]
    Topic(#[from] NameError),
    /// The record does not fit into any batch. Nothing has changed.
    #[error(transparent)]
    Record(#[from] PushError),
    /// Shared queues do not wait so long. The record was not taken; the transaction goes on.
    #[error(transparent)]
    DeliveryTime(#[from] DeliveryTimeError),
    /// The broker refused or did not answer. If it was a batch, offsets or an end, it may have been carried out.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The member commits by itself or is in no group at the moment. Nothing is staged; the transaction can only be aborted.
    #[error("offsets of a member of group {group} can be staged only while it is in the group and with manual_commit")]
    NotByHand {
        /// The group.
        group: String,
    },
    /// The member does not have a partition any more of which offsets were to be staged, or has it anew: others have done and
    /// committed something of it meanwhile. Nothing is staged; the transaction can only be aborted.
    #[error("offsets of a member of group {group} cannot be staged: {error}")]
    Offsets {
        /// The group.
        group: String,
        /// Which partition.
        error: CommitError,
    },
    /// The last end is not answered, so nobody knows whether it was carried out: ask with
    /// [`Transactional::resolve`](crate::Transactional::resolve).
    #[error("whether the last transaction of {id} ended with its {decision} is not known: ask with resolve")]
    Undecided {
        /// The transactional id.
        id: String,
        /// What was asked for.
        decision: Decision,
    },
    /// A batch or offsets of the transaction were refused or not answered, so nothing more is taken for it and it can only
    /// be aborted.
    #[error("the transaction of {id} can only be aborted: {}", why(.because.as_deref()))]
    AbortOnly {
        /// The transactional id.
        id: String,
        /// The first failure; `None` when staging was given up before its answer.
        because: Option<Box<Self>>,
    },
    /// The transaction is aborted. The next one may begin.
    #[error("the transaction of {id} is aborted: {}", why(.because.as_deref()))]
    Aborted {
        /// The transactional id.
        id: String,
        /// The first failure; `None` when its time was over, or staging was given up before its answer.
        because: Option<Box<Self>>,
    },
    /// Another client has opened the transactional id since. What was open is aborted.
    #[error("another client has the transactional id {id} now, or it was forgotten; open it again to take it over")]
    Fenced {
        /// The transactional id.
        id: String,
    },
}

impl TransactionError {
    /// Whether the transaction may be done again from its beginning.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Aborted { because: None, .. } | Self::AbortOnly { because: None, .. } => true,
            Self::Aborted { because: Some(because), .. } | Self::AbortOnly { because: Some(because), .. } => {
                because.is_retriable()
            }
            // Its time was over, or the member lost what it had read: both are told again.
            Self::Request(RequestError::Refused { code, .. }) if is_over(*code) => true,
            Self::Offsets { .. } => true,
            Self::Request(error) => error.is_retriable(),
            Self::Topic(_)
            | Self::Record(_)
            | Self::DeliveryTime(_)
            | Self::NotByHand { .. }
            | Self::Undecided { .. }
            | Self::Fenced { .. } => false,
        }
    }
}

/// Whether a refusal says that a transaction, a member's turn or its life in the group is over: the next may begin.
const fn is_over(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TransactionEnded
            | ErrorCode::StaleGeneration
            | ErrorCode::NotPartitionOwner
            | ErrorCode::UnknownMember
            | ErrorCode::MemberFenced
    )
}

fn why(because: Option<&TransactionError>) -> String {
    because.map_or_else(|| "its time was over, or it was given up".to_owned(), ToString::to_string)
}
