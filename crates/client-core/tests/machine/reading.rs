//! Subscriptions: where they go on, and how much may be under way.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    Effect, OutOfRange, ProducerSettings, SubscribeSettings, SubscriptionError, SubscriptionKey,
};
use corelane_model::{ErrorCode, Isolation, Offset, PartitionIndex, StartAt, TopicClass};
use corelane_record::{RecordBatch, split_batch};

use crate::world::{World, topic};

fn settings(start: StartAt) -> SubscribeSettings {
    SubscribeSettings::new(topic("t"), PartitionIndex(0), start)
}

/// A topic with some stored records in batches of two.
fn filled(class: TopicClass, records: usize) -> World {
    let mut world = World::new(2);
    world.broker.create("t", 1, class);
    let producer = world.open("t", ProducerSettings { batch_records: 2, ..ProducerSettings::default() });
    world.send_many(producer, records);
    world.settle_all();
    world
}

/// Offsets that were delivered since the last call, skipped ones left out; they are consumed at once.
fn take(world: &mut World, subscription: SubscriptionKey) -> Vec<u64> {
    let mut offsets = Vec::new();
    for effect in std::mem::take(&mut world.told) {
        if let Effect::Deliver { subscription: key, mut bytes, from, .. } = effect
            && key == subscription
        {
            world.core.consumed(subscription, bytes.len() as u64);
            while let Some(batch) = split_batch(&mut bytes).unwrap() {
                let batch = RecordBatch::parse(batch).unwrap();
                offsets.extend(batch.iter().map(|record| record.offset).filter(|&offset| from <= offset).map(|o| o.0));
            }
        }
    }
    offsets
}

#[test]
fn a_reader_of_committed_records_goes_on_behind_what_was_aborted() {
    let mut world = filled(TopicClass::Durable, 6);
    let reader = SubscribeSettings { isolation: Isolation::Committed, ..settings(StartAt::Earliest) };
    let reader = world.core.subscribe(reader);
    world.settle_all();
    assert_eq!(world.broker.committed_readers, 1);
    assert_eq!(take(&mut world, reader), [0, 1, 2, 3, 4, 5]);
    let passed = |world: &World| {
        let passed = world.told.iter().filter_map(|effect| match effect {
            Effect::Passed { subscription, next, .. } => Some((*subscription, next.0)),
            _ => None,
        });
        passed.collect::<Vec<_>>()
    };
    world.passed(reader, 4, 6);
    world.passed(reader, 9, 9);
    assert_eq!(passed(&world), [(reader, 9)], "it was past the first one already");

    // What overtakes the answer is heard behind it.
    let late = SubscribeSettings { isolation: Isolation::Committed, ..settings(StartAt::Latest) };
    let late = world.core.subscribe(late);
    world.round();
    world.told.clear();
    world.passed(late, 8, 8);
    assert_eq!(passed(&world), []);
    world.settle_all();
    assert_eq!(passed(&world), [(late, 8)]);
}

#[test]
fn partitions_that_come_later_are_read_from_their_beginning() {
    let mut world = World::new(2);
    world.broker.create("t", 1, TopicClass::Durable);
    let settings = SubscribeSettings::new(topic("t"), PartitionIndex(0), StartAt::Latest);
    world.core.subscribe(settings.clone());
    world.core.follow(settings, 1);
    world.settle_all();
    let more = vec![crate::broker::Log::default(); 2];
    world.broker.topics.get_mut("t").unwrap().logs.extend(more);
    world.advance(Duration::from_secs(31));
    world.settle_all();
    let grown: Vec<u32> = world
        .told
        .iter()
        .filter_map(|effect| match effect {
            Effect::Grown { partition, .. } => Some(partition.0),
            _ => None,
        })
        .collect();
    assert_eq!(grown, [1, 2]);
    let subscribed = world.told.iter().filter(|effect| matches!(effect, Effect::Subscribed { .. })).count();
    assert_eq!(subscribed, 3, "the new ones are open");
}

#[test]
fn a_reader_gets_everything_and_then_what_comes() {
    let mut world = filled(TopicClass::Durable, 5);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [0, 1, 2, 3, 4]);
    let producer = world.open("t", ProducerSettings::default());
    world.send(producer, 0);
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [5]);
}

