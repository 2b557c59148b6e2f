//! What must hold, kept beside what happened.
//!
//! The oracle knows every record that the workload sent, every acknowledgement that a producer got and everything that a
//! consumer was shown. It never looks inside the broker.

pub(crate) mod groups;
mod ids;
mod keys;
pub(crate) mod pipeline;
pub(crate) mod queues;
mod transactions;
mod violation;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use corelane_model::{Incarnation, Isolation, Offset, PartitionId, TopicClass};

use self::groups::Groups;
pub(crate) use self::ids::Repeatable;
use self::keys::Keys;
pub use self::keys::{KeyViolation, ReadSpan};
use self::pipeline::Pipeline;
use self::queues::Queues;
use self::transactions::Transactions;
pub use self::transactions::{Claim, Fate, TransactionKey, TransactionViolation};
pub use self::violation::{Source, Violation};

/// A record of the workload, unique for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Which client sent it.
    pub client: u32,
    /// Counts up within the client over all partitions, in the order of sending.
    pub number: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client, self.number)
    }
}

/// What is known of one partition.
#[derive(Debug)]
struct Ledger {
    class: TopicClass,
    /// Only the newest record of each key has to be there.
    is_compacted: bool,
    keys: Keys,
    /// Records that may stand behind what was sent after them.
    late: BTreeSet<RecordId>,
    sent: BTreeSet<RecordId>,
    /// Records whose producer was told that they are not in the log.
    refused: BTreeSet<RecordId>,
    /// What stands where, by whoever said it first.
    places: BTreeMap<Offset, (RecordId, Source)>,
    /// Where a record stands.
    offsets: BTreeMap<RecordId, Offset>,
    stored: BTreeMap<Offset, RecordId>,
    /// Where else a record stands that was a dead letter and was put back; none if nobody puts any back.
    copies: Option<BTreeMap<RecordId, BTreeSet<Offset>>>,
    /// The furthest end that was told as durable.
    durable_end: Offset,
    /// The furthest log start that was asked for.
    log_start: Offset,
    /// The furthest log start that was reported as durable.
    truncated: Offset,
}

/// Where a consumer is.
#[derive(Debug)]
struct Reader {
    isolation: Isolation,
    expected: Option<Offset>,
    incarnation: Incarnation,
    /// For each producing client its latest record here and that record's place.
    latest: BTreeMap<u32, (RecordId, Offset)>,
    /// Where keys' newest records stood that were acknowledged before it began.
    floor: BTreeMap<u64, Offset>,
    /// The last record of each key that it was shown.
    newest: BTreeMap<u64, Offset>,
}

/// Everything that is known from outside.
#[derive(Debug, Default)]
pub struct Oracle {
    ledgers: BTreeMap<PartitionId, Ledger>,
    readers: BTreeMap<(u32, PartitionId), Reader>,
    transactions: Transactions,
    repeatables: Vec<Repeatable>,
    /// The broker's present start.
    incarnation: Incarnation,
    pub(crate) groups: Groups,
    pub(crate) pipeline: Pipeline,
    pub(crate) queues: Queues,
}

impl Oracle {
    /// A partition exists from now on.
    pub fn open_partition(&mut self, partition: PartitionId, class: TopicClass, is_compacted: bool) {
        self.ledgers.entry(partition).or_insert_with(|| Ledger {
            class,
            is_compacted,
            keys: Keys::default(),
            late: BTreeSet::new(),
            sent: BTreeSet::new(),
            refused: BTreeSet::new(),
            places: BTreeMap::new(),
            offsets: BTreeMap::new(),
            stored: BTreeMap::new(),
            copies: None,
            durable_end: Offset::ZERO,
            log_start: Offset::ZERO,
            truncated: Offset::ZERO,
        });
    }

    /// The workload handed a record to a client, with its key if the topic keeps the newest of each.
    pub fn on_sent(&mut self, partition: PartitionId, record: RecordId, key: Option<u64>) {
        let incarnation = self.incarnation;
        let ledger = self.ledger(partition);
        ledger.sent.insert(record);
        if let Some(key) = key {
            ledger.keys.on_sent(record, key, incarnation);
        }
    }

