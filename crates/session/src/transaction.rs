//! Frames about transactions as typed requests.

use std::time::Duration;

use corelane_model::limits::TRANSACTION_TIMEOUT_DEFAULT;
use corelane_model::{CorrelationId, Decision, ErrorCode, ProducerEpoch, ProducerId, Transaction, TransactionalId};
use corelane_wire::{EndTransaction, Frame, FrameKind, InitialiseTransactions, decode};

use crate::request::{NoRequest, refuse};

/// A request for one transactional id. Its coordinator answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRequest {
    /// Ties the answer.
    pub correlation: CorrelationId,
    /// The id.
    pub id: TransactionalId,
    /// What is asked.
    pub ask: TransactionAsk,
}

/// What is asked of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionAsk {
    /// Take it over.
    Initialise {
        /// How long a transaction may take, bounds not checked yet.
        timeout: Duration,
    },
    /// End its transaction.
    End {
        /// Which.
        transaction: Transaction,
        /// How.
        decision: Decision,
    },
}

pub(crate) fn id_of(id: &str) -> Result<TransactionalId, NoRequest> {
    TransactionalId::parse(id).map_err(|error| refuse(ErrorCode::InvalidTransactionalId, error.to_string()))
}

/// What a frame about one transactional id asks for; `None` when its kind is about something else.
pub(crate) fn parse_transaction(frame: &Frame) -> Result<Option<TransactionRequest>, NoRequest> {
    let correlation = frame.head.correlation;
    let (id, ask) = match frame.head.kind {
        FrameKind::InitialiseTransactions => {
            let InitialiseTransactions { id, timeout_ms } = decode(frame)?;
            let timeout = match timeout_ms {
                0 => TRANSACTION_TIMEOUT_DEFAULT,
                millis => Duration::from_millis(millis.into()),
            };
            (id, TransactionAsk::Initialise { timeout })
        }
        FrameKind::EndTransaction => {
            let EndTransaction { id, producer, epoch, decision } = decode(frame)?;
            let transaction = Transaction::new(ProducerId(producer), ProducerEpoch(epoch));
            let decision = match decision {
                1 => Decision::Commit,
                2 => Decision::Abort,
                other => {
                    let text = format!("decision {other} is not known; 1 (commit) and 2 (abort) are");
                    return Err(refuse(ErrorCode::InvalidSetting, text));
                }
            };
            (id, TransactionAsk::End { transaction, decision })
        }
        _ => return Ok(None),
    };
    Ok(Some(TransactionRequest { correlation, id: id_of(&id)?, ask }))
}
