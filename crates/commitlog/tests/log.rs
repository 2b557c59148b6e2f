//! Facts about one log, each told by a few steps.

use bytes::Bytes;
use corelane_commitlog::{
    Append, AppendError, CommitLog, CorruptRange, Fetch, LogState, ReplayError, Retention, SegmentChoice, Shutdown,
    TimeLookup,
};
use corelane_model::limits::{PARTITION_PRODUCERS_MAX, PRODUCER_EXPIRY};
use corelane_model::{
    LeaderEpoch, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    TopicClass, TopicId, TopicSettings, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, stamp};

const PARTITION: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));

/// A log, a clock, and the helper that knows the API.
struct Rig {
    log: CommitLog,
    now: Now,
    position: u64,
}

impl Rig {
    fn new(settings: TopicSettings) -> Self {
        let now = Now { monotonic: MonotonicNanos(5), wall: WallMillis(1000) };
        Self { log: CommitLog::new(PARTITION, settings, LogState::default()), now, position: 0 }
    }

    fn durable() -> Self {
        Self::new(TopicSettings { retention_ms: None, segment_bytes: 1000, ..TopicSettings::default() })
    }

    fn memory(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> Self {
        Self::new(TopicSettings {
            class: TopicClass::Memory,
            retention_ms,
            retention_bytes,
            ..TopicSettings::default()
        })
    }

    /// Appends without attaching.
    fn decide(&mut self, producer: (u64, u16, u32), records: u32) -> Result<Append, AppendError> {
        self.log.append(self.now, &BatchHead::parse(&batch(producer, records)).expect("sound"))
    }

    fn append_as(&mut self, producer: (u64, u16, u32), records: u32) -> Result<Append, AppendError> {
        let outcome = self.decide(producer, records)?;
        if let Append::Accept(given) = outcome {
            let mut bytes = batch(producer, records).to_vec();
            stamp(&mut bytes, given);
            self.position += 1;
            self.log.attach(bytes.into(), self.position);
        }
        Ok(outcome)
    }

    fn append(&mut self, records: u32) {
        self.append_as((0, 0, 0), records).expect("a producer without an identity is always taken");
    }

    fn sync(&mut self) {
        self.log.on_durable(self.log.log_end());
    }

    /// Settles everything that is durable, in extents of one batch.
    fn settle(&mut self) {
        while let Some(plan) = self.log.settle_plan(1) {
            let before = match plan.segment {
                SegmentChoice::Append { bytes, .. } => bytes,
                SegmentChoice::Roll { .. } => 0,
            };
            self.log.note_settled(&plan.settled(before + plan.bytes));
            assert!(self.log.on_settled().is_empty());
        }
    }

    fn wait(&mut self, millis: i64) {
        self.now.wall.0 += millis;
        self.now.monotonic.0 += millis.unsigned_abs() * 1_000_000;
    }

    /// Log start, settled end, durable end, log end.
    fn ends(&self) -> [u64; 4] {
        let log = &self.log;
        [log.log_start().0, log.settled_end().0, log.durable_end().0, log.log_end().0]
    }

    fn segments(&self) -> Vec<(u64, u64, bool)> {
        self.log.segments().iter().map(|segment| (segment.base.0, segment.end.0, segment.is_sealed)).collect()
    }

    /// First offsets of the batches that a fetch lends, or what it says instead.
    fn fetch(&self, from: u64, bytes_max: u32) -> String {
        match self.log.fetch(Offset(from), bytes_max) {
            Fetch::Batches { batches, next } => {
                let bases = batches.iter().map(|bytes| BatchHead::parse(bytes).expect("sound").base_offset.to_string());
                format!("{} then {next}", bases.collect::<Vec<_>>().join(" "))
            }
            Fetch::Cold { segment, end, .. } => format!("cold in {segment} to {end}"),
            Fetch::AtEnd => "at end".to_owned(),
            Fetch::OutOfRange { log_start, high_watermark } => format!("out of {log_start} to {high_watermark}"),
            Fetch::Corrupt { first, end } => format!("corrupt {first} to {end}"),
        }
    }
}

fn batch((producer, epoch, sequence): (u64, u16, u32), records: u32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(0), None, Some(&[7; 100]), &[]).expect("small");
    }
    builder.finish(ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    })
}

