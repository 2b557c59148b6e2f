//! When records leave, and what is said about them.

use std::time::Duration;

use corelane_client_core::{Delivery, DeliveryError, Effect, NewRecord, ProducerSettings, SendError};
use corelane_model::limits::PRODUCER_BATCHES_MAX;
use corelane_model::{Acks, ErrorCode, PartitionIndex, TopicClass};
use corelane_record::partition_for_key;

use crate::world::{Fate, World};

fn batch_sizes(world: &mut World) -> Vec<usize> {
    world.broker.log("t", 0).batches.iter().map(|batch| batch.values.len()).collect()
}

fn world(class: TopicClass) -> World {
    let mut world = World::new(1);
    world.broker.create("t", 1, class);
    world
}

#[test]
fn a_record_leaves_at_once_and_records_gather_behind_the_window() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    for _ in 0..PRODUCER_BATCHES_MAX + 3 {
        world.send(producer, 0);
        world.round();
    }
    world.exchange();
    let mut sizes = vec![1; PRODUCER_BATCHES_MAX];
    assert_eq!(batch_sizes(&mut world), sizes, "a whole window is under way, three records wait");
    world.settle_all();
    sizes.push(3);
    assert_eq!(batch_sizes(&mut world), sizes, "they leave together when there is room");
}

#[test]
fn records_of_one_round_leave_together() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.send_many(producer, 4);
    world.exchange();
    assert_eq!(batch_sizes(&mut world), [4]);
}

#[test]
fn many_partitions_on_one_edge_leave_in_bundles() {
    let mut world = World::with(1, |settings| settings.own_streams = 4);
    world.broker.create("t", 200, TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    for edge in 1..4 {
        let sent: Vec<_> = (0..200).map(|partition| world.send(producer, partition).1).collect();
        world.exchange();
        let was_bundled = world.broker.bundles;
        assert!((3..=4 * edge).contains(&was_bundled), "200 batches took {was_bundled} bundles after edge {edge}");
        assert!(
            sent.iter().all(|sent| world.received.contains_key(&sent.batch)),
            "each batch has an answer of its own"
        );
    }
    assert!((0..200).all(|partition| world.log_values("t", partition).len() == 3));
}

#[test]
fn batches_linger_until_time_or_size_or_a_flush() {
    let mut world = world(TopicClass::Memory);
    let linger = Duration::from_millis(10);
    let settings = ProducerSettings { linger, batch_records: 3, ..ProducerSettings::default() };
    let producer = world.open("t", settings);
    world.send(producer, 0);
    world.exchange();
    assert_eq!(batch_sizes(&mut world), [], "it lingers");
    let deadline = world.core.next_deadline().unwrap();
    assert!(deadline <= world.now.monotonic.after(linger));
    world.advance(linger);
    world.exchange();
    assert_eq!(batch_sizes(&mut world), [1], "time is over");
    world.send_many(producer, 4);
    world.exchange();
    assert_eq!(batch_sizes(&mut world), [1, 3], "a full batch does not linger");
    world.core.flush(producer);
    world.exchange();
    assert_eq!(batch_sizes(&mut world), [1, 3, 1]);
}

#[test]
fn received_and_stored_are_told_apart() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let (_, sent) = world.send(producer, 0);
    world.exchange();
    assert!(world.received.contains_key(&sent.batch));
    assert!(!world.fates.contains_key(&sent.batch), "it is not on disk yet");
    world.settle_all();
    assert!(matches!(world.fates[&sent.batch], Fate::Delivered { is_stored: true, .. }));
}

#[test]
fn what_is_stored_in_the_same_round_is_told_once() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let (_, sent) = world.send(producer, 0);
    world.round();
    while world.up(0) {}
    world.broker.sync();
    world.notices();
    world.down_together();
    assert!(!world.received.contains_key(&sent.batch));
    assert!(matches!(world.fates[&sent.batch], Fate::Delivered { is_stored: true, .. }));
}

