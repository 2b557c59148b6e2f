//! Shared queues at their homes.

use std::collections::BTreeMap;

use corelane_model::queue::HEADER_DELIVER_AT;
use corelane_model::{ErrorCode, Incarnation, StartAt, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, split_batch};
use corelane_shard::{Event, ShardConfig};
use corelane_wire::{
    AlterQueue, AlterTopic, AlterTopicAnswer, DeleteQueue, DescribeQueue, DescribeQueueAnswer, FrameKind, JoinQueue,
    JoinQueueAnswer, LeaseRange, LeasesAnswer, LeaveQueue, ListQueues, ListQueuesAnswer, QueueAck, QueueChange,
    QueueCredit, QueueDeliver, QueueDone, QueueExtend, QueueFenced, QueueNack, TopicDone, TruncatePartition, decode,
};

use crate::members::{Member, join_of};
use crate::records::batch;
use crate::world::{Client, World, config};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn restart(world: World, shards: usize) -> World {
    let configs = (0..shards)
        .map(|shard| ShardConfig { incarnation: Incarnation(2), was_clean: false, ..config(shard, shards) })
        .collect();
    let mut world = World::start(configs, world.into_disks());
    world.run();
    assert_eq!(world.ready.len(), shards, "{:?}", world.failed);
    world
}

/// A topic whose partitions have that many records each, in batches of three, named by partition and place.
pub(crate) fn filled(world: &mut World, client: Client, name: &str, partitions: u32, records: u64) -> u64 {
    let topic = world.create(client, name, partitions);
    fill(world, client, topic, partitions, 0, records);
    topic
}

pub(crate) fn fill(world: &mut World, client: Client, topic: u64, partitions: u32, from: u64, to: u64) {
    for partition in 0..partitions {
        for first in (from..to).step_by(3) {
            let values: Vec<_> = (first..to.min(first + 3)).map(|place| format!("{partition}:{place}")).collect();
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            world.produce(client, topic, partition, first, batch(&values));
            if first % 300 == 297 {
                world.run();
            }
        }
    }
    world.run();
    assert!(world.outcomes(client).iter().all(|(_, outcome)| outcome.is_ok()));
}

pub(crate) fn join_of_queue(member: u64, topic: &str, credit: u32) -> JoinQueue {
    JoinQueue {
        group: "workers".to_owned(),
        topic: topic.to_owned(),
        member: (7, member),
        weight: 1,
        session_timeout_ms: 10_000,
        settings: QueueChange::default(),
        start: StartAt::Earliest.into(),
        credit_records: credit,
        credit_bytes: 1 << 20,
    }
}

/// A member's process.
pub(crate) struct Worker {
    client: Client,
    pub(crate) member: (u64, u64),
    pub(crate) topic: u64,
    /// Records that it was sent: value, and the lease.
    pub(crate) has: Vec<(String, LeaseRange)>,
}

impl Worker {
    pub(crate) fn join(world: &mut World, client: Client, join: &JoinQueue) -> Self {
        let answer: JoinQueueAnswer = world.ask(client, join).expect("the queue takes it");
        let mut worker = Self { client, member: join.member, topic: answer.topic, has: Vec::new() };
        worker.hear(world);
        worker
    }

    /// Takes up what it was sent.
    pub(crate) fn hear(&mut self, world: &mut World) {
        world.run();
        let pushes = std::mem::take(&mut world.inbox(self.client).pushes);
        for (_, frame) in pushes {
            assert_eq!(frame.head.kind, FrameKind::QueueDeliver);
            let body: QueueDeliver = decode(&frame).expect("it is sound");
            if body.member != self.member {
                continue;
            }
            let mut rest = frame.attachment.clone();
            let mut values = Vec::new();
            while let Some(bytes) = split_batch(&mut rest).expect("it is sound") {
                let batch = RecordBatch::parse(bytes).expect("it is sound");
                values.extend(
                    batch.iter().map(|record| String::from_utf8_lossy(record.value.expect("it is sound")).into_owned()),
                );
            }
            let singles = body.leases.iter().flat_map(|run| {
                (0..u64::from(run.count)).map(|more| LeaseRange { first: run.first + more, count: 1, ..*run })
            });
            let singles: Vec<_> = singles.collect();
            assert_eq!(singles.len(), values.len(), "leases and records");
            self.has.extend(values.into_iter().zip(singles));
        }
    }