fn is_accepted(outcome: &Result<Append, AppendError>) -> bool {
    matches!(outcome, Ok(Append::Accept(_)))
}

#[test]
fn an_idle_log_is_small() {
    let rig = Rig::durable();
    assert!(rig.log.memory_bytes() <= 512, "{} bytes", rig.log.memory_bytes());
    let mut busy = Rig::durable();
    for _ in 0..1000 {
        busy.append(1);
    }
    busy.sync();
    while let Some(plan) = busy.log.settle_plan(1 << 20) {
        busy.log.note_settled(&plan.settled(plan.bytes));
        busy.log.on_settled();
    }
    assert!(busy.log.memory_bytes() <= 1024, "{} bytes after the load", busy.log.memory_bytes());
}

#[test]
fn a_record_is_visible_when_it_is_durable() {
    let mut rig = Rig::durable();
    rig.append(2);
    rig.append(3);
    assert_eq!(rig.ends(), [0, 0, 0, 5]);
    assert_eq!(rig.fetch(0, 1000), "at end");
    assert_eq!(rig.fetch(1, 1000), "out of 0 to 0");
    rig.log.on_durable(Offset(2));
    assert_eq!(rig.fetch(0, 10_000), "0 then 2");
    assert_eq!(rig.fetch(2, 10_000), "at end");
    rig.log.on_durable(Offset(5));
    rig.log.on_durable(Offset(2));
    assert_eq!(rig.ends(), [0, 0, 5, 5]);
    assert_eq!(rig.fetch(1, 10_000), "0 2 then 5");
    assert_eq!(rig.fetch(1, 1), "0 then 2");
    assert_eq!(rig.fetch(4, 1), "2 then 5");
}

#[test]
#[should_panic(expected = "durable end 3 is beyond the attached end 2")]
fn what_was_not_attached_cannot_be_durable() {
    let mut rig = Rig::durable();
    rig.append(2);
    rig.decide((0, 0, 0), 1).expect("taken");
    rig.log.on_durable(Offset(3));
}

#[test]
#[should_panic(expected = "in the order of appends")]
fn batches_are_attached_in_order() {
    let mut rig = Rig::durable();
    rig.decide((0, 0, 0), 1).expect("taken");
    rig.append(1);
}

#[test]
fn append_timestamps_never_go_back() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.wait(-500);
    rig.append(1);
    assert_eq!(rig.log.append_timestamp(), WallMillis(1000));
    rig.wait(600);
    rig.append(1);
    assert_eq!(rig.log.append_timestamp(), WallMillis(1100));
}

#[test]
fn a_batch_that_is_sent_again_is_answered_and_not_appended() {
    let mut rig = Rig::durable();
    for sequence in 0..6 {
        assert!(is_accepted(&rig.append_as((9, 0, sequence * 2), 2)));
    }
    rig.wait(77);
    let first_time =
        Append::Duplicate { base_offset: Offset(2), append_timestamp: WallMillis(1000), end_offset: Offset(4) };
    assert_eq!(rig.append_as((9, 0, 2), 2), Ok(first_time));
    // The first of six is forgotten, and is still not taken for new.
    let (producer, expected) = (ProducerId(9), Sequence(12));
    let too_old = AppendError::OutOfSequence { producer, expected, found: Sequence(0) };
    assert_eq!(rig.append_as((9, 0, 0), 2), Err(too_old));
    // The same place with another number of records is not the same batch.
    let other = AppendError::OutOfSequence { producer, expected, found: Sequence(2) };
    assert_eq!(rig.append_as((9, 0, 2), 1), Err(other));
    assert_eq!(rig.ends(), [0, 0, 0, 12]);
    assert_eq!((rig.log.stats().duplicate_batches, rig.log.stats().refused_batches), (1, 2));
}

