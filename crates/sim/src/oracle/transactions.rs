//! What became of transactions, by what their clients asked and were told: whoever reads committed records sees all of one or
//! nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use corelane_model::{Decision, Offset, PartitionId};

use super::{Ledger, Oracle, ReadSpan, Violation};
use crate::RecordId;

/// A transaction of the workload, unique for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionKey(pub u64);

impl fmt::Display for TransactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A promise about transactions that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionViolation {
    /// A reader of committed records was shown one of a transaction that nobody asked to commit, or that is aborted.
    #[error("{partition} offset {offset}: a reader of committed records is shown {record} of {transaction}, {fate}")]
    Shown {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// The record.
        record: RecordId,
        /// Its transaction.
        transaction: TransactionKey,
        /// What is known of it.
        fate: Fate,
    },
    /// A reader of committed records went past one that it must be shown.
    #[error("{partition} offset {offset}: a reader of committed records is not shown {record}, {what}")]
    Hidden {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// The record.
        record: RecordId,
        /// Why it must be shown.
        what: &'static str,
    },
    /// One record of a transaction was shown to readers of committed records and another was left out.
    #[error("{partition}: transaction {transaction} is seen in part: {record} at offset {offset} is the other way")]
    Torn {
        /// Where.
        partition: PartitionId,
        /// The transaction.
        transaction: TransactionKey,
        /// The record that differs from those before.
        record: RecordId,
        /// Its place.
        offset: Offset,
    },
    /// A transaction was decided in a way that its client did not ask for, or in two ways.
    #[error("transaction {transaction}, {fate}, is reported to have ended by {decision}")]
    Decided {
        /// The transaction.
        transaction: TransactionKey,
        /// What was known of it.
        fate: Fate,
        /// What its client is told.
        decision: Decision,
    },
    /// A client wrote within a transaction after another had taken the transactional id over.
    #[error("{partition}: a batch of transaction {transaction} was taken, though its client had been shut out before")]
    NotFenced {
        /// Where.
        partition: PartitionId,
        /// The transaction.
        transaction: TransactionKey,
    },
}

/// What is known of a transaction's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody asked to commit it.
    Open,
    /// A commit was asked for and not answered: either way, but one.
    Asked,
    /// Answered as committed.
    Committed,
    /// Answered as aborted.
    Aborted,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "which nobody asked to commit",
            Self::Asked => "whose commit is not answered",
            Self::Committed => "which is committed",
            Self::Aborted => "which is aborted",
        })
    }
}

/// Who has a transactional id: one answered initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim(usize);

#[derive(Debug)]
struct Initialisation {
    id: String,
    /// When it was asked for, and answered, on a scale that only orders.
    asked: u64,
    answered: Option<u64>,
}

#[derive(Debug)]
struct Known {
    fate: Fate,
    /// A record of it was shown to a reader of committed records.
    is_seen: bool,
    /// A reader of committed records went past one.
    is_passed: bool,
}

/// All transactions of the run.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    known: BTreeMap<TransactionKey, Known>,
    of: BTreeMap<RecordId, TransactionKey>,
    initialisations: Vec<Initialisation>,
    ticks: u64,
}

impl Transactions {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// Whether readers of committed records must be shown it: it is of no transaction, or of one that is committed.
    pub(super) fn is_surely_seen(&self, record: RecordId) -> bool {
        let transaction = self.of.get(&record).and_then(|transaction| self.known.get(transaction));
        transaction.is_none_or(|known| known.fate == Fate::Committed)
    }

    fn known(&mut self, transaction: TransactionKey) -> &mut Known {
        self.known.get_mut(&transaction).expect("the workload began it")
    }

    /// A reader of committed records is shown a record.
    pub(super) fn on_shown(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        record: RecordId,
    ) -> Result<(), TransactionViolation> {
        let Some(&transaction) = self.of.get(&record) else { return Ok(()) };
        let known = self.known(transaction);
        let fate = known.fate;
        if matches!(fate, Fate::Open | Fate::Aborted) {
            return Err(TransactionViolation::Shown { partition, offset, record, transaction, fate });
        }
        known.is_seen = true;
        if known.is_passed {
            return Err(TransactionViolation::Torn { partition, transaction, record, offset });
        }
        Ok(())
    }

    /// What is known of a transaction's end.
    pub(super) fn fate(&self, transaction: TransactionKey) -> Fate {
        self.known[&transaction].fate
    }

    /// Somebody is told that an offset is committed which this transaction alone may have committed.
    pub(super) fn on_offsets_seen(
        &mut self,
        transaction: TransactionKey,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), Violation> {
        let known = self.known(transaction);
        known.is_seen = true;
        if known.is_passed {
            let what = format!(
                "offset {offset} of {partition} is committed, and a record of its transaction {transaction} was left out"
            );
            return Err(Violation::Pipeline { what });
        }
        Ok(())
    }

