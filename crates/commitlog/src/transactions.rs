//! Transactions as one partition knows them: which are open and which were aborted.
//!
//! ```text
//!              a batch of it is appended                decided: commit
//!   (unknown) ───────────────────────────▶ Open ─────────────────────────▶ (forgotten: its batches are as any other)
//!                                           │
//!                                           └─ decided: abort ─▶ Aborted ──▶ (forgotten when its records are given up)
//! ```
//! Batches name their transaction in their heads and are never changed; there are no markers among them, so that offsets
//! stay dense. Who decides is no matter of the log.

use std::collections::BTreeMap;

use corelane_model::limits::{PARTITION_TRANSACTION_BYTES, PARTITION_TRANSACTIONS_MAX};
use corelane_model::{Cleanup, Decision, Offset, ProducerEpoch, ProducerId, TopicClass, Transaction};
use corelane_record::BatchHead;

use crate::producers::Verdict;
use crate::{AppendError, CommitLog, OFFSET_MAX, ReplayError};

/// Where the records of a transaction lie, among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) first: Offset,
    /// Exclusive.
    pub(crate) end: Offset,
}

/// A transaction ended in a partition: what goes into the journal, so that a restart comes to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionEnd {
    /// Which.
    pub transaction: Transaction,
    /// What was decided.
    pub decision: Decision,
    /// Offset of its first record.
    pub first: Offset,
    /// All its records lie before this.
    pub end: Offset,
}

/// The transactions of a partition that readers of committed records have to know. No batch of a new one is taken beyond
/// [`PARTITION_TRANSACTIONS_MAX`], open and aborted ones together; a log that is put together again may have more, since
/// the journal can hold batches whose room was made by a note that a crash took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    open: BTreeMap<Transaction, Reach>,
    aborted: BTreeMap<Transaction, Reach>,
    /// Kept because it is asked for much more often than it changes.
    first_open: Option<Offset>,
}

impl Transactions {
    /// The open ones, with the offsets of their first records.
    pub fn open(&self) -> impl Iterator<Item = (Transaction, Offset)> {
        self.open.iter().map(|(&transaction, reach)| (transaction, reach.first))
    }

    /// Whether none is open.
    pub(crate) fn is_none_open(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether it has batches here and is not decided.
    pub(crate) fn is_open(&self, transaction: Transaction) -> bool {
        self.open.contains_key(&transaction)
    }

    pub(crate) fn open_reaches(&self) -> impl Iterator<Item = (Transaction, Reach)> {
        self.open.iter().map(|(&transaction, &reach)| (transaction, reach))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.aborted.is_empty()
    }

    /// How many are open and how many were aborted.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.open.len(), self.aborted.len())
    }

    pub(crate) fn aborted(&self) -> impl Iterator<Item = (Transaction, Reach)> {
        self.aborted.iter().map(|(&transaction, &reach)| (transaction, reach))
    }

    /// Offset of the first record of any that is open.
    pub(crate) const fn first_open(&self) -> Option<Offset> {
        self.first_open
    }

    /// Whether a batch belongs to one that was aborted.
    pub(crate) fn is_aborted(&self, head: &BatchHead) -> bool {
        !self.aborted.is_empty()
            && head.transaction().is_some_and(|transaction| self.aborted.contains_key(&transaction))
    }

    /// Whether a batch may be appended, as far as transactions go.
    fn judge(&self, head: &BatchHead) -> Result<(), AppendError> {
        let producer = head.producer_id;
        let Some(transaction) = head.transaction() else {
            let whole =
                Transaction::new(producer, ProducerEpoch(0))..=Transaction::new(producer, ProducerEpoch(u16::MAX));
            return match self.open.range(whole).next() {
                Some((&open, _)) if producer != ProducerId::NONE => Err(AppendError::OutsideTransaction { open }),
                _ => Ok(()),
            };
        };
        if self.aborted.contains_key(&transaction) {
            return Err(AppendError::TransactionEnded { transaction });
        }
        let known = self.open.len() + self.aborted.len();
        if !self.open.contains_key(&transaction) && PARTITION_TRANSACTIONS_MAX <= known {
            return Err(AppendError::TooManyTransactions { known, limit: PARTITION_TRANSACTIONS_MAX });
        }
        Ok(())
    }

    /// A batch was appended.
    pub(crate) fn record(&mut self, head: &BatchHead, base: Offset) {
        let Some(transaction) = head.transaction().filter(|transaction| transaction.producer != ProducerId::NONE)
        else {
            return;
        };
        let end = base.advance(u64::from(head.offset_span));
        if let Some(reach) = self.open.get_mut(&transaction).or_else(|| self.aborted.get_mut(&transaction)) {
            reach.end = reach.end.max(end);
            return;
        }
        self.restore_open(transaction, Reach { first: base, end });
    }

    /// Puts back an open one. False if it is there already.
    pub(crate) fn restore_open(&mut self, transaction: Transaction, reach: Reach) -> bool {
        let is_known = self.open.contains_key(&transaction) || self.aborted.contains_key(&transaction);
        if is_known {
            return false;
        }
        self.open.insert(transaction, reach);
        self.first_open = Some(self.first_open.map_or(reach.first, |known| known.min(reach.first)));
        true
    }

