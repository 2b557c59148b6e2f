//! Requests, connections, and what the protocol does not allow.

use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{Answer, ConnectFailure, Effect, OperationKey, Request, RequestError, SubscribeSettings};
use corelane_model::{
    ErrorCode, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StartAt, TopicClass, TopicId,
    TopicSettings, WallMillis,
};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};

use crate::world::{World, topic};

fn result(world: &World, operation: OperationKey) -> Option<&Result<Answer, RequestError>> {
    world.told.iter().find_map(|effect| match effect {
        Effect::Done { operation: key, result } if *key == operation => Some(&**result),
        _ => None,
    })
}

fn find(world: &mut World, name: &str, partition: u32) -> OperationKey {
    let partition = PartitionIndex(partition);
    world.core.request(
        world.now,
        Request::FindOffset {
            topic: topic(name),
            partition,
            start: StartAt::Latest,
            isolation: corelane_model::Isolation::Uncommitted,
        },
    )
}

fn create(world: &mut World, name: &str) -> OperationKey {
    let settings = TopicSettings::default();
    world.core.request(world.now, Request::CreateTopic { name: topic(name), partitions: 2, settings })
}

#[test]
fn topics_are_created_listed_and_refused() {
    let mut world = World::new(2);
    let (first, again) = (create(&mut world, "t"), create(&mut world, "t"));
    world.exchange();
    assert!(matches!(result(&world, first), Some(Ok(Answer::TopicCreated { .. }))));
    let refused = result(&world, again).unwrap().as_ref().unwrap_err();
    assert!(matches!(refused, RequestError::Refused { code: ErrorCode::TopicExists, .. }) && !refused.is_retriable());
    let list = world.core.request(world.now, Request::ListTopics { names: Vec::new() });
    world.exchange();
    match result(&world, list) {
        Some(Ok(Answer::Topics { topics, shards: 2, .. })) => assert_eq!(topics[0].partitions(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_about_a_partition_finds_out_about_its_topic_first() {
    let mut world = World::new(2);
    world.broker.create("t", 2, TopicClass::Durable);
    let (found, outside, missing) = (find(&mut world, "t", 1), find(&mut world, "t", 2), find(&mut world, "u", 0));
    world.exchange();
    assert!(matches!(result(&world, found), Some(Ok(Answer::Offset { offset: Offset(0), .. }))));
    assert!(matches!(result(&world, outside), Some(Err(RequestError::UnknownPartition { partitions: 2, .. }))));
    assert!(matches!(result(&world, missing), Some(Err(RequestError::UnknownTopic { .. }))));
    world.broker.create("u", 1, TopicClass::Durable);
    let later = find(&mut world, "u", 0);
    world.exchange();
    assert!(matches!(result(&world, later), Some(Ok(_))), "a missing topic is asked about again");
}

#[test]
fn reads_are_repeated_after_a_lost_connection_and_changes_are_not() {
    let mut world = World::new(1);
    world.exchange();
    let list = world.core.request(world.now, Request::ListTopics { names: Vec::new() });
    let change = create(&mut world, "t");
    world.round();
    while world.up(0) {}
    world.cut(0);
    assert_eq!(result(&world, change), Some(&Err(RequestError::ConnectionLost)));
    assert_eq!(result(&world, list), None);
    world.settle_all();
    assert!(matches!(result(&world, list), Some(Ok(Answer::Topics { topics, .. })) if topics.len() == 1));
}

#[test]
fn requests_have_a_deadline() {
    let mut world = World::new(1);
    world.is_down = true;
    let list = world.core.request(world.now, Request::ListTopics { names: Vec::new() });
    world.round();
    for _ in 0..11 {
        world.advance(Duration::from_secs(1));
    }
    let error = result(&world, list).unwrap().as_ref().unwrap_err();
    assert_eq!(*error, RequestError::TimedOut { was_sent: false });
    assert!(error.is_retriable());
    let attempts = world.told.iter().filter(|effect| matches!(effect, Effect::Unreachable { .. })).count();
    assert!((8..60).contains(&attempts), "{attempts} attempts in 11 s");
}

#[test]
fn a_wrong_token_is_told() {
    let mut world = World::with(1, |settings| settings.token = "wrong".to_owned());
    world.broker.token = "right".to_owned();
    world.exchange();
    let refused = world.told.iter().find_map(|effect| match effect {
        Effect::Unreachable { failure, .. } => Some(failure.clone()),
        _ => None,
    });
    let is_clear = matches!(&refused, Some(ConnectFailure::Refused { code: ErrorCode::Unauthenticated, .. }));
    assert!(is_clear && !refused.unwrap().is_retriable());
    assert!(!world.core.is_ready());
}

#[test]
fn garbage_ends_the_connection_and_not_the_client() {
    let mut world = World::new(1);
    world.broker.create("t", 1, TopicClass::Durable);
    world.exchange();
    world.answer_raw(Bytes::from_static(b"no archive"));
    assert!(!world.core.is_ready());
    world.settle_all();
    assert!(world.core.is_ready(), "it connects again");
}

#[test]
fn more_partitions_are_found_out_about() {
    let mut world = World::new(2);
    world.broker.create("t", 1, TopicClass::Durable);
    let producer = world.open("t", corelane_client_core::ProducerSettings::default());
    world.broker.topics.get_mut("t").unwrap().logs.push(crate::broker::Log::default());
    world.advance(Duration::from_secs(31));
    world.exchange();
    world.send(producer, 1);
    world.settle_all();
    assert_eq!(world.log_values("t", 1).len(), 1);
}

#[test]
fn a_partition_that_a_group_has_named_is_waited_for() {
    let mut world = World::new(1);
    world.broker.create("t", 1, TopicClass::Durable);
    world.open("t", corelane_client_core::ProducerSettings::default());
    // The group hears of the new partition before this client asks about the topic again.
    world.broker.topics.get_mut("t").unwrap().logs.push(crate::broker::Log::default());
    let topic_id = Some(TopicId(world.broker.topics["t"].id));
    let settings = SubscribeSettings::new(topic("t"), PartitionIndex(1), StartAt::Earliest);
    let named = world.core.subscribe(SubscribeSettings { topic_id, ..settings.clone() });
    world.settle_all();
    let is_told = |effect: &Effect| matches!(effect, Effect::Subscribed { subscription, .. } if *subscription == named);
    assert!(world.told.iter().any(is_told), "{:?}", world.told);
    let unknown = world.core.subscribe(SubscribeSettings { partition: PartitionIndex(7), ..settings });
    world.settle_all();
    let is_ended = |effect: &Effect| matches!(effect, Effect::Ended { subscription, .. } if *subscription == unknown);
    assert!(world.told.iter().any(is_ended), "nobody has named that one");
}

/// A batch of one record that the application made itself.
fn append(world: &mut World, sequence: u32) -> OperationKey {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(1), None, Some(&u64::from(sequence).to_le_bytes()), &[]).unwrap();
    let (producer_id, producer_epoch) = (ProducerId(77), ProducerEpoch(0));
    let batch = builder.finish(ProducerStamp { producer_id, producer_epoch, base_sequence: Sequence(sequence) });
    world.core.request(world.now, Request::Append { topic: topic("t"), partition: PartitionIndex(0), batch })
}

#[test]
fn batches_of_one_partition_stay_in_order_when_the_first_is_put_off() {
    let mut world = World::new(1);
    world.broker.create("t", 1, TopicClass::Durable);
    world.exchange();
    world.broker.refusals.push(ErrorCode::Busy);
    // The second and third come while the first is missing.
    let appends = [0, 1, 2].map(|sequence| append(&mut world, sequence));
    world.settle_all();
    for (append, offset) in appends.into_iter().zip(0..) {
        assert_eq!(result(&world, append), Some(&Ok(Answer::Appended { base_offset: Offset(offset) })));
    }
    // One whose turn cannot come is told so.
    let gap = append(&mut world, 9);
    world.settle_all();
    let refused = result(&world, gap);
    assert!(matches!(refused, Some(Err(RequestError::Refused { code: ErrorCode::OutOfSequence, .. }))), "{refused:?}");
}