#[test]
fn a_gap_in_sequences_is_refused() {
    let mut rig = Rig::durable();
    let producer = ProducerId(9);
    assert_eq!(rig.decide((9, 0, 5), 1), Err(AppendError::UnknownProducer { producer, found: Sequence(5) }));
    assert!(is_accepted(&rig.append_as((9, 0, 0), 3)));
    let gap = AppendError::OutOfSequence { producer, expected: Sequence(3), found: Sequence(4) };
    assert_eq!(rig.decide((9, 0, 4), 1), Err(gap));
    assert!(is_accepted(&rig.append_as((9, 0, 3), 1)));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old() {
    let mut rig = Rig::durable();
    assert!(is_accepted(&rig.append_as((9, 1, 0), 3)));
    let producer = ProducerId(9);
    let gap = AppendError::OutOfSequence { producer, expected: Sequence(0), found: Sequence(3) };
    assert_eq!(rig.decide((9, 2, 3), 1), Err(gap));
    assert!(is_accepted(&rig.append_as((9, 2, 0), 3)));
    let (current, found) = (ProducerEpoch(2), ProducerEpoch(1));
    assert_eq!(rig.decide((9, 1, 3), 1), Err(AppendError::ProducerFenced { producer, current, found }));
}

#[test]
fn sequences_wrap() {
    let mut rig = Rig::durable();
    // In steps of the largest batch a wrap would take a quarter of a million batches: begin shortly before it.
    let mut state = LogState::default();
    for sequence in 0..3 {
        assert!(is_accepted(&rig.append_as((9, 0, sequence), 1)));
        state = rig.log.state().clone();
    }
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    // The producer's batches are the last thing in it but for the count of damaged ranges: sequence, span, offset, time.
    let near_end = [0xfe, 0xff, 0xff, 0xff, 0x0f];
    let at = bytes.len() - 6;
    assert_eq!(bytes[at], 2, "the last batch's sequence in {bytes:?}");
    bytes.splice(at..=at, near_end);
    rig.log = CommitLog::new(PARTITION, *rig.log.settings(), LogState::decode(&bytes).expect("sound"));
    assert!(is_accepted(&rig.append_as((9, 0, u32::MAX), 3)));
    let again = Append::Duplicate { base_offset: Offset(3), append_timestamp: WallMillis(1000), end_offset: Offset(6) };
    assert_eq!(rig.append_as((9, 0, u32::MAX), 3), Ok(again));
    assert!(is_accepted(&rig.append_as((9, 0, 2), 1)));
}

#[test]
fn one_producer_too_many_pushes_out_the_one_that_was_silent_longest() {
    let mut rig = Rig::durable();
    let count = PARTITION_PRODUCERS_MAX as u64;
    for id in 1..=count {
        rig.append_as((id, 0, 0), 1).expect("taken");
    }
    rig.append_as((1, 0, 1), 1).expect("taken");
    rig.append_as((count + 1, 0, 0), 1).expect("taken");
    assert_eq!(rig.log.state().producers().len(), PARTITION_PRODUCERS_MAX);
    assert!(matches!(rig.decide((2, 0, 1), 1), Err(AppendError::UnknownProducer { .. })));
    assert!(is_accepted(&rig.decide((1, 0, 2), 1)));
    assert!(is_accepted(&rig.decide((3, 0, 1), 1)));
}

#[test]
fn a_silent_producer_is_forgotten_by_the_clock_that_does_not_jump() {
    let mut rig = Rig::durable();
    rig.append_as((9, 0, 0), 1).expect("taken");
    rig.now.wall.0 += 1_000_000_000_000;
    rig.log.apply_retention(rig.now);
    assert!(is_accepted(&rig.append_as((9, 0, 1), 1)));
    rig.now.monotonic = rig.now.monotonic.after(PRODUCER_EXPIRY);
    rig.log.apply_retention(rig.now);
    assert!(matches!(rig.decide((9, 0, 2), 1), Err(AppendError::UnknownProducer { .. })));
}

#[test]
fn settling_takes_what_is_durable_and_rolls_by_bytes() {
    let mut rig = Rig::durable();
    for _ in 0..6 {
        rig.append(3); // 80 + 32 + 3 * (4 + 100) = 424 bytes; two fit into a segment of 1,000
    }
    assert!(rig.log.settle_plan(1 << 20).is_none());
    rig.log.on_durable(Offset(15));
    assert_eq!(rig.log.oldest_unsettled(), Some(1));
    let plan = rig.log.settle_plan(850).expect("five batches are durable");
    assert_eq!((plan.base, plan.end, plan.bytes), (Offset(0), Offset(6), 848));
    assert_eq!(plan.segment, SegmentChoice::Roll { segment: Offset(0) });
    assert!(rig.log.settle_plan(850).is_none(), "one plan at a time");
    rig.log.on_settle_failed();
    assert_eq!(rig.ends(), [0, 0, 15, 18]);
    rig.settle();
    assert_eq!(rig.ends(), [0, 15, 15, 18]);
    assert_eq!(rig.segments(), [(0, 6, true), (6, 12, true), (12, 15, false)]);
    assert_eq!(rig.log.oldest_unsettled(), Some(6));
    assert_eq!((rig.log.unsettled_bytes(), rig.log.disk_bytes()), (424, 5 * 424));
    assert_eq!(rig.fetch(7, 1), "cold in 6 to 12");
}

#[test]
fn a_checkpoint_counts_a_note_before_it_is_durable_and_the_cache_does_not() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.sync();
    let plan = rig.log.settle_plan(1000).expect("durable");
    rig.log.note_settled(&plan.settled(4096));
    assert_eq!(rig.log.state().settled_end, Offset(1));
    assert_eq!((rig.fetch(0, 1), rig.log.oldest_unsettled()), ("0 then 1".to_owned(), Some(1)));
    rig.log.on_settled();
    assert_eq!((rig.fetch(0, 1), rig.log.oldest_unsettled()), ("cold in 0 to 1".to_owned(), None));
    assert_eq!(rig.log.disk_bytes(), 4096);
}

