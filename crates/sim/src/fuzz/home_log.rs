//! The log of a home partition as a shard reads it on a start: batches, and in them keyed records.

use bytes::Bytes;
use corelane_model::{MonotonicNanos, Now, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, split_batch};

/// One record: its key, and its value unless it is a tombstone.
pub(super) type KeyedRecord = (Vec<u8>, Option<Vec<u8>>);

/// When a restored machine begins.
pub(super) const START: Now = Now { monotonic: MonotonicNanos(5_000_000_000), wall: WallMillis(1_700_000_001_000) };

/// The records of a run of batches. `None` if a batch does not hold together or a record has no key: a shard serves
/// nothing of such a home.
pub(super) fn read(input: &[u8]) -> Option<Vec<KeyedRecord>> {
    let mut run = Bytes::copy_from_slice(input);
    let mut records = Vec::new();
    while let Some(batch) = split_batch(&mut run).ok()? {
        let batch = RecordBatch::parse(batch).ok()?;
        for record in batch.iter() {
            records.push((record.key?.to_vec(), record.value.map(<[u8]>::to_vec)));
        }
    }
    Some(records)
}

/// A run of batches with these records, so many in each.
pub(super) fn write(records: &[KeyedRecord], each: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut run = Vec::new();
    for some in records.chunks(each) {
        for (key, value) in some {
            let pushed = builder.push(START.wall, Some(key), value.as_deref(), &[]);
            assert!(pushed.is_ok(), "a small record fits");
        }
        run.extend_from_slice(&builder.finish(ProducerStamp::default()));
    }
    run
}

/// Inputs that are valid: the records one by one, in one batch, in several, and some of them taken back at the end.
pub(super) fn seeds_of(records: &[KeyedRecord]) -> Vec<Vec<u8>> {
    let mut inputs: Vec<Vec<u8>> = records.iter().map(|record| write(std::slice::from_ref(record), 1)).collect();
    inputs.extend([records.len(), 3, 1].map(|each| write(records, each)));
    let taken_back = records.iter().rev().take(2).map(|(key, _)| (key.clone(), None));
    let with_tombstones: Vec<KeyedRecord> = records.iter().cloned().chain(taken_back).collect();
    inputs.push(write(&with_tombstones, 4));
    inputs
}

/// The records of a golden fixture: length of the key in two bytes, key, length of the value in four, value.
pub(super) fn of_fixture(mut bytes: &[u8]) -> Vec<KeyedRecord> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (key, rest) = rest.split_at(u16::from_le_bytes(*length).into());
        let (length, rest) = rest.split_first_chunk::<4>().expect("a fixture is whole");
        let (value, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        records.push((key.to_vec(), Some(value.to_vec())));
        bytes = rest;
    }
    records
}
