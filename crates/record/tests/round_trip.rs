//! What goes into a batch comes out of it, and nothing else gets in.

use bytes::Bytes;
use corelane_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_HEADERS_MAX};
use corelane_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, WallMillis};
use corelane_record::{
    BATCH_HEAD_BYTES, BatchBuilder, BatchError, BatchHead, BatchKeys, Compression, ProducerStamp, PushError,
    RecordBatch, Rewriter, SealedBatch, SingleBatch, Stamp, split_batch, stamp,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A record that owns what it says.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn push(builder: &mut BatchBuilder, record: &Owned) -> Result<(), PushError> {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    builder.push(WallMillis(record.timestamp), record.key.as_deref(), record.value.as_deref(), &headers)
}

fn read(batch: &RecordBatch) -> Vec<Owned> {
    let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let record = |record: corelane_record::Record<'_>| Owned {
        timestamp: record.timestamp.0,
        key: own(record.key),
        value: own(record.value),
        headers: record.headers().map(|(name, value)| (name.to_owned(), own(value))).collect(),
    };
    batch.iter().map(record).collect()
}

fn single(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(7), None, Some(value), &[]).expect("it fits");
    builder.finish(ProducerStamp::default())
}

#[test]
fn the_memory_of_a_batch_is_used_again() {
    let mut builder = BatchBuilder::new(Compression::None);
    let fill = |builder: &mut BatchBuilder, value: &[u8]| {
        builder.push(WallMillis(7), None, Some(value), &[]).expect("it fits");
        builder.finish_unshared(ProducerStamp::default())
    };
    let first = fill(&mut builder, b"first");
    assert_eq!(first, single(b"first"));
    let place = first.as_ptr();
    builder.reuse(first);
    let second = fill(&mut builder, b"other");
    assert_eq!((second.as_ptr(), second), (place, single(b"other").to_vec()));
    builder.push(WallMillis(7), None, Some(b"third"), &[]).expect("it fits");
    builder.reuse(vec![7; 500]);
    assert_eq!(builder.finish(ProducerStamp::default()), single(b"third"), "what gathers is not lost");
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    let bytes = || option::of(vec(any::<u8>(), 0..40));
    let headers = vec(("[a-zé]{0,6}", bytes()), 0..4);
    let record = (-1_000_000_000i64..1_000_000_000, bytes(), bytes(), headers)
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers });
    vec(record, 1..60)
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

/// All records of these batches with their offsets.
fn with_offsets(batches: &[Bytes]) -> Vec<(u64, Owned)> {
    let batches = batches.iter().map(|bytes| RecordBatch::parse(bytes.clone()).expect("a rewritten batch is sound"));
    batches
        .flat_map(|batch| {
            let offsets: Vec<u64> = batch.iter().map(|record| record.offset.0).collect();
            offsets.into_iter().zip(read(&batch)).collect::<Vec<_>>()
        })
        .collect()
}

