//! Reads against a segment in memory, with reads that complete in any order.

use bytes::Bytes;
use corelane_model::{Incarnation, LeaderEpoch, Offset, PartitionId, PartitionIndex, TopicId, WallMillis};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, Stamp, stamp};
use proptest::prelude::*;

use super::*;
use crate::extent::{EXTENT_HEAD_BYTES, seal_extent};

const PARTITION: PartitionId = PartitionId::new(TopicId(4), PartitionIndex(2));

/// A segment's file and what is in it.
struct Segment {
    file: Vec<u8>,
    view: SegmentView,
    batches: Vec<(Offset, Offset, WallMillis, Bytes)>,
    extents: Vec<ExtentHead>,
}

/// One extent for each list of batches; each batch is {records, bytes of a value, milliseconds after the last}.
fn segment(base: u64, extents: &[Vec<(u32, usize, i64)>]) -> Segment {
    let view = SegmentView { base: Offset(base), end: Offset(base), bytes: 0, rewrite: 0 };
    let mut segment = Segment { file: Vec::new(), view, batches: Vec::new(), extents: Vec::new() };
    let mut time = 1000;
    for extent in extents {
        let first_append = WallMillis(time + extent[0].2);
        let start = segment.batches.len();
        let first = segment.view.end;
        for &(records, bytes, step) in extent {
            time += step;
            let batch = batch(segment.view.end, records, bytes, WallMillis(time));
            let end = segment.view.end.advance(u64::from(records));
            segment.batches.push((segment.view.end, end, WallMillis(time), batch));
            segment.view.end = end;
        }
        let mut head = ExtentHead {
            partition: PARTITION,
            incarnation: Incarnation(1),
            position: segment.view.bytes,
            base: first,
            end: segment.view.end,
            first_append,
            last_append: WallMillis(time),
            payload_bytes: 0,
            payload_crc: 0,
        };
        let batches: Vec<Bytes> = segment.batches[start..].iter().map(|(.., bytes)| bytes.clone()).collect();
        segment.file.extend(seal_extent(&mut head, &batches).concat());
        segment.view.bytes = segment.file.len() as u64;
        segment.extents.push(head);
    }
    // What was written and never checkpointed: it must not be read as an extent.
    segment.file.extend([0xee; 8192]);
    segment
}

fn batch(base_offset: Offset, records: u32, bytes: usize, append_timestamp: WallMillis) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(1), None, Some(&vec![b'v'; bytes]), &[]).expect("it fits");
    }
    let mut bytes = builder.finish(ProducerStamp::default()).to_vec();
    stamp(&mut bytes, Stamp { base_offset, append_timestamp, leader_epoch: LeaderEpoch(1) });
    bytes.into()
}

/// Reads, and the file that answers them.
struct Reader<'a> {
    reads: Reads,
    segment: &'a Segment,
    order: u64,
}

impl<'a> Reader<'a> {
    fn new(segment: &'a Segment, cache_bytes: u64) -> Self {
        Self { reads: Reads::new(cache_bytes, 0), segment, order: 1 }
    }

    /// Completes every read that is wanted, in some order, and returns the late answers.
    fn pump(&mut self) -> Vec<ReadAnswer> {
        let mut on_their_way = Vec::new();
        let mut answers = Vec::new();
        loop {
            on_their_way.extend(std::iter::from_fn(|| self.reads.poll_order()));
            answers.extend(std::iter::from_fn(|| self.reads.poll_answer()));
            if on_their_way.is_empty() {
                return answers;
            }
            self.order = self.order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = usize::try_from(self.order >> 33).expect("fits") % on_their_way.len();
            let order = on_their_way.swap_remove(place);
            let start = usize::try_from(order.position).expect("fits").min(self.segment.file.len());
            let end = (start + order.length as usize).min(self.segment.file.len());
            let bytes = Bytes::copy_from_slice(&self.segment.file[start..end]);
            self.reads.on_read(&order, Ok(bytes), Some(self.segment.view.base));
        }
    }

