//! Producing: outcomes, durable ends, duplicates, forwarding.

use bytes::Bytes;
use corelane_model::limits::OUTCOME_HOLD;
use corelane_model::{CorrelationId, ErrorCode, ProducerEpoch, ProducerId, Sequence, StartAt};
use corelane_record::ProducerStamp;
use corelane_wire::{FrameKind, Produce, ProduceAnswers, ProducerIdAnswer, RequestProducerId, encode_with};

use crate::records::{batch, batch_of, memory_topic};
use crate::world::{World, frame_of};

/// Nanoseconds.
const HOLD: u64 = 1000 * OUTCOME_HOLD.subsec_micros() as u64;

#[test]
fn the_outcome_of_a_batch_waits_for_the_sync_but_not_for_long() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    world.are_syncs_held = true;
    world.produce(client, topic, 0, 1, batch(&["a", "b"]));
    world.pass(HOLD - 1000);
    assert_eq!(world.outcomes(client), []);
    world.pass(1000);
    assert_eq!(world.outcomes(client), [(1, Ok(0))]);
    assert_eq!(world.ends(client), []);
    world.let_files_go();
    world.run();
    assert_eq!(world.ends(client), [(topic, 0, 2)]);
    assert_eq!(world.status(0).counters.stored.count(), 1);
}

#[test]
fn an_outcome_that_waits_leaves_with_the_notice_that_the_journal_stopped() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    world.are_syncs_failing = true;
    world.inbox(client).control.clear();
    world.produce(client, topic, 0, 1, batch(&["a"]));
    world.run();
    let kinds: Vec<_> = world.inbox(client).control.iter().map(|frame| frame.head.kind).collect();
    assert_eq!(kinds, [FrameKind::ProduceAnswers, FrameKind::StorageStopped]);
}

#[test]
fn a_round_answers_in_one_frame_of_each_kind() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 3);
    world.inbox(client).control.clear();
    for i in 0..30 {
        world.produce(client, topic, i % 3, u64::from(i), batch(&["x"]));
    }
    world.run();
    assert_eq!(world.inbox(client).control.len(), 2);
    let outcomes = world.outcomes(client);
    assert_eq!(outcomes.len(), 30);
    assert_eq!(outcomes[29], (29, Ok(9)));
    let mut ends = world.ends(client);
    ends.sort_unstable();
    assert_eq!(ends, [(topic, 0, 10), (topic, 1, 10), (topic, 2, 10)]);
}

#[test]
fn received_alone_hears_nothing_of_the_disk() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    let body = Produce { topic, partition: 0, acks: 0 };
    world.send_frame(client, frame_of(encode_with(CorrelationId(1), &body, vec![batch(&["a"])])));
    world.run();
    assert_eq!(world.outcomes(client), [(1, Ok(0))]);
    assert_eq!(world.ends(client), []);
}

#[test]
fn a_partition_next_door_answers_through_the_connection_s_shard() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    for i in 0..4 {
        world.produce(client, topic, 1, i, batch(&["a"]));
    }
    world.run();
    assert_eq!(world.outcomes(client), [(0, Ok(0)), (1, Ok(1)), (2, Ok(2)), (3, Ok(3))]);
    assert_eq!(world.ends(client), [(topic, 1, 4)]);
    assert_eq!((world.status(0).counters.produced.records, world.status(1).counters.produced.records), (0, 4));
    assert_eq!(world.status(0).counters.forwards, 4);
}

#[test]
fn a_memory_topic_stores_in_the_same_round() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create_with(client, "inputs", 1, memory_topic());
    world.are_syncs_held = true;
    world.produce(client, topic, 0, 1, batch(&["a"]));
    world.run();
    let outcome = world.outcomes(client);
    let ends = world.ends(client);
    world.let_files_go();
    world.run();
    // The first offsets of a memory partition may wait for their lease to be durable.
    let late: Vec<_> = world.outcomes(client).into_iter().chain(outcome).collect();
    assert_eq!(late.len(), 1);
    assert!(late[0].1.is_ok() || late[0].1 == Err(ErrorCode::Busy), "{late:?}");
    world.produce(client, topic, 0, 2, batch(&["b"]));
    world.run();
    assert!(world.outcomes(client)[0].1.is_ok());
    assert!(!world.ends(client).is_empty() || !ends.is_empty());
}

