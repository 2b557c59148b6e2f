//! Exactly once: what is made of the records of one topic stands once in another, for whoever reads committed records, and
//! the committed offsets of the group that makes it say the same.
//!
//! An *input* is a record of the source by its place. Its *output* is the record that was made of it; there may be several in
//! the log, of which one at most may ever be seen.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{MonotonicNanos, Offset, PartitionId};

use super::transactions::Transactions;
use super::{Fate, Oracle, TransactionKey, Violation};
use crate::RecordId;

/// A record of the source, by its place.
pub(crate) type Input = (PartitionId, Offset);

/// Everything that is known of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    /// What each record was made of.
    made_of: BTreeMap<RecordId, Input>,
    /// The output that a reader of committed records was shown, and where.
    seen: BTreeMap<Input, (RecordId, PartitionId, Offset)>,
    /// Of which offset the last output was that a reader was shown, for each partition of the output and of the source.
    last: BTreeMap<(u32, PartitionId, PartitionId), Offset>,
    /// Offsets that a transaction was asked to commit.
    staged: BTreeMap<TransactionKey, BTreeMap<PartitionId, Offset>>,
    /// Records that a worker was shown.
    inputs: BTreeSet<Input>,
    /// The furthest committed offset that somebody was told of, or that was answered as committed.
    committed: BTreeMap<PartitionId, Offset>,
    /// When the group was last asked for all that it has committed, of those questions that were answered.
    asked: Option<MonotonicNanos>,
}

fn broken(what: String) -> Violation {
    Violation::Pipeline { what }
}

impl Pipeline {
    /// A worker is shown a record of the source, which needs an output from now on.
    pub(crate) fn on_input(&mut self, input: Input) {
        self.inputs.insert(input);
    }

    /// A transaction is asked to commit these offsets of the source.
    pub(crate) fn on_staging(&mut self, transaction: TransactionKey, offsets: &BTreeMap<PartitionId, Offset>) {
        self.staged.entry(transaction).or_default().extend(offsets);
    }

    /// A reader of committed records is shown a record of the output, or of anything else.
    pub(super) fn on_visible(
        &mut self,
        reader: u32,
        (partition, offset): (PartitionId, Offset),
        record: RecordId,
    ) -> Result<(), Violation> {
        let Some(&input) = self.made_of.get(&record) else { return Ok(()) };
        let (source, at) = input;
        let (first, first_partition, first_offset) = *self.seen.entry(input).or_insert((record, partition, offset));
        if first != record {
            let what = format!(
                "of offset {at} of {source} two outputs are seen: {first} at offset {first_offset} of {first_partition}, and \
                 {record} at offset {offset} of {partition}"
            );
            return Err(broken(what));
        }
        if let Some(before) = self.last.insert((reader, partition, source), at).filter(|&before| at < before) {
            let what = format!(
                "the output of offset {at} of {source} is seen behind that of offset {before}, at offset {offset} of \
                 {partition}"
            );
            return Err(broken(what));
        }
        Ok(())
    }

    /// Somebody is told what the group has committed of a partition, having asked when `told` was the furthest.
    fn on_told(
        &mut self,
        transactions: &mut Transactions,
        partition: PartitionId,
        (told, committed): (Option<Offset>, Option<Offset>),
        is_by_itself: bool,
    ) -> Result<(), Violation> {
        if committed < told {
            return Err(broken(format!("{committed:?} of {partition} is committed, {told:?} was before")));
        }
        let Some(offset) = committed else { return Ok(()) };
        let of = self.staged.iter().filter(|(_, offsets)| offsets.get(&partition) == Some(&offset));
        let fates = of.map(|(&transaction, _)| (transaction, transactions.fate(transaction))).collect::<Vec<_>>();
        let asked = fates.iter().filter(|(_, fate)| *fate == Fate::Asked).map(|(transaction, _)| *transaction);
        let asked = asked.collect::<Vec<_>>();
        if !is_by_itself && !fates.iter().any(|(_, fate)| *fate == Fate::Committed) {
            match asked[..] {
                [] => {
                    let what = format!(
                        "offset {offset} of {partition} is committed, by no transaction that may be: {fates:?}"
                    );
                    return Err(broken(what));
                }
                [transaction] => transactions.on_offsets_seen(transaction, partition, offset)?,
                // One of them is committed, nobody knows which.
                _ => {}
            }
        }
        let furthest = self.committed.entry(partition).or_default();
        *furthest = offset.max(*furthest);
        Ok(())
    }