    fn read(&mut self, from: Offset, bytes_max: u32) -> Result<Vec<Bytes>, ReadError> {
        match self.reads.look(PARTITION, self.segment.view, Goal::Records { asked: from, from, bytes_max }) {
            Reply::Batches { batches, .. } => Ok(batches),
            Reply::Corrupt { first, end } => Err(ReadError::Corrupt { partition: PARTITION, first, end }),
            Reply::Pending(wanted) => {
                let answers = self.pump();
                let [ReadAnswer::Records { ticket, result, .. }] = <[_; 1]>::try_from(answers).expect("one answer")
                else {
                    panic!("another kind of answer")
                };
                assert_eq!(ticket, wanted);
                result
            }
            reply => panic!("{reply:?}"),
        }
    }

    fn time(&mut self, time: WallMillis) -> Offset {
        match self.reads.look(PARTITION, self.segment.view, Goal::Time(time)) {
            Reply::Found(offset) => offset,
            Reply::Pending(_) => match self.pump().pop() {
                Some(ReadAnswer::Time { result, .. }) => result.expect("the disk is sound"),
                answer => panic!("{answer:?}"),
            },
            reply => panic!("{reply:?}"),
        }
    }

    /// Everything from `from` on, and what was said to be lost.
    fn read_all(&mut self, from: Offset, bytes_max: u32) -> (Vec<Bytes>, Vec<(Offset, Offset)>) {
        let (mut all, mut lost, mut next) = (Vec::new(), Vec::new(), from);
        while next < self.segment.view.end {
            match self.read(next, bytes_max) {
                Ok(batches) => {
                    next = BatchHead::parse(batches.last().expect("never empty")).expect("a batch").end_offset();
                    all.extend(batches);
                }
                Err(ReadError::Corrupt { first, end, .. }) => {
                    assert!(first == next && first < end, "{first} to {end} at {next}");
                    lost.push((first, end));
                    next = end;
                }
                Err(error) => panic!("{error}"),
            }
        }
        (all, lost)
    }
}

fn uniform(extents: usize, batches: usize, bytes: usize) -> Segment {
    segment(0, &vec![vec![(1, bytes, 1); batches]; extents])
}

#[test]
fn readers_of_one_extent_share_one_read() {
    let segment = uniform(3, 10, 1000);
    let mut reader = Reader::new(&segment, 1 << 20);
    for from in 0..10 {
        let goal = Goal::Records { asked: Offset(from), from: Offset(from), bytes_max: 100 };
        assert!(matches!(reader.reads.look(PARTITION, segment.view, goal), Reply::Pending(_)));
    }
    let first = reader.reads.poll_order().expect("a read is wanted");
    assert_eq!(reader.reads.poll_order(), None);
    let bytes = Bytes::copy_from_slice(&segment.file[..first.length as usize]);
    reader.reads.on_read(&first, Ok(bytes), Some(Offset::ZERO));
    assert_eq!(reader.pump().len(), 10);
}

#[test]
fn a_sequential_reader_reads_each_byte_about_once() {
    for (extents, batches, bytes) in [(20, 16, 60_000), (200, 16, 4_000), (1000, 1, 100)] {
        let segment = uniform(extents, batches, bytes);
        let mut reader = Reader::new(&segment, 64 << 20);
        let (all, lost) = reader.read_all(Offset::ZERO, 256 << 10);
        assert_eq!((all.len(), lost.len()), (extents * batches, 0));
        let read = reader.reads.stats.bytes_total;
        assert!(read <= segment.view.bytes * 11 / 10 + 8192, "{read} bytes of {}", segment.view.bytes);
    }
}

#[test]
fn records_dropped_while_a_read_waits_are_gone() {
    let segment = uniform(2, 2, 100);
    let mut reader = Reader::new(&segment, 1 << 20);
    let goal = Goal::Records { asked: Offset(1), from: Offset(1), bytes_max: 100 };
    assert!(matches!(reader.reads.look(PARTITION, segment.view, goal), Reply::Pending(_)));
    let order = reader.reads.poll_order().expect("a read is wanted");
    let bytes = Bytes::copy_from_slice(&segment.file[..order.length as usize]);
    reader.reads.on_read(&order, Ok(bytes), Some(Offset(2)));
    match reader.reads.poll_answer() {
        Some(ReadAnswer::Records { result, .. }) => assert_eq!(result, Err(ReadError::Gone)),
        answer => panic!("{answer:?}"),
    }
    assert!(reader.reads.is_idle());
    assert_eq!(reader.reads.cache_bytes(), 0);
}