    pub(crate) fn leases(&self) -> Vec<LeaseRange> {
        self.has.iter().map(|(_, lease)| *lease).collect()
    }

    pub(crate) fn ack_of(&self, leases: Vec<LeaseRange>, credit_records: u32) -> QueueAck {
        QueueAck {
            group: "workers".to_owned(),
            topic: self.topic,
            member: self.member,
            leases,
            processing_micros: None,
            credit_records,
            credit_bytes: 0,
        }
    }

    /// Acknowledges everything that it has. What was refused.
    pub(crate) fn ack_all(&mut self, world: &mut World, credit: u32) -> Vec<LeaseRange> {
        let ack = self.ack_of(self.leases(), credit);
        self.has.clear();
        let answer: LeasesAnswer = world.ask(self.client, &ack).expect("it is a member");
        answer.refused
    }

    pub(crate) fn nack_of(&self, leases: Vec<LeaseRange>, is_dead: bool) -> QueueNack {
        QueueNack {
            group: "workers".to_owned(),
            topic: self.topic,
            member: self.member,
            leases,
            delay_ms: None,
            is_dead,
            reason: "no such player".to_owned(),
            credit_records: 0,
            credit_bytes: 0,
        }
    }

    pub(crate) fn nack(&mut self, world: &mut World, lease: LeaseRange, is_dead: bool) {
        let nack = self.nack_of(vec![lease], is_dead);
        let answer: LeasesAnswer = world.ask(self.client, &nack).expect("it is a member");
        assert_eq!(answer.refused, []);
        self.has.retain(|(_, has)| *has != lease);
    }

    pub(crate) fn values(&self) -> Vec<&str> {
        self.has.iter().map(|(value, _)| value.as_str()).collect()
    }
}

pub(crate) fn describe(world: &mut World, client: Client) -> DescribeQueueAnswer {
    let body = DescribeQueue {
        group: "workers".to_owned(),
        topic: "mail".to_owned(),
        from_partition: 0,
        most_partitions: 100,
        after_member: None,
        most_members: 100,
    };
    world.ask(client, &body).expect("the queue is there")
}

#[test]
fn more_members_than_partitions_on_any_shard_share_the_records() {
    let mut world = World::new(3);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 2, 30);
    let mut workers: Vec<_> = (0..4)
        .map(|at| {
            let client = world.connect(at % 3);
            Worker::join(&mut world, client, &join_of_queue(at as u64, "mail", 0))
        })
        .collect();
    for worker in &workers {
        let body =
            QueueCredit { group: "workers".into(), topic: worker.topic, member: worker.member, records: 100, bytes: 0 };
        world.send(worker.client, &body);
    }
    let mut seen = BTreeMap::new();
    for worker in &mut workers {
        worker.hear(&mut world);
        assert!(!worker.has.is_empty(), "everybody gets something");
        for value in worker.values() {
            *seen.entry(value.to_owned()).or_insert(0) += 1;
        }
        assert_eq!(worker.ack_all(&mut world, 0), []);
    }
    assert_eq!(seen.len(), 60);
    assert!(seen.values().all(|&count| count == 1), "{seen:?}");
    let described = describe(&mut world, client);
    assert_eq!((described.summary.ready, described.summary.leased, described.members.len()), (0, 0, 4));
    assert!(described.partitions.iter().all(|partition| partition.done_end == 30), "{described:?}");
    let list: ListQueuesAnswer = world.ask(client, &ListQueues { after: (String::new(), 0), most: 10 }).unwrap();
    assert_eq!(list.queues, [described.summary]);
    assert_eq!((list.is_cut, list.missing_shards), (false, vec![]));
}

#[test]
fn what_was_acknowledged_stays_done_after_a_crash() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "mail", 3, 10);
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    assert_eq!(worker.has.len(), 30);
    worker.has.retain(|(_, lease)| lease.first % 2 == 0);
    assert_eq!(worker.ack_all(&mut world, 0), []);
    let mut world = restart(world, 2);
    let client = world.connect(1);
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    let mut values = worker.values();
    values.sort_unstable();
    let expected: Vec<_> = (0..3).flat_map(|p| (1..10).step_by(2).map(move |at| format!("{p}:{at}"))).collect();
    assert_eq!(values, expected, "what was not acknowledged comes again");
    assert_eq!(worker.ack_all(&mut world, 100), []);
    fill(&mut world, client, topic, 3, 10, 13);
    worker.hear(&mut world);
    assert_eq!(worker.has.len(), 9, "what comes later is handed out as it comes");
}