proptest! {
    #[test]
    fn what_is_kept_stays_as_it_was(
        records in records(), compression in compression(), first in vec(any::<bool>(), 60), second in vec(any::<bool>(), 60),
    ) {
        let mut builder = BatchBuilder::new(compression);
        records.iter().for_each(|record| push(&mut builder, record).unwrap());
        let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
        let stamped = Stamp { base_offset: Offset(500), append_timestamp: WallMillis(3), leader_epoch: LeaderEpoch(2) };
        stamp(&mut bytes, stamped);
        let mut rewriter = Rewriter::default();
        let mut batches = vec![Bytes::from(bytes)];
        let mut expected = with_offsets(&batches);
        prop_assert_eq!(expected.len(), records.len());
        // Twice, so that batches with holes are rewritten too.
        for keeps in [first, second] {
            let mut out = Vec::new();
            let mut kept = keeps.iter().copied();
            for bytes in batches {
                let count = BatchKeys::parse(bytes.clone()).unwrap().iter().len();
                let keeps: Vec<bool> = kept.by_ref().take(count).collect();
                rewriter.rewrite(bytes, &keeps, &mut out).unwrap();
            }
            let mut kept = keeps.iter();
            expected.retain(|_| *kept.next().unwrap());
            batches = out;
            prop_assert_eq!(&with_offsets(&batches), &expected);
            for bytes in &batches {
                let head = BatchHead::parse(bytes).unwrap();
                prop_assert_eq!(head.append_timestamp, WallMillis(3));
                prop_assert!(Offset(500) <= head.base_offset && head.end_offset() <= Offset(500 + records.len() as u64));
                let keys = BatchKeys::parse(bytes.clone()).unwrap();
                let batch = RecordBatch::parse(bytes.clone()).unwrap();
                for (key, record) in keys.iter().zip(&batch) {
                    prop_assert_eq!((key.offset, key.key), (record.offset, record.key));
                    prop_assert_eq!(key.is_tombstone, record.value.is_none());
                    prop_assert_eq!(key.value_bytes as usize, record.value.map_or(0, <[u8]>::len));
                }
                for from in 490..500 + records.len() as u64 + 2 {
                    let expected = batch.iter().filter(|record| from <= record.offset.0).map(|record| record.offset);
                    prop_assert!(batch.iter_from(Offset(from)).map(|record| record.offset).eq(expected));
                }
                let is_dense = head.offset_span == head.record_count;
                prop_assert_eq!(SealedBatch::parse(bytes.clone()).is_ok(), is_dense, "a producer leaves no holes");
            }
        }
    }

    #[test]
    fn records_come_back(first in records(), second in records(), compression in compression()) {
        let mut builder = BatchBuilder::new(compression);
        let producer = ProducerStamp {
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(3),
            base_sequence: Sequence(u32::MAX),
        };
        for records in [&first, &second] {
            for record in records {
                push(&mut builder, record).unwrap();
            }
            let estimate = builder.bytes();
            let bytes = builder.finish(producer);
            prop_assert!(bytes.len() <= estimate);
            if compression == Compression::None {
                prop_assert_eq!(bytes.len(), estimate);
            }
            let sealed = SealedBatch::parse(bytes.clone()).unwrap();
            prop_assert_eq!(sealed.head().producer_id, ProducerId(9));
            prop_assert_eq!(sealed.head().producer_epoch, ProducerEpoch(3));
            prop_assert_eq!(sealed.head().base_sequence, Sequence(u32::MAX));
            prop_assert_eq!(sealed.head().record_count as usize, records.len());
            let batch = RecordBatch::parse(bytes).unwrap();
            prop_assert_eq!(&read(&batch), records);
            let latest = records.iter().map(|record| record.timestamp).max().unwrap();
            prop_assert_eq!(batch.head().max_timestamp, WallMillis(latest));
        }
    }

    #[test]
    fn a_flipped_bit_is_always_found(records in records(), compression in compression(), place in any::<prop::sample::Index>(), bit in 0..8) {
        let mut builder = BatchBuilder::new(compression);
        for record in &records {
            push(&mut builder, record).unwrap();
        }
        let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(SealedBatch::parse(bytes.into()).is_err());
    }

    /// The checksum is right here, so that every later check has to stand on its own.
    #[test]
    fn a_forged_payload_never_panics(
        records in records(),
        compression in compression(),
        forged in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in option::weighted(0.2, any::<prop::sample::Index>()),
        flags in option::weighted(0.3, any::<u16>()),
        count in option::weighted(0.3, 0..100u32),
    ) {
        let mut builder = BatchBuilder::new(compression);
        for record in &records {
            push(&mut builder, record).unwrap();
        }
        let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
        for (place, value) in forged {
            let at = BATCH_HEAD_BYTES + place.index(bytes.len() - BATCH_HEAD_BYTES);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(BATCH_HEAD_BYTES + cut.index(bytes.len() - BATCH_HEAD_BYTES));
        }
        let bytes = forge(bytes, |head| {
            head.flags.0 = flags.unwrap_or(head.flags.0);
            head.record_count = count.unwrap_or(head.record_count);
            head.offset_span = head.record_count;
        });
        if let Ok(batch) = RecordBatch::parse(bytes.clone()) {
            prop_assert_eq!(read(&batch).len(), batch.len());
            if let Ok(sealed) = SealedBatch::parse(bytes) {
                prop_assert_eq!(sealed.head(), batch.head());
            }
        }
    }

    #[test]
    fn a_stamp_brings_the_checksum_along(
        stamps in vec((any::<u64>(), any::<i64>(), any::<u32>()), 1..4), damage in option::of((0..76_usize, 1..=u8::MAX)),
    ) {
        let mut bytes = single(b"hello").to_vec();
        let mut head = BatchHead::parse(&bytes).unwrap();
        for (offset, at, epoch) in stamps {
            head.base_offset = Offset(offset >> 1);
            head.append_timestamp = WallMillis(at);
            head.leader_epoch = LeaderEpoch(epoch);
            stamp(&mut bytes, given_by(&head));
            let mut written = bytes.clone();
            head.write(&mut written);
            prop_assert_eq!(&bytes, &written);
        }
        // What a stamp does not write over it does not bless either.
        if let Some((at, bits)) = damage.filter(|(at, _)| !(20..40).contains(at)) {
            bytes[at] ^= bits;
            stamp(&mut bytes, given_by(&BatchHead { base_offset: Offset(77), ..head }));
            prop_assert!(BatchHead::parse(&bytes).is_err());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(SealedBatch::parse(bytes.clone().into()).is_err());
        prop_assert!(RecordBatch::parse(bytes.into()).is_err());
    }
}

fn given_by(head: &BatchHead) -> Stamp {
    let BatchHead { base_offset, append_timestamp, leader_epoch, .. } = *head;
    Stamp { base_offset, append_timestamp, leader_epoch }
}

/// A batch with another head and with checksums that fit.
fn forge(mut bytes: Vec<u8>, change: impl FnOnce(&mut BatchHead)) -> Bytes {
    let mut head = BatchHead::parse(&bytes).expect("the head was whole before");
    head.payload_bytes = u32::try_from(bytes.len() - BATCH_HEAD_BYTES).expect("small");
    head.payload_crc = crc_fast::crc32_iscsi(&bytes[BATCH_HEAD_BYTES..]);
    change(&mut head);
    head.write(&mut bytes);
    bytes.into()
}

#[test]
fn one_small_record_costs_at_most_128_bytes() {
    let value = [5; 64];
    let cost = |key: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(WallMillis(1), key, Some(&value), headers).unwrap();
        let own = value.len()
            + key.map_or(0, <[u8]>::len)
            + headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        builder.finish(ProducerStamp::default()).len() - own
    };
    assert_eq!(cost(None, &[]), 116);
    assert_eq!(cost(Some(b"player-1"), &[]), 120);
    assert_eq!(cost(Some(b"player-1"), &[("trace", Some(b"4711"))]), 126);
}