#[test]
fn a_full_buffer_refuses_and_room_that_was_set_aside_stays() {
    let mut world = World::with(1, |settings| settings.buffer_records_max = 3);
    world.broker.create("t", 1, TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let record = NewRecord { value: Some(b"12345678"), ..NewRecord::default() };
    let room = world.core.reserve(record.charge()).unwrap();
    world.send_many(producer, 2);
    let refused = world.core.send(world.now, producer, &record, Delivery::Detached).unwrap_err();
    assert!(matches!(refused, SendError::Full { records: 3, .. }) && refused.is_retriable(), "{refused}");
    world.core.send_reserved(world.now, producer, &record, Delivery::Detached, room).unwrap();
    world.settle_all();
    let room = world.core.reserve(record.charge()).unwrap();
    world.core.release(room);
    world.send_many(producer, 3);
}

#[test]
fn keys_choose_partitions_as_kafka_does_and_others_take_turns() {
    let mut world = World::new(2);
    world.broker.create("t", 5, TopicClass::Memory);
    let producer = world.open("t", ProducerSettings::default());
    for key in [&b"player-1"[..], b"player-2", b"", b"a longer key"] {
        let record = NewRecord { key: Some(key), value: Some(b"12345678"), ..NewRecord::default() };
        let sent = world.core.send(world.now, producer, &record, Delivery::Ticket).unwrap();
        assert_eq!(sent.partition, partition_for_key(key, 5));
    }
    world.exchange();
    let keyless = NewRecord { value: Some(b"12345678"), ..NewRecord::default() };
    let mut seen: Vec<u32> = Vec::new();
    for _ in 0..5 {
        seen.push(world.core.send(world.now, producer, &keyless, Delivery::Ticket).unwrap().partition.0);
        world.exchange();
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4], "each batch goes to the next partition");
    let outside = NewRecord { partition: Some(PartitionIndex(5)), ..keyless };
    let refused = world.core.send(world.now, producer, &outside, Delivery::Ticket).unwrap_err();
    assert!(matches!(refused, SendError::UnknownPartition { partitions: 5, .. }) && !refused.is_retriable());
}

#[test]
fn a_lost_answer_does_not_write_twice() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let (_, sent) = world.send(producer, 0);
    world.round();
    assert!(world.up(0), "the broker takes the batch");
    world.cut(0);
    world.settle_all();
    assert_eq!(batch_sizes(&mut world), [1]);
    assert!(matches!(world.fates[&sent.batch], Fate::Delivered { is_stored: true, .. }));
    assert_eq!(world.core.stats().batches_repeated, 1);
}

#[test]
fn what_survived_a_crash_unreported_is_recognised_and_what_did_not_is_sent_again() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let (first, stored) = world.send(producer, 0);
    world.exchange();
    world.broker.sync();
    let (second, lost) = world.send(producer, 0);
    world.exchange();
    assert!(world.fates.is_empty(), "the durable end was not told");
    world.crash();
    let (third, _) = world.send(producer, 0);
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [first, second, third]);
    for batch in [stored.batch, lost.batch] {
        assert!(matches!(world.fates[&batch], Fate::Delivered { is_stored: true, .. }));
    }
    let epochs: Vec<u16> = world.broker.log("t", 0).batches.iter().map(|batch| batch.producer.1).collect();
    assert_eq!(epochs, [0, 0, 1], "what was in doubt keeps its epoch, what is new has the raised one");
}

#[test]
fn a_gap_left_by_lost_received_records_is_stepped_over() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings { acks: Acks::Received, ..ProducerSettings::default() });
    let (first, _) = world.send(producer, 0);
    world.exchange();
    world.broker.sync();
    let (_, lost) = world.send(producer, 0);
    world.exchange();
    assert!(
        matches!(world.fates[&lost.batch], Fate::Delivered { is_stored: false, .. }),
        "received is all it asked for"
    );
    let (third, doubtful) = world.send(producer, 0);
    world.round();
    world.crash();
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [first, third]);
    assert!(matches!(world.fates[&doubtful.batch], Fate::Delivered { .. }));
}