    /// Puts back an aborted one. False if it is there already.
    pub(crate) fn restore_aborted(&mut self, transaction: Transaction, reach: Reach) -> bool {
        let is_known = self.open.contains_key(&transaction) || self.aborted.contains_key(&transaction);
        if is_known {
            return false;
        }
        self.aborted.insert(transaction, reach);
        true
    }

    /// Takes an end in; one that is taken in already changes nothing.
    fn end(&mut self, end: &TransactionEnd) {
        let was_open = self.open.remove(&end.transaction).is_some();
        if was_open {
            self.first_open = self.open.values().map(|reach| reach.first).min();
            #[cfg(planted)]
            if corelane_model::planted::is_planted(corelane_model::planted::Bug::StablePastOpen) {
                self.first_open = self.open.values().map(|reach| reach.first).next();
            }
        }
        if end.decision == Decision::Abort {
            self.restore_aborted(end.transaction, Reach { first: end.first, end: end.end });
        }
    }

    /// Forgets aborted ones whose records are all given up.
    pub(crate) fn drop_below(&mut self, log_start: Offset) {
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::AbortedVisible) {
            self.aborted.retain(|_, reach| log_start <= reach.first);
        }
        self.aborted.retain(|_, reach| log_start < reach.end);
    }

    /// Bytes of memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let (open, aborted) = self.counts();
        (open + aborted) as u64 * PARTITION_TRANSACTION_BYTES
    }
}

impl CommitLog {
    /// Exclusive end of what readers of committed records may read: everything before it is decided and durable. Such a
    /// reader also leaves out what [`CommitLog::is_aborted`].
    ///
    /// Moves back only by a restart: ends of transactions that were not durable yet are told to the log again.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        let end = self.high_watermark();
        let first = self.state.transactions.first_open().map(|first| first.max(self.log_start()));
        first.map_or(end, |first| first.min(end))
    }

    /// Whether a batch of this log, by its head, is of a transaction that was aborted.
    #[must_use]
    pub fn is_aborted(&self, head: &BatchHead) -> bool {
        self.state.transactions.is_aborted(head)
    }

    /// Whether any batch of this log may be [`CommitLog::is_aborted`].
    #[must_use]
    pub fn has_aborted(&self) -> bool {
        self.state.transactions.counts().1 != 0
    }

    /// Whether the transaction has batches here and is not decided.
    #[must_use]
    pub fn is_open(&self, transaction: Transaction) -> bool {
        self.state.transactions.is_open(transaction)
    }

    /// Bytes of memory that its open and aborted transactions take, about.
    #[must_use]
    pub fn transaction_bytes(&self) -> u64 {
        self.state.transactions.memory_bytes()
    }

    /// Whether the log would take the batch and remember one more transaction for it.
    #[must_use]
    pub fn begins_transaction(&self, head: &BatchHead) -> bool {
        let is_new = head.transaction().is_some_and(|transaction| !self.is_open(transaction));
        is_new
            && head.producer_id != ProducerId::NONE
            && self.judge_transaction(head).is_ok()
            && self.state.producers.judge(head) == Ok(Verdict::Fresh)
    }

    /// The transaction is decided. Returns what the journal must hold of it before whoever decided may forget; nothing if
    /// the transaction has no batch here that waits, which is so when it was told before.
    ///
    /// Readers see the end at once: a decision that a crash takes away here is told again.
    pub fn end_transaction(&mut self, transaction: Transaction, decision: Decision) -> Option<TransactionEnd> {
        let &Reach { first, end } = self.state.transactions.open.get(&transaction)?;
        let end = TransactionEnd { transaction, decision, first, end };
        self.state.transactions.end(&end);
        self.state.transactions.drop_below(self.state.log_start);
        match decision {
            Decision::Commit => self.stats.committed_transactions += 1,
            Decision::Abort => self.stats.aborted_transactions += 1,
        }
        self.check();
        Some(end)
    }

    /// Whether the batch may be appended, as far as transactions go.
    pub(crate) fn judge_transaction(&self, head: &BatchHead) -> Result<(), AppendError> {
        if let Some(transaction) = head.transaction()
            && (self.settings.class != TopicClass::Durable || self.settings.cleanup == Cleanup::Compact)
        {
            return Err(AppendError::NotDurable { transaction });
        }
        self.state.transactions.judge(head)
    }

    /// A note from the journal that a transaction ended.
    ///
    /// # Errors
    /// It is beyond what any log reaches; it is left out.
    pub fn replay_transaction_end(&mut self, end: &TransactionEnd) -> Result<(), ReplayError> {
        if OFFSET_MAX < end.end.0 || OFFSET_MAX < end.first.0 {
            return Err(ReplayError::OffsetTooLarge { found: end.end.max(end.first), limit: OFFSET_MAX });
        }
        if end.end <= end.first || end.transaction.producer == ProducerId::NONE {
            return Err(ReplayError::EmptyTransaction { transaction: end.transaction });
        }
        self.state.transactions.end(end);
        self.state.transactions.drop_below(self.state.log_start);
        // Its last records may be lost to damage; their offsets were given all the same.
        self.state.log_end = self.state.log_end.max(end.end);
        self.after_replay();
        Ok(())
    }
}
