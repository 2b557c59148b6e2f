//! Logs of class `latest` against a map.

use std::collections::BTreeMap;

use corelane_commitlog::{Append, AppendError, CommitLog, Fetch, LogState};
use corelane_model::{ErrorCode, MonotonicNanos, Now, Offset, PartitionId, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, SealedBatch, stamp};
use proptest::prelude::*;

/// Keys with their newest values.
type Values = BTreeMap<u8, u64>;

struct Rig {
    log: CommitLog,
    now: Now,
    count: u64,
    /// What somebody who saw everything knows.
    values: Values,
}

/// Somebody who reads on from time to time.
#[derive(Clone, Debug, Default)]
struct Reader {
    next: Offset,
    values: Values,
    records: u64,
}

impl Rig {
    fn new(settings: TopicSettings) -> Self {
        let now = Now { monotonic: MonotonicNanos(5), wall: WallMillis(1000) };
        let log = CommitLog::new(PartitionId::default(), settings, LogState::starting_at(Offset(100)));
        Self { log, now, count: 0, values: Values::new() }
    }

    /// Appends a batch with these keys; `None` takes a key away.
    fn append(&mut self, compression: Compression, keys: &[(u8, bool)]) -> Result<(), AppendError> {
        let mut builder = BatchBuilder::new(compression);
        let mut values = self.values.clone();
        for &(key, is_tombstone) in keys {
            self.count += 1;
            let value = (!is_tombstone).then(|| format!("{:>60}", self.count));
            builder.push(WallMillis(1), Some(&[key]), value.as_deref().map(str::as_bytes), &[]).expect("small");
            if is_tombstone {
                values.remove(&key);
            } else {
                values.insert(key, self.count);
            }
        }
        self.append_batch(&SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("sound"))?;
        self.values = values;
        Ok(())
    }

    fn append_batch(&mut self, batch: &SealedBatch) -> Result<(), AppendError> {
        self.log.admit(&batch.keys())?;
        let Append::Accept(given) = self.log.append(self.now, batch.head())? else { panic!("it has no producer") };
        let mut bytes = batch.bytes().to_vec();
        stamp(&mut bytes, given);
        self.log.attach(bytes.into(), 0);
        Ok(())
    }

    fn wait(&mut self, millis: i64) {
        self.now.wall.0 += millis;
        self.now.monotonic.0 += millis.unsigned_abs() * 1_000_000;
    }

    /// Lets the reader have one answer; whether it came to the end.
    fn read(&mut self, reader: &mut Reader, bytes_max: u32) -> bool {
        self.log.prepare_fetch(reader.next, bytes_max);
        match self.log.fetch(reader.next, bytes_max) {
            Fetch::Batches { batches, next } => {
                for bytes in batches {
                    let batch = RecordBatch::parse(bytes).expect("sound");
                    for record in batch.iter().filter(|record| reader.next <= record.offset) {
                        let key = record.key.expect("every record has a key")[0];
                        match record.value {
                            None => drop(reader.values.remove(&key)),
                            Some(value) => {
                                let value = std::str::from_utf8(value).expect("text").trim().parse().expect("a number");
                                assert!(
                                    reader.values.insert(key, value) < Some(value),
                                    "key {key} goes back to {value}"
                                );
                            }
                        }
                        reader.records += 1;
                    }
                }
                assert!(reader.next < next, "a fetch goes on");
                reader.next = next;
                false
            }
            Fetch::AtEnd => true,
            fetched => panic!("{fetched:?}"),
        }
    }

    fn read_all(&mut self, reader: &mut Reader) {
        while !self.read(reader, 300) {}
    }