    /// A producer was told that its record is stored.
    ///
    /// # Errors
    /// Another record was at this place, or this record at another.
    pub fn on_stored(&mut self, partition: PartitionId, offset: Offset, record: RecordId) -> Result<(), Violation> {
        let ledger = self.ledger(partition);
        if !ledger.class.is_durable() {
            return Ok(());
        }
        ledger.place(partition, offset, record, Source::Stored)?;
        if ledger.log_start <= offset {
            ledger.stored.insert(offset, record);
        }
        Ok(())
    }

    /// A producer was told that its record is not in the log.
    ///
    /// # Errors
    /// It was seen there.
    pub fn on_refused(&mut self, partition: PartitionId, record: RecordId) -> Result<(), Violation> {
        let ledger = self.ledger(partition);
        ledger.refused.insert(record);
        match ledger.offsets.get(&record) {
            Some(&offset) => Err(Violation::Revenant { partition, offset, record }),
            None => Ok(()),
        }
    }

    /// A partition's owner told a durable end.
    ///
    /// # Errors
    /// It lies before one that was told earlier on the same way, whose furthest is handed in.
    pub fn on_durable_end(&mut self, partition: PartitionId, before: Offset, end: Offset) -> Result<(), Violation> {
        let ledger = self.ledger(partition);
        ledger.durable_end = ledger.durable_end.max(end);
        if end < before { Err(Violation::EndMovedBack { partition, before, now: end }) } else { Ok(()) }
    }

    /// A reader was told where a partition ends, after an end at `told` was told as durable.
    ///
    /// # Errors
    /// The partition ends before that.
    pub fn on_end_found(&self, partition: PartitionId, told: Offset, end: Offset) -> Result<(), Violation> {
        let is_durable = self.ledgers[&partition].class == TopicClass::Durable;
        if is_durable && end < told {
            return Err(Violation::EndMovedBack { partition, before: told, now: end });
        }
        Ok(())
    }

    /// The furthest end of a partition that was told as durable.
    #[must_use]
    pub fn durable_end(&self, partition: PartitionId) -> Offset {
        self.ledgers[&partition].durable_end
    }

    /// The workload asks to raise a partition's log start: from now on nothing before it must be there.
    pub fn on_truncating(&mut self, partition: PartitionId, before: Offset) {
        let ledger = self.ledger(partition);
        ledger.log_start = ledger.log_start.max(before);
        ledger.stored = ledger.stored.split_off(&ledger.log_start);
    }

    /// A raised log start was reported as durable.
    pub fn on_truncated(&mut self, partition: PartitionId, log_start: Offset) {
        let ledger = self.ledger(partition);
        ledger.truncated = ledger.truncated.max(log_start);
    }

    /// A reader is told where a partition begins.
    ///
    /// # Errors
    /// It begins before a log start that was reported as durable.
    pub fn on_start_found(&self, partition: PartitionId, log_start: Offset) -> Result<(), Violation> {
        let before = self.ledgers[&partition].truncated;
        if log_start < before { Err(Violation::StartMovedBack { partition, before, now: log_start }) } else { Ok(()) }
    }

    /// The furthest log start that the workload asked for: a log may begin anywhere up to there.
    #[must_use]
    pub fn log_start(&self, partition: PartitionId) -> Offset {
        self.ledgers[&partition].log_start
    }

    /// Every reader of the partition has been shown everything before this.
    #[must_use]
    pub fn slowest_reader(&self, partition: PartitionId) -> Offset {
        let readers = self.readers.iter().filter(|((_, read), _)| *read == partition);
        readers.filter_map(|(_, reader)| reader.expected).min().unwrap_or_default()
    }

    /// A client's consumer begins, or begins anew, at this offset.
    pub fn on_reader(&mut self, client: u32, partition: PartitionId, isolation: Isolation, from: Option<Offset>) {
        let ledger = &self.ledgers[&partition];
        let is_latest = ledger.class == TopicClass::Latest;
        let floor = if is_latest { ledger.keys.newest.clone() } else { BTreeMap::new() };
        let incarnation = Incarnation(0);
        let (latest, newest) = (BTreeMap::new(), BTreeMap::new());
        let reader = Reader { isolation, expected: from, incarnation, latest, floor, newest };
        self.readers.insert((client, partition), reader);
    }

