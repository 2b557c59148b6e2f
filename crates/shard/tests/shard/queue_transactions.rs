//! Shared queues of topics to which transactions write, and what is seen of queues from outside.

use corelane_model::StartAt;

use crate::queues::{Worker, describe, filled, join_of_queue, restart};
use crate::records::batch;
use crate::transactions::{ABORT, COMMIT, Pipe};
use crate::world::World;

#[test]
fn a_queue_hands_out_what_is_committed_and_leaves_out_what_is_aborted() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "mail", 2);
    let mut worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 100));
    let mut pipe = Pipe::new(&mut world, client, "pipe").expect("the id is free");
    let write = |world: &mut World, pipe: &mut Pipe, value: &str| {
        for partition in 0..2 {
            pipe.write(world, (topic, partition), value).expect("the transaction goes on");
        }
    };
    write(&mut world, &mut pipe, "sent");
    world.produce(client, topic, 0, 900, batch(&["behind"]));
    worker.hear(&mut world);
    assert_eq!(worker.values(), [""; 0], "what is not decided is not handed out, nor what lies behind it");
    // A queue that begins at the end does not begin behind what is not decided either.
    let mut late = join_of_queue(2, "mail", 100);
    "late".clone_into(&mut late.group);
    late.start = StartAt::Latest.into();
    let late = Worker::join(&mut world, client, &late);
    assert_eq!(late.values(), [""; 0]);

    pipe.end(&mut world, COMMIT).expect("it goes on");
    worker.hear(&mut world);
    let mut values = worker.values();
    values.sort_unstable();
    assert_eq!(values, ["behind", "sent", "sent"]);
    assert_eq!(worker.ack_all(&mut world, 3), []);

    write(&mut world, &mut pipe, "never");
    pipe.end(&mut world, ABORT).expect("it goes on");
    worker.hear(&mut world);
    assert_eq!(worker.values(), [""; 0], "an aborted record is handed out to nobody");
    let described = describe(&mut world, client);
    assert_eq!(described.summary.ready, 0);
    for partition in &described.partitions {
        assert_eq!((partition.lag(), partition.lag_ms()), (0, Some(0)), "{partition:?}");
    }
    world.produce(client, topic, 1, 901, batch(&["after"]));
    worker.hear(&mut world);
    assert_eq!(worker.values(), ["after"]);

    let mut world = restart(world, 2);
    let client = world.connect(1);
    let again = Worker::join(&mut world, client, &join_of_queue(3, "mail", 100));
    assert_eq!(again.values(), ["after"], "after a crash what was leased comes again, and nothing that was aborted");
}

#[test]
fn lag_and_age_are_known_although_nobody_reads() {
    let mut world = World::new(3);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 4, 3);
    // A member that wants nothing: the queue reads nothing.
    let worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 0));
    assert_eq!(worker.values(), [""; 0]);
    world.now.wall.0 += 5_000;
    let described = describe(&mut world, client);
    assert_eq!((described.summary.ready, described.summary.members), (12, 1));
    for partition in &described.partitions {
        assert_eq!(partition.lag(), 3);
        assert!(partition.lag_ms().is_some_and(|ms| 5_000 <= ms), "{partition:?}");
    }
    // The metrics know it from the second scrape on.
    let status = |world: &mut World| -> Vec<_> { (0..3).flat_map(|shard| world.status(shard).queues).collect() };
    status(&mut world);
    world.run();
    let queues = status(&mut world);
    assert_eq!(queues.len(), 1);
    assert_eq!((queues[0].group.as_str(), queues[0].topic.as_str(), queues[0].ready), ("workers", "mail", 12));
    assert!(queues[0].oldest_ms.is_some_and(|ms| 5_000 <= ms), "{queues:?}");
}
