//! Facts about one log, each told by a few steps.

mod producers;
mod recovery;
mod rig;

use corelane_commitlog::{LogState, Retention, SegmentChoice, Shutdown, TimeLookup};
use corelane_model::{Offset, TopicClass, TopicSettings, WallMillis};

use rig::Rig;

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
fn what_is_too_old_goes_even_if_it_was_never_settled() {
    let mut rig = Rig::new(TopicSettings { retention_ms: Some(800), ..TopicSettings::default() });
    rig.append(1);
    rig.sync();
    rig.wait(300);
    rig.append(2);
    rig.sync();
    rig.append(3);
    assert_eq!(rig.log.retention_deadline(), Some(WallMillis(1901)));
    rig.wait(600);
    assert_eq!(rig.log.expire_unsettled(rig.now), None, "a moment of patience saves notes in the journal");
    rig.wait(1);
    assert_eq!(rig.log.expire_unsettled(rig.now), Some(Offset(1)));
    assert_eq!(rig.ends(), [1, 1, 3, 6]);
    rig.wait(1000);
    assert_eq!(rig.log.expire_unsettled(rig.now), Some(Offset(3)), "what is not durable stays");
    assert_eq!(rig.log.expire_unsettled(rig.now), None);
    rig.sync();
    let plan = rig.log.settle_plan(1000).expect("durable");
    assert_eq!(rig.log.expire_unsettled(rig.now), None, "what is being settled goes with its segment");
    rig.log.note_settled(&plan.settled(4096));
    assert_eq!(rig.log.expire_unsettled(rig.now), None);
    rig.log.on_settled();
    assert_eq!(rig.log.expire_unsettled(rig.now), None);
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

#[test]
#[should_panic(expected = "the class of a topic does not change")]
fn the_class_of_a_topic_does_not_change() {
    let mut rig = Rig::durable();
    rig.log.set_settings(TopicSettings { class: TopicClass::Memory, ..*rig.log.settings() });
}