    /// A client's consumer is over.
    pub fn on_reader_gone(&mut self, client: u32, partition: PartitionId) {
        self.readers.remove(&(client, partition));
    }

    /// A consumer was shown a record.
    ///
    /// # Errors
    /// It is not the next, not the one that stood here before, not one that was sent here, or out of order.
    pub fn on_shown(
        &mut self,
        client: u32,
        partition: PartitionId,
        incarnation: Incarnation,
        offset: Offset,
        record: RecordId,
    ) -> Result<(), Violation> {
        let ledger = self.ledgers.get_mut(&partition).expect("consumers read partitions that exist");
        if !ledger.sent.contains(&record) {
            let what = "the record was never sent to this partition";
            return Err(Violation::Foreign { partition, offset, what });
        }
        if ledger.refused.contains(&record) {
            return Err(Violation::Revenant { partition, offset, record });
        }
        let reader = self.readers.get_mut(&(client, partition)).expect("a consumer was begun");
        let is_memory = !ledger.class.is_durable();
        let is_committed = reader.isolation == Isolation::Committed;
        let may_skip = is_memory || ledger.is_compacted || is_committed;
        if is_memory && reader.incarnation != incarnation {
            reader.latest.clear();
        }
        reader.incarnation = incarnation;
        if let Some(expected) = reader.expected
            && (offset < expected || (expected < offset && !may_skip && ledger.log_start < offset))
        {
            return Err(Violation::NotDense { partition, client, shown: offset, expected });
        }
        let passed = reader.expected.unwrap_or(offset)..offset;
        reader.expected = Some(offset.advance(1));
        if is_committed {
            self.transactions.on_range_passed(partition, ledger, passed)?;
            self.transactions.on_shown(partition, offset, record)?;
            self.pipeline.on_visible(client, (partition, offset), record)?;
        }
        if let Some(key) = ledger.keys.key(record).filter(|_| ledger.class == TopicClass::Latest) {
            if let Some(&floor) = reader.floor.get(&key).filter(|&&floor| offset < floor) {
                return Err(KeyViolation::Stale { partition, client, key, floor, shown: offset }.into());
            }
            reader.newest.insert(key, offset);
        }
        if !ledger.late.contains(&record)
            && !ledger.is_copy(offset, record)
            && let Some((earlier, earlier_offset)) = reader.latest.insert(record.client, (record, offset))
            && record < earlier
        {
            let (later, later_offset) = (earlier, earlier_offset);
            let (earlier, earlier_offset) = (record, offset);
            return Err(Violation::Disorder { partition, earlier, earlier_offset, later, later_offset });
        }
        if is_memory { Ok(()) } else { ledger.place(partition, offset, record, Source::Shown) }
    }

    /// A consumer read a partition from its log start to its end after everything came to rest, but for ranges that it was
    /// told are damaged.
    ///
    /// # Errors
    /// A stored record was not among what it was shown.
    pub fn on_read_whole(
        &self,
        partition: PartitionId,
        shown: &BTreeMap<Offset, RecordId>,
        damaged: &[Range<Offset>],
        span: ReadSpan,
    ) -> Result<(), Violation> {
        let ledger = &self.ledgers[&partition];
        for (&offset, &record) in &ledger.stored {
            let is_damaged = damaged.iter().any(|range| range.contains(&offset));
            let may_be_gone = || ledger.may_be_gone(offset, record, shown, span);
            if !is_damaged && shown.get(&offset) != Some(&record) && !may_be_gone() {
                return Err(Violation::Lost { partition, record, offset });
            }
        }
        if damaged.is_empty() { ledger.check_deletions(partition, shown, span) } else { Ok(()) }
    }

