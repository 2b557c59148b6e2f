//! Plans and swaps of compaction on the segment list alone.

use corelane_commitlog::{CommitLog, CompactionResult, LogState, Segment, SegmentName, Settled};
use corelane_model::{Offset, PartitionId, TopicSettings, WallMillis};
use proptest::prelude::*;

/// A log with segments of these spans and bytes; the last one is active.
fn log(segments: &[(u64, u64)]) -> CommitLog {
    let settings = TopicSettings { tombstone_ms: 1000, ..TopicSettings::compacted() };
    let mut log = CommitLog::new(PartitionId::default(), settings, LogState::default());
    let mut base = 0;
    for &(span, bytes) in segments {
        let settled = Settled {
            segment: Offset(base),
            segment_bytes: bytes,
            base: Offset(base),
            end: Offset(base + span),
            first_timestamp: WallMillis(0),
            max_timestamp: WallMillis(0),
        };
        log.replay_settled(&settled).expect("they follow each other");
        base += span;
    }
    log
}

fn spans() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((1_u64..100, (1_u64..20).prop_map(|blocks| blocks * 4096)), 2..30)
}

proptest! {
    #[test]
    fn groups_are_neighbours_and_have_each_segment_once(spans in spans(), end in 0_u64..3000, bytes in 1_u64..200_000) {
        let log = log(&spans);
        let plan = log.compaction_plan(WallMillis(0)).expect("nothing was compacted yet");
        prop_assert_eq!(&plan.segments[..], &log.segments()[..spans.len() - 1], "the active segment is left alone");
        let groups = plan.groups(Offset(end), bytes);
        let all: Vec<Segment> = groups.concat();
        let expected: Vec<Segment> =
            plan.segments.iter().copied().filter(|segment| segment.base < Offset(end)).collect();
        prop_assert_eq!(all, expected);
        for group in &groups {
            let together: u64 = group.iter().map(|segment| segment.bytes).sum();
            prop_assert!(group.len() == 1 || together <= bytes);
            prop_assert!(group.windows(2).all(|pair| pair[0].end == pair[1].base));
        }
    }

    /// However often, the list stays without a gap, names are never used twice, and the state comes back from its bytes.
    #[test]
    fn swaps_keep_the_list_whole(spans in spans(), passes in prop::collection::vec((1_u64..200_000, 0_i64..3000), 1..6)) {
        let mut log = log(&spans);
        let mut names: Vec<SegmentName> = log.segments().iter().map(Segment::name).collect();
        let end = log.settled_end();
        let mut wall = WallMillis(0);
        for (bytes, millis) in passes {
            wall.0 += millis;
            let Some(plan) = log.compaction_plan(wall) else { continue };
            for group in plan.groups(end, bytes) {
                let replacement = log.replace_segments(&group, 4096).expect("the log has it");
                prop_assert_eq!(SegmentName::of_replacement(&group), Some(replacement.name()));
                prop_assert!(!names.contains(&replacement.name()), "{:?} was used before", replacement.name());
                names.push(replacement.name());
                prop_assert!(log.replace_segments(&group, 4096).is_none(), "a group is replaced once");
            }
            let last = plan.segments.last().expect("never empty").end;
            let result =
                CompactionResult { end: last, tombstones_end: plan.tombstones_end, has_tombstones: millis % 2 == 0, stuck: (millis % 5 == 0).then_some(Offset(bytes % last.0)) };
            log.on_compacted(wall, result);
            prop_assert_eq!(log.compacted_end(), last);
            prop_assert!(log.segments().windows(2).all(|pair| pair[0].end == pair[1].base));
            let mut bytes = Vec::new();
            log.state().encode(&mut bytes);
            prop_assert_eq!(&LogState::decode(&bytes).expect("it was just written"), log.state());
        }
        prop_assert_eq!(log.segments().last().map(|last| last.end), Some(end));
    }
}

#[test]
fn null_values_go_once_their_time_has_passed_since_a_pass_saw_them() {
    let mut log = log(&[(10, 4096), (10, 4096), (10, 4096)]);
    let pass = |log: &mut CommitLog, at: i64| {
        let plan = log.compaction_plan(WallMillis(at)).expect("there is something to do");
        let result = CompactionResult {
            end: Offset(20),
            tombstones_end: plan.tombstones_end,
            has_tombstones: plan.tombstones_end.0 == 0,
            stuck: None,
        };
        log.on_compacted(WallMillis(at), result);
        plan.tombstones_end
    };
    assert_eq!(pass(&mut log, 5000), Offset(0), "no pass has seen any");
    assert_eq!(log.compaction_plan(WallMillis(5999)), None, "the grace time is not over");
    assert_eq!(pass(&mut log, 6000), Offset(20));
    assert_eq!(log.compaction_plan(WallMillis(90_000)), None, "none are left");
}

#[test]
fn null_values_stay_behind_a_batch_that_keeps_what_they_took_away() {
    let mut log = log(&[(10, 4096); 8]);
    let pass = |log: &mut CommitLog, at: i64, end: u64, stuck: Option<Offset>| {
        let plan = log.compaction_plan(WallMillis(at)).expect("there is something to do");
        let tombstones_end = plan.tombstones_end;
        log.on_compacted(
            WallMillis(at),
            CompactionResult { end: Offset(end), tombstones_end, has_tombstones: true, stuck },
        );
        tombstones_end
    };
    // The batch at 5 holds a record that a null value at 9 took away, and could not be written anew.
    assert_eq!(pass(&mut log, 5000, 10, Some(Offset(5))), Offset(0), "no pass has seen any");
    for (at, end) in [(7000, 20), (9000, 30), (11_000, 40)] {
        let mut bytes = Vec::new();
        log.state().encode(&mut bytes);
        assert_eq!(&LogState::decode(&bytes).expect("it was just written"), log.state());
        assert!(pass(&mut log, at, end, None) <= Offset(5), "later passes do not see that it is superseded");
    }
    assert_eq!(log.compacted_end(), Offset(40));
}

#[test]
fn a_topic_that_does_not_ask_for_it_is_left_alone() {
    let mut log = log(&[(10, 4096), (10, 4096)]);
    assert!(log.compaction_plan(WallMillis(0)).is_some());
    log.set_settings(TopicSettings::default());
    assert_eq!(log.compaction_plan(WallMillis(0)), None);
}