#[test]
fn a_refused_join_leaves_a_restored_queue_as_it_is() {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 6);
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    worker.has.truncate(4);
    assert_eq!(worker.ack_all(&mut world, 0), []);
    let mut world = restart(world, 1);
    let client = world.connect(0);
    let mut join = join_of_queue(2, "mail", 100);
    join.settings.visibility_ms = Some(7_000);
    let error = world.ask::<_, JoinQueueAnswer>(client, &join).unwrap_err();
    assert_eq!(error.0, ErrorCode::QueueSettingsMismatch);
    assert_eq!(describe(&mut world, client).partitions[0].done_end, 4, "the queue is still there");
    let worker = Worker::join(&mut world, client, &join_of_queue(2, "mail", 100));
    assert_eq!(worker.values(), ["0:4", "0:5"]);
}

#[test]
fn leases_of_slow_and_of_dead_members_go_to_others() {
    let mut world = World::new(2);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 4);
    let mut join = join_of_queue(1, "mail", 4);
    join.settings.visibility_ms = Some(2_000);
    join.session_timeout_ms = 3_000;
    let mut slow = Worker::join(&mut world, client, &join);
    let other = world.connect(1);
    let mut join = join_of_queue(2, "mail", 10);
    join.session_timeout_ms = 30_000;
    let mut quick = Worker::join(&mut world, other, &join);
    let extend = QueueExtend {
        group: "workers".to_owned(),
        topic: slow.topic,
        member: slow.member,
        leases: slow.leases()[..2].to_vec(),
        lease_ms: 60_000,
    };
    let _answer: LeasesAnswer = world.ask(client, &extend).unwrap();
    world.pass(2_000 * MS);
    quick.hear(&mut world);
    assert_eq!(quick.values(), ["0:2", "0:3"]);
    let refused = slow.ack_all(&mut world, 0);
    assert_eq!(refused, [LeaseRange { partition: 0, first: 2, count: 2, attempt: 1 }], "what was extended is done");
    assert_eq!(describe(&mut world, client).partitions[0].done_end, 2);
    let mut third = Worker::join(&mut world, client, &join_of_queue(3, "mail", 0));
    world.pass(3_100 * MS);
    let fences = world.take::<QueueFenced>(client);
    assert_eq!(fences.iter().map(|fence| (fence.member, fence.reason)).collect::<Vec<_>>(), [((7, 1), 1)]);
    let leave = LeaveQueue { group: "workers".into(), topic: quick.topic, member: quick.member };
    let _done: QueueDone = world.ask(other, &leave).unwrap();
    let credit =
        QueueCredit { group: "workers".into(), topic: third.topic, member: third.member, records: 5, bytes: 0 };
    world.send(client, &credit);
    third.hear(&mut world);
    assert_eq!(third.values(), ["0:2", "0:3"]);
    let credit = QueueCredit { member: slow.member, ..credit };
    world.send(client, &credit);
    world.run();
    assert_eq!(world.take::<QueueFenced>(client)[0].reason, 3, "who is out hears it whatever it says");
}

#[test]
fn order_per_key_and_delivery_times_hold() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 1);
    let mut builder = BatchBuilder::new(Compression::Lz4);
    let at = (world.now.wall.0 + 500).to_string();
    let later = [(HEADER_DELIVER_AT, Some(at.as_bytes()))];
    for (key, value, headers) in
        [("a", "a1", &[][..]), ("b", "b1", &later[..]), ("a", "a2", &[][..]), ("c", "c1", &[][..])]
    {
        builder.push(WallMillis(1), Some(key.as_bytes()), Some(value.as_bytes()), headers).unwrap();
    }
    world.produce(client, topic, 0, 1, builder.finish(ProducerStamp::default()));
    let mut join = join_of_queue(1, "mail", 100);
    join.settings.order_per_key = Some(true);
    let mut worker = Worker::join(&mut world, client, &join);
    assert_eq!(worker.values(), ["a1", "c1"]);
    worker.ack_all(&mut world, 0);
    worker.hear(&mut world);
    assert_eq!(worker.values(), ["a2"]);
    world.pass(500 * MS);
    worker.hear(&mut world);
    assert_eq!(worker.values(), ["a2", "b1"]);
}