#[test]
fn truncation_within_a_batch_keeps_the_batch() {
    let mut rig = Rig::durable();
    rig.append(3);
    rig.append(3);
    rig.sync();
    assert_eq!(rig.log.truncate(Offset(4)), Ok(vec![]));
    assert_eq!(rig.ends(), [4, 4, 6, 6]);
    assert_eq!(rig.fetch(4, 1), "3 then 6");
    assert_eq!(rig.fetch(3, 1), "out of 4 to 6");
    assert_eq!(rig.log.oldest_unsettled(), Some(2));
    rig.settle();
    assert_eq!(rig.segments(), [(3, 6, false)]);
    assert!(rig.log.truncate(Offset(7)).is_err());
    assert_eq!(rig.log.truncate(Offset(6)).expect("the end").len(), 1);
    assert_eq!(rig.ends(), [6, 6, 6, 6]);
}

#[test]
fn a_segment_that_is_written_is_not_dropped() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.append(1);
    rig.sync();
    let plan = rig.log.settle_plan(1).expect("durable");
    rig.log.note_settled(&plan.settled(216));
    rig.log.on_settled();
    let plan = rig.log.settle_plan(1).expect("durable");
    assert_eq!(rig.log.truncate(Offset(2)), Ok(vec![]));
    rig.log.note_settled(&plan.settled(432));
    let dropped = rig.log.on_settled();
    assert_eq!(dropped.iter().map(|segment| (segment.base, segment.end)).collect::<Vec<_>>(), [(Offset(0), Offset(2))]);
    rig.append(1);
    rig.sync();
    rig.settle();
    assert_eq!(rig.segments(), [(2, 3, false)]);
}