#[test]
fn a_failed_read_is_said_and_a_missing_file_is_damage() {
    let segment = uniform(2, 2, 100);
    let mut reader = Reader::new(&segment, 1 << 20);
    let goal = Goal::Records { asked: Offset(1), from: Offset(1), bytes_max: 100 };
    for (error, expected) in [
        (FileError::Os { errno: 5 }, None),
        (FileError::NotFound, Some(ReadError::Corrupt { partition: PARTITION, first: Offset(1), end: Offset(4) })),
    ] {
        assert!(matches!(reader.reads.look(PARTITION, segment.view, goal), Reply::Pending(_)));
        let order = reader.reads.poll_order().expect("a read is wanted");
        reader.reads.on_read(&order, Err(error), Some(Offset::ZERO));
        match (reader.reads.poll_answer(), expected) {
            (Some(ReadAnswer::Records { result: Err(found), .. }), Some(expected)) => assert_eq!(found, expected),
            (Some(ReadAnswer::Records { result: Err(ReadError::Failed { .. }), .. }), None) => {}
            (answer, _) => panic!("{answer:?}"),
        }
    }
}

#[test]
fn waiting_fetches_are_bounded() {
    let segment = uniform(1, 1, 100);
    let mut reader = Reader::new(&segment, 1 << 20);
    let goal = Goal::Records { asked: Offset::ZERO, from: Offset::ZERO, bytes_max: 100 };
    for _ in 0..READS_WAITING_MAX {
        assert!(matches!(reader.reads.look(PARTITION, segment.view, goal), Reply::Pending(_)));
    }
    assert_eq!(reader.reads.look(PARTITION, segment.view, goal), Reply::Busy);
    assert_eq!(reader.pump().len(), READS_WAITING_MAX);
    assert!(matches!(reader.reads.look(PARTITION, segment.view, goal), Reply::Batches { .. }));
}