#[test]
fn a_stamp_changes_the_head_and_nothing_else() {
    let bytes = single(b"hello");
    let sealed = SealedBatch::parse(bytes.clone()).unwrap();
    let given = Stamp { base_offset: Offset(1 << 40), append_timestamp: WallMillis(-5), leader_epoch: LeaderEpoch(8) };
    let mut stamped = bytes.to_vec();
    stamp(&mut stamped, given);
    assert_eq!(stamped[..BATCH_HEAD_BYTES], sealed.stamped_head(given));
    assert_eq!(stamped[BATCH_HEAD_BYTES..], *sealed.payload());
    let batch = RecordBatch::parse(stamped.into()).unwrap();
    assert_eq!(batch.head().append_timestamp, WallMillis(-5));
    assert_eq!(batch.head().leader_epoch, LeaderEpoch(8));
    assert_eq!(batch.head().end_offset(), Offset((1 << 40) + 1));
    let record = batch.get(0).unwrap();
    assert_eq!((record.offset, record.timestamp, record.value), (Offset(1 << 40), WallMillis(7), Some(&b"hello"[..])));
    assert!(batch.get(1).is_none());
}

#[test]
fn a_run_of_batches_is_cut_at_their_lengths() {
    let (a, b) = (single(b"a"), single(b"bb"));
    let mut run = Bytes::from([&a[..], &b[..]].concat());
    assert_eq!(split_batch(&mut run), Ok(Some(a)));
    let whole = run.clone();
    let mut cut_off = run.slice(..run.len() - 1);
    let (len, needed) = (run.len() - 1, run.len());
    assert_eq!(split_batch(&mut cut_off), Err(BatchError::Truncated { len, needed }));
    assert_eq!(cut_off.len(), len);
    assert_eq!(split_batch(&mut run), Ok(Some(whole)));
    assert_eq!(split_batch(&mut run), Ok(None));
}