#[test]
fn a_producer_that_the_partition_forgot_leaves_doubt_and_goes_on() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let (first, _) = world.send(producer, 0);
    world.settle_all();
    let (second, doubtful) = world.send(producer, 0);
    world.round();
    world.up(0);
    world.broker.sync();
    // The partition forgets who wrote what, but not the records.
    world.broker.log("t", 0).batches.iter_mut().for_each(|batch| batch.producer = (u64::MAX, 0));
    world.cut(0);
    let (third, after) = world.send(producer, 0);
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [first, second, third]);
    let fate = &world.fates[&doubtful.batch];
    assert!(matches!(fate, Fate::Failed(error) if error.may_be_stored() && !error.is_retriable()), "{fate:?}");
    assert!(matches!(world.fates[&after.batch], Fate::Delivered { .. }));
}

#[test]
fn a_memory_topic_does_not_send_again_what_may_have_been_seen() {
    let mut world = world(TopicClass::Memory);
    let producer = world.open("t", ProducerSettings::default());
    let (_, doubtful) = world.send(producer, 0);
    world.round();
    world.crash();
    world.settle_all();
    assert!(matches!(&world.fates[&doubtful.batch], Fate::Failed(DeliveryError::Unknown { .. })));
    let (value, _) = world.send(producer, 0);
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [value]);
}

#[test]
fn a_refusal_for_good_fails_one_batch_and_the_next_goes_on() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.broker.refusals = vec![ErrorCode::CorruptBatch];
    let (_, refused) = world.send(producer, 0);
    world.round();
    let (second, _) = world.send(producer, 0);
    world.round();
    let (third, _) = world.send(producer, 0);
    world.settle_all();
    let expected = Fate::Failed(DeliveryError::Refused { code: ErrorCode::CorruptBatch, text: String::new() });
    assert_eq!(world.fates[&refused.batch], expected);
    assert_eq!(world.log_values("t", 0), [second, third]);
}

#[test]
fn a_refusal_for_a_while_is_waited_out_in_order() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.broker.refusals = vec![ErrorCode::Busy];
    let mut values = Vec::new();
    for _ in 0..4 {
        values.push(world.send(producer, 0).0);
        world.round();
    }
    world.settle_all();
    assert_eq!(world.log_values("t", 0), values);
    assert_eq!(world.core.stats().records_failed, 0);
}

#[test]
fn what_arrives_late_behind_a_refusal_for_a_while_is_not_written_twice() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let mut values = vec![world.send(producer, 0).0];
    world.settle_all();
    for _ in 0..3 {
        values.push(world.send(producer, 0).0);
        world.round();
    }
    // The three are on their way when the client loses the connection and sends them again. The first is refused for a while, so
    // that the others are out of sequence.
    let late = world.cut_late(0).expect("there is a connection");
    world.broker.refusals = vec![ErrorCode::Busy];
    while !world.broker.refusals.is_empty() {
        world.advance(Duration::from_millis(1));
        world.exchange();
    }
    assert_eq!(world.log_values("t", 0), values[..1]);
    world.arrive(late);
    assert_eq!(world.log_values("t", 0), values);
    // A restart makes the client stamp anew what cannot be in the log.
    world.broker.sync();
    world.crash();
    world.settle_all();
    assert_eq!(world.log_values("t", 0), values, "each record once, in order");
    assert_eq!(world.core.stats().records_failed, 0);
}

