//! Reading: starts, credit, turns, congestion, ends.

use std::collections::BTreeSet;

use corelane_model::limits::PARTITION_SUBSCRIPTIONS_MAX;
use corelane_model::{ErrorCode, Offset, StartAt, WallMillis};
use corelane_shard::Event;
use corelane_wire::{
    FindOffset, FindOffsetAnswer, Subscribe, SubscribeAnswer, TopicDone, TruncatePartition, Unsubscribe,
};

use crate::records::batch;
use crate::world::{Client, World};

const PLENTY: u64 = 1 << 20;

fn values(pushed: &[(u64, String)]) -> Vec<(u64, &str)> {
    pushed.iter().map(|(offset, value)| (*offset, value.as_str())).collect()
}

fn produce_all(world: &mut World, client: Client, topic: u64, partition: u32, values: &[&str]) {
    for value in values {
        world.produce(client, topic, partition, 0, batch(&[value]));
    }
    world.run();
    world.inbox(client).control.clear();
}

#[test]
fn what_is_stored_is_pushed_and_what_is_not_stays_unseen() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    produce_all(&mut world, client, topic, 0, &["a", "b"]);
    let answer = world.subscribe(client, 7, topic, 0, StartAt::Earliest, PLENTY).unwrap();
    assert_eq!((answer.offset, answer.log_start, answer.high_watermark), (0, 0, 2));
    assert_eq!(values(&world.pushed(client, 7)), [(0, "a"), (1, "b")]);
    world.are_syncs_held = true;
    world.produce(client, topic, 0, 1, batch(&["c"]));
    world.run();
    assert_eq!(world.pushed(client, 7), []);
    world.let_files_go();
    world.run();
    assert_eq!(values(&world.pushed(client, 7)), [(2, "c")]);
}

#[test]
fn every_start_means_what_it_says_here_and_next_door() {
    let mut world = World::new(2);
    for (shard, partition) in [(0, 0), (0, 1)] {
        let client = world.connect(shard);
        let name = format!("inputs-{partition}");
        let topic = world.create(client, &name, 2);
        produce_all(&mut world, client, topic, partition, &["a", "b"]);
        world.now.wall = WallMillis(world.now.wall.0 + 1000);
        let middle = world.now.wall;
        produce_all(&mut world, client, topic, partition, &["c", "d"]);
        for (id, start, expected) in [
            (1, StartAt::Earliest, 0),
            (2, StartAt::Latest, 4),
            (3, StartAt::Offset(Offset(1)), 1),
            (4, StartAt::Offset(Offset(4)), 4),
            (5, StartAt::Time(middle), 2),
            (6, StartAt::Time(WallMillis(0)), 0),
            (7, StartAt::Time(WallMillis(i64::MAX)), 4),
        ] {
            let find = FindOffset { topic, partition, start: start.into(), isolation: 0 };
            let found: FindOffsetAnswer = world.ask(client, &find).unwrap();
            assert_eq!((found.offset, found.high_watermark), (expected, 4), "{start:?}");
            let begun = world.subscribe(client, id, topic, partition, start, PLENTY).unwrap();
            assert_eq!(begun.offset, expected, "{start:?}");
            let offsets: Vec<u64> = world.pushed(client, id).iter().map(|(offset, _)| *offset).collect();
            assert_eq!(offsets, (expected..4).collect::<Vec<_>>(), "{start:?}");
        }
        let beyond = StartAt::Offset(Offset(5));
        let (code, text) = world.subscribe(client, 9, topic, partition, beyond, PLENTY).unwrap_err();
        assert_eq!(code, ErrorCode::OffsetOutOfRange);
        assert!(text.contains("offset 5") && text.contains("from 0 to 4"), "{text}");
        assert!(world.subscribe(client, 9, topic, partition, StartAt::Latest, PLENTY).is_ok(), "the id is free again");
        produce_all(&mut world, client, topic, partition, &["e"]);
        for id in 1..8 {
            assert_eq!(values(&world.pushed(client, id)), [(4, "e")]);
        }
    }
}

