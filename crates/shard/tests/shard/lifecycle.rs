//! Start, restart, drain, failure, another number of shards; and peers that misbehave.

use bytes::Bytes;
use corelane_model::{CorrelationId, ErrorCode, Incarnation, StartAt, TopicSettings};
use corelane_shard::{AdminAnswer, AdminQuery, Boot, Event, ShardConfig, ShardExport, ShardPhase, reshard};
use corelane_wire::{
    AlterTopic, AlterTopicAnswer, CreateTopic, CreateTopicAnswer, FindOffset, FindOffsetAnswer, Frame, FrameError,
    FrameHead, FrameKind, Goaway, Metadata, MetadataAnswer, Ping, ProducerIdAnswer, RequestProducerId, StorageStopped,
    encode,
};
use proptest::prelude::*;

use crate::records::batch;
use crate::world::{Disk, World, config, frame_of};

fn restart(world: World, shards: usize, was_clean: bool) -> World {
    let configs = (0..shards)
        .map(|shard| ShardConfig { incarnation: Incarnation(2), was_clean, ..config(shard, shards) })
        .collect();
    let mut world = World::start(configs, world.into_disks());
    world.run();
    world
}

fn fill(world: &mut World, topics: u64, partitions: u32) {
    let client = world.connect(0);
    for i in 0..topics {
        let topic = world.create(client, &format!("topic-{i}"), partitions);
        for partition in 0..partitions {
            for value in ["a", "b", "c"] {
                world.produce(client, topic, partition, 0, batch(&[value]));
            }
        }
    }
    world.run();
    assert!(world.outcomes(client).iter().all(|(_, outcome)| outcome.is_ok()));
    world.disconnect(client);
    world.run();
}

fn check_filled(world: &mut World, topics: u64, partitions: u32) {
    let client = world.connect(0);
    let metadata: MetadataAnswer = world.ask(client, &Metadata { names: Vec::new() }).expect("it is served");
    assert_eq!(metadata.topics.len() as u64, topics);
    let mut id = 0;
    for topic in &metadata.topics {
        assert_eq!(topic.shards.len(), partitions as usize);
        for partition in 0..partitions {
            id += 1;
            world.subscribe(client, id, topic.topic, partition, StartAt::Earliest, 1 << 20).expect("it is served");
            let values: String = world.pushed(client, id).into_iter().map(|(_, value)| value).collect();
            assert_eq!(values, "abc", "{}/{partition}", topic.name);
        }
    }
}

#[test]
fn a_restart_after_a_crash_has_what_was_stored() {
    let mut world = World::new(2);
    fill(&mut world, 3, 2);
    let mut world = restart(world, 2, false);
    assert_eq!(world.ready.len(), 2, "{:?}", world.failed);
    assert!(0 < world.status(0).recovery.unwrap().entries);
    check_filled(&mut world, 3, 2);
}

#[test]
fn a_drain_ends_clean_and_takes_nothing_more() {
    let mut world = World::new(2);
    fill(&mut world, 2, 2);
    let client = world.connect(0);
    for shard in 0..2 {
        world.event(shard, Event::Drain);
    }
    world.run();
    assert_eq!(world.drained.len(), 2);
    assert_eq!(world.take::<Goaway>(client).len(), 1);
    world.produce(client, 1, 0, 1, batch(&["late"]));
    world.produce(client, 1, 1, 2, batch(&["late"]));
    world.run();
    let refused = Err(ErrorCode::ShuttingDown);
    assert_eq!(world.outcomes(client), [(1, refused), (2, refused)]);
    assert_eq!(world.status(1).phase, ShardPhase::Drained);
    let mut world = restart(world, 2, true);
    check_filled(&mut world, 2, 2);
}

#[test]
fn a_question_that_waits_for_the_catalog_outlives_a_drain() {
    let mut world = World::new(2);
    let (client, other) = (world.connect(1), world.connect(0));
    let topic = world.create(other, "inputs", 1);
    world.event(1, Event::Drain);
    world.run();
    let start = StartAt::Earliest.into();
    let asked = world.send(client, &FindOffset { topic, partition: 1, start, isolation: 0 });
    world.run();
    let alter = AlterTopic { name: "inputs".to_owned(), partitions: Some(2), settings: None };
    world.ask::<_, AlterTopicAnswer>(other, &alter).expect("shard 0 is not told to drain yet");
    world.pass(1_000_000_000);
    let answer: Result<FindOffsetAnswer, _> = world.answer(client, asked).expect("it is answered");
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn a_drain_makes_durable_what_was_taken() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    world.are_syncs_held = true;
    world.produce(client, topic, 0, 1, batch(&["a"]));
    world.run();
    world.event(0, Event::Drain);
    world.run();
    assert_eq!(world.drained.len(), 0);
    world.let_files_go();
    world.run();
    assert_eq!(world.ends(client), [(topic, 0, 1)]);
    assert_eq!(world.drained.len(), 1);
}