    /// The furthest committed offset that is known.
    pub(crate) fn committed(&self, partition: PartitionId) -> Option<Offset> {
        self.committed.get(&partition).copied()
    }

    /// What has not come to its end since everything is calm, if anything.
    pub(crate) fn unfinished(&self, since: MonotonicNanos, ends: &[(PartitionId, Offset)]) -> Option<String> {
        if self.asked < Some(since) {
            return Some("nobody was told what the group has committed".to_owned());
        }
        let behind = ends.iter().find(|(partition, end)| self.committed(*partition).unwrap_or_default() < *end);
        if let Some((partition, end)) = behind {
            return Some(format!("{partition} is done to {:?}, not to {end}", self.committed(*partition)));
        }
        // What a worker was shown may stand behind every end that a producer was told.
        let is_open = |&&(partition, offset): &&Input| {
            self.committed(partition) <= Some(offset) || !self.seen.contains_key(&(partition, offset))
        };
        let (partition, offset) = self.inputs.iter().find(is_open)?;
        Some(format!("offset {offset} of {partition} is not done, or its output was not seen"))
    }

    /// Everything is done: what is seen is what is committed.
    ///
    /// # Errors
    /// An output is seen of what is not done, or none of something that is.
    pub(crate) fn check_agreement(&self) -> Result<(), Violation> {
        for &(partition, offset) in self.seen.keys() {
            if self.committed(partition) <= Some(offset) {
                let committed = self.committed(partition);
                let what = format!("an output of offset {offset} of {partition} is seen, committed is {committed:?}");
                return Err(broken(what));
            }
        }
        self.inputs.iter().try_for_each(|&(partition, offset)| self.check_seen(partition, offset))
    }

    fn check_seen(&self, partition: PartitionId, offset: Offset) -> Result<(), Violation> {
        let is_missing = Some(offset) < self.committed(partition) && !self.seen.contains_key(&(partition, offset));
        if is_missing {
            return Err(broken(format!("offset {offset} of {partition} is done, and its output is not seen")));
        }
        Ok(())
    }

    /// Somebody who begins anew was shown these records of a partition of the source: each of them has its output.
    ///
    /// # Errors
    /// One has none, though the group has done it.
    pub(crate) fn check_whole(
        &self,
        partition: PartitionId,
        shown: impl Iterator<Item = Offset>,
    ) -> Result<(), Violation> {
        shown.into_iter().try_for_each(|offset| self.check_seen(partition, offset))
    }

    /// How many outputs were seen.
    pub(crate) fn seen_count(&self) -> usize {
        self.seen.len()
    }
}

impl Oracle {
    /// A worker sends what it made of an input, within a transaction.
    pub(crate) fn on_output_sent(
        &mut self,
        transaction: TransactionKey,
        partition: PartitionId,
        record: RecordId,
        input: Input,
    ) {
        self.on_sent_within(transaction, partition, record);
        self.pipeline.made_of.insert(record, input);
    }

    /// A worker is told that its transaction is committed.
    pub(crate) fn on_offsets_committed(&mut self, transaction: TransactionKey) {
        let Some(offsets) = self.pipeline.staged.get(&transaction) else { return };
        for (&partition, &offset) in offsets {
            let committed = self.pipeline.committed.entry(partition).or_default();
            *committed = offset.max(*committed);
        }
    }

    /// A worker is told what the group has committed of a partition that it begins with, or asked for when `told` was the
    /// furthest that was known.
    ///
    /// # Errors
    /// That is less, or no transaction that may be committed has staged it, and it is not where the group began.
    pub(crate) fn on_offset_told(
        &mut self,
        partition: PartitionId,
        told: Option<Offset>,
        committed: Option<Offset>,
    ) -> Result<(), Violation> {
        let is_by_itself = committed.is_some_and(|offset| self.groups.may_be_committed_by_itself(partition, offset));
        self.pipeline.on_told(&mut self.transactions, partition, (told, committed), is_by_itself)
    }

