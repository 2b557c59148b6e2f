//! Shared queues of topics to which transactions write.

use corelane_model::StartAt;

use crate::queues::{Worker, describe, join_of_queue, restart};
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
    world.produce(client, topic, 1, 901, batch(&["after"]));
    worker.hear(&mut world);
    assert_eq!(worker.values(), ["after"]);

    let mut world = restart(world, 2);
    let client = world.connect(1);
    let again = Worker::join(&mut world, client, &join_of_queue(3, "mail", 100));
    assert_eq!(again.values(), ["after"], "after a crash what was leased comes again, and nothing that was aborted");
}
