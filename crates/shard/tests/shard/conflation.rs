//! What readers of topics of class `latest` went past.

use corelane_model::{Offset, StartAt, TopicSettings};
use corelane_wire::{DescribeTopic, DescribeTopicAnswer};

use crate::queues::keyed;
use crate::records::batch;
use crate::world::{Client, World};

fn conflated(world: &mut World, client: Client, topic: &str) -> u64 {
    let body = DescribeTopic { name: topic.to_owned(), from: 0, most: 10 };
    let answer: DescribeTopicAnswer = world.ask(client, &body).expect("the topic is there");
    let by_partition = answer.partitions.iter().map(|partition| partition.conflated).sum();
    let statuses = (0..world.shards.len()).map(|shard| world.status(shard)).collect::<Vec<_>>();
    let of_topic = statuses.iter().flat_map(|status| &status.by_topic).filter(|known| known.name == topic);
    assert_eq!(of_topic.map(|known| known.conflated).sum::<u64>(), by_partition, "the status says the same");
    by_partition
}

fn write(world: &mut World, client: Client, topic: u64, times: u64) {
    for time in 0..times {
        world.produce(client, topic, 0, time, keyed(&[("player", &time.to_string())]));
    }
    world.run();
}

#[test]
fn what_a_reader_is_not_pushed_is_counted_from_where_it_began() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create_with(client, "states", 1, TopicSettings::latest());
    write(&mut world, client, topic, 10);
    world.subscribe(client, 7, topic, 0, StartAt::Earliest, 1).unwrap();
    assert_eq!(world.pushed(client, 7).len(), 1);
    assert_eq!(conflated(&mut world, client, "states"), 0, "what was superseded before it came it did not miss");
    write(&mut world, client, topic, 5);
    assert_eq!(world.pushed(client, 7), [], "its credit is used up");
    world.credit(client, 7, 1 << 20);
    world.run();
    assert_eq!(world.pushed(client, 7).len(), 1);
    assert_eq!(conflated(&mut world, client, "states"), 4);
    for _ in 0..3 {
        write(&mut world, client, topic, 1);
        assert_eq!(world.pushed(client, 7).len(), 1);
    }
    assert_eq!(conflated(&mut world, client, "states"), 4, "who keeps up misses nothing");
    world.subscribe(client, 8, topic, 0, StartAt::Offset(Offset(10)), 1 << 20).unwrap();
    assert_eq!(world.pushed(client, 8).len(), 1);
    assert_eq!(conflated(&mut world, client, "states"), 4 + 7, "one that went on at an offset missed all from there");
}

#[test]
fn readers_of_other_topics_go_past_nothing() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", 1);
    for record in 0..6 {
        world.produce(client, topic, 0, record, batch(&["a", "b", "c"]));
    }
    world.run();
    world.subscribe(client, 7, topic, 0, StartAt::Offset(Offset(1)), 1 << 20).unwrap();
    assert!(!world.pushed(client, 7).is_empty());
    assert_eq!(conflated(&mut world, client, "inputs"), 0);
}
