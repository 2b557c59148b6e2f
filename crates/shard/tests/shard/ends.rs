//! Subscriptions that end by themselves: the news comes behind their pushes, with numbers.

use corelane_model::{ErrorCode, Offset, StartAt};
use corelane_wire::{DeleteTopic, FrameKind, SubscriptionEnded, TopicDone, TruncatePartition, decode};

use crate::records::batch;
use crate::world::{Client, World};

const PLENTY: u64 = 16 << 20;

/// The one end among what came on push streams: it is the last frame, on the stream of the pushes before it.
fn end_behind_pushes(world: &mut World, client: Client, pushes: usize) -> SubscriptionEnded {
    let inbox = world.inbox(client);
    assert!(inbox.control.iter().all(|frame| frame.head.kind != FrameKind::SubscriptionEnded), "{:?}", inbox.control);
    let kinds: Vec<FrameKind> = inbox.pushes.iter().map(|(_, frame)| frame.head.kind).collect();
    let mut expected = vec![FrameKind::Push; pushes];
    expected.push(FrameKind::SubscriptionEnded);
    assert_eq!(kinds, expected);
    let (slot, frame) = inbox.pushes.back().expect("it was just listed");
    assert!(inbox.pushes.iter().all(|(other, _)| other == slot), "one subscription, one stream");
    let end = decode(frame).expect("a frame of its kind");
    inbox.pushes.clear();
    end
}

/// Reads from an offset until the subscription ends or nothing more comes; where the next record would be.
fn read(world: &mut World, client: Client, id: u64, (topic, partition): (u64, u32), from: u64) -> u64 {
    world
        .subscribe(client, id, topic, partition, StartAt::Offset(Offset(from)), PLENTY)
        .expect("the offset is readable");
    let mut next = from;
    for _ in 0..100 {
        world.pass(1_000_000);
        for (offset, _) in world.pushed(client, id).into_iter().filter(|(offset, _)| from <= *offset) {
            assert_eq!(offset, next, "nothing is left out");
            next += 1;
        }
        world.credit(client, id, PLENTY);
    }
    next
}

#[test]
fn a_log_start_that_overtakes_a_reader_is_told_behind_its_pushes() {
    let mut world = World::new(2);
    for partition in [0, 1] {
        let client = world.connect(0);
        let topic = world.create(client, &format!("inputs-{partition}"), 2);
        for value in ["a", "b", "c"] {
            world.produce(client, topic, partition, 0, batch(&[value]));
        }
        world.run();
        world.subscribe(client, 1, topic, partition, StartAt::Earliest, 1).unwrap();
        world.ask::<_, TopicDone>(client, &TruncatePartition { topic, partition, before: u64::MAX }).unwrap();
        world.credit(client, 1, PLENTY);
        world.run();
        let end = end_behind_pushes(&mut world, client, 1);
        assert_eq!((end.subscription, end.code), (1, ErrorCode::OffsetOutOfRange.to_wire()));
        assert_eq!(end.range, Some((3, 3)));
    }
}

#[test]
fn a_deleted_topic_is_told_behind_the_pushes() {
    let mut world = World::new(2);
    for partition in [0, 1] {
        let client = world.connect(0);
        let name = format!("inputs-{partition}");
        let topic = world.create(client, &name, 2);
        world.produce(client, topic, partition, 0, batch(&["a"]));
        world.run();
        world.subscribe(client, 1, topic, partition, StartAt::Earliest, PLENTY).expect("the offset is readable");
        world.ask::<_, TopicDone>(client, &DeleteTopic { name }).unwrap();
        let end = end_behind_pushes(&mut world, client, 1);
        assert_eq!((end.code, end.range), (ErrorCode::Deleted.to_wire(), None));
    }
}

#[test]
fn damage_is_told_behind_what_can_be_read_before_it() {
    let mut world = World::new(2);
    for partition in [0, 1] {
        let client = world.connect(0);
        let topic = world.create(client, &format!("inputs-{partition}"), 2);
        let value = "v".repeat(200_000);
        for i in 0..300 {
            world.produce(client, topic, partition, i, batch(&[&value]));
            world.pass(1_000_000);
        }
        world.pass(2_000_000_000);
        world.disks[partition as usize].damage_segments();
        let next = read(&mut world, client, 1, (topic, partition), 0);
        let end = end_behind_pushes(&mut world, client, 0);
        assert_eq!(end.code, ErrorCode::CorruptLog.to_wire());
        let (first, after) = end.range.expect("damage has offsets");
        assert!(0 < first && first < after, "{end:?}");
        assert_eq!(first, next, "all before the damage was pushed");
        let words = format!("records from {first} to {after} are damaged on disk");
        assert!(end.text.starts_with(&words), "{}", end.text);
        assert_eq!(read(&mut world, client, 2, (topic, partition), after), 300);
    }
}