#[test]
fn records_before_the_offset_that_was_asked_for_are_marked() {
    let mut world = filled(TopicClass::Durable, 6);
    let subscription = world.core.subscribe(settings(StartAt::Offset(Offset(3))));
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [3, 4, 5]);
}

#[test]
fn a_reader_goes_on_where_it_was_after_lost_connections_and_crashes() {
    let mut world = filled(TopicClass::Durable, 4);
    let subscription = world.core.subscribe(settings(StartAt::Latest));
    world.settle_all();
    let producer = world.open("t", ProducerSettings::default());
    let mut seen = Vec::new();
    for turn in 0..6 {
        world.send(producer, 0);
        world.settle_all();
        seen.extend(take(&mut world, subscription));
        if turn % 2 == 0 { world.cut(0) } else { world.crash() }
    }
    world.settle_all();
    seen.extend(take(&mut world, subscription));
    assert_eq!(seen, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn no_more_than_the_credit_is_under_way() {
    let mut world = filled(TopicClass::Durable, 40);
    let batch = world.broker.log("t", 0).batches[0].bytes.len() as u64;
    let subscription =
        world.core.subscribe(SubscribeSettings { credit_bytes: 3 * batch, ..settings(StartAt::Earliest) });
    world.settle_all();
    let delivered = world.told.iter().filter(|effect| matches!(effect, Effect::Deliver { .. })).count();
    assert_eq!(delivered, 3, "nothing was consumed");
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.extend(take(&mut world, subscription));
        // What is in hand when the connection breaks still counts.
        world.cut(0);
        world.settle_all();
        let in_hand = world.told.iter().filter(|effect| matches!(effect, Effect::Deliver { .. })).count();
        assert!(in_hand <= 3, "{in_hand} batches are in hand");
    }
    assert_eq!(seen, (0..40).collect::<Vec<u64>>());
}

#[test]
fn a_push_may_overtake_the_answer() {
    let mut world = filled(TopicClass::Durable, 2);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.round();
    while world.up(0) {}
    world.notices();
    // The last queue is that of the pushes.
    assert!(world.down(1));
    assert_eq!(take(&mut world, subscription), [] as [u64; 0], "nothing is given out before the answer");
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [0, 1]);
}

#[test]
fn an_offset_outside_the_log_ends_or_falls_back() {
    let mut world = filled(TopicClass::Durable, 4);
    let failing = world.core.subscribe(settings(StartAt::Offset(Offset(9))));
    world.settle_all();
    let ended = world.told.iter().find_map(|effect| match effect {
        Effect::Ended { subscription, error } if *subscription == failing => Some(error.clone()),
        _ => None,
    });
    assert!(matches!(ended, Some(SubscriptionError::Refused { code: ErrorCode::OffsetOutOfRange, .. })), "{ended:?}");
    let start = settings(StartAt::Offset(Offset(9)));
    let falling = world.core.subscribe(SubscribeSettings { out_of_range: Some(OutOfRange::Earliest), ..start });
    world.settle_all();
    assert_eq!(take(&mut world, falling), [0, 1, 2, 3]);
}

#[test]
fn a_memory_topic_is_read_on_after_a_restart() {
    let mut world = filled(TopicClass::Memory, 2);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [0, 1]);
    world.crash();
    world.settle_all();
    let producer = world.open("t", ProducerSettings::default());
    world.send(producer, 0);
    world.settle_all();
    assert_eq!(missed(&world), [(subscription, 2..1002)]);
    assert_eq!(take(&mut world, subscription), [1002], "offsets never repeat");
}

/// What subscriptions were told that they do not get.
fn missed(world: &World) -> Vec<(SubscriptionKey, Range<u64>)> {
    let missed = world.told.iter().filter_map(|effect| match effect {
        Effect::Missed { subscription, offsets } => Some((*subscription, offsets.start.0..offsets.end.0)),
        _ => None,
    });
    missed.collect()
}

/// The oldest batches of the only partition are dropped.
fn drop_before(world: &mut World, start: u64) {
    let log = world.broker.log("t", 0);
    log.batches.retain(|batch| start <= batch.base);
    log.start = start;
}