#[test]
fn what_arrives_late_with_one_that_was_given_up_is_not_written_twice() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    let first = world.send(producer, 0).0;
    world.settle_all();
    let (given_up, sent) = world.send(producer, 0);
    world.round();
    world.advance(Duration::from_secs(20));
    let (behind, sent_behind) = world.send(producer, 0);
    world.round();
    // Both are under way when the client loses the connection, and time runs out for the older one.
    world.is_down = true;
    let late = world.cut_late(0).expect("there is a connection");
    while !world.fates.contains_key(&sent.batch) {
        world.advance(Duration::from_secs(1));
    }
    assert!(matches!(world.fates[&sent.batch], Fate::Failed(DeliveryError::Unknown { .. })), "{:?}", world.fates);
    assert!(!world.fates.contains_key(&sent_behind.batch));
    // The other goes again and is out of sequence. Before the client hears of that, both arrive.
    world.is_down = false;
    let mut late = Some(late);
    for _ in 0..10_000 {
        world.advance(Duration::from_millis(1));
        while world.up(0) {}
        if world.broker.out_of_sequence != 0
            && let Some(late) = late.take()
        {
            world.arrive(late);
            assert_eq!(world.log_values("t", 0), [first, given_up, behind]);
        }
        while world.down(0) {}
    }
    assert!(late.is_none(), "it was never out of sequence");
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [first, given_up, behind], "each record once, in order");
    assert!(
        matches!(world.fates[&sent_behind.batch], Fate::Failed(DeliveryError::Unknown { .. })),
        "{:?}",
        world.fates
    );
}

#[test]
fn time_runs_out_for_what_cannot_leave() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.is_down = true;
    world.cut(0);
    let (_, sent) = world.send(producer, 0);
    for _ in 0..70 {
        world.advance(Duration::from_secs(1));
    }
    assert_eq!(world.fates[&sent.batch], Fate::Failed(DeliveryError::TimedOut { refusal: None }));
    assert_eq!(world.core.stats().buffer_records, 0);
}

#[test]
fn records_that_ran_out_of_time_say_what_the_broker_had_against_them() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.broker.refusals = vec![ErrorCode::StorageFull; 10_000];
    let (_, sent) = world.send(producer, 0);
    for _ in 0..70 {
        world.advance(Duration::from_secs(1));
        while world.up(0) || world.down(0) {}
    }
    let Fate::Failed(error) = &world.fates[&sent.batch] else { panic!("{:?}", world.fates) };
    assert!(matches!(error, DeliveryError::TimedOut { .. }) && error.is_retriable(), "{error}");
    assert!(error.to_string().contains("(StorageFull)"), "{error}");
}

#[test]
fn a_topic_that_is_deleted_fails_its_records_and_its_producers() {
    let mut world = world(TopicClass::Durable);
    let producer = world.open("t", ProducerSettings::default());
    world.broker.topics.clear();
    let (_, sent) = world.send(producer, 0);
    world.settle_all();
    assert!(matches!(world.fates[&sent.batch], Fate::Failed(DeliveryError::TopicDeleted { .. })));
    let record = NewRecord { value: Some(b"x"), ..NewRecord::default() };
    let refused = world.core.send(world.now, producer, &record, Delivery::Ticket);
    assert!(matches!(refused, Err(SendError::TopicDeleted { .. })));
}

#[test]
fn closing_a_producer_still_delivers_and_closing_the_client_fails_the_rest() {
    let mut world = world(TopicClass::Durable);
    let settings = ProducerSettings { linger: Duration::from_secs(9), ..ProducerSettings::default() };
    let producer = world.open("t", settings);
    let (value, _) = world.send(producer, 0);
    world.core.close_producer(producer);
    world.settle_all();
    assert_eq!(world.log_values("t", 0), [value]);

    let producer = world.open("t", settings);
    let (_, sent) = world.send(producer, 0);
    world.core.close();
    world.round();
    assert_eq!(world.fates[&sent.batch], Fate::Failed(DeliveryError::Closed));
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn a_topic_that_does_not_exist_has_no_producer() {
    let mut world = World::new(1);
    let producer = world.core.open_producer(world.now, &crate::world::topic("t"), ProducerSettings::default());
    world.exchange();
    let failed = |effect: &Effect| matches!(effect, Effect::ProducerFailed { producer: key, .. } if *key == producer);
    assert!(world.told.iter().any(failed), "{:?}", world.told);
}