#[test]
fn requests_during_recovery_are_told_so() {
    let configs = vec![config(0, 2), config(1, 2)];
    let mut world = World::start(configs, vec![Disk::default(), Disk::default()]);
    world.are_files_held = true;
    let client = world.connect(0);
    let (code, _) = world.ask::<_, MetadataAnswer>(client, &Metadata { names: Vec::new() }).unwrap_err();
    assert_eq!(code, ErrorCode::Recovering);
    world.produce(client, 1, 0, 1, batch(&["a"]));
    world.run();
    assert_eq!(world.outcomes(client), [(1, Err(ErrorCode::Recovering))]);
    assert_eq!(world.status(0).phase, ShardPhase::Recovering);
    world.let_files_go();
    world.run();
    assert_eq!(world.ready.len(), 2);
    assert!(world.ask::<_, MetadataAnswer>(client, &Metadata { names: Vec::new() }).is_ok());
}

#[test]
fn a_drain_during_recovery_ends_at_once_and_harms_nothing() {
    let mut world = World::new(2);
    fill(&mut world, 1, 2);
    let configs = (0..2).map(|shard| ShardConfig { was_clean: false, ..config(shard, 2) }).collect();
    let mut world = World::start(configs, world.into_disks());
    world.are_files_held = true;
    world.run();
    for shard in 0..2 {
        world.event(shard, Event::Drain);
    }
    world.run();
    world.let_files_go();
    world.run();
    assert_eq!((world.drained.len(), world.ready.len()), (2, 0));
    let mut world = restart(world, 2, true);
    check_filled(&mut world, 1, 2);
}

#[test]
fn a_failed_journal_stops_writes_and_serves_what_is_stored() {
    let mut world = World::new(2);
    fill(&mut world, 1, 2);
    let client = world.connect(0);
    let other = world.connect(1);
    world.are_syncs_failing = true;
    world.produce(client, 1, 0, 1, batch(&["lost?"]));
    world.run();
    assert_eq!(world.outcomes(client), [(1, Ok(3))]);
    assert_eq!(world.ends(client), []);
    for peer in [client, other] {
        let notices = world.take::<StorageStopped>(peer);
        assert_eq!(notices.iter().map(|notice| notice.shard).collect::<Vec<_>>(), [0]);
    }
    world.are_syncs_failing = false;
    world.produce(client, 1, 0, 2, batch(&["no"]));
    world.produce(client, 1, 1, 3, batch(&["yes"]));
    world.run();
    assert_eq!(world.outcomes(client), [(2, Err(ErrorCode::StorageFailed)), (3, Ok(3))]);
    assert!(world.status(0).storage_failure.is_some());
    let create = CreateTopic { name: "more".to_owned(), partitions: 1, settings: TopicSettings::default().into() };
    assert_eq!(world.ask::<_, CreateTopicAnswer>(client, &create).unwrap_err().0, ErrorCode::StorageFailed);
    world.subscribe(client, 1, 1, 0, StartAt::Earliest, 1 << 20).unwrap();
    assert_eq!(world.pushed(client, 1).len(), 3);
    for shard in 0..2 {
        world.event(shard, Event::Drain);
    }
    world.run();
    assert_eq!(world.drained.len(), 2);
}

#[test]
fn another_number_of_shards_is_refused_until_partitions_are_moved() {
    let mut world = World::new(2);
    fill(&mut world, 1, 2);
    let disks = vec![world.into_disks().remove(0)];
    let mut world = World::start(vec![config(0, 1)], disks);
    world.run();
    assert!(world.failed[&0].contains("laid out for 2 shards"), "{:?}", world.failed);
    assert_eq!(world.ready.len(), 0);
}

