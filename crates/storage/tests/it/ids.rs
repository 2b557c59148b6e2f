//! Message ids: a message is taken once within the window, over settling, crashes and restarts.

use corelane_model::limits::DEDUP_ID_BYTES;
use corelane_model::{ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, MESSAGE_ID_HEADER, ProducerStamp, RecordBatch, SealedBatch};
use corelane_storage::{AppendError, Appended};

use crate::world::{World, batch, durable_topic, memory_topic, partition, small_config};

fn message(id: &str, stamp: ProducerStamp, bytes: usize) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers = [(MESSAGE_ID_HEADER, Some(id.as_bytes()))];
    builder.push(WallMillis(5), None, Some(&vec![7; bytes]), &headers).expect("it fits");
    SealedBatch::parse(builder.finish(stamp)).expect("the builder makes sound batches")
}

fn with_ids(window_ms: Option<u64>, count: Option<u64>) -> TopicSettings {
    TopicSettings { dedup_window_ms: window_ms, dedup_count: count, ..durable_topic() }
}

/// Appends as soon as the partition can judge it and has room.
fn send(world: &mut World, id: PartitionId, batch: &SealedBatch) -> Appended {
    for _ in 0..20_000 {
        match world.append(id, batch) {
            Ok(appended) => return appended,
            Err(error) => assert!(matches!(error.code(), ErrorCode::Busy | ErrorCode::Recovering), "{error}"),
        }
        world.step();
    }
    panic!("never taken: {:?}", world.storage.stats());
}

/// What a topic with these bounds must say of a message, from what is in its log.
fn earlier(world: &World, id: PartitionId, message: &str, settings: &TopicSettings) -> Option<Offset> {
    let batches = &world.models[&id].batches;
    let log_end = batches.last().map_or(0, |last| last.end.0);
    let newest = batches.last().map_or(WallMillis(0), |last| last.time).max(world.now.wall);
    batches.iter().find_map(|kept| {
        let parsed = RecordBatch::parse(kept.bytes.clone()).expect("sound");
        let record = parsed.iter().next().expect("it has one");
        let is_it = record.headers().any(|(_, value)| value == Some(message.as_bytes()));
        let is_young = settings.dedup_window_ms.is_none_or(|window| newest.millis_since(kept.time) < window);
        let is_late = settings.dedup_count.is_none_or(|count| log_end <= kept.base.0 + count);
        (is_it && is_young && is_late).then_some(kept.base)
    })
}

#[test]
fn what_the_log_holds_within_the_window_is_never_taken_again() {
    for seed in 0..60 {
        let mut world = World::new(seed, small_config());
        let settings = match seed % 3 {
            0 => with_ids(Some(3_000), None),
            1 => with_ids(None, Some(20)),
            _ => with_ids(Some(5_000), Some(40)),
        };
        world.add_topic(1, 2, settings);
        let (mut duplicates, mut fresh) = (0, 0);
        for step in 0..400_u64 {
            let id = partition(1, u32::try_from(world.chance.below(2)).unwrap());
            match world.chance.below(40) {
                0 => world.crash(),
                1 => world.restart_cleanly(),
                2 => world.pass(1_500_000_000),
                3..8 => drop(world.append_soon(id, &batch(3, 50, step))),
                8..12 => world.step(),
                _ => {
                    let name = format!("m{}", world.chance.below(60));
                    let bytes = usize::try_from(world.chance.below(20_000)).unwrap();
                    let batch = message(&name, ProducerStamp::default(), bytes);
                    let mut appended = world.append(id, &batch);
                    while appended.as_ref().is_err_and(|error| error.code() == ErrorCode::Recovering) {
                        world.step();
                        appended = world.append(id, &batch);
                    }
                    let Ok(appended) = appended else { continue };
                    // The model has taken a fresh one already.
                    let expected = earlier(&world, id, &name, &settings);
                    if appended.is_duplicate {
                        assert_eq!(expected, Some(appended.base_offset), "seed {seed}, {name}");
                        duplicates += 1;
                    } else {
                        assert_eq!(expected, Some(appended.base_offset), "seed {seed}: {name} is there twice");
                        fresh += 1;
                    }
                }
            }
        }
        assert!(0 < duplicates && 0 < fresh, "seed {seed}: {duplicates} and {fresh}");
        world.check_all();
    }
}

#[test]
fn an_old_message_is_taken_again_when_the_window_has_passed() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, with_ids(Some(1_000), None));
    world.add_topic(2, 1, with_ids(None, Some(3)));
    let (by_time, by_count) = (partition(1, 0), partition(2, 0));
    let one = message("one", ProducerStamp::default(), 10);
    for id in [by_time, by_count] {
        assert!(!send(&mut world, id, &one).is_duplicate);
        assert!(send(&mut world, id, &one).is_duplicate);
    }
    world.pass(1_100_000_000);
    assert!(!send(&mut world, by_time, &one).is_duplicate);
    assert!(send(&mut world, by_count, &one).is_duplicate);
    send(&mut world, by_count, &batch(2, 10, 1));
    assert!(send(&mut world, by_count, &one).is_duplicate, "three records are remembered");
    send(&mut world, by_count, &batch(1, 10, 2));
    let again = send(&mut world, by_count, &one);
    assert_eq!((again.is_duplicate, again.base_offset), (false, Offset(4)));
}