    /// A reader of committed records is past a record that it was not shown.
    fn on_passed(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        record: RecordId,
    ) -> Result<(), TransactionViolation> {
        let Some(&transaction) = self.of.get(&record) else {
            let what = "which is in no transaction";
            return Err(TransactionViolation::Hidden { partition, offset, record, what });
        };
        let known = self.known(transaction);
        if known.fate == Fate::Committed {
            let what = "whose transaction is committed";
            return Err(TransactionViolation::Hidden { partition, offset, record, what });
        }
        known.is_passed = true;
        if known.is_seen {
            return Err(TransactionViolation::Torn { partition, transaction, record, offset });
        }
        Ok(())
    }

    /// A reader of committed records goes on at `range.end` where `range.start` came next: whatever is known to stand
    /// between must be of transactions that are not committed.
    pub(super) fn on_range_passed(
        &mut self,
        partition: PartitionId,
        ledger: &Ledger,
        range: Range<Offset>,
    ) -> Result<(), TransactionViolation> {
        let from = range.start.max(ledger.log_start);
        if from < range.end && !ledger.is_compacted {
            for (&offset, &(record, _)) in ledger.places.range(from..range.end) {
                self.on_passed(partition, offset, record)?;
            }
        }
        Ok(())
    }
}

impl Oracle {
    /// A client asks for a transactional id.
    pub fn on_initialising(&mut self, id: &str) -> Claim {
        let asked = self.transactions.tick();
        let initialisations = &mut self.transactions.initialisations;
        initialisations.push(Initialisation { id: id.to_owned(), asked, answered: None });
        Claim(initialisations.len() - 1)
    }

    /// It has it.
    pub fn on_initialised(&mut self, claim: Claim) {
        let answered = self.transactions.tick();
        self.transactions.initialisations[claim.0].answered = Some(answered);
    }

    /// Whether somebody has surely taken the transactional id over since: asked after this claim was answered, and was
    /// answered too.
    #[must_use]
    pub fn is_taken_over(&self, claim: Claim) -> bool {
        let all = &self.transactions.initialisations;
        let Some(since) = all[claim.0].answered else { return false };
        all.iter().any(|other| other.id == all[claim.0].id && since < other.asked && other.answered.is_some())
    }

    /// A client begins a transaction.
    pub fn begin_transaction(&mut self) -> TransactionKey {
        let key = TransactionKey(self.transactions.known.len() as u64);
        self.transactions.known.insert(key, Known { fate: Fate::Open, is_seen: false, is_passed: false });
        key
    }

    /// The workload sends a record within a transaction.
    pub fn on_sent_within(&mut self, transaction: TransactionKey, partition: PartitionId, record: RecordId) {
        self.on_sent(partition, record, None);
        self.transactions.of.insert(record, transaction);
    }

    /// A client asks to commit: from now on readers of committed records may see it.
    pub fn on_committing(&mut self, transaction: TransactionKey) {
        let known = self.transactions.known(transaction);
        assert_eq!(known.fate, Fate::Open, "transaction {transaction} is committed once");
        known.fate = Fate::Asked;
    }

    /// A client was told how its transaction ended.
    ///
    /// # Errors
    /// It cannot have ended so, by what was asked for or what readers saw.
    pub fn on_decided(&mut self, transaction: TransactionKey, decision: Decision) -> Result<(), Violation> {
        let known = self.transactions.known(transaction);
        let (fate, is_otherwise) = match decision {
            Decision::Commit => (Fate::Committed, known.is_passed),
            Decision::Abort => (Fate::Aborted, known.is_seen),
        };
        let may_end_so = match decision {
            Decision::Commit => known.fate == Fate::Asked,
            Decision::Abort => known.fate != Fate::Committed,
        };
        if is_otherwise || !may_end_so {
            let fate = known.fate;
            return Err(TransactionViolation::Decided { transaction, fate, decision }.into());
        }
        known.fate = fate;
        Ok(())
    }

    /// A batch of a transaction was taken that left after the client had been shut out.
    #[must_use]
    pub fn not_fenced(partition: PartitionId, transaction: TransactionKey) -> Violation {
        TransactionViolation::NotFenced { partition, transaction }.into()
    }

    /// A reader of committed records hears that nothing before `next` will come.
    ///
    /// # Errors
    /// Something that stands there must be shown.
    pub fn on_passed(&mut self, client: u32, partition: PartitionId, next: Offset) -> Result<(), Violation> {
        let reader = self.readers.get_mut(&(client, partition)).expect("a consumer was begun");
        let expected = reader.expected.unwrap_or(next);
        reader.expected = Some(expected.max(next));
        let ledger = &self.ledgers[&partition];
        Ok(self.transactions.on_range_passed(partition, ledger, expected..next)?)
    }

