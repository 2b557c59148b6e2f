//! Readers of committed records where the log start moves past what is not committed.

use corelane_wire::{TopicDone, TruncatePartition};

use crate::records::batch;
use crate::transactions::{ABORT, Pipe};
use crate::world::{Client, World};

/// Rounds of reads after which the log start moves, of which some are those between a read and its way to the reader.
const STEPS: u32 = 4;

/// So much is written that all before is on the disk alone.
fn push_to_disk(world: &mut World, client: Client) {
    let load = world.create(client, "load", 1);
    let value = "v".repeat(200_000);
    for record in 0..200 {
        world.produce(client, load, 0, record, batch(&[&value]));
        world.pass(1_000_000);
    }
    world.pass(2_000_000_000);
}

/// What readers of committed records are shown, each of another partition, when the log start moves to 2 while they read.
fn shown(world: &mut World, topic: u64) -> Vec<String> {
    let mut shown = Vec::new();
    for partition in 0..STEPS {
        let reader = world.connect(0);
        world.are_files_held = true;
        world.subscribe_committed(reader, 1, (topic, partition));
        for _ in 0..partition {
            world.let_files_go();
            world.are_files_held = true;
            world.run();
        }
        // The read and the new log start come in one round.
        world.let_files_go();
        let moved = world.send(reader, &TruncatePartition { topic, partition, before: 2 });
        world.run();
        world.answer::<TopicDone>(reader, moved).expect("it is answered").expect("the offset is there");
        shown.extend(world.values(reader, 1));
    }
    assert!(0 < world.status(0).storage.cold_reads);
    shown
}

#[test]
fn what_was_aborted_stays_hidden_when_the_log_start_moves_while_it_is_read() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "output", STEPS);
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").expect("it is served");
    for partition in 0..STEPS {
        pipe.write(&mut world, (topic, partition), "never").expect("it may begin");
    }
    pipe.end(&mut world, ABORT).expect("it goes on");
    for partition in 0..STEPS {
        world.produce(client, topic, partition, 900, batch(&["behind"]));
    }
    push_to_disk(&mut world, client);
    let shown = shown(&mut world, topic);
    assert!(!shown.contains(&"never".to_owned()), "{shown:?}");
}

#[test]
fn what_is_open_stays_hidden_when_the_log_start_moves_into_it_while_it_is_read() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "output", STEPS);
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").expect("it is served");
    for partition in 0..STEPS {
        world.produce(client, topic, partition, 900, batch(&["before"]));
        world.run();
        pipe.send_all(&mut world, (topic, partition), &["open", "open", "open"]);
        world.run();
    }
    push_to_disk(&mut world, client);
    let shown = shown(&mut world, topic);
    assert!(!shown.contains(&"open".to_owned()), "{shown:?}");
}
