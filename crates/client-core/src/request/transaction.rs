//! Requests of transactions, and their answers.

use corelane_model::CorrelationId;
use corelane_wire::{
    EndTransaction, EndTransactionAnswer, Frame, InitialiseTransactions, InitialiseTransactionsAnswer, OutFrame,
    StageOffsets, StageOffsetsAnswer, decode, encode,
};

/// A request to the coordinator of a transactional id, in the words of the wire. Each may be repeated: asked again, the
/// coordinator says the same, or hands out a newer producer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its frame says")]
pub enum TransactionRequest {
    Initialise(InitialiseTransactions),
    Stage(StageOffsets),
    End(EndTransaction),
}

/// The answer to a [`TransactionRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionAnswer {
    /// To [`TransactionRequest::Initialise`].
    Initialised(InitialiseTransactionsAnswer),
    /// To [`TransactionRequest::Stage`].
    Staged(StageOffsetsAnswer),
    /// To [`TransactionRequest::End`].
    Ended(EndTransactionAnswer),
}

impl TransactionRequest {
    pub(crate) fn encode(&self, correlation: CorrelationId) -> OutFrame {
        match self {
            Self::Initialise(body) => encode(correlation, body),
            Self::Stage(body) => encode(correlation, body),
            Self::End(body) => encode(correlation, body),
        }
    }

    /// The answer that belongs to it; `None` if the frame is anything else.
    pub(crate) fn read_answer(&self, frame: &Frame) -> Option<TransactionAnswer> {
        Some(match self {
            Self::Initialise(_) => TransactionAnswer::Initialised(decode(frame).ok()?),
            Self::Stage(_) => TransactionAnswer::Staged(decode(frame).ok()?),
            Self::End(_) => TransactionAnswer::Ended(decode(frame).ok()?),
        })
    }
}