#[test]
fn credit_is_kept_and_more_of_it_goes_on() {
    let mut world = World::new(2);
    for partition in [0, 1] {
        let client = world.connect(0);
        let topic = world.create(client, &format!("inputs-{partition}"), 2);
        let size = batch(&["xxxx"]).len() as u64;
        for i in 0..10 {
            world.produce(client, topic, partition, i, batch(&["xxxx"]));
        }
        world.run();
        world.subscribe(client, 1, topic, partition, StartAt::Earliest, 3 * size).unwrap();
        assert_eq!(world.pushed(client, 1).len(), 3);
        world.credit(client, 1, size - 1);
        world.run();
        assert_eq!(world.pushed(client, 1).len(), 1, "a batch larger than what is left still goes");
        world.credit(client, 1, 1);
        world.run();
        assert_eq!(world.pushed(client, 1).len(), 0, "the debt comes first");
        world.credit(client, 1, 100 * size);
        world.run();
        assert_eq!(world.pushed(client, 1).len(), 6);
        world.send(client, &Unsubscribe { subscription: 1 });
        world.credit(client, 1, 100 * size);
        world.produce(client, topic, partition, 99, batch(&["late"]));
        world.run();
        assert_eq!(world.pushed(client, 1).len(), 0);
        assert_eq!(world.status(0).subscriptions + world.status(1).subscriptions, 0);
    }
}

#[test]
fn subscriptions_take_turns() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 4);
    let value = "v".repeat(100_000);
    for partition in 0..4 {
        for i in 0..8 {
            world.produce(client, topic, partition, i, batch(&[&value]));
        }
        world.run();
    }
    world.inbox(client).control.clear();
    for partition in 0..4 {
        let start = StartAt::Earliest;
        let subscription = u64::from(partition);
        let body = Subscribe { subscription, topic, partition, start: start.into(), credit: PLENTY * 16 };
        world.send(client, &body);
    }
    world.run();
    let order: Vec<u64> = world
        .inbox(client)
        .pushes
        .iter()
        .map(|(_, frame)| corelane_wire::decode::<corelane_wire::Push>(frame).unwrap().subscription)
        .collect();
    assert_eq!(order.len(), 16, "two batches go into a frame");
    for turn in order.chunks(4) {
        let mut turn = turn.to_vec();
        turn.sort_unstable();
        assert_eq!(turn, [0, 1, 2, 3]);
    }
    for subscription in 0..4 {
        assert_eq!(world.pushed(client, subscription).len(), 8);
    }
}

#[test]
fn a_congested_connection_is_left_alone_until_it_is_relieved() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    for partition in 0..2 {
        world.subscribe(client, u64::from(partition), topic, partition, StartAt::Earliest, PLENTY).unwrap();
    }
    world.event(0, Event::Congested { connection: client.key });
    world.run();
    for partition in 0..2 {
        produce_all(&mut world, client, topic, partition, &["a"]);
        assert_eq!(world.pushed(client, u64::from(partition)), []);
    }
    world.event(0, Event::Relieved { connection: client.key });
    world.run();
    for partition in 0..2 {
        assert_eq!(values(&world.pushed(client, partition)), [(0, "a")]);
    }
}

#[test]
fn a_log_start_that_overtakes_a_reader_ends_it_with_the_bounds() {
    let mut world = World::new(2);
    for partition in [0, 1] {
        let client = world.connect(0);
        let topic = world.create(client, &format!("inputs-{partition}"), 2);
        produce_all(&mut world, client, topic, partition, &["a", "b", "c"]);
        world.subscribe(client, 1, topic, partition, StartAt::Earliest, 1).unwrap();
        assert_eq!(world.pushed(client, 1).len(), 1);
        let done: TopicDone = world.ask(client, &TruncatePartition { topic, partition, before: u64::MAX }).unwrap();
        assert_eq!(done.log_start, 3);
        world.credit(client, 1, PLENTY);
        world.run();
        let ended = world.ended(client);
        assert_eq!((ended[0].0, ended[0].1), (1, ErrorCode::OffsetOutOfRange));
        assert!(ended[0].2.contains("offset 1") && ended[0].2.contains("from 3 to 3"), "{}", ended[0].2);
        let (code, _) =
            world.ask::<_, TopicDone>(client, &TruncatePartition { topic, partition, before: 9 }).unwrap_err();
        assert_eq!(code, ErrorCode::OffsetOutOfRange);
    }
}

#[test]
fn a_connection_that_goes_takes_its_subscriptions_along() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    for partition in 0..2 {
        world.subscribe(client, u64::from(partition), topic, partition, StartAt::Latest, PLENTY).unwrap();
    }
    assert_eq!((world.status(0).subscriptions, world.status(1).subscriptions), (1, 1));
    world.disconnect(client);
    world.run();
    assert_eq!((world.status(0).subscriptions, world.status(1).subscriptions), (0, 0));
    assert_eq!(world.status(0).connections, 0);
}

