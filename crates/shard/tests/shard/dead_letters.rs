//! Dead letters of shared queues, and their way back.

use std::collections::BTreeMap;

use corelane_model::limits::QUEUE_REDRIVE_RECORDS;
use corelane_model::queue::{HEADER_DEAD_DELIVERIES, HEADER_DEAD_OFFSET, HEADER_DEAD_REASON};
use corelane_model::{StartAt, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, MESSAGE_ID_HEADER, ProducerStamp, RecordBatch};
use corelane_wire::{LeasesAnswer, QueueCredit, QueueRedriven, RedriveQueue, TopicDone};

use crate::queues::{MS, Worker, describe, fill, filled, join_of_queue, restart};
use crate::records::batch;
use crate::world::{Client, World};

fn first_step(most: u64) -> RedriveQueue {
    RedriveQueue { group: "workers".to_owned(), topic: "mail".to_owned(), most, partition: 0, end: None }
}

fn next_step(after: &QueueRedriven) -> RedriveQueue {
    RedriveQueue { partition: after.partition, end: after.end, ..first_step(0) }
}

/// A redrive that takes one step.
fn redrive(world: &mut World, client: Client, most: u64) -> u64 {
    let done: QueueRedriven = world.ask(client, &first_step(most)).expect("the queue has a dead-letter topic");
    assert_eq!(done.stopped, "");
    done.records
}

#[test]
fn a_redrive_goes_on_where_its_last_step_ended_and_takes_nothing_that_died_since() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let died = QUEUE_REDRIVE_RECORDS + 300;
    filled(&mut world, client, "mail", 1, died);
    world.create(client, "mail.dead", 1);
    let mut join = join_of_queue(1, "mail", u32::try_from(died).unwrap());
    (join.settings.dead_letter, join.credit_bytes) = (Some("mail.dead".to_owned()), 1 << 20);
    let mut worker = Worker::join(&mut world, client, &join);
    let reject_all = |world: &mut World, worker: &mut Worker| {
        let body = worker.nack_of(worker.leases(), true);
        let answer: LeasesAnswer = world.ask(client, &body).unwrap();
        assert_eq!(answer.refused, []);
        worker.has.clear();
        world.run();
    };
    reject_all(&mut world, &mut worker);
    let first: QueueRedriven = world.ask(client, &first_step(0)).unwrap();
    assert_eq!((first.records, first.is_over), (QUEUE_REDRIVE_RECORDS, false));
    // What is back dies at once once more.
    let credit =
        QueueCredit { group: "workers".into(), topic: worker.topic, member: worker.member, records: 5, bytes: 1 << 20 };
    world.send(client, &credit);
    worker.hear(&mut world);
    assert_eq!(worker.has.len(), 5);
    reject_all(&mut world, &mut worker);
    let mut world = restart(world, 2);
    let client = world.connect(1);
    let second: QueueRedriven = world.ask(client, &next_step(&first)).unwrap();
    assert_eq!((second.records, second.is_over, second.stopped.as_str()), (300, true, ""));
    assert_eq!(redrive(&mut world, client, 0), 5, "what died since is another redrive's");
}

#[test]
fn a_step_of_a_redrive_ends_after_its_time_though_there_is_more() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 1);
    world.create(client, "mail.dead", 1);
    let value = "x".repeat(300_000);
    for record in 0..3 {
        world.produce(client, topic, 0, record, batch(&[&value]));
    }
    let mut join = join_of_queue(1, "mail", 100);
    (join.settings.dead_letter, join.credit_bytes) = (Some("mail.dead".to_owned()), 64 << 20);
    let mut worker = Worker::join(&mut world, client, &join);
    worker.hear(&mut world);
    assert_eq!(worker.has.len(), 3);
    for lease in worker.leases() {
        worker.nack(&mut world, lease, true);
    }
    world.run();
    // The disk takes its time over the first.
    world.are_syncs_held = true;
    let asked = world.send(client, &first_step(0));
    world.run();
    assert!(world.answer::<QueueRedriven>(client, asked).is_none(), "nothing is durable yet");
    world.now.monotonic.0 += 1_100 * MS;
    world.let_files_go();
    world.run();
    let first = world.answer::<QueueRedriven>(client, asked).expect("it is answered").unwrap();
    assert_eq!((first.records, first.is_over), (1, false));
    let second: QueueRedriven = world.ask(client, &next_step(&first)).unwrap();
    assert_eq!((second.records, second.is_over), (2, true));
}