#[test]
fn retention_by_age_seals_then_drops() {
    let mut rig = Rig::new(TopicSettings { retention_ms: Some(800), segment_bytes: 1000, ..TopicSettings::default() });
    assert_eq!(rig.log.retention_deadline(), None);
    rig.append(1);
    rig.sync();
    rig.settle();
    assert_eq!(rig.log.retention_deadline(), Some(WallMillis(1101)));
    rig.wait(100);
    assert_eq!(rig.log.apply_retention(rig.now), Retention::default());
    assert_eq!(rig.segments(), [(0, 1, false)]);
    rig.wait(1);
    assert_eq!(rig.log.apply_retention(rig.now), Retention::default());
    assert_eq!(rig.segments(), [(0, 1, true)]);
    rig.append(1);
    rig.sync();
    rig.settle();
    assert_eq!(rig.segments(), [(0, 1, true), (1, 2, false)]);
    rig.wait(700);
    let retention = rig.log.apply_retention(rig.now);
    assert_eq!((retention.log_start, retention.dropped.len()), (Some(Offset(1)), 1));
    assert_eq!(rig.ends(), [1, 2, 2, 2]);
    rig.wait(200);
    assert_eq!(rig.log.apply_retention(rig.now).log_start, Some(Offset(2)));
    assert_eq!(rig.segments(), []);
}

#[test]
fn retention_by_bytes_drops_sealed_segments_only() {
    let settings = TopicSettings {
        retention_ms: None,
        retention_bytes: Some(900),
        segment_bytes: 500,
        ..TopicSettings::default()
    };
    let mut rig = Rig::new(settings);
    for _ in 0..5 {
        rig.append(1); // 216 bytes; two fit into a segment
    }
    rig.sync();
    rig.settle();
    assert_eq!(rig.segments(), [(0, 2, true), (2, 4, true), (4, 5, false)]);
    assert_eq!(rig.log.apply_retention(rig.now).log_start, Some(Offset(2)));
    rig.log.set_settings(TopicSettings { retention_bytes: Some(1), ..settings });
    assert_eq!(rig.log.apply_retention(rig.now).log_start, Some(Offset(4)));
    assert_eq!(rig.log.apply_retention(rig.now).log_start, None);
    assert_eq!(rig.segments(), [(4, 5, false)]);
}

#[test]
fn a_memory_log_is_a_ring() {
    let mut rig = Rig::memory(Some(1000), Some(700));
    for _ in 0..3 {
        rig.append(1);
    }
    assert_eq!(rig.ends(), [0, 0, 3, 3]);
    rig.append(1);
    assert_eq!(rig.ends(), [1, 1, 4, 4]);
    assert_eq!(rig.fetch(0, 1), "out of 1 to 4");
    assert_eq!(rig.fetch(1, 10_000), "1 2 3 then 4");
    assert_eq!((rig.log.settle_plan(1 << 20), rig.log.oldest_unsettled()), (None, None));
    rig.wait(500);
    rig.append(5);
    assert_eq!(rig.ends(), [4, 4, 9, 9], "the newest batch stays even if it is alone over the bound");
    assert_eq!(rig.log.retention_deadline(), Some(WallMillis(2501)));
    rig.wait(1000);
    assert_eq!(rig.log.apply_retention(rig.now).log_start, None);
    rig.wait(1);
    assert_eq!(rig.log.apply_retention(rig.now).log_start, Some(Offset(9)));
    assert_eq!((rig.ends(), rig.log.cached_bytes()), ([9, 9, 9, 9], 0));
}

#[test]
fn a_memory_log_goes_on_behind_its_lease() {
    let mut rig = Rig::memory(None, None);
    rig.log.restore(LogState::starting_at(Offset(1 << 20)));
    assert_eq!(rig.log.finish_recovery(rig.now, Shutdown::Unclean).0, []);
    rig.append(1);
    assert_eq!(rig.fetch(1 << 20, 1), "1048576 then 1048577");
}

