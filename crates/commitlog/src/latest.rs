//! The newest record of each key, in memory: what a log of class `latest` keeps.
//!
//! Batches stay as they came while half of their records are the newest of their keys, and are written anew without the
//! others after that, or before they are shown to a reader. So what is kept is at most about twice what counts, and whoever
//! reads from an offset gets newest records only, in the order of their offsets: a new reader every key, a slow one
//! nothing that was superseded before it had room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use corelane_model::limits::{BATCH_BYTES_MAX, LATEST_KEYS_MAX, LATEST_RECORD_COST_BYTES};
use corelane_model::{Offset, WallMillis};
use corelane_record::{BatchHead, BatchKeys, Compression, KeyedRecord, Rewriter};

use crate::AppendError;

/// A batch with at least one record that is the newest of its key.
#[derive(Clone, Debug)]
struct LatestBatch {
    bytes: Bytes,
    end: Offset,
    append_timestamp: WallMillis,
    records: u32,
    newest: u32,
}

/// Where the newest record of a key is.
#[derive(Clone, Copy, Debug)]
struct Newest {
    offset: Offset,
    /// Base offset of its batch.
    batch: Offset,
    /// What it counts against the bound.
    cost: u64,
}

/// The newest records of one log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    batches: BTreeMap<Offset, LatestBatch>,
    keys: BTreeMap<Box<[u8]>, Newest>,
    /// Null values, oldest first, with the moment at which they came; some may be superseded.
    tombstones: VecDeque<(WallMillis, Offset, Box<[u8]>)>,
    /// Base offsets of batches that cannot be written anew.
    stuck: BTreeSet<Offset>,
    /// Base offsets of batches of which that may turn out.
    tight: BTreeSet<Offset>,
    /// Bytes of the batches.
    bytes: u64,
    /// What all newest records count against the bound.
    cost: u64,
    /// Records that were superseded by newer ones.
    pub(crate) superseded: u64,
}

/// What a record counts: its key twice, as it is in the batch and in the map.
fn cost_of(record: &KeyedRecord<'_>) -> u64 {
    2 * record.key.map_or(0, <[u8]>::len) as u64 + u64::from(record.value_bytes) + LATEST_RECORD_COST_BYTES
}

/// Whether one of its records, compressed alone, might not fit a batch.
fn may_be_stuck(batch: &BatchKeys) -> bool {
    let largest = batch.iter().map(|record| record.value_bytes).max().unwrap_or_default();
    let head = batch.head();
    head.compression() != Compression::None
        && u64::from(BATCH_BYTES_MAX) < u64::from(head.batch_bytes()) + u64::from(largest) + LATEST_RECORD_COST_BYTES
}