#[test]
fn a_record_that_was_dropped_from_memory_is_read_again() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 1);
    let mut join = join_of_queue(1, "mail", 100);
    join.credit_bytes = 64 << 20;
    let mut worker = Worker::join(&mut world, client, &join);
    let value = "x".repeat(900_000);
    for record in 0..12 {
        world.produce(client, topic, 0, record, batch(&[&format!("{record}{value}")]));
        world.run();
        worker.hear(&mut world);
    }
    assert_eq!(worker.has.len(), 12);
    let first = worker.has[0].1;
    assert_eq!(first.first, 0);
    worker.nack(&mut world, first, false);
    world.pass(1_000 * MS);
    worker.hear(&mut world);
    let (found, lease) = worker.has.last().unwrap();
    assert!(found.starts_with("0x") && found.len() == value.len() + 1);
    assert_eq!((lease.first, lease.attempt), (0, 2));
}

#[test]
fn a_record_that_is_read_again_comes_with_what_is_left_of_its_time() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 1);
    let mut join = join_of_queue(1, "mail", 100);
    join.credit_bytes = 64 << 20;
    join.settings.visibility_ms = Some(8_000);
    let mut worker = Worker::join(&mut world, client, &join);
    let value = "x".repeat(900_000);
    for record in 0..12 {
        world.produce(client, topic, 0, record, batch(&[&format!("{record}{value}")]));
        world.pass(100 * MS);
        worker.hear(&mut world);
    }
    let first = worker.has[0].1;
    worker.nack(&mut world, first, false);
    world.are_files_held = true;
    // It is leased again within a second, but its bytes are not in memory any more.
    world.pass(5_000 * MS);
    assert_eq!(world.inbox(client).pushes.len(), 0, "the disk hangs");
    world.let_files_go();
    world.run();
    let (_, frame) = world.inbox(client).pushes.pop_front().expect("it was read");
    let body: QueueDeliver = decode(&frame).expect("it is sound");
    assert_eq!((body.leases[0].first, body.leases[0].attempt, body.lease_ms), (0, 2, 8_000));
    assert!((3_000..=4_000).contains(&body.left_ms), "{} ms of 8 s are left", body.left_ms);
}

#[test]
fn records_that_retention_took_from_their_members_hold_up_no_others() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 1);
    let mut join = join_of_queue(1, "mail", 100);
    join.credit_bytes = 64 << 20;
    join.settings.visibility_ms = Some(2_000);
    let mut worker = Worker::join(&mut world, client, &join);
    let value = "x".repeat(900_000);
    for record in 0..12 {
        world.produce(client, topic, 0, record, batch(&[&format!("{record}{value}")]));
        world.run();
        worker.hear(&mut world);
    }
    assert_eq!(worker.has.len(), 12);
    let _done: TopicDone = world.ask(client, &TruncatePartition { topic, partition: 0, before: 2 }).unwrap();
    worker.has.clear();
    world.pass(2_000 * MS);
    worker.hear(&mut world);
    let again: Vec<_> = worker.has.iter().map(|(_, lease)| (lease.first, lease.attempt)).collect();
    let mut sorted = again.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (2..12).map(|offset| (offset, 2)).collect::<Vec<_>>(), "what is there comes again");
    assert_eq!(describe(&mut world, client).partitions[0].done_end, 2);
}

/// A batch of records with a key and a value each.
pub(crate) fn keyed(pairs: &[(&str, &str)]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for (key, value) in pairs {
        builder.push(WallMillis(1), Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("it is small");
    }
    builder.finish(ProducerStamp::default())
}

#[test]
fn records_of_a_topic_that_keeps_the_newest_of_each_key_come_under_their_own_leases() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create_with(client, "mail", 1, TopicSettings::latest());
    world.produce(client, topic, 0, 1, keyed(&[("a", "a0"), ("b", "b1"), ("c", "c2"), ("d", "d3")]));
    world.produce(client, topic, 0, 2, keyed(&[("b", "b4")]));
    world.run();
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    let has: Vec<_> = worker.has.iter().map(|(value, lease)| (value.as_str(), lease.first)).collect();
    assert_eq!(has, [("a0", 0), ("c2", 2), ("d3", 3), ("b4", 4)]);
    assert_eq!(worker.ack_all(&mut world, 0), []);
    assert_eq!(describe(&mut world, client).partitions[0].done_end, 5);
}

