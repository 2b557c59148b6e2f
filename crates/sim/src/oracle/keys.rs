//! Topics in which only the newest record of each key has to be there: what may be gone, and what must be shown.
//!
//! A null value takes its key away. It wins over what is older as long as it is there, and it is there for the grace time at
//! least.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use corelane_model::{Incarnation, Offset, PartitionId, TopicClass, WallMillis};

use super::{Ledger, Oracle, Violation};
use crate::RecordId;

/// A promise about keys that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyViolation {
    /// A null value is gone, and what it took away is there.
    #[error("{partition}: key {key} was taken away at offset {deleted} and is back with what stands at offset {shown}")]
    Resurrected {
        /// Where.
        partition: PartitionId,
        /// The key.
        key: u64,
        /// Where the null value was stored.
        deleted: Offset,
        /// The last of the key that a reader was shown.
        shown: Offset,
    },
    /// A reader that began after something newer was acknowledged is shown what is older.
    #[error(
        "{partition}: a reader of client {client} that began after offset {floor} is shown key {key} at offset {shown}"
    )]
    Stale {
        /// Where.
        partition: PartitionId,
        /// Whose reader.
        client: u32,
        /// The key.
        key: u64,
        /// The newest that was acknowledged before it began.
        floor: Offset,
        /// What it is shown.
        shown: Offset,
    },
}

/// When a reader read a partition from beginning to end.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpan {
    /// The wall clock at its end.
    pub until: WallMillis,
    /// How long it took, at most.
    pub took: Duration,
}

/// Keys of one partition.
#[derive(Debug, Default)]
pub(super) struct Keys {
    of: BTreeMap<RecordId, u64>,
    /// Null values by their key, with the moment of their sending.
    deletions: BTreeMap<u64, BTreeMap<RecordId, WallMillis>>,
    /// How long null values stay at least; unknown where the clock jumps.
    grace: Option<Duration>,
    /// While which start of the broker a record was sent.
    sent_in: BTreeMap<RecordId, Incarnation>,
    /// The newest record of each key that was acknowledged, of those that were sent since the broker's last start.
    pub(super) newest: BTreeMap<u64, Offset>,
}

impl Keys {
    /// Which key a record has.
    pub(super) fn key(&self, record: RecordId) -> Option<u64> {
        self.of.get(&record).copied()
    }

    pub(super) fn on_sent(&mut self, record: RecordId, key: u64, incarnation: Incarnation) {
        self.of.insert(record, key);
        self.sent_in.insert(record, incarnation);
    }

    fn is_deletion(&self, record: RecordId) -> bool {
        self.key(record).is_some_and(|key| self.deletions.get(&key).is_some_and(|all| all.contains_key(&record)))
    }
}

impl Ledger {
    /// Whether a stored record that a reader was not shown may be gone: a newer one of its key was shown, or a null value of
    /// its key was there long enough and went too.
    pub(super) fn may_be_gone(
        &self,
        offset: Offset,
        record: RecordId,
        shown: &BTreeMap<Offset, RecordId>,
        span: ReadSpan,
    ) -> bool {
        let Some(key) = self.keys.key(record).filter(|_| self.is_compacted) else { return false };
        let is_newer_shown = shown.range(offset.advance(1)..).any(|(_, newer)| self.keys.key(*newer) == Some(key));
        is_newer_shown || self.is_taken_away(key, offset, |sent| self.is_over(sent, span.until))
    }

    /// Whether a null value of the key may stand at this offset or behind it, and `is_gone` of the moment of its sending.
    fn is_taken_away(&self, key: u64, offset: Offset, is_gone: impl Fn(WallMillis) -> bool) -> bool {
        let deletions = self.keys.deletions.get(&key).into_iter().flatten();
        let mut possible = deletions.filter(|(deletion, _)| {
            !self.refused.contains(deletion) && self.offsets.get(deletion).is_none_or(|&at| offset <= at)
        });
        possible.any(|(_, &sent)| is_gone(sent))
    }

    fn is_over(&self, sent: WallMillis, until: WallMillis) -> bool {
        self.keys.grace.is_none_or(|grace| grace <= Duration::from_millis(until.millis_since(sent)))
    }

    /// A reader that was fast enough is not left with what a null value took away.
    pub(super) fn check_deletions(
        &self,
        partition: PartitionId,
        shown: &BTreeMap<Offset, RecordId>,
        span: ReadSpan,
    ) -> Result<(), Violation> {
        if self.keys.grace.is_none_or(|grace| grace <= span.took) {
            return Ok(());
        }
        let mut last: BTreeMap<u64, Offset> = BTreeMap::new();
        last.extend(shown.iter().filter_map(|(&offset, &record)| Some((self.keys.key(record)?, offset))));
        for (&deleted, &record) in self.stored.iter().filter(|(_, record)| self.keys.is_deletion(**record)) {
            let Some(key) = self.keys.key(record) else { continue };
            if let Some(&shown) = last.get(&key).filter(|&&shown| shown < deleted) {
                return Err(KeyViolation::Resurrected { partition, key, deleted, shown }.into());
            }
        }
        Ok(())
    }
}

impl Oracle {
    /// Null values of a partition stay for this time at least; `None` where a jumping clock cuts it short.
    pub fn keep_deletions(&mut self, partition: PartitionId, grace: Option<Duration>) {
        self.ledger(partition).keys.grace = grace;
    }

    /// The record that was sent has no value: it takes its key away.
    pub fn on_deletion_sent(&mut self, partition: PartitionId, record: RecordId, at: WallMillis) {
        let keys = &mut self.ledger(partition).keys;
        let key = keys.key(record).expect("a null value has a key");
        keys.deletions.entry(key).or_default().insert(record, at);
    }