#[test]
fn a_full_batch_says_so_and_a_record_for_no_batch_too() {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![1; 1000];
    let mut count = 0;
    while builder.push(WallMillis(0), None, Some(&value), &[]).is_ok() {
        assert!(builder.bytes() <= BATCH_BYTES_MAX as usize);
        count += 1;
    }
    assert_eq!(builder.push(WallMillis(0), None, Some(&value), &[]), Err(PushError::Full));
    assert_eq!(builder.len(), count);
    let bytes = builder.finish(ProducerStamp::default());
    let room = BATCH_BYTES_MAX as usize - bytes.len();
    assert!(room < 1004, "{room} bytes are left");
    SealedBatch::parse(bytes).unwrap();

    let large = vec![1; BATCH_BYTES_MAX as usize - 116];
    builder.push(WallMillis(0), None, Some(&large), &[]).unwrap();
    assert_eq!(SealedBatch::parse(builder.finish(ProducerStamp::default())).unwrap().head().record_count, 1);
    let larger = vec![1; BATCH_BYTES_MAX as usize - 115];
    let error = PushError::RecordTooLarge { len: u64::from(BATCH_BYTES_MAX) + 1, limit: BATCH_BYTES_MAX };
    assert_eq!(builder.push(WallMillis(0), None, Some(&larger), &[]), Err(error));
    let headers = vec![("h", None); RECORD_HEADERS_MAX + 1];
    let error = PushError::TooManyHeaders { count: RECORD_HEADERS_MAX + 1, limit: RECORD_HEADERS_MAX };
    assert_eq!(builder.push(WallMillis(0), None, None, &headers), Err(error));
    assert!(builder.is_empty());
}

#[test]
fn the_number_of_records_is_limited() {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..BATCH_RECORDS_MAX {
        builder.push(WallMillis(0), None, None, &[]).unwrap();
    }
    assert_eq!(builder.push(WallMillis(0), None, None, &[]), Err(PushError::Full));
    let batch = RecordBatch::parse(builder.finish(ProducerStamp::default())).unwrap();
    assert_eq!(batch.len(), BATCH_RECORDS_MAX as usize);
    assert!(batch.iter().all(|record| record.value.is_none() && record.key.is_none()));
}

#[test]
fn timestamps_too_far_apart_go_into_two_batches() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(i64::MIN), None, None, &[]).unwrap();
    assert_eq!(builder.push(WallMillis(i64::MAX), None, None, &[]), Err(PushError::Full));
    builder.push(WallMillis(i64::MIN + i64::from(u32::MAX)), None, None, &[]).unwrap();
    let far = builder.push(WallMillis(i64::MIN + i64::from(u32::MAX) + 1), None, None, &[]);
    assert_eq!(far, Err(PushError::Full));
    let batch = RecordBatch::parse(builder.finish(ProducerStamp::default())).unwrap();
    let times: Vec<_> = batch.iter().map(|record| record.timestamp.0).collect();
    assert_eq!(times, [i64::MIN, i64::MIN + i64::from(u32::MAX)]);
}

#[test]
fn a_bomb_is_refused_before_memory_is_taken() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push(WallMillis(0), None, Some(&vec![0; 100_000]), &[]).unwrap();
    let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
    assert!(bytes.len() < 1000);
    let end = 100_000_u32.to_le_bytes();
    // The frame of zstd says its length as well, further to the front.
    let at = bytes.windows(4).rposition(|window| window == end).unwrap();
    bytes[at..at + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    let forged = forge(bytes.clone(), |_| {});
    assert!(matches!(SealedBatch::parse(forged.clone()), Err(BatchError::ValuesTooLarge { .. })));
    assert!(matches!(RecordBatch::parse(forged), Err(BatchError::ValuesTooLarge { .. })));
    bytes[at..at + 4].copy_from_slice(&99_999_u32.to_le_bytes());
    let forged = forge(bytes, |_| {});
    SealedBatch::parse(forged.clone()).unwrap();
    assert!(matches!(RecordBatch::parse(forged), Err(BatchError::Decompress { len: 99_999, .. })));
}

