//! What a worker is answered.

use corelane_client_core::{Answer, GroupAnswer, OperationKey, RequestError, TransactionAnswer};
use corelane_model::{Decision, ErrorCode};
use corelane_wire::EndTransactionAnswer;

use super::life::{Life, Next, Staging, State, Writing};
use super::{Around, fetched};
use crate::client::transaction::Producer;
use crate::oracle::TransactionKey;
use crate::{Oracle, Violation};

/// Somebody else has the transactional id, or it is forgotten.
const fn is_fenced(result: &Result<Answer, RequestError>) -> bool {
    let Err(RequestError::Refused { code, .. }) = result else { return false };
    matches!(code, ErrorCode::ProducerFenced | ErrorCode::UnknownTransaction)
}

impl Life {
    /// Something was answered, or came to nothing.
    ///
    /// # Errors
    /// It breaks a promise of transactions.
    pub(super) fn on_done(
        &mut self,
        around: &mut Around<'_>,
        operation: OperationKey,
        result: Result<Answer, RequestError>,
    ) -> Result<Next, Violation> {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Initialising { claim, .. } => {
                if let Ok(Answer::Transaction(TransactionAnswer::Initialised(answer))) = result {
                    around.oracle.on_initialised(claim);
                    let (id, epoch, home) = (answer.producer, answer.epoch, answer.home);
                    self.state = State::Ready(Producer { id, epoch, home, claim });
                }
                Ok(self.pause(around))
            }
            State::Writing(producer, writing) => self.on_written(around, producer, writing, operation, result),
            State::Ending { producer, transaction, decision, .. } => {
                self.on_ended(around, (producer, transaction), decision, &result)
            }
            State::Rewinding { producer, known, .. } => {
                self.state = State::Ready(producer);
                if let Ok(Answer::Group(GroupAnswer::Offsets(answer))) = result {
                    for &(partition, known) in &known {
                        around.oracle.on_offset_told(partition, known, fetched(&answer, partition))?;
                    }
                    self.view.rewind(around, |partition| fetched(&answer, partition));
                    self.must_rewind = false;
                }
                Ok(self.pause(around))
            }
            State::Absent | State::Ready(_) | State::Dropped(..) => unreachable!("nothing is waited for"),
        }
    }

    /// A batch or the offsets of a transaction were taken, or were not.
    fn on_written(
        &mut self,
        around: &mut Around<'_>,
        producer: Producer,
        mut writing: Writing,
        operation: OperationKey,
        result: Result<Answer, RequestError>,
    ) -> Result<Next, Violation> {
        if is_fenced(&result) {
            self.state = State::Writing(producer, writing);
            return Ok(Next::Over);
        }
        let sent = writing.open.remove(&operation);
        match (result, sent, writing.staging) {
            (Ok(Answer::Appended { base_offset }), Some(sent), _) => {
                if sent.was_taken_over {
                    return Err(Oracle::not_fenced(sent.partition, writing.transaction));
                }
                for (index, record) in (0..).zip(sent.records) {
                    around.oracle.on_stored(sent.partition, base_offset.advance(index), record)?;
                }
            }
            (Ok(_), None, Staging::Asked { was_taken_over: true, .. }) => {
                let what = format!("offsets of transaction {} were staged by who was shut out", writing.transaction);
                return Err(Violation::Pipeline { what });
            }
            (Ok(_), None, _) => writing.staging = Staging::Done,
            _ => writing.has_failed = true,
        }
        self.state = State::Writing(producer, writing);
        Ok(self.pause(around))
    }

    /// The answer to the end of a transaction.
    fn on_ended(
        &mut self,
        around: &mut Around<'_>,
        (producer, transaction): (Producer, TransactionKey),
        decision: Decision,
        result: &Result<Answer, RequestError>,
    ) -> Result<Next, Violation> {
        match result {
            &Ok(Answer::Transaction(TransactionAnswer::Ended(EndTransactionAnswer { producer: id, epoch }))) => {
                around.oracle.on_decided(transaction, decision)?;
                if decision == Decision::Commit {
                    around.oracle.on_offsets_committed(transaction);
                    self.must_rewind = false;
                }
                if id != 0 {
                    self.state = State::Ready(Producer { id, epoch, ..producer });
                }
                Ok(self.pause(around))
            }
            // Its time was over: the other end says where the next transaction begins.
            Err(RequestError::Refused { code: ErrorCode::TransactionEnded, .. }) if decision == Decision::Commit => {
                around.oracle.on_decided(transaction, Decision::Abort)?;
                Ok(self.ask_end(around, (producer, transaction), Decision::Abort))
            }
            Err(RequestError::Refused { code: ErrorCode::TransactionEnded, .. }) => {
                around.oracle.on_decided(transaction, Decision::Commit)?;
                Ok(Next::Over)
            }
            _ if is_fenced(result) => Ok(Next::Over),
            // Nobody knows; asked again, the coordinator does.
            _ if around.is_calm || !around.random.is_one_in(4) => {
                Ok(self.ask_end(around, (producer, transaction), decision))
            }
            _ => Ok(Next::Over),
        }
    }
}