#[test]
fn a_moment_is_found_in_segments_and_in_memory() {
    let mut rig = Rig::durable();
    for _ in 0..3 {
        rig.append(3);
        rig.append(3);
        rig.wait(10);
        rig.sync();
        if rig.log.log_end() < Offset(18) {
            rig.settle();
        }
    }
    assert_eq!(rig.segments(), [(0, 6, true), (6, 12, false)]);
    let at = |millis| rig.log.offset_for_time(WallMillis(millis));
    assert_eq!(at(0), TimeLookup::At(Offset(0)));
    assert_eq!(at(1000), TimeLookup::At(Offset(0)));
    assert!(matches!(at(1001), TimeLookup::Segment { segment: Offset(6), .. }));
    assert_eq!(at(1011), TimeLookup::At(Offset(12)));
    assert_eq!(at(1020), TimeLookup::At(Offset(12)));
    assert_eq!(at(1021), TimeLookup::At(Offset(18)));
}

/// A log that holds 0 to 2 settled and 2 to 6 in two batches, and everything as it would be read from the journal.
fn journal() -> (Vec<u8>, Vec<(BatchHead, Bytes)>) {
    let mut rig = Rig::durable();
    rig.append_as((9, 0, 0), 2).expect("taken");
    rig.sync();
    rig.settle();
    let mut state = Vec::new();
    rig.log.state().encode(&mut state);
    rig.append_as((9, 0, 2), 2).expect("taken");
    rig.append_as((9, 0, 4), 2).expect("taken");
    rig.sync();
    let Fetch::Batches { batches, .. } = rig.log.fetch(Offset(2), u32::MAX) else { panic!("in memory") };
    (state, batches.into_iter().map(|bytes| (BatchHead::parse(&bytes).expect("sound"), bytes)).collect())
}

fn recover(state: &[u8], batches: &[(BatchHead, Bytes)]) -> (Rig, Vec<CorruptRange>) {
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(state).expect("sound"));
    for (position, (head, bytes)) in (0..).zip(batches) {
        rig.log.replay(head, bytes.clone(), position).expect("fits");
    }
    let (corrupt, _) = rig.log.finish_recovery(rig.now, Shutdown::Unclean);
    (rig, corrupt)
}

#[test]
fn recovery_puts_the_log_together_again() {
    let (state, batches) = journal();
    let (mut rig, corrupt) = recover(&state, &batches);
    assert_eq!((rig.ends(), corrupt), ([0, 2, 6, 6], vec![]));
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(1));
    assert_eq!(rig.fetch(2, u32::MAX), "2 4 then 6");
    assert!(matches!(rig.append_as((9, 0, 4), 2), Ok(Append::Duplicate { base_offset: Offset(4), .. })));
    assert!(is_accepted(&rig.append_as((9, 0, 6), 1)));
}

#[test]
fn a_lost_batch_is_reported_and_never_served() {
    let (state, batches) = journal();
    let (mut rig, corrupt) = recover(&state, &batches[1..]);
    assert_eq!(corrupt, [CorruptRange { first: Offset(2), end: Offset(4) }]);
    assert_eq!(rig.fetch(0, 1), "cold in 0 to 2");
    assert_eq!(rig.fetch(3, 1), "corrupt 2 to 4");
    assert_eq!(rig.fetch(4, 1), "4 then 6");
    rig.settle();
    assert_eq!(rig.fetch(3, 1), "corrupt 2 to 4");
    assert_eq!(rig.fetch(0, 1), "cold in 0 to 2");
    let mut state = Vec::new();
    rig.log.state().encode(&mut state);
    let (rig, corrupt) = recover(&state, &[]);
    assert_eq!(corrupt.len(), 1, "a checkpoint keeps what is lost");
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(2));
}

