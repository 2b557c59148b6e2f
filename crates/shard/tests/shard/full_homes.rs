//! Queues whose home's log finds no room for a while.

use corelane_model::ErrorCode;
use corelane_wire::{LeasesAnswer, QueueCredit};

use crate::queues::{Worker, filled, join_of_queue};
use crate::world::World;

/// The disk hangs, and the queue's record of its failures is written again and again until nothing more is taken.
#[test]
fn credit_that_comes_while_a_homes_log_is_full_is_taken() {
    const RECORDS: u32 = 12_000;
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, u64::from(RECORDS));
    let mut join = join_of_queue(1, "mail", RECORDS - 1);
    join.credit_bytes = 64 << 20;
    let mut worker = Worker::join(&mut world, client, &join);
    while worker.has.len() < RECORDS as usize - 1 {
        worker.hear(&mut world);
    }
    world.are_files_held = true;
    let mut leases = worker.leases().into_iter();
    // All but some fail at once, and each of these makes another record of all.
    let most = leases.by_ref().take(RECORDS as usize - 2_000);
    for some in most.collect::<Vec<_>>().chunks(5_000) {
        world.send(client, &worker.nack_of(some.to_vec(), false));
        world.run();
    }
    let code = loop {
        let lease = leases.next().expect("the log has no room for so many");
        let asked = world.send(client, &worker.nack_of(vec![lease], false));
        world.run();
        if let Some(refused) = world.answer::<LeasesAnswer>(client, asked) {
            break refused.unwrap_err().0;
        }
    };
    assert_eq!(code, ErrorCode::Busy);
    let credit =
        QueueCredit { group: "workers".into(), topic: worker.topic, member: worker.member, records: 1, bytes: 1 << 20 };
    world.send(client, &credit);
    world.run();
    worker.has.clear();
    world.let_files_go();
    world.pass(100_000_000);
    worker.hear(&mut world);
    assert_eq!(worker.has.len(), 1, "the record that nobody had");
}