#[test]
fn a_record_that_was_dropped_from_memory_and_superseded_counts_as_done() {
    let mut world = World::new(2);
    let client = world.connect(0);
    // Of so many partitions each may keep 2 MiB.
    let topic = world.create_with(client, "mail", 16, TopicSettings::latest());
    let mut join = join_of_queue(1, "mail", 100);
    join.credit_bytes = 64 << 20;
    let mut worker = Worker::join(&mut world, client, &join);
    let value = "x".repeat(900_000);
    for record in 0..5 {
        world.produce(client, topic, 0, record, keyed(&[(&format!("key {record}"), &value)]));
        world.run();
        worker.hear(&mut world);
    }
    assert_eq!(worker.has.len(), 5);
    let first = worker.has[0].1;
    world.produce(client, topic, 0, 5, keyed(&[("key 0", "newer")]));
    worker.hear(&mut world);
    worker.nack(&mut world, first, false);
    world.pass(1_000 * MS);
    worker.hear(&mut world);
    assert_eq!(worker.values().last(), Some(&"newer"), "it is not handed out a second time");
    let partition = &describe(&mut world, client).partitions[0];
    assert_eq!((partition.done_end, partition.leased), (1, 5));
}

#[test]
fn a_name_is_a_groups_or_a_queues() {
    let mut world = World::new(2);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 1);
    let worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 1));
    let error =
        Member::join(&mut world, client, &join_of("workers", 1, &["mail"])).map(drop).expect_err("it is a queue's");
    assert_eq!(error.0, ErrorCode::GroupIsQueue, "{}", error.1);
    Member::join(&mut world, client, &join_of("lobby", 1, &["mail"])).expect("another name is free");
    let join = JoinQueue { group: "lobby".to_owned(), ..join_of_queue(1, "mail", 1) };
    let error = world.ask::<_, JoinQueueAnswer>(client, &join).unwrap_err();
    assert_eq!(error.0, ErrorCode::QueueIsGroup, "{}", error.1);
    let delete = DeleteQueue { group: "workers".into(), topic: "mail".into(), topic_id: 0, is_forced: false };
    let error = world.ask::<_, QueueDone>(client, &delete).unwrap_err();
    assert_eq!(error.0, ErrorCode::QueueInUse, "{}", error.1);
    let _done: QueueDone = world.ask(client, &DeleteQueue { is_forced: true, ..delete.clone() }).unwrap();
    assert_eq!(world.take::<QueueFenced>(client)[0].reason, 2);
    let error = world.ask::<_, LeasesAnswer>(client, &worker.ack_of(worker.leases(), 0)).unwrap_err();
    assert_eq!(error.0, ErrorCode::UnknownQueueMember, "{}", error.1);
    Member::join(&mut world, client, &join_of("workers", 1, &["mail"])).expect("the name is free again");
    let mut world = restart(world, 2);
    let client = world.connect(0);
    let error = world.ask::<_, QueueDone>(client, &delete).unwrap_err();
    assert_eq!(error.0, ErrorCode::QueueIsGroup, "{}", error.1);
}

#[test]
fn wrong_settings_are_refused_in_words_and_right_ones_can_be_altered() {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 1);
    let mut join = join_of_queue(1, "mail", 1);
    let mut refuse = |world: &mut World, settings: QueueChange| {
        join.settings = settings;
        world.ask::<_, JoinQueueAnswer>(client, &join).unwrap_err()
    };
    let settings = QueueChange { dispatch: Some("fair".into()), ..QueueChange::default() };
    assert_eq!(refuse(&mut world, settings).0, ErrorCode::InvalidSetting);
    let settings = QueueChange { delivery_limit: Some(3), ..QueueChange::default() };
    assert!(refuse(&mut world, settings).1.contains("needs a dead-letter topic"));
    let settings = QueueChange { dead_letter: Some("nowhere".into()), ..QueueChange::default() };
    assert_eq!(refuse(&mut world, settings).0, ErrorCode::UnknownTopic);
    let settings = QueueChange { dead_letter: Some("mail".into()), ..QueueChange::default() };
    assert_eq!(refuse(&mut world, settings).0, ErrorCode::InvalidSetting);
    let error = world.ask::<_, JoinQueueAnswer>(client, &join_of_queue(1, "nowhere", 1)).unwrap_err();
    assert_eq!(error.0, ErrorCode::UnknownTopic);
    let list: ListQueuesAnswer = world.ask(client, &ListQueues { after: (String::new(), 0), most: 10 }).unwrap();
    assert_eq!(list.queues, [], "nothing was made");
    Worker::join(&mut world, client, &join_of_queue(1, "mail", 1));
    let settings = QueueChange { visibility_ms: Some(7_000), ..QueueChange::default() };
    assert_eq!(refuse(&mut world, settings.clone()).0, ErrorCode::QueueSettingsMismatch);
    let alter = AlterQueue { group: "workers".into(), topic: "mail".into(), settings };
    let _done: QueueDone = world.ask(client, &alter).unwrap();
    assert_eq!(describe(&mut world, client).settings.visibility_ms, Some(7_000));
}