fn extents() -> impl Strategy<Value = Vec<Vec<(u32, usize, i64)>>> {
    let batch = (1u32..4, prop_oneof![Just(10usize), Just(3000), 0usize..9000], 0i64..3);
    prop::collection::vec(prop::collection::vec(batch, 1..6), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_way_of_reading_gives_the_batches_that_were_written(
        extents in extents(), from: u64, bytes_max in 1u32..60_000, cache in prop_oneof![Just(0u64), Just(20_000), Just(1 << 20)],
        base in 0u64..5, jumps in prop::collection::vec(any::<u64>(), 0..6),
    ) {
        let segment = segment(base, &extents);
        let mut reader = Reader::new(&segment, cache);
        let span = segment.view.end.since(segment.view.base);
        for jump in jumps {
            let offset = Offset(base + jump % span);
            let found = reader.read(offset, bytes_max).expect("the disk is sound");
            let head = BatchHead::parse(&found[0]).expect("a batch");
            prop_assert!(head.base_offset <= offset && offset < head.end_offset());
        }
        let from = Offset(base + from % span);
        let (all, lost) = reader.read_all(from, bytes_max);
        let expected: Vec<Bytes> =
            segment.batches.iter().filter(|(_, end, ..)| from < *end).map(|(.., bytes)| bytes.clone()).collect();
        prop_assert_eq!(lost, vec![]);
        prop_assert_eq!(all, expected);
        prop_assert!(reader.reads.is_idle());
        prop_assert!(reader.reads.cache_bytes() <= cache);
    }

    #[test]
    fn a_time_finds_what_a_linear_scan_finds(extents in extents(), time in 995i64..1200) {
        let segment = segment(3, &extents);
        let mut reader = Reader::new(&segment, 1 << 20);
        let time = WallMillis(time);
        let linear = segment.batches.iter().find(|(_, _, at, _)| time <= *at).map_or(segment.view.end, |batch| batch.0);
        prop_assert_eq!(reader.time(time), linear);
        prop_assert_eq!(reader.time(time), linear);
    }

    #[test]
    fn damage_costs_no_more_than_its_extent(extents in extents(), at: u64, from: u64, bytes_max in 1u32..60_000) {
        let mut segment = segment(3, &extents);
        let place = usize::try_from(at % segment.extents.len() as u64).expect("fits");
        let hurt = segment.extents[place];
        let start = usize::try_from(hurt.position).expect("fits");
        let byte = start + usize::try_from(at / 100).expect("fits") % (EXTENT_HEAD_BYTES + hurt.payload_bytes as usize);
        segment.file[byte] ^= 0x40;
        let mut reader = Reader::new(&segment, 1 << 20);
        let from = Offset(3 + from % segment.view.end.since(Offset(3)));
        let (all, lost) = reader.read_all(from, bytes_max);
        let expected: Vec<Bytes> = segment
            .batches
            .iter()
            .filter(|(base, end, ..)| from < *end && (*end <= hurt.base || hurt.end <= *base))
            .map(|(.., bytes)| bytes.clone())
            .collect();
        prop_assert_eq!(all, expected);
        for (first, end) in lost {
            prop_assert!(hurt.base <= first && end <= hurt.end);
        }
    }

    #[test]
    fn any_bytes_in_place_of_a_segment_are_survived(
        extents in extents(), wounds in prop::collection::vec((any::<u64>(), any::<u8>()), 1..40), cut: u64,
    ) {
        let mut segment = segment(0, &extents);
        for (at, byte) in wounds {
            let at = usize::try_from(at % segment.file.len() as u64).expect("fits");
            segment.file[at] = byte;
        }
        let cut = usize::try_from(cut % segment.file.len() as u64).expect("fits");
        segment.file.truncate(segment.file.len() - cut / 2);
        let mut reader = Reader::new(&segment, 1 << 20);
        let (all, _) = reader.read_all(Offset::ZERO, 10_000);
        for bytes in all {
            prop_assert!(segment.batches.iter().any(|(.., known)| *known == bytes));
        }
        reader.time(WallMillis(1001));
    }
}

#[test]
fn a_search_that_finds_damage_stays_inside_what_it_may_read() {
    let whole = segment(0, &[vec![(1, 100, 5)], vec![(1, 100, 5)]]);
    let mut damaged = segment(0, &[vec![(1, 100, 5)], vec![(1, 100, 5)]]);
    damaged.file[EXTENT_HEAD_BYTES + 90] ^= 1;
    let first =
        SegmentView { base: Offset(0), end: whole.extents[0].end, bytes: whole.extents[0].disk_bytes(), rewrite: 0 };
    let mut reader = Reader::new(&damaged, 1 << 20);
    reader.reads.on_settled(Offset(0), &whole.extents[0]);
    assert!(matches!(reader.reads.look(PARTITION, first, Goal::Time(WallMillis(1001))), Reply::Pending(_)));
    // The segment grows while the read is on its way.
    reader.reads.on_settled(Offset(0), &whole.extents[1]);
    let answers = reader.pump();
    assert!(matches!(answers[..], [ReadAnswer::Time { result: Ok(Offset(1)), .. }]), "{answers:?}");
}

#[test]
fn an_older_extent_in_the_place_of_one_is_damage() {
    let older = segment(0, &[vec![(1, 100, 5)]]);
    let written = segment(0, &[vec![(1, 40, 5), (1, 40, 5)]]);
    assert_eq!(older.view.bytes, written.view.bytes);
    let mut reader = Reader::new(&older, 1 << 20);
    reader.reads.on_settled(Offset(0), &written.extents[0]);
    let goal = Goal::Records { asked: Offset(1), from: Offset(1), bytes_max: 1000 };
    assert!(matches!(reader.reads.look(PARTITION, written.view, goal), Reply::Pending(_)));
    let order = reader.reads.poll_order().expect("a read");
    let bytes = Bytes::copy_from_slice(&older.file[..order.length as usize]);
    reader.reads.on_read(&order, Ok(bytes), Some(Offset(0)));
    let answer = reader.reads.poll_answer();
    let lost = ReadError::Corrupt { partition: PARTITION, first: Offset(1), end: Offset(2) };
    assert!(matches!(&answer, Some(ReadAnswer::Records { result: Err(error), .. }) if *error == lost), "{answer:?}");
}