#[test]
fn a_reader_is_told_once_what_was_gone_before_it_could_be_read() {
    let mut world = filled(TopicClass::Memory, 4);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    assert_eq!((missed(&world), take(&mut world, subscription)), (vec![], vec![0, 1, 2, 3]));
    // The broker cannot be reached while records come and go.
    let producer = world.open("t", ProducerSettings { batch_records: 2, ..ProducerSettings::default() });
    world.cut(0);
    world.send_many(producer, 8);
    world.settle_all();
    assert_eq!((missed(&world), take(&mut world, subscription)), (vec![], (4..12).collect()), "nothing is missing");

    drop_before(&mut world, 8);
    let late = world.core.subscribe(settings(StartAt::Offset(Offset(3))));
    world.settle_all();
    assert_eq!(missed(&world), [(late, 3..8)]);
    assert_eq!(take(&mut world, late), [8, 9, 10, 11]);
    world.cut(0);
    world.settle_all();
    assert_eq!(missed(&world), [], "it was told");
    // Who asked for an offset that there never was, and falls back to the beginning, has missed nothing.
    world.core.subscribe(settings(StartAt::Offset(Offset(99))));
    world.settle_all();
    assert_eq!(missed(&world), []);
}

#[test]
fn a_reader_of_a_durable_topic_that_goes_on_is_told_too() {
    for (out_of_range, next) in [(OutOfRange::Earliest, 4), (OutOfRange::Latest, 6)] {
        let mut world = filled(TopicClass::Durable, 6);
        drop_before(&mut world, 4);
        let settings = SubscribeSettings { out_of_range: Some(out_of_range), ..settings(StartAt::Offset(Offset(1))) };
        let subscription = world.core.subscribe(settings);
        world.settle_all();
        assert_eq!(missed(&world), [(subscription, 1..next)]);
    }
}

#[test]
fn a_topic_that_was_made_anew_is_not_read_on_as_if_it_were_the_old_one() {
    let mut world = filled(TopicClass::Durable, 4);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [0, 1, 2, 3]);
    // The new one has more records than were read of the old one.
    world.broker.topics.remove("t");
    world.broker.create("t", 1, TopicClass::Durable);
    world.cut(0);
    world.settle_all();
    let producer = world.open("t", ProducerSettings::default());
    world.send_many(producer, 9);
    world.settle_all();
    let ended = world.told.iter().find_map(|effect| match effect {
        Effect::Ended { subscription: key, error } if *key == subscription => Some(error.clone()),
        _ => None,
    });
    let error = ended.expect("it ends");
    assert_eq!(error, SubscriptionError::TopicReplaced { topic: topic("t") });
    assert!(!error.is_retriable() && error.to_string().contains("deleted and made anew"), "{error}");
    assert_eq!(take(&mut world, subscription), [] as [u64; 0]);
    let new = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    assert_eq!(take(&mut world, new), (0..9).collect::<Vec<u64>>());
}

#[test]
fn batches_that_go_back_end_the_subscription() {
    let mut world = filled(TopicClass::Durable, 4);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    take(&mut world, subscription);
    let first: Bytes = world.broker.log("t", 0).batches[0].bytes.clone();
    world.push_raw(subscription, first);
    let went_back = |effect: &Effect| {
        matches!(effect, Effect::Ended { error: SubscriptionError::WentBack { expected: 4, found: 0 }, .. })
    };
    assert!(world.told.iter().any(went_back), "{:?}", world.told);
}

#[test]
fn what_is_no_batch_ends_the_subscription() {
    let mut world = filled(TopicClass::Durable, 4);
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    world.settle_all();
    world.told.clear();
    world.push_raw(subscription, Bytes::from_static(&[9; 200]));
    let is_malformed = |effect: &Effect| matches!(effect, Effect::Ended { error: SubscriptionError::Batch(_), .. });
    assert!(world.told.iter().any(is_malformed), "{:?}", world.told);
}

#[test]
fn a_reader_whose_records_cannot_be_read_asks_less_and_less_often() {
    let mut world = filled(TopicClass::Durable, 4);
    world.broker.is_disk_failing = true;
    let subscription = world.core.subscribe(settings(StartAt::Earliest));
    for _ in 0..5 {
        world.settle_all();
    }
    let tries = world.broker.failed_reads;
    assert!((5..30).contains(&tries), "{tries} tries in ten seconds");
    world.broker.is_disk_failing = false;
    world.settle_all();
    assert_eq!(take(&mut world, subscription), [0, 1, 2, 3]);
}