#[test]
fn records_that_fail_become_dead_letters_with_their_story() {
    let mut world = World::new(2);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 3);
    let dead = world.create(client, "mail.dead", 1);
    let mut join = join_of_queue(1, "mail", 10);
    join.settings.dead_letter = Some("mail.dead".to_owned());
    join.settings.delivery_limit = Some(2);
    let mut worker = Worker::join(&mut world, client, &join);
    let bad = worker.has.remove(1).1;
    worker.ack_all(&mut world, 0);
    worker.nack(&mut world, bad, false);
    assert!(worker.has.is_empty(), "it rests");
    world.pass(1_000 * MS);
    worker.hear(&mut world);
    assert_eq!(worker.values(), ["0:1"]);
    let again = worker.has[0].1;
    assert_eq!(again.attempt, 2);
    worker.nack(&mut world, again, false);
    world.run();
    let described = describe(&mut world, client);
    assert_eq!((described.partitions[0].done_end, described.partitions[0].dead), (3, 1));
    world.subscribe(client, 5, dead, 0, StartAt::Earliest, 1 << 20).unwrap();
    world.run();
    let (_, push) = world.inbox(client).pushes.pop_back().expect("the dead letter is there");
    let batch = RecordBatch::parse(push.attachment.clone()).unwrap();
    let record = batch.get(0).unwrap();
    assert_eq!(record.value, Some(b"0:1".as_slice()));
    let headers: BTreeMap<_, _> = record.headers().collect();
    let text = |name: &str| String::from_utf8(headers[name].expect("it has a value").to_vec()).unwrap();
    assert_eq!(text(HEADER_DEAD_REASON), "rejected: no such player");
    assert_eq!((text(HEADER_DEAD_DELIVERIES), text(HEADER_DEAD_OFFSET)), ("2".into(), "1".into()));
}

#[test]
fn a_dead_letter_waits_for_its_topic_and_the_record_with_it() {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 1);
    world.create(client, "mail.dead", 1);
    let mut join = join_of_queue(1, "mail", 10);
    join.settings.dead_letter = Some("mail.dead".to_owned());
    let mut worker = Worker::join(&mut world, client, &join);
    let delete = corelane_wire::DeleteTopic { name: "mail.dead".to_owned() };
    let _done: TopicDone = world.ask(client, &delete).unwrap();
    let lease = worker.has[0].1;
    worker.nack(&mut world, lease, true);
    world.run();
    assert_eq!(describe(&mut world, client).partitions[0].dying, 1);
    let mut world = restart(world, 1);
    let client = world.connect(0);
    let _worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 10));
    assert_eq!(describe(&mut world, client).partitions[0].dying, 1, "it is never handed out again");
    world.create(client, "mail.dead", 1);
    world.pass(2_000 * MS);
    let described = describe(&mut world, client);
    assert_eq!((described.partitions[0].dying, described.partitions[0].dead), (0, 1));
}