    /// The broker starts: what was only in its memory is gone.
    pub fn on_broker_start(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.ledgers.values_mut().for_each(|ledger| ledger.keys.newest.clear());
        // Nor is it to be shown to whoever began to read before.
        self.readers.values_mut().for_each(|reader| reader.floor.clear());
    }

    /// A producer was told that its record is in memory, where only the newest of each key stays.
    pub fn on_acknowledged(&mut self, partition: PartitionId, offset: Offset, record: RecordId) {
        let incarnation = self.incarnation;
        let ledger = self.ledger(partition);
        let Some(key) = ledger.keys.key(record).filter(|_| ledger.class == TopicClass::Latest) else { return };
        ledger.offsets.insert(record, offset);
        if ledger.keys.sent_in.get(&record) == Some(&incarnation) {
            let newest = ledger.keys.newest.entry(key).or_insert(offset);
            *newest = offset.max(*newest);
        }
    }

    /// Whether a reader that stands at `rest.start` need not be shown anything up to the end: null values that stood there may
    /// have gone.
    #[must_use]
    pub fn is_rest_gone(
        &self,
        partition: PartitionId,
        rest: Range<Offset>,
        shown: &BTreeMap<Offset, RecordId>,
        until: WallMillis,
    ) -> bool {
        let ledger = &self.ledgers[&partition];
        let span = ReadSpan { until, took: Duration::ZERO };
        let has_gone = |(&offset, &record): (&Offset, &RecordId)| ledger.may_be_gone(offset, record, shown, span);
        !ledger.keys.deletions.is_empty() && ledger.stored.range(rest).all(has_gone)
    }

    /// The newest record of a key that a reader has yet to be shown, in words.
    #[must_use]
    pub fn missing_newest(&self, client: u32, partition: PartitionId) -> Option<String> {
        let (ledger, reader) = (&self.ledgers[&partition], self.readers.get(&(client, partition))?);
        let missing = ledger.keys.newest.iter().find(|&(key, offset)| {
            let is_shown = reader.newest.get(key).is_some_and(|shown| offset <= shown);
            // A null value that may be forgotten meanwhile leaves nothing that a reader must be shown.
            let is_day = ledger.keys.grace.is_some_and(|grace| Duration::from_secs(3600) < grace);
            !is_shown && !ledger.is_taken_away(*key, *offset, |_| !is_day)
        });
        let (key, offset) = missing?;
        Some(format!("client {client} is not shown the newest of key {key} of {partition}, at offset {offset}"))
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{Isolation, PartitionIndex, TopicId};

    use super::*;

    const P: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));
    const READER: u32 = 7;

    fn record(number: u32) -> RecordId {
        RecordId { client: 0, number }
    }

    /// Record 0 is a value of key 1 at offset 0; record 1 takes it away at offset 1, sent at 1 s.
    fn deleted(class: TopicClass) -> Oracle {
        let mut oracle = Oracle::default();
        oracle.open_partition(P, class, class.is_durable());
        oracle.keep_deletions(P, Some(Duration::from_secs(10)));
        oracle.on_broker_start(Incarnation(1));
        for number in 0..2 {
            oracle.on_sent(P, record(number), Some(1));
        }
        oracle.on_deletion_sent(P, record(1), WallMillis(1_000));
        for number in 0..2 {
            oracle.on_acknowledged(P, Offset(number.into()), record(number));
            oracle.on_stored(P, Offset(number.into()), record(number)).expect("nothing else is there");
        }
        oracle
    }

    fn read(shown: &[u32], until_seconds: i64) -> Result<(), Violation> {
        let shown = shown.iter().map(|&number| (Offset(number.into()), record(number))).collect();
        let span = ReadSpan { until: WallMillis(until_seconds * 1_000), took: Duration::from_secs(1) };
        deleted(TopicClass::Durable).on_read_whole(P, &shown, &[], span)
    }

    #[test]
    fn a_null_value_stays_for_the_grace_time() {
        assert_eq!(read(&[1], 10), Ok(()));
        assert!(matches!(read(&[], 10), Err(Violation::Lost { .. })));
        assert_eq!(read(&[], 11), Ok(()), "it may be gone, and what was before it");
    }

    #[test]
    fn what_was_taken_away_does_not_come_back() {
        assert_eq!(read(&[0, 1], 60), Ok(()));
        assert!(matches!(read(&[0], 60), Err(Violation::Key(KeyViolation::Resurrected { .. }))));
    }

    #[test]
    fn who_begins_late_is_not_shown_what_is_older() {
        let mut oracle = deleted(TopicClass::Latest);
        oracle.on_reader(READER, P, Isolation::Uncommitted, None);
        let stale = oracle.on_shown(READER, P, Incarnation(1), Offset(0), record(0));
        assert!(matches!(stale, Err(Violation::Key(KeyViolation::Stale { .. }))), "{stale:?}");
    }

    #[test]
    fn the_newest_must_be_shown_until_the_broker_starts_again() {
        let mut oracle = deleted(TopicClass::Latest);
        oracle.keep_deletions(P, Some(Duration::from_secs(100_000)));
        oracle.on_reader(READER, P, Isolation::Uncommitted, None);
        assert!(oracle.missing_newest(READER, P).is_some());
        oracle.on_shown(READER, P, Incarnation(1), Offset(1), record(1)).expect("it is the newest");
        assert_eq!(oracle.missing_newest(READER, P), None);
        oracle.on_reader(READER, P, Isolation::Uncommitted, None);
        oracle.on_broker_start(Incarnation(2));
        assert_eq!(oracle.missing_newest(READER, P), None);
    }
}