#[test]
fn partitions_move_to_another_number_of_shards_and_back() {
    let mut world = World::new(2);
    fill(&mut world, 3, 4);
    let client = world.connect(0);
    let mut seen =
        vec![world.ask::<_, ProducerIdAnswer>(client, &RequestProducerId { producer: 0, epoch: 0 }).unwrap().producer];
    let mut shards = 2;
    for (incarnation, wanted) in [(2, 3), (4, 1), (6, 2)] {
        let configs = (0..shards)
            .map(|shard| ShardConfig {
                boot: Boot::Export,
                incarnation: Incarnation(incarnation),
                was_clean: false,
                ..config(shard, shards)
            })
            .collect();
        let mut old = World::start(configs, world.into_disks());
        old.run();
        old.pass(10_000_000_000);
        assert_eq!((old.drained.len(), old.ready.len()), (shards, 0), "{:?}", old.failed);
        let exports: Vec<ShardExport> = (0..shards)
            .map(|shard| match old.admin(shard, AdminQuery::Export) {
                AdminAnswer::Export(Some(export)) => *export,
                other => panic!("nothing exported: {other:?}"),
            })
            .collect();
        let imports = reshard(&exports, u16::try_from(wanted).unwrap()).unwrap();
        let segments = Disk::merge_segments(old.into_disks(), wanted);
        let configs = imports
            .into_iter()
            .enumerate()
            .map(|(shard, import)| ShardConfig {
                boot: Boot::Import(Box::new(import)),
                incarnation: Incarnation(incarnation + 1),
                ..config(shard, wanted)
            })
            .collect();
        world = World::start(configs, segments);
        world.run();
        assert_eq!(world.ready.len(), wanted, "{:?}", world.failed);
        shards = wanted;
        check_filled(&mut world, 3, 4);
        let client = world.connect(wanted - 1);
        let id: ProducerIdAnswer = world.ask(client, &RequestProducerId { producer: 0, epoch: 0 }).unwrap();
        assert!(!seen.contains(&id.producer), "producer id {} again", id.producer);
        seen.push(id.producer);
        world.disconnect(client);
    }
}

#[test]
fn garbage_and_silence_close_with_a_reason() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let error = FrameError::UnknownKind { kind: 999 };
    world.event(0, Event::Garbage { connection: client.key, error });
    world.run();
    let closed = world.inbox(client).closed.clone().unwrap();
    assert_eq!(closed, (ErrorCode::UnexpectedFrame, "frame kind 999 is unknown".to_owned()));
    world.send(client, &Ping { payload: 1 });
    world.event(0, Event::Disconnected { connection: client.key });
    let silent = world.connect_silently(0);
    let talker = world.connect(0);
    world.pass(11_000_000_000);
    assert_eq!(world.inbox(silent).closed.as_ref().unwrap().0, ErrorCode::TimedOut);
    assert!(world.inbox(talker).closed.is_none());
    assert_eq!(world.status(0).counters.closes, 2);
}

#[test]
fn counts_are_told() {
    let mut world = World::new(2);
    fill(&mut world, 2, 2);
    check_filled(&mut world, 2, 2);
    let status = [world.status(0), world.status(1)];
    assert_eq!(status.iter().map(|s| s.counters.produced.records).sum::<u64>(), 12);
    assert_eq!(status.iter().map(|s| s.counters.consumed.records).sum::<u64>(), 12);
    assert_eq!(status.iter().map(|s| s.by_topic.len()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(status[0].by_topic[0].name, "topic-0");
    assert_eq!((status[0].connections, status[0].sessions), (1, 1));
    assert!(0 < status[0].storage.journal_syncs && 0 < status[0].counters.rounds);
    let mut text = corelane_telemetry::Exposition::default();
    corelane_shard::expose(&status, &mut text);
    assert!(text.finish().contains("corelane_topic_produced_records_total{topic=\"topic-0\"} 6\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames of any kind with any body, on two connections of two shards: the shards go on and still serve.
    #[test]
    fn any_frames_leave_the_shards_in_service(
        frames in prop::collection::vec(
            (0..2_usize, 0..FrameKind::ALL.len(), prop::collection::vec(any::<u8>(), 0..64), 0..3_usize), 1..40),
    ) {
        let mut world = World::new(2);
        let honest = world.connect(0);
        let topic = world.create(honest, "inputs", 2);
        let mut peers = [world.connect(0), world.connect(1)];
        for (which, kind, body, attachment) in frames {
            if world.inbox(peers[which]).closed.is_some() {
                world.disconnect(peers[which]);
                peers[which] = world.connect(which);
            }
            let attachment = Bytes::from(vec![7; attachment * 100]);
            let length = u32::try_from(body.len() + attachment.len()).unwrap();
            let head = FrameHead {
                length,
                body_length: u32::try_from(body.len()).unwrap(),
                kind: FrameKind::ALL[kind],
                version: 1,
                correlation: CorrelationId(1),
            };
            world.send_frame(peers[which], Frame { head, body: Bytes::from(body), attachment });
            world.run();
        }
        world.pass(1_000_000_000);
        for partition in 0..2 {
            world.produce(honest, topic, partition, 1, batch(&["a"]));
            world.run();
            prop_assert!(world.outcomes(honest)[0].1.is_ok());
        }
        world.send_frame(honest, frame_of(encode(CorrelationId(5), &Ping { payload: 1 })));
        world.run();
        prop_assert_eq!(world.take::<corelane_wire::Pong>(honest).len(), 1);
    }
}