    /// A reader of committed records read a partition from its log start to its end after everything was decided, but for
    /// ranges that it was told are damaged.
    ///
    /// # Errors
    /// A stored record of no transaction or of a committed one was not among what it was shown, or a transaction was seen in
    /// part.
    pub fn on_committed_read_whole(
        &mut self,
        partition: PartitionId,
        shown: &BTreeMap<Offset, RecordId>,
        damaged: &[Range<Offset>],
        span: ReadSpan,
    ) -> Result<(), Violation> {
        let ledger = &self.ledgers[&partition];
        for (&offset, &record) in &ledger.stored {
            let is_damaged = damaged.iter().any(|range| range.contains(&offset));
            if is_damaged || shown.get(&offset) == Some(&record) || ledger.may_be_gone(offset, record, shown, span) {
                continue;
            }
            self.transactions.on_passed(partition, offset, record)?;
        }
        if damaged.is_empty() { ledger.check_deletions(partition, shown, span) } else { Ok(()) }
    }

    /// How many transactions were answered as committed, and how many there were.
    #[must_use]
    pub fn transaction_counts(&self) -> (usize, usize) {
        let known = &self.transactions.known;
        (known.values().filter(|known| known.fate == Fate::Committed).count(), known.len())
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{Incarnation, Isolation, PartitionIndex, TopicClass, TopicId};

    use super::*;

    const READER: u32 = 7;

    fn partition(index: u32) -> PartitionId {
        PartitionId::new(TopicId(1), PartitionIndex(index))
    }

    fn record(number: u32) -> RecordId {
        RecordId { client: 0, number }
    }

    /// Two partitions with a record each of one transaction at offset 0, and one of none behind it.
    fn oracle() -> (Oracle, TransactionKey) {
        let mut oracle = Oracle::default();
        let transaction = oracle.begin_transaction();
        for index in 0..2 {
            oracle.open_partition(partition(index), TopicClass::Durable, false);
            oracle.on_reader(READER, partition(index), Isolation::Committed, Some(Offset(0)));
            oracle.on_sent_within(transaction, partition(index), record(index));
            oracle.on_sent(partition(index), record(10 + index), None);
            oracle.on_stored(partition(index), Offset(0), record(index)).expect("nothing else is there");
            oracle.on_stored(partition(index), Offset(1), record(10 + index)).expect("nothing else is there");
        }
        (oracle, transaction)
    }

    fn show(oracle: &mut Oracle, index: u32, offset: u64, number: u32) -> Result<(), Violation> {
        oracle.on_shown(READER, partition(index), Incarnation(1), Offset(offset), record(number))
    }

    #[test]
    fn what_nobody_asked_to_commit_is_not_shown() {
        let (mut oracle, _) = oracle();
        assert!(matches!(
            show(&mut oracle, 0, 0, 0),
            Err(Violation::Transaction(TransactionViolation::Shown { fate: Fate::Open, .. }))
        ));
    }

    #[test]
    fn a_transaction_is_seen_whole_or_not_at_all() {
        let (mut oracle, transaction) = oracle();
        oracle.on_committing(transaction);
        show(&mut oracle, 0, 0, 0).expect("it may be committed");
        let torn = show(&mut oracle, 1, 1, 11);
        assert!(matches!(torn, Err(Violation::Transaction(TransactionViolation::Torn { .. }))), "{torn:?}");
    }

    #[test]
    fn what_is_answered_as_committed_must_be_shown() {
        let (mut oracle, transaction) = oracle();
        oracle.on_committing(transaction);
        oracle.on_decided(transaction, Decision::Commit).expect("it was asked for");
        let hidden = oracle.on_passed(READER, partition(1), Offset(1));
        assert!(matches!(hidden, Err(Violation::Transaction(TransactionViolation::Hidden { .. }))), "{hidden:?}");
        let shown = BTreeMap::from([(Offset(1), record(10))]);
        let span = ReadSpan { until: corelane_model::WallMillis(0), took: std::time::Duration::ZERO };
        assert!(oracle.on_committed_read_whole(partition(0), &shown, &[], span).is_err());
    }

    #[test]
    fn what_is_in_no_transaction_must_be_shown() {
        let (mut oracle, transaction) = oracle();
        oracle.on_decided(transaction, Decision::Abort).expect("nobody asked to commit it");
        oracle.on_passed(READER, partition(0), Offset(1)).expect("it is aborted");
        assert!(oracle.on_passed(READER, partition(0), Offset(2)).is_err());
    }

    #[test]
    fn whoever_asks_later_takes_the_id_over() {
        let mut oracle = Oracle::default();
        let [first, meanwhile] = [oracle.on_initialising("a"), oracle.on_initialising("a")];
        oracle.on_initialised(first);
        oracle.on_initialised(meanwhile);
        assert!(!oracle.is_taken_over(first), "which of them came first is not known");
        let later = oracle.on_initialising("a");
        assert!(!oracle.is_taken_over(first));
        oracle.on_initialised(later);
        assert!(oracle.is_taken_over(first) && !oracle.is_taken_over(later));
    }
}