#[test]
fn old_records_come_back_from_segments() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    let value = "v".repeat(200_000);
    for i in 0..300 {
        world.produce(client, topic, 0, i, batch(&[&value]));
        world.pass(1_000_000);
    }
    world.pass(2_000_000_000);
    assert!(world.outcomes(client).iter().all(|(_, outcome)| outcome.is_ok()));
    let status = world.status(0);
    assert!(0 < status.storage.settled_bytes, "{:?}", status.storage);
    world.subscribe(client, 1, topic, 0, StartAt::Earliest, 1 << 20).unwrap();
    let mut offsets = Vec::new();
    for _ in 0..400 {
        offsets.extend(world.pushed(client, 1).into_iter().map(|(offset, _)| offset));
        world.credit(client, 1, 1 << 20);
        world.pass(1_000_000);
    }
    assert_eq!(offsets, (0..300).collect::<Vec<_>>());
    assert!(0 < world.status(0).storage.cold_reads);
}

#[test]
fn an_id_that_is_used_again_gets_nothing_of_its_former_use() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    produce_all(&mut world, client, topic, 0, &["near"]);
    produce_all(&mut world, client, topic, 1, &["far"]);
    // Pushes and the end of the first use are on their way from shard 1 when the id is given to a partition here.
    let subscribe = |partition, start: StartAt| Subscribe {
        subscription: 1,
        topic,
        partition,
        start: start.into(),
        credit: PLENTY,
    };
    for first in [StartAt::Earliest, StartAt::Offset(Offset(99))] {
        world.cut_off.insert(0);
        world.send(client, &subscribe(1, first));
        world.run();
        world.send(client, &Unsubscribe { subscription: 1 });
        let again = world.send(client, &subscribe(0, StartAt::Earliest));
        world.run();
        world.cut_off.clear();
        world.run();
        assert!(world.answer::<SubscribeAnswer>(client, again).unwrap().is_ok());
        assert_eq!(values(&world.pushed(client, 1)), [(0, "near")]);
        world.send(client, &Unsubscribe { subscription: 1 });
        world.run();
    }
    assert_eq!(world.status(0).subscriptions + world.status(1).subscriptions, 0);
}

#[test]
fn a_subscription_that_comes_while_its_connection_is_congested_waits() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    produce_all(&mut world, client, topic, 1, &["far"]);
    world.event(0, Event::Congested { connection: client.key });
    world.subscribe(client, 1, topic, 1, StartAt::Earliest, PLENTY).unwrap();
    assert_eq!(world.pushed(client, 1), []);
    world.event(0, Event::Relieved { connection: client.key });
    world.run();
    assert_eq!(values(&world.pushed(client, 1)), [(0, "far")]);
}

#[test]
fn a_partition_takes_so_many_subscriptions_and_says_so_when_it_has_them() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 2);
    let many = PARTITION_SUBSCRIPTIONS_MAX as u64;
    let subscribe = |subscription, partition| Subscribe {
        subscription,
        topic,
        partition,
        start: StartAt::Earliest.into(),
        credit: 1,
    };
    for subscription in 0..many {
        world.send(client, &subscribe(subscription, 0));
        if subscription % 512 == 511 {
            world.run();
        }
    }
    world.run();
    assert_eq!(world.status(0).subscriptions, many);
    let (code, text) = world.ask::<_, SubscribeAnswer>(client, &subscribe(many, 0)).unwrap_err();
    assert_eq!(code, ErrorCode::LimitReached);
    assert!(text.contains("16384 subscriptions already"), "{text}");
    // The id is free again, another partition takes it, and room that is made is used.
    world.ask::<_, SubscribeAnswer>(client, &subscribe(many, 1)).unwrap();
    world.send(client, &Unsubscribe { subscription: 7 });
    world.ask::<_, SubscribeAnswer>(client, &subscribe(7, 0)).unwrap();
}

#[test]
fn what_is_pushed_at_once_on_one_stream_leaves_in_one_frame() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "edge", 96);
    for partition in 0..96_u32 {
        world.subscribe(client, partition.into(), topic, partition, StartAt::Earliest, PLENTY).unwrap();
    }
    for partition in 0..96_u32 {
        world.produce(client, topic, partition, partition.into(), batch(&["a"]));
    }
    world.run();
    // The first 64 have streams of their own; the others share two.
    let inbox = world.inbox(client);
    assert_eq!(inbox.pushes.len(), 96);
    let streams: BTreeSet<u8> = inbox.pushes.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(streams.len(), 64);
    let (bundled, bundles) = (inbox.bundles.iter().sum::<usize>(), inbox.bundles.len());
    assert!(32 <= bundled && bundles <= 4, "{:?}", inbox.bundles);
    for subscription in 0..96 {
        assert_eq!(values(&world.pushed(client, subscription)), [(0, "a")]);
    }
}