#[test]
fn what_a_producer_may_not_say_is_refused() {
    let refused = |change: fn(&mut BatchHead)| SealedBatch::parse(forge(single(b"x").to_vec(), change)).unwrap_err();
    assert!(matches!(refused(|head| head.version = 2), BatchError::Version { found: 2, known: 1 }));
    assert!(matches!(refused(|head| head.codec = 1), BatchError::Codec { found: 1, known: 0 }));
    assert_eq!(refused(|head| head.flags.0 |= 1 << 2), BatchError::NobodysTransaction);
    assert!(matches!(refused(|head| head.flags.0 |= 1 << 3), BatchError::Flags { .. }));
    assert!(matches!(refused(|head| head.flags.0 |= 1 << 9), BatchError::Flags { .. }));
    assert!(matches!(refused(|head| head.flags.0 |= 3), BatchError::Flags { .. }));
    assert!(matches!(refused(|head| head.flags.0 |= 1 << 4), BatchError::ColumnLength { .. }));
    assert!(matches!(refused(|head| head.offset_span = 2), BatchError::OffsetSpan { span: 2, count: 1 }));
    assert!(matches!(refused(|head| head.offset_span = 0), BatchError::OffsetSpan { span: 0, count: 1 }));
    assert!(matches!(refused(|head| head.base_offset = Offset(u64::MAX)), BatchError::OffsetSpan { .. }));
    assert!(matches!(refused(|head| head.record_count = 0), BatchError::RecordCount { count: 0, .. }));
    assert!(matches!(refused(|head| head.payload_bytes -= 1), BatchError::Excess { excess: 1, .. }));
    assert!(matches!(refused(|head| head.payload_bytes += 1), BatchError::Truncated { .. }));
    assert!(matches!(refused(|head| head.payload_bytes = u32::MAX), BatchError::TooLarge { .. }));
    assert!(matches!(refused(|head| head.payload_crc ^= 1), BatchError::PayloadChecksum { .. }));
}

#[test]
fn a_batch_that_the_column_of_offsets_makes_too_large_becomes_several() {
    let mut builder = BatchBuilder::new(Compression::None);
    while builder.push(WallMillis(7), Some(b"k"), Some(b"0123456789"), &[]).is_ok() {}
    let count = builder.len();
    let bytes = builder.finish(ProducerStamp::default());
    let mut keeps = vec![true; count];
    keeps[1] = false;
    let mut out = Vec::new();
    Rewriter::default().rewrite(bytes, &keeps, &mut out).unwrap();
    assert!(1 < out.len() && out.iter().all(|batch| batch.len() <= BATCH_BYTES_MAX as usize));
    assert_eq!(with_offsets(&out).len(), count - 1);
}

#[test]
fn a_single_record_is_the_batch_that_a_builder_makes_of_it() {
    let producer =
        ProducerStamp { producer_id: ProducerId(7), producer_epoch: ProducerEpoch(2), base_sequence: Sequence(9) };
    let large = vec![7; 5000];
    let parts = [None, Some(&b""[..]), Some(b"k"), Some(b"seven b"), Some(&large)];
    for (key, value) in parts.into_iter().flat_map(|key| parts.map(|value| (key, value))) {
        let mut builder = BatchBuilder::new(Compression::None);
        let push = |builder: &mut BatchBuilder| builder.push(WallMillis(5), key, value, &[]).expect("it fits");
        push(&mut builder);
        let expected = builder.finish_unshared(producer);
        for memory in [Vec::new(), vec![9; 40], vec![9; 300]] {
            let single = SingleBatch::new(memory, WallMillis(5), key, value).expect("it fits");
            assert_eq!(single.bytes(), expected.len());
            assert_eq!(single.finish(producer), expected, "{key:?} {value:?}");
        }
        push(&mut builder);
        push(&mut builder);
        let expected = builder.finish(producer);
        SingleBatch::new(Vec::new(), WallMillis(5), key, value).expect("it fits").move_into(&mut builder);
        push(&mut builder);
        assert_eq!(builder.finish(producer), expected, "{key:?} {value:?}");
    }
}

#[test]
fn a_single_record_has_the_limit_that_a_builder_has() {
    for (key, most) in
        [(None, 0), (Some(&b"key"[..]), 7)].map(|(key, more)| (key, BATCH_BYTES_MAX as usize - 116 - more))
    {
        let value = vec![7; most + 1];
        let mut builder = BatchBuilder::new(Compression::None);
        let refused = builder.push(WallMillis(0), key, Some(&value), &[]).expect_err("it is too large");
        assert_eq!(SingleBatch::new(Vec::new(), WallMillis(0), key, Some(&value)).expect_err("it is"), refused);
        let single = SingleBatch::new(Vec::new(), WallMillis(0), key, Some(&value[1..])).expect("it fits");
        assert_eq!(single.bytes(), BATCH_BYTES_MAX as usize);
    }
}