impl Latest {
    /// Memory that it holds.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes + self.cost
    }

    /// Whether a batch fits the bound: a key that is there may always be replaced by a value that is not larger.
    ///
    /// # Errors
    /// The bound in bytes or in keys; nothing is changed.
    pub(crate) fn admit(&self, batch: &BatchKeys, limit_bytes: u64) -> Result<(), AppendError> {
        let most: u64 = batch.iter().map(|record| cost_of(&record)).sum();
        if self.cost + most <= limit_bytes && self.keys.len() + batch.iter().len() <= LATEST_KEYS_MAX {
            return Ok(());
        }
        let mut last: BTreeMap<&[u8], u64> = BTreeMap::new();
        for record in batch.iter() {
            last.insert(record.key.unwrap_or_default(), cost_of(&record));
        }
        let (mut new_keys, mut more, mut less) = (0, 0, 0);
        for (key, cost) in last {
            more += cost;
            match self.keys.get(key) {
                Some(known) => less += known.cost,
                None => new_keys += 1,
            }
        }
        let keys = self.keys.len() + new_keys;
        let bytes = (self.cost + more).saturating_sub(less);
        if LATEST_KEYS_MAX < keys && 0 < new_keys {
            return Err(AppendError::TooManyKeys { keys, limit: LATEST_KEYS_MAX });
        }
        if limit_bytes < bytes && less < more {
            return Err(AppendError::LatestFull { bytes, limit_bytes });
        }
        Ok(())
    }

    /// Takes in a stamped batch, which lies behind all others.
    pub(crate) fn attach(&mut self, bytes: Bytes) {
        let keys = BatchKeys::parse(bytes.clone()).expect("it was checked when it came");
        let head = *keys.head();
        let base = head.base_offset;
        self.insert(&head, bytes, head.record_count);
        if may_be_stuck(&keys) {
            self.tight.insert(base);
        }
        let mut touched: Vec<Offset> = Vec::new();
        let mut has_tombstones = false;
        for record in keys.iter() {
            let key = record.key.expect("a record without a key is not let in");
            if record.is_tombstone {
                self.tombstones.push_back((head.append_timestamp, record.offset, key.into()));
                has_tombstones = true;
            }
            let newest = Newest { offset: record.offset, batch: base, cost: cost_of(&record) };
            self.cost += newest.cost;
            let before = match self.keys.get_mut(key) {
                Some(known) => Some(std::mem::replace(known, newest)),
                None => self.keys.insert(key.into(), newest),
            };
            if let Some(before) = before {
                self.superseded += 1;
                self.cost -= before.cost;
                self.leave(before.batch);
                touched.push(before.batch);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|batch| self.tidy(batch));
        if has_tombstones && 2 * self.keys.len() < self.tombstones.len() {
            let keys = &self.keys;
            self.tombstones.retain(|(_, offset, key)| keys.get(key).is_some_and(|newest| newest.offset == *offset));
        }
    }

    fn insert(&mut self, head: &BatchHead, bytes: Bytes, newest: u32) {
        self.bytes += bytes.len() as u64;
        let (end, append_timestamp, records) = (head.end_offset(), head.append_timestamp, head.record_count);
        self.batches.insert(head.base_offset, LatestBatch { bytes, end, append_timestamp, records, newest });
    }

    /// One record of the batch is not the newest of its key any more.
    fn leave(&mut self, batch: Offset) {
        self.batches.get_mut(&batch).expect("a newest record has its batch").newest -= 1;
    }

    /// Drops a batch in which nothing is left, and writes one anew in which little is left.
    fn tidy(&mut self, base: Offset) {
        let LatestBatch { newest, records, .. } = self.batches[&base];
        if newest == 0 {
            let batch = self.batches.remove(&base).expect("it was just seen");
            self.stuck.remove(&base);
            self.tight.remove(&base);
            self.bytes -= batch.bytes.len() as u64;
        } else if newest * 2 <= records {
            self.rewrite(base);
        }
    }

    /// Writes a batch anew without what is superseded.
    fn rewrite(&mut self, base: Offset) {
        let batch = self.batches.remove(&base).expect("the caller has seen it");
        let keys = BatchKeys::parse(batch.bytes.clone()).expect("it was checked when it came");
        let newest_of = |record: &KeyedRecord<'_>| record.key.and_then(|key| self.keys.get(key));
        let is_newest = |record: KeyedRecord<'_>| newest_of(&record).is_some_and(|known| known.offset == record.offset);
        let keeps: Vec<bool> = keys.iter().map(is_newest).collect();
        let mut left = Vec::new();
        if Rewriter::default().rewrite(batch.bytes.clone(), &keeps, &mut left).is_err() {
            // Its producer compressed it more tightly than it can be done again: it stays until nothing is left in it.
            self.batches.insert(base, batch);
            self.stuck.insert(base);
            return;
        }
        self.bytes -= batch.bytes.len() as u64;
        self.tight.remove(&base);
        for bytes in left {
            let keys = BatchKeys::parse(bytes.clone()).expect("it was just written");
            let base = keys.head().base_offset;
            for record in keys.iter() {
                let known = record.key.and_then(|key| self.keys.get_mut(key)).expect("newest records have keys");
                known.batch = base;
            }
            if may_be_stuck(&keys) {
                self.tight.insert(base);
            }
            self.insert(keys.head(), bytes, keys.head().record_count);
        }
    }

    /// Writes anew what [`Latest::batches_from`] will find: readers are shown newest records only, or one whose null value
    /// was forgotten meanwhile would come back.
    pub(crate) fn prepare(&mut self, from: Offset, bytes_max: u32) {
        let mut bytes = 0;
        let mut superseded = Vec::new();
        for (&base, batch) in self.batches.range(self.first_from(from)..) {
            if batch.newest < batch.records && !self.stuck.contains(&base) {
                superseded.push(base);
            }
            bytes += batch.bytes.len() as u64;
            if u64::from(bytes_max) <= bytes {
                break;
            }
        }
        superseded.into_iter().for_each(|base| self.rewrite(base));
    }

    /// Base offset of the batch that has `from`; else `from`, behind which the next one is.
    fn first_from(&self, from: Offset) -> Offset {
        let before = self.batches.range(..=from).next_back().filter(|(_, batch)| from < batch.end);
        before.map_or(from, |(&base, _)| base)
    }

    /// Batches from the one that has `from`, or the next one, as many as fit; none if there is nothing.
    pub(crate) fn batches_from(&self, from: Offset, bytes_max: u32) -> (Vec<Bytes>, Offset) {
        let start = self.first_from(from);
        let (mut batches, mut next, mut bytes) = (Vec::new(), from, 0);
        for (base, batch) in self.batches.range(start..) {
            bytes += batch.bytes.len() as u64;
            let is_unprepared = batch.newest < batch.records && !self.stuck.contains(base);
            if !batches.is_empty() && (is_unprepared || u64::from(bytes_max) < bytes) {
                break;
            }
            batches.push(batch.bytes.clone());
            next = batch.end;
        }
        (batches, next)
    }

    /// Base offset of the first batch that was not appended before the moment.
    pub(crate) fn at_time(&self, moment: WallMillis) -> Option<Offset> {
        self.batches.iter().find(|(_, batch)| moment <= batch.append_timestamp).map(|(&base, _)| base)
    }

    /// Forgets what lies wholly below the offset.
    pub(crate) fn drop_below(&mut self, offset: Offset) {
        while self.batches.first_key_value().is_some_and(|(_, batch)| batch.end <= offset) {
            self.drop_oldest();
        }
    }

    /// Forgets keys whose record is older than the time to live, and null values older than their grace time.
    pub(crate) fn expire(&mut self, now: WallMillis, ttl_ms: Option<u64>, grace_ms: u64) {
        if let Some(ttl_ms) = ttl_ms {
            let is_old = |batch: &LatestBatch| ttl_ms < now.millis_since(batch.append_timestamp);
            while self.batches.first_key_value().is_some_and(|(_, batch)| is_old(batch)) {
                self.drop_oldest();
            }
        }
        let barred = self.barred_from();
        let is_over = |at: WallMillis, offset: Offset| grace_ms < now.millis_since(at) && offset < barred;
        while let Some((_, offset, key)) = self.tombstones.pop_front_if(|(at, offset, _)| is_over(*at, *offset)) {
            let Some(newest) = self.keys.get(&key).filter(|newest| newest.offset == offset).copied() else { continue };
            self.keys.remove(&key);
            self.cost -= newest.cost;
            self.leave(newest.batch);
            self.tidy(newest.batch);
        }
    }

    /// From here on null values stay: the batch there holds superseded records, and it may be that it cannot be written
    /// anew without them. Whoever reads it must be told behind it what took their keys away.
    fn barred_from(&self) -> Offset {
        let holds_superseded =
            |base: &&Offset| self.batches.get(base).is_some_and(|batch| batch.newest < batch.records);
        self.tight.iter().find(holds_superseded).copied().unwrap_or(Offset(u64::MAX))
    }

    /// When [`Latest::expire`] has something to do.
    pub(crate) fn deadline(&self, ttl_ms: Option<u64>, grace_ms: u64) -> Option<WallMillis> {
        let after = |at: WallMillis, millis: u64| at.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX));
        let oldest = self.batches.first_key_value().map(|(_, batch)| batch.append_timestamp);
        let ttl = oldest.zip(ttl_ms).map(|(oldest, ttl_ms)| after(oldest, ttl_ms));
        let barred = self.barred_from();
        let oldest = self.tombstones.front().filter(|&&(_, offset, _)| offset < barred);
        let grace = oldest.map(|(at, ..)| after(*at, grace_ms));
        ttl.into_iter().chain(grace).min().map(|due| WallMillis(due.saturating_add(1)))
    }

    fn drop_oldest(&mut self) {
        let (base, batch) = self.batches.pop_first().expect("the caller has seen one");
        self.stuck.remove(&base);
        self.tight.remove(&base);
        self.bytes -= batch.bytes.len() as u64;
        let keys = BatchKeys::parse(batch.bytes).expect("it was checked when it came");
        for key in keys.iter().filter_map(|record| record.key) {
            if self.keys.get(key).is_some_and(|newest| newest.batch == base) {
                let newest = self.keys.remove(key).expect("it was just seen");
                self.cost -= newest.cost;
            }
        }
    }

    /// What holds between any two changes, as far as it is cheap to say.
    pub(crate) fn check(&self) {
        assert!(self.batches.len() <= self.keys.len(), "{} batches of {} keys", self.batches.len(), self.keys.len());
        assert_eq!(self.keys.is_empty(), self.cost == 0, "{} keys cost {}", self.keys.len(), self.cost);
    }
}