    /// A question for all that the group has committed was answered.
    pub(crate) fn on_inspected(&mut self, asked: MonotonicNanos) {
        self.pipeline.asked = self.pipeline.asked.max(Some(asked));
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{Decision, Incarnation, Isolation, PartitionIndex, TopicClass, TopicId};

    use super::*;

    const SOURCE: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));
    const OUTPUT: PartitionId = PartitionId::new(TopicId(2), PartitionIndex(0));
    const READER: u32 = 7;

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.open_partition(OUTPUT, TopicClass::Durable, false);
        oracle.on_reader(READER, OUTPUT, Isolation::Committed, Some(Offset(0)));
        oracle
    }

    /// A transaction with the output of one input, whose commit is asked for.
    fn make(oracle: &mut Oracle, number: u32, input: u64) -> TransactionKey {
        let transaction = oracle.begin_transaction();
        let record = RecordId { client: 0, number };
        oracle.on_output_sent(transaction, OUTPUT, record, (SOURCE, Offset(input)));
        oracle.pipeline.on_input((SOURCE, Offset(input)));
        oracle.pipeline.on_staging(transaction, &BTreeMap::from([(SOURCE, Offset(input + 1))]));
        oracle.on_committing(transaction);
        transaction
    }

    fn show(oracle: &mut Oracle, offset: u64, number: u32) -> Result<(), Violation> {
        oracle.on_shown(READER, OUTPUT, Incarnation(1), Offset(offset), RecordId { client: 0, number })
    }

    fn text(result: Result<(), Violation>) -> String {
        result.expect_err("it must be found").to_string()
    }

    #[test]
    fn of_each_input_one_output_is_seen() {
        let mut oracle = oracle();
        make(&mut oracle, 0, 0);
        make(&mut oracle, 1, 0);
        show(&mut oracle, 0, 0).expect("the first");
        assert!(text(show(&mut oracle, 1, 1)).contains("two outputs are seen"));
    }

    #[test]
    fn outputs_stand_in_the_order_of_their_inputs() {
        let mut oracle = oracle();
        make(&mut oracle, 0, 5);
        make(&mut oracle, 1, 4);
        show(&mut oracle, 0, 0).expect("the first");
        assert!(text(show(&mut oracle, 1, 1)).contains("is seen behind"));
    }

    #[test]
    fn what_is_committed_was_staged_by_a_transaction_that_may_be() {
        let mut oracle = oracle();
        let transaction = make(&mut oracle, 0, 0);
        assert!(text(oracle.on_offset_told(SOURCE, None, Some(Offset(2)))).contains("by no transaction"));
        oracle.on_decided(transaction, Decision::Abort).expect("it may be");
        assert!(text(oracle.on_offset_told(SOURCE, None, Some(Offset(1)))).contains("by no transaction"));
        assert!(text(oracle.on_offset_told(SOURCE, Some(Offset(1)), None)).contains("was before"));
    }

    #[test]
    fn offsets_and_records_of_a_transaction_go_together() {
        let mut oracle = oracle();
        let transaction = make(&mut oracle, 0, 0);
        oracle.on_offset_told(SOURCE, None, Some(Offset(1))).expect("it may be committed");
        assert!(oracle.on_decided(transaction, Decision::Abort).is_err(), "its offset was committed");
        oracle.on_decided(transaction, Decision::Commit).expect("it was asked for");
        assert!(text(oracle.pipeline.check_agreement()).contains("its output is not seen"));
        show(&mut oracle, 0, 0).expect("it is committed");
        oracle.pipeline.check_agreement().expect("it is seen now");
    }

    #[test]
    fn nothing_is_seen_of_what_is_not_committed() {
        let mut oracle = oracle();
        make(&mut oracle, 0, 0);
        show(&mut oracle, 0, 0).expect("it may be committed");
        assert!(text(oracle.pipeline.check_agreement()).contains("committed is None"));
        assert!(oracle.pipeline.unfinished(MonotonicNanos(1), &[]).is_some(), "nobody has asked");
    }
}