#[test]
fn a_batch_sent_again_gets_its_first_offset() {
    let mut world = World::new(2);
    for shard in [0, 1] {
        let client = world.connect(shard);
        let topic = world.create(client, &format!("inputs-{shard}"), 1);
        let id: ProducerIdAnswer = world.ask(client, &RequestProducerId { producer: 0, epoch: 0 }).unwrap();
        let stamp = |sequence| ProducerStamp {
            producer_id: ProducerId(id.producer),
            producer_epoch: ProducerEpoch(id.epoch),
            base_sequence: Sequence(sequence),
        };
        world.produce(client, topic, 0, 1, batch_of(&["a", "b"], stamp(0)));
        world.produce(client, topic, 0, 2, batch_of(&["c"], stamp(2)));
        world.run();
        assert_eq!(world.outcomes(client), [(1, Ok(0)), (2, Ok(2))]);
        assert_eq!(world.ends(client).last(), Some(&(topic, 0, 3)));
        world.produce(client, topic, 0, 3, batch_of(&["a", "b"], stamp(0)));
        world.produce(client, topic, 0, 4, batch_of(&["e"], stamp(4)));
        world.run();
        assert_eq!(world.outcomes(client), [(3, Ok(0)), (4, Err(ErrorCode::OutOfSequence))]);
        assert_eq!(world.ends(client), [(topic, 0, 3)], "a duplicate that is durable is told how far all is");
    }
    let duplicates = world.status(0).counters.duplicate_batches + world.status(1).counters.duplicate_batches;
    assert_eq!(duplicates, 2);
}

#[test]
fn producer_ids_differ_and_epochs_rise() {
    let mut world = World::new(2);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..40 {
        let client = world.connect(round % 2);
        let id: ProducerIdAnswer = world.ask(client, &RequestProducerId { producer: 0, epoch: 0 }).unwrap();
        assert_eq!(id.epoch, 0);
        assert_ne!(id.producer, 0);
        assert!(seen.insert(id.producer), "{} came twice", id.producer);
    }
    let client = world.connect(0);
    let producer = *seen.first().unwrap();
    let raised: ProducerIdAnswer = world.ask(client, &RequestProducerId { producer, epoch: 3 }).unwrap();
    assert_eq!((raised.producer, raised.epoch), (producer, 4));
    let fresh: ProducerIdAnswer = world.ask(client, &RequestProducerId { producer, epoch: u16::MAX }).unwrap();
    assert!(seen.insert(fresh.producer));
    assert_eq!(fresh.epoch, 0);
}