    fn new_reader(&self) -> Reader {
        Reader { next: self.log.log_start(), ..Reader::default() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u8, bool)>),
    Read { reader: prop::sample::Index, bytes_max: u32 },
    Join,
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = prop::collection::vec((0_u8..24, prop::bool::weighted(0.1)), 1..12).prop_map(Step::Append);
    let read =
        (any::<prop::sample::Index>(), 0_u32..2000).prop_map(|(reader, bytes_max)| Step::Read { reader, bytes_max });
    prop::collection::vec(
        prop_oneof![6 => append, 4 => read, 1 => Just(Step::Join), 1 => (0_i64..40).prop_map(Step::Wait)],
        1..120,
    )
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

proptest! {
    /// Whenever somebody begins, and however slowly they read: at the end they know what everybody knows.
    #[test]
    fn every_reader_comes_to_the_same_values(steps in steps(), compression in compression()) {
        let mut rig = Rig::new(TopicSettings::latest());
        let mut readers = vec![rig.new_reader()];
        for step in steps {
            match step {
                Step::Append(keys) => rig.append(compression, &keys).expect("there is room"),
                Step::Read { reader, bytes_max } => {
                    let at = reader.index(readers.len());
                    rig.read(&mut readers[at], bytes_max);
                }
                Step::Join => readers.push(rig.new_reader()),
                // Shorter than the grace time of null values, in which every reader here reads on.
                Step::Wait(millis) => {
                    rig.wait(millis);
                    rig.log.apply_retention(rig.now);
                }
            }
        }
        let mut late = rig.new_reader();
        rig.read_all(&mut late);
        prop_assert_eq!(&late.values, &rig.values, "a snapshot has every key and no other");
        prop_assert!(late.records <= 24, "{} records for 24 keys", late.records);
        for mut reader in readers {
            rig.read_all(&mut reader);
            prop_assert_eq!(&reader.values, &rig.values);
        }
        prop_assert_eq!(rig.log.log_end(), Offset(100 + rig.count), "offsets count every record");
    }

    /// The bound holds whatever comes, and a key that is there can always be replaced.
    #[test]
    fn the_bound_holds(batches in prop::collection::vec(prop::collection::vec((any::<u8>(), Just(false)), 1..40), 1..60)) {
        let bound = 20_000;
        let mut rig = Rig::new(TopicSettings { retention_bytes: Some(bound), ..TopicSettings::latest() });
        for keys in batches {
            let is_known = keys.iter().all(|(key, _)| rig.values.contains_key(key));
            match rig.append(Compression::None, &keys) {
                Ok(()) => {}
                Err(error) => {
                    prop_assert!(!is_known, "keys that are there are refused: {}", error);
                    prop_assert_eq!(error.code(), ErrorCode::LimitReached);
                }
            }
            prop_assert!(rig.log.cached_bytes() <= 3 * bound, "{} bytes", rig.log.cached_bytes());
        }
        let mut reader = rig.new_reader();
        rig.read_all(&mut reader);
        prop_assert_eq!(&reader.values, &rig.values);
    }
}

#[test]
fn keys_go_after_their_time_to_live_and_the_log_start_stays() {
    let mut rig = Rig::new(TopicSettings { retention_ms: Some(1000), ..TopicSettings::latest() });
    rig.append(Compression::None, &[(1, false), (2, false)]).unwrap();
    rig.wait(600);
    rig.append(Compression::None, &[(2, false)]).unwrap();
    let due = rig.log.retention_deadline().expect("a key will be too old");
    rig.wait(due.0 - rig.now.wall.0);
    assert_eq!(rig.log.apply_retention(rig.now).log_start, None);
    let mut reader = rig.new_reader();
    rig.read_all(&mut reader);
    assert_eq!(reader.values.into_keys().collect::<Vec<_>>(), [2]);
    rig.wait(2000);
    rig.log.apply_retention(rig.now);
    assert_eq!(rig.log.cached_bytes(), 0);
    assert_eq!(rig.log.retention_deadline(), None);
    assert_eq!(rig.log.fetch(Offset(100), 1000), Fetch::AtEnd);
    rig.append(Compression::None, &[(3, false)]).unwrap();
    assert!(matches!(rig.log.fetch(Offset(100), 1000), Fetch::Batches { .. }), "a reader in a hole goes on behind it");
}

#[test]
fn null_values_free_their_room_after_the_grace_time() {
    let settings = TopicSettings { tombstone_ms: 500, retention_bytes: Some(1000), ..TopicSettings::latest() };
    let mut rig = Rig::new(settings);
    rig.append(Compression::None, &[(1, false), (2, false), (3, false)]).unwrap();
    let error = rig.append(Compression::None, &[(4, false)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::LimitReached);
    assert!(error.to_string().contains("--retention-bytes"), "{error}");
    rig.append(Compression::None, &[(1, true)]).unwrap();
    rig.wait(501);
    rig.log.apply_retention(rig.now);
    rig.append(Compression::None, &[(4, false)]).unwrap();
    let mut reader = rig.new_reader();
    rig.read_all(&mut reader);
    assert_eq!(reader.values.into_keys().collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn null_values_stay_behind_a_batch_that_perhaps_cannot_be_written_anew() {
    let mut rig = Rig::new(TopicSettings { tombstone_ms: 500, ..TopicSettings::latest() });
    // Nearly as large as a batch may be: how well a part of it can be compressed shows only when it is done.
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0] & 0x7f
    };
    let mut builder = BatchBuilder::new(Compression::Zstd);
    for key in [1, 2, 3] {
        let value: Vec<u8> = (0..340_000).map(|_| random()).collect();
        builder.push(WallMillis(1), Some(&[key]), Some(&value), &[]).expect("it fits");
    }
    rig.append_batch(&SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("sound")).expect("it fits");
    rig.append(Compression::None, &[(1, true)]).expect("it fits");
    rig.wait(1000);
    rig.log.apply_retention(rig.now);
    let is_there = |rig: &Rig| matches!(rig.log.fetch(Offset(103), 1), Fetch::Batches { .. });
    assert!(is_there(&rig), "the first batch still has what it took away");
    assert_eq!(rig.log.retention_deadline(), None, "time alone changes nothing");
    rig.log.prepare_fetch(Offset(100), 1 << 20);
    rig.log.apply_retention(rig.now);
    assert!(!is_there(&rig), "it was written anew");
}

#[test]
fn what_is_truncated_is_gone() {
    let mut rig = Rig::new(TopicSettings::latest());
    for key in 0..4 {
        rig.append(Compression::None, &[(key, false)]).unwrap();
    }
    rig.log.truncate(Offset(102)).unwrap();
    let mut reader = rig.new_reader();
    rig.read_all(&mut reader);
    assert_eq!(reader.values.into_keys().collect::<Vec<_>>(), [2, 3]);
}