    /// Every partition, with its class.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, TopicClass)> {
        self.ledgers.iter().map(|(partition, ledger)| (*partition, ledger.class))
    }

    /// How many records were told as stored.
    #[must_use]
    pub fn stored_count(&self) -> u64 {
        self.ledgers.values().map(|ledger| ledger.stored.len() as u64).sum()
    }

    fn ledger(&mut self, partition: PartitionId) -> &mut Ledger {
        self.ledgers.get_mut(&partition).expect("the workload uses partitions that exist")
    }
}

impl Ledger {
    fn place(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        record: RecordId,
        source: Source,
    ) -> Result<(), Violation> {
        let (before, source_before) = *self.places.entry(offset).or_insert((record, source));
        if before != record {
            return Err(Violation::Differs {
                partition,
                offset,
                before,
                source_before,
                now: record,
                source_now: source,
            });
        }
        let before = *self.offsets.entry(record).or_insert(offset);
        if before == offset {
            return Ok(());
        }
        let Some(copies) = &mut self.copies else {
            return Err(Violation::Duplicate { partition, record, before, now: offset });
        };
        if copies.entry(record).or_default().insert(offset) && self.log_start <= offset {
            self.stored.insert(offset, record);
        }
        Ok(())
    }

    /// Whether a record stands elsewhere too, where it was known to stand before.
    fn is_copy(&self, offset: Offset, record: RecordId) -> bool {
        self.copies.is_some() && self.offsets.get(&record).is_some_and(|&first| first != offset)
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{PartitionIndex, TopicId};

    use super::*;

    const P: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));

    fn record(number: u32) -> RecordId {
        RecordId { client: 0, number }
    }

    fn oracle() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.open_partition(P, TopicClass::Durable, false);
        (0..10).for_each(|number| oracle.on_sent(P, record(number), None));
        oracle.on_reader(7, P, Isolation::Uncommitted, Some(Offset(0)));
        oracle
    }

    fn show(oracle: &mut Oracle, offset: u64, number: u32) -> Result<(), Violation> {
        oracle.on_shown(7, P, Incarnation(1), Offset(offset), record(number))
    }

    #[test]
    fn a_stored_record_may_not_change() {
        let mut oracle = oracle();
        oracle.on_stored(P, Offset(0), record(3)).unwrap();
        assert!(matches!(show(&mut oracle, 0, 4), Err(Violation::Differs { .. })));
    }

    #[test]
    fn a_record_stands_once() {
        let mut oracle = oracle();
        show(&mut oracle, 0, 3).unwrap();
        assert!(matches!(show(&mut oracle, 1, 3), Err(Violation::Duplicate { .. })));
    }

    #[test]
    fn offsets_are_dense() {
        let mut oracle = oracle();
        show(&mut oracle, 0, 0).unwrap();
        assert!(matches!(show(&mut oracle, 2, 1), Err(Violation::NotDense { .. })));
    }

    #[test]
    fn a_producers_order_is_kept() {
        let mut oracle = oracle();
        show(&mut oracle, 0, 5).unwrap();
        assert!(matches!(show(&mut oracle, 1, 4), Err(Violation::Disorder { .. })));
    }

    #[test]
    fn a_stored_record_is_found_at_the_end() {
        let mut oracle = oracle();
        oracle.on_stored(P, Offset(0), record(0)).unwrap();
        let span = ReadSpan { until: corelane_model::WallMillis(0), took: std::time::Duration::ZERO };
        assert!(matches!(oracle.on_read_whole(P, &BTreeMap::new(), &[], span), Err(Violation::Lost { .. })));
        assert_eq!(oracle.on_read_whole(P, &BTreeMap::from([(Offset(0), record(0))]), &[], span), Ok(()));
    }

    #[test]
    fn ends_do_not_move_back() {
        let mut oracle = oracle();
        oracle.on_durable_end(P, Offset(0), Offset(5)).unwrap();
        assert!(oracle.on_durable_end(P, Offset(5), Offset(4)).is_err());
        assert_eq!(oracle.durable_end(P), Offset(5));
        assert!(oracle.on_end_found(P, Offset(5), Offset(4)).is_err());
    }
}