#[test]
fn new_partitions_are_read_and_a_deleted_topic_takes_its_queue_along() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "mail", 1, 1);
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    let alter = AlterTopic { name: "mail".into(), partitions: Some(3), settings: None };
    let _answer: AlterTopicAnswer = world.ask(client, &alter).unwrap();
    fill(&mut world, client, topic, 3, 1, 2);
    worker.hear(&mut world);
    let mut values = worker.values();
    values.sort_unstable();
    assert_eq!(values, ["0:0", "0:1", "1:1", "2:1"]);
    let delete = corelane_wire::DeleteTopic { name: "mail".to_owned() };
    let _done: TopicDone = world.ask(client, &delete).unwrap();
    world.run();
    assert_eq!(world.take::<QueueFenced>(client)[0].reason, 2);
    let list: ListQueuesAnswer = world.ask(client, &ListQueues { after: (String::new(), 0), most: 10 }).unwrap();
    assert_eq!(list.queues, []);
}

#[test]
fn a_stalled_shard_hears_its_members_before_it_takes_their_records_away() {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 3);
    let mut join = join_of_queue(1, "mail", 100);
    join.settings.visibility_ms = Some(5_000);
    let mut worker = Worker::join(&mut world, client, &join);
    assert_eq!(worker.has.len(), 3);
    // Nothing runs for longer than the lease and the session; what the member said meanwhile comes one round later.
    world.now.monotonic.0 += 12_000 * MS;
    world.run();
    assert_eq!(worker.ack_all(&mut world, 0), [], "its leases were not ended unheard");
    world.pass(200 * MS);
    assert_eq!(describe(&mut world, client).members.len(), 1, "nor was its session");
    world.pass(10_000 * MS);
    assert_eq!(describe(&mut world, client).members.len(), 0, "silent for its time, it goes");
}

#[test]
fn a_drain_answers_who_waits_for_a_list() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.cut_off.insert(1);
    let list = world.send(client, &ListQueues { after: (String::new(), 0), most: 10 });
    world.run();
    world.event(0, Event::Drain);
    world.run();
    let error = world.answer::<ListQueuesAnswer>(client, list).expect("it is answered at once").unwrap_err();
    assert_eq!(error.0, ErrorCode::ShuttingDown);
}

#[test]
fn records_for_a_connection_that_is_gone_go_to_others_uncounted() {
    for (home_side, other) in [(0, 1), (1, 0)] {
        let mut world = World::new(2);
        let client = world.connect(other);
        let gone = world.connect(home_side);
        let topic = world.create(client, "mail", 1);
        let worker = Worker::join(&mut world, gone, &join_of_queue(1, "mail", 100));
        world.disconnect(gone);
        world.produce(client, topic, 0, 0, batch(&["a", "b"]));
        world.run();
        let described = describe(&mut world, client);
        assert_eq!((described.members[0].leased, described.summary.ready), (0, 2), "nobody has them");
        let mut second = Worker::join(&mut world, client, &join_of_queue(2, "mail", 100));
        second.hear(&mut world);
        assert_eq!(second.values(), ["a", "b"]);
        assert!(second.leases().iter().all(|lease| lease.attempt == 1), "they were never delivered: {:?}", second.has);
        // Back on another connection it is given more.
        let back = world.connect(home_side);
        let mut worker = Worker { client: back, ..worker };
        let join = JoinQueue { credit_records: 5, ..join_of_queue(1, "mail", 5) };
        let _answer: JoinQueueAnswer = world.ask(back, &join).unwrap();
        world.produce(client, topic, 0, 2, batch(&["c", "d"]));
        world.run();
        worker.hear(&mut world);
        second.hear(&mut world);
        assert_eq!((worker.has.len(), second.has.len()), (1, 3), "each gets one");
    }
}