#[test]
fn a_message_that_is_meant_to_come_again_is_taken_and_remembered() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, with_ids(None, Some(3)));
    let id = partition(1, 0);
    let one = message("one", ProducerStamp::default(), 10);
    assert!(!send(&mut world, id, &one).is_duplicate);
    let again = world.storage.append_again(world.now, id, &one).expect("there is room");
    assert_eq!((again.is_duplicate, again.base_offset), (false, Offset(1)));
    let third = send(&mut world, id, &one);
    assert_eq!((third.is_duplicate, third.base_offset), (true, Offset(1)), "the newest is the one that is known");
}

#[test]
fn a_message_with_an_id_travels_alone_where_ids_count() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(5), None, Some(b"a"), &[]).unwrap();
    builder.push(WallMillis(5), None, Some(b"b"), &[(MESSAGE_ID_HEADER, Some(b"1"))]).unwrap();
    let two = SealedBatch::parse(builder.finish(ProducerStamp::default())).unwrap();
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, with_ids(Some(1_000), None));
    world.add_topic(2, 1, durable_topic());
    let refused = world.append(partition(1, 0), &two).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::SeveralMessageIds);
    assert!(refused.to_string().contains("a batch of 2 records"), "{refused}");
    assert!(!send(&mut world, partition(2, 0), &two).is_duplicate);
    assert!(!send(&mut world, partition(2, 0), &two).is_duplicate, "no window, no ids");
}

#[test]
fn a_producer_goes_on_behind_its_duplicates() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, with_ids(None, Some(100)));
    let id = partition(1, 0);
    let from = |producer, epoch, sequence| ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    };
    send(&mut world, id, &message("x", from(1, 0, 0), 10));
    // Another producer sends the same first, in the middle, and under a new epoch; each time it goes on without a gap.
    for (epoch, sequence, name, is_duplicate) in [
        (0, 0, "x", true),
        (0, 1, "x", true),
        (0, 2, "a", false),
        (0, 3, "a", true),
        (0, 4, "b", false),
        (1, 0, "b", true),
        (1, 1, "c", false),
    ] {
        let appended = send(&mut world, id, &message(name, from(2, epoch, sequence), 10));
        assert_eq!(appended.is_duplicate, is_duplicate, "epoch {epoch}, sequence {sequence}");
    }
    let gap = world.append(id, &message("d", from(2, 1, 3), 10)).unwrap_err();
    assert_eq!(gap.code(), ErrorCode::OutOfSequence);
    let fenced = world.append(id, &message("x", from(2, 0, 5), 10)).unwrap_err();
    assert_eq!(fenced.code(), ErrorCode::ProducerFenced, "an old epoch learns that it is one, duplicate or not");
}

#[test]
fn a_window_that_is_set_later_counts_what_is_there_already() {
    for settings in [durable_topic(), memory_topic()] {
        let mut world = World::new(3, small_config());
        world.add_topic(1, 1, settings);
        let id = partition(1, 0);
        send(&mut world, id, &message("one", ProducerStamp::default(), 10));
        let altered = TopicSettings { dedup_count: Some(10), ..settings };
        world.topics.insert(id.topic, (1, altered));
        world.storage.alter(id.topic, &altered);
        assert!(send(&mut world, id, &message("one", ProducerStamp::default(), 10)).is_duplicate);
        assert!(!send(&mut world, id, &message("two", ProducerStamp::default(), 10)).is_duplicate);
    }
}

#[test]
fn ids_have_a_bound_in_bytes_and_make_room_when_they_are_old() {
    let mut world = World::new(1, small_config());
    // In memory, so that nothing waits for settling while time stands still.
    world.add_topic(1, 1, TopicSettings { dedup_window_ms: Some(2_000), ..memory_topic() });
    let id = partition(1, 0);
    let limit = world.config.memory_bytes / 32;
    let mut number = 0;
    let refused = loop {
        match world.append(id, &message(&format!("{number}"), ProducerStamp::default(), 1)) {
            Ok(_) => number += 1,
            Err(error) if error.code() == ErrorCode::Recovering => {}
            Err(error @ AppendError::MessageIdsFull { .. }) => break error,
            Err(_) => {}
        }
        // No time passes: nothing becomes old.
        while world.complete_one() {}
        world.round();
    };
    assert!(number <= limit / DEDUP_ID_BYTES && limit / DEDUP_ID_BYTES < number + 2, "{number} ids");
    assert!(refused.to_string().contains("--dedup-window"), "{refused}");
    assert_eq!(world.storage.stats().id_bytes, number * DEDUP_ID_BYTES);
    let known = world.append(id, &message("3", ProducerStamp::default(), 1)).unwrap();
    assert!(known.is_duplicate, "what is known needs no room");
    world.pass(2_500_000_000);
    assert!(!send(&mut world, id, &message("new", ProducerStamp::default(), 1)).is_duplicate);
    assert_eq!(world.storage.stats().id_bytes, DEDUP_ID_BYTES);
}