#[test]
fn dead_letters_go_back_once_and_only_those_of_the_queue() {
    let mut world = World::new(3);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 2, 6);
    let dead = world.create(client, "mail.dead", 3);
    // What somebody else wrote there stays there.
    world.produce(client, dead, 0, 900, batch(&["not a letter"]));
    let mut join = join_of_queue(1, "mail", 100);
    join.settings.dead_letter = Some("mail.dead".to_owned());
    let mut worker = Worker::join(&mut world, client, &join);
    assert_eq!(redrive(&mut world, client, 0), 0, "nothing died yet");
    let mut died: Vec<_> = worker.values().iter().map(|value| (*value).to_owned()).collect();
    for lease in worker.leases() {
        worker.nack(&mut world, lease, true);
    }
    world.run();
    assert_eq!(redrive(&mut world, client, 5), 5, "no more than were asked for");
    let mut world = restart(world, 3);
    let client = world.connect(1);
    assert_eq!(redrive(&mut world, client, 0), 7, "the others, and after a crash none twice");
    assert_eq!(redrive(&mut world, client, 0), 0);
    let mut worker = Worker::join(&mut world, client, &join);
    let partitions: Vec<_> = worker.has.iter().map(|(value, lease)| (value.clone(), lease.partition)).collect();
    for (value, partition) in partitions {
        assert!(value.starts_with(&format!("{partition}:")), "{value} is back in partition {partition}");
    }
    let mut back: Vec<_> = worker.values().iter().map(|value| (*value).to_owned()).collect();
    died.sort_unstable();
    back.sort_unstable();
    assert_eq!(back, died);
    for lease in worker.leases() {
        worker.nack(&mut world, lease, true);
    }
    world.run();
    assert_eq!(redrive(&mut world, client, 0), 12, "what died once more goes back once more");
}

#[test]
fn message_ids_stop_neither_dead_letters_nor_their_way_back() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let settings = TopicSettings { dedup_count: Some(100), ..TopicSettings::default() };
    let mail = world.create_with(client, "mail", 1, settings);
    world.create_with(client, "mail.dead", 1, settings);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(1), None, Some(b"hello"), &[(MESSAGE_ID_HEADER, Some(b"m1"))]).expect("it is small");
    world.produce(client, mail, 0, 1, builder.finish(ProducerStamp::default()));
    let mut join = join_of_queue(1, "mail", 10);
    join.settings.dead_letter = Some("mail.dead".to_owned());
    let mut worker = Worker::join(&mut world, client, &join);
    for life in 0..2 {
        assert_eq!(worker.values(), ["hello"], "life {life}");
        let lease = worker.has[0].1;
        worker.nack(&mut world, lease, true);
        world.run();
        assert_eq!(redrive(&mut world, client, 0), 1, "life {life}");
        let credit =
            QueueCredit { group: "workers".into(), topic: worker.topic, member: worker.member, records: 1, bytes: 0 };
        world.send(client, &credit);
        worker.hear(&mut world);
    }
    assert_eq!(describe(&mut world, client).partitions[0].dead, 2);
    assert_eq!(worker.has[0].1.first, 2);
}

#[test]
fn a_dead_letter_topic_that_is_made_again_is_put_back_from_its_beginning() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = filled(&mut world, client, "mail", 1, 3);
    world.create(client, "mail.dead", 1);
    let mut join = join_of_queue(1, "mail", 100);
    join.settings.dead_letter = Some("mail.dead".to_owned());
    let mut worker = Worker::join(&mut world, client, &join);
    let reject_all = |world: &mut World, worker: &mut Worker| {
        for lease in worker.leases() {
            worker.nack(world, lease, true);
        }
        world.run();
    };
    reject_all(&mut world, &mut worker);
    assert_eq!(redrive(&mut world, client, 0), 3);
    worker.hear(&mut world);
    assert_eq!(worker.ack_all(&mut world, 0), []);
    let delete = corelane_wire::DeleteTopic { name: "mail.dead".to_owned() };
    let _done: TopicDone = world.ask(client, &delete).unwrap();
    world.create(client, "mail.dead", 1);
    fill(&mut world, client, topic, 1, 3, 4);
    worker.hear(&mut world);
    reject_all(&mut world, &mut worker);
    assert_eq!(redrive(&mut world, client, 0), 1, "it lies where the first of the old topic lay");
}