#[test]
fn what_comes_before_the_first_checkpoint_is_no_loss() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.append(1);
    rig.sync();
    rig.settle();
    rig.append(1);
    rig.append(1);
    rig.sync();
    let Fetch::Batches { batches, .. } = rig.log.fetch(Offset(2), u32::MAX) else { panic!("in memory") };
    let plan = rig.log.settle_plan(1).expect("durable");
    let note = plan.settled(3 * 216);
    rig.log.note_settled(&note);
    rig.log.on_settled();
    let expected = rig.log.clone();

    // The oldest file that is needed begins after the first two were settled, with the note of the third and the fourth.
    let mut rig = Rig::durable();
    rig.log.replay_settled(&note).expect("fits");
    let head = BatchHead::parse(&batches[1]).expect("sound");
    rig.log.replay(&head, batches[1].clone(), 4).expect("fits");
    rig.log.restore(expected.state().clone());
    assert_eq!(rig.log.finish_recovery(rig.now, Shutdown::Clean).0, []);
    assert_eq!((rig.log.state(), rig.ends()), (expected.state(), [0, 3, 4, 4]));
}

#[test]
fn a_checkpoint_that_is_behind_the_notes_keeps_them() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.append(1);
    rig.append(1);
    rig.sync();
    let first = rig.log.settle_plan(1).expect("durable");
    rig.log.note_settled(&first.settled(216));
    rig.log.on_settled();
    let behind = rig.log.state().clone();
    let second = rig.log.settle_plan(1).expect("durable");
    rig.log.note_settled(&second.settled(432));
    rig.log.on_settled();
    for (note, segments) in [(second.settled(432), vec![(0, 2, false)]), (first.settled(216), vec![(0, 1, false)])] {
        let mut again = Rig::durable();
        again.log.replay_settled(&note).expect("fits");
        again.log.restore(behind.clone());
        assert_eq!((again.ends()[1], again.segments()), (note.end.0, segments));
    }
}

#[test]
fn damage_at_the_end_keeps_its_offsets() {
    let (state, batches) = journal();
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(&state).expect("sound"));
    rig.log.replay(&batches[0].0, batches[0].1.clone(), 0).expect("fits");
    rig.log.replay_corrupt(CorruptRange { first: Offset(4), end: Offset(6) }).expect("fits");
    rig.log.finish_recovery(rig.now, Shutdown::Clean);
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(0));
    rig.append(1);
    rig.sync();
    assert_eq!((rig.fetch(4, 1), rig.fetch(6, 1)), ("corrupt 4 to 6".to_owned(), "6 then 7".to_owned()));
}

#[test]
fn what_does_not_fit_is_left_out_of_recovery() {
    let (state, batches) = journal();
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(&state).expect("sound"));
    let forged = |base: u64, span: u32| {
        let mut head = batches[0].0;
        (head.base_offset, head.offset_span) = (Offset(base), span);
        head
    };
    let bytes = || batches[0].1.clone();
    assert!(matches!(rig.log.replay(&forged(1, 3), bytes(), 0), Err(ReplayError::Overlap { .. })));
    assert!(matches!(rig.log.replay(&forged(1 << 62, 3), bytes(), 0), Err(ReplayError::OffsetTooLarge { .. })));
    assert_eq!(rig.log.replay(&forged(2, 2), bytes(), 7), Ok(()));
    assert!(matches!(rig.log.replay(&forged(2, 2), bytes(), 8), Err(ReplayError::OutOfOrder { .. })));
    assert!(matches!(rig.log.replay(&forged(4, 2), bytes(), 6), Err(ReplayError::OutOfOrder { .. })));
    rig.log.finish_recovery(rig.now, Shutdown::Clean);
}

#[test]
#[should_panic(expected = "the class of a topic does not change")]
fn the_class_of_a_topic_does_not_change() {
    let mut rig = Rig::durable();
    rig.log.set_settings(TopicSettings { class: TopicClass::Memory, ..*rig.log.settings() });
}