#[test]
fn nobody_raises_or_uses_the_producer_id_of_another_client() {
    let mut world = World::new(2);
    let owner = world.connect_as(0, (1, 2));
    let topic = world.create(owner, "inputs", 2);
    let id: ProducerIdAnswer = world.ask(owner, &RequestProducerId { producer: 0, epoch: 0 }).unwrap();
    let stamp = |epoch, sequence| ProducerStamp {
        producer_id: ProducerId(id.producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    };
    world.produce(owner, topic, 0, 1, batch_of(&["a"], stamp(0, 0)));
    world.run();
    assert_eq!(world.outcomes(owner), [(1, Ok(0))]);
    let stranger = world.connect_as(1, (1, 3));
    let raised: ProducerIdAnswer = world.ask(stranger, &RequestProducerId { producer: id.producer, epoch: 0 }).unwrap();
    assert_ne!(raised.producer, id.producer, "who asks with another's id gets an id of its own");
    world.produce(stranger, topic, 0, 2, batch_of(&["b"], stamp(1, 0)));
    world.run();
    assert_eq!(world.outcomes(stranger), [(2, Err(ErrorCode::ProducerFenced))]);
    // The owner was not fenced, and on a connection to another shard it is the owner, too.
    let elsewhere = world.connect_as(1, (1, 2));
    world.produce(elsewhere, topic, 0, 3, batch_of(&["c"], stamp(0, 1)));
    world.run();
    assert_eq!(world.outcomes(elsewhere), [(3, Ok(1))]);
}

#[test]
fn what_cannot_be_taken_is_refused_by_name_and_the_rest_goes_on() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    world.produce(client, 999, 0, 1, batch(&["a"]));
    world.produce(client, topic, 9, 2, batch(&["a"]));
    world.produce(client, topic, 0, 3, Bytes::from_static(b"no batch"));
    let mut flipped = batch(&["a"]).to_vec();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    world.produce(client, topic, 0, 4, Bytes::from(flipped));
    world.produce(client, topic, 0, 5, Bytes::new());
    world.produce(client, topic, 0, 6, batch(&["a"]));
    world.run();
    assert_eq!(
        world.outcomes(client),
        [
            (3, Err(ErrorCode::CorruptBatch)),
            (4, Err(ErrorCode::CorruptBatch)),
            (5, Err(ErrorCode::CorruptBatch)),
            (6, Ok(0)),
        ]
    );
    // The others may be of a topic that is just being created, so they wait, but not for long.
    world.pass(1_000_000_000);
    let frames = world.take::<ProduceAnswers>(client);
    let late: Vec<_> = frames
        .iter()
        .flat_map(|frame| frame.answers.iter().map(|answer| (answer.correlation, ErrorCode::from_wire(answer.code))))
        .collect();
    assert_eq!(late, [(1, ErrorCode::UnknownTopic), (2, ErrorCode::UnknownPartition)]);
    let texts: String = frames.iter().flat_map(|frame| frame.texts.iter().map(|(_, text)| text.as_str())).collect();
    assert!(texts.contains("no topic with id 999") && texts.contains("partitions 0 to 1"), "{texts}");
}

#[test]
fn a_batch_for_a_topic_that_is_on_its_way_waits_for_it() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let slow = world.connect(1);
    world.cut_off.insert(1);
    let create = corelane_wire::CreateTopic {
        name: "inputs".to_owned(),
        partitions: 1,
        settings: corelane_model::TopicSettings::default().into(),
    };
    let asked = world.send(client, &create);
    world.run();
    assert!(world.answer::<corelane_wire::CreateTopicAnswer>(client, asked).is_none(), "shard 1 has not heard of it");
    world.produce(slow, 1, 0, 1, batch(&["a"]));
    world.produce(slow, 1, 0, 2, batch(&["b"]));
    world.run();
    assert_eq!(world.outcomes(slow), []);
    world.cut_off.clear();
    world.run();
    assert_eq!(world.outcomes(slow), [(1, Ok(0)), (2, Ok(1))]);
    assert!(world.answer::<corelane_wire::CreateTopicAnswer>(client, asked).unwrap().is_ok());
}

#[test]
fn more_than_a_round_holds_waits_in_order() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    let value = "v".repeat(500_000);
    for i in 0..25 {
        world.produce(client, topic, 0, i, batch(&[&value]));
    }
    world.run();
    let outcomes = world.outcomes(client);
    assert_eq!(outcomes, (0..25).map(|i| (i, Ok(i))).collect::<Vec<_>>());
    assert_eq!(world.ends(client).last(), Some(&(topic, 0, 25)));
    let read = world.subscribe(client, 1, topic, 0, StartAt::Earliest, 64 << 20).unwrap();
    assert_eq!(read.high_watermark, 25);
    assert_eq!(world.pushed(client, 1).len(), 25);
}

/// Anybody can name partitions that do not exist; until they are known not to, their batches wait in memory.
#[test]
fn batches_for_partitions_that_may_come_wait_within_a_bound() {
    let mut world = World::new(1);
    let clients: Vec<_> = (0..4).map(|_| world.connect(0)).collect();
    let topic = world.create(clients[0], "inputs", 1);
    let big = "x".repeat(900_000);
    for &client in &clients {
        for correlation in 1..=10 {
            world.produce(client, topic, 7, correlation, batch(&[&big]));
        }
    }
    world.run();
    let refused: usize = clients.iter().map(|&client| world.outcomes(client).len()).sum();
    assert!(20 < refused, "{refused} of 40 batches of 900 KB were refused at once");
    world.pass(1_000_000_000);
    let later: usize = clients.iter().map(|&client| world.outcomes(client).len()).sum();
    assert_eq!(refused + later, 40);
}
