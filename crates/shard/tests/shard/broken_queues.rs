//! Queues with a record that cannot be read.

use corelane_model::{ErrorCode, Incarnation};
use corelane_shard::{AdminAnswer, AdminQuery, Boot, ShardConfig, ShardExport, reshard};
use corelane_wire::{
    DeleteQueue, DeleteTopic, JoinQueue, JoinQueueAnswer, ListQueues, ListQueuesAnswer, QueueDone, TopicDone,
};

use crate::members::{Member, join_of};
use crate::queues::{Worker, describe, filled, join_of_queue, restart};
use crate::world::{Disk, World, config};

/// The beginning of the settings' record of a queue with a visibility time-out of 7,777 ms, in this format and in one that
/// nobody knows; see docs/formats/queue.md.
const SETTINGS: [u8; 3] = [1, 0xe1, 0x3c];
const SETTINGS_UNKNOWN: [u8; 3] = [77, 0xe1, 0x3c];

/// Two queues of one home whose broker was stopped and started anew; the record of the first one's settings is of another
/// format now.
fn broken() -> World {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 2, 3);
    let mut join = join_of_queue(1, "mail", 0);
    join.settings.visibility_ms = Some(7_777);
    Worker::join(&mut world, client, &join);
    moved(world, |disk| assert_eq!(disk.rewrite_segments(&SETTINGS, &SETTINGS_UNKNOWN), 1))
}

/// A broker of one shard that was stopped and whose segments were changed before it was started anew: everything is in them
/// then, and nothing in a journal.
pub(crate) fn moved(world: World, change: impl FnOnce(&mut Disk)) -> World {
    let export = ShardConfig { boot: Boot::Export, incarnation: Incarnation(2), ..config(0, 1) };
    let mut old = World::start(vec![export], world.into_disks());
    old.run();
    let export: ShardExport = match old.admin(0, AdminQuery::Export) {
        AdminAnswer::Export(Some(export)) => *export,
        answer => panic!("{answer:?}"),
    };
    let import = reshard(&[export], 1).expect("as many shards as before").remove(0);
    let mut disks = Disk::merge_segments(old.into_disks(), 1);
    change(&mut disks[0]);
    let boot = Boot::Import(Box::new(import));
    let mut world = World::start(vec![ShardConfig { boot, incarnation: Incarnation(3), ..config(0, 1) }], disks);
    world.run();
    world
}

#[test]
fn a_queue_that_cannot_be_read_can_be_deleted_and_made_anew() {
    let mut world = broken();
    let client = world.connect(0);
    let join = join_of_queue(1, "mail", 10);
    let (code, text) = world.ask::<_, JoinQueueAnswer>(client, &join).unwrap_err();
    assert_eq!(code, ErrorCode::CorruptLog, "{text}");
    assert!(text.contains("group workers on topic mail") && text.contains("deleted, it can be made anew"), "{text}");
    let delete = DeleteQueue { group: "workers".into(), topic: "mail".into(), topic_id: 0, is_forced: false };
    let _done: QueueDone = world.ask(client, &delete).expect("nobody is a member of it");
    let (code, _) = world.ask::<_, QueueDone>(client, &delete).unwrap_err();
    assert_eq!(code, ErrorCode::UnknownQueue, "it is gone");
    // Nor is it there after a start.
    let mut world = restart(world, 1);
    let client = world.connect(0);
    let (code, _) = world.ask::<_, QueueDone>(client, &delete).unwrap_err();
    assert_eq!(code, ErrorCode::UnknownQueue);
    let mut worker = Worker::join(&mut world, client, &join);
    assert_eq!(worker.has.len(), 6, "the new one begins at the beginning");
    assert_eq!(worker.ack_all(&mut world, 0), []);
    let mut world = restart(world, 1);
    let client = world.connect(0);
    let ends: Vec<_> = describe(&mut world, client).partitions.iter().map(|partition| partition.done_end).collect();
    assert_eq!(ends, [3, 3], "what was written before it does not matter");
}

#[test]
fn a_queue_that_cannot_be_read_is_listed_with_why() {
    let mut world = broken();
    let client = world.connect(0);
    let join = JoinQueue { group: "others".into(), ..join_of_queue(2, "mail", 0) };
    Worker::join(&mut world, client, &join);
    let list = |world: &mut World, after: (String, u64), most| {
        let answer: ListQueuesAnswer = world.ask(client, &ListQueues { after, most }).expect("it is listed");
        let queues =
            answer.queues.into_iter().map(|queue| (queue.group, queue.topic, queue.broken)).collect::<Vec<_>>();
        (queues, answer.is_cut)
    };
    let why = "queue format 77 is not known to this version, which reads format 1";
    let sound = ("others".to_owned(), "mail".to_owned(), String::new());
    let bad = ("workers".to_owned(), "mail".to_owned(), why.to_owned());
    assert_eq!(list(&mut world, Default::default(), 10), (vec![sound.clone(), bad.clone()], false));
    assert_eq!(list(&mut world, Default::default(), 1), (vec![sound], true));
    let topic = world.ask::<_, ListQueuesAnswer>(client, &ListQueues { after: Default::default(), most: 9 }).unwrap();
    let first = (topic.queues[0].group.clone(), topic.queues[0].topic_id);
    assert_eq!(list(&mut world, first, 10), (vec![bad], false), "a page begins behind the one before");
}

#[test]
fn a_queue_that_cannot_be_read_goes_with_its_topic() {
    let mut world = broken();
    let client = world.connect(0);
    let _done: TopicDone = world.ask(client, &DeleteTopic { name: "mail".to_owned() }).unwrap();
    filled(&mut world, client, "mail", 1, 3);
    let mut world = restart(world, 1);
    let client = world.connect(0);
    Member::join(&mut world, client, &join_of("workers", 1, &["mail"])).expect("the name is free");
}
