//! Queues and groups whose home's log finds no room for a while.

use corelane_model::{ErrorCode, GroupName};
use corelane_wire::{LeaseRange, LeasesAnswer, QueueCredit, QueueFenced};

use crate::members::{Member, join_of};
use crate::queues::{MS, Worker, filled, join_of_queue};
use crate::world::{Client, World};

const RECORDS: u32 = 12_000;

/// The disk hangs, and the queue's record of its failures is written again and again until nothing more is taken.
fn full(world: &mut World, client: Client) -> (Worker, LeaseRange) {
    filled(world, client, "mail", 1, u64::from(RECORDS));
    let mut join = join_of_queue(1, "mail", RECORDS - 1);
    join.credit_bytes = 64 << 20;
    let mut worker = Worker::join(world, client, &join);
    while worker.has.len() < RECORDS as usize - 1 {
        worker.hear(world);
    }
    world.are_files_held = true;
    let mut leases = worker.leases().into_iter();
    // All but some fail at once, and each of these makes another record of all.
    let most = leases.by_ref().take(RECORDS as usize - 2_000);
    for some in most.collect::<Vec<_>>().chunks(5_000) {
        world.send(client, &worker.nack_of(some.to_vec(), false));
        world.run();
    }
    loop {
        let lease = leases.next().expect("the log has no room for so many");
        let asked = world.send(client, &worker.nack_of(vec![lease], false));
        world.run();
        if let Some(refused) = world.answer::<LeasesAnswer>(client, asked) {
            assert_eq!(refused.expect_err("there is no room").0, ErrorCode::Busy);
            return (worker, lease);
        }
    }
}

#[test]
fn credit_that_comes_while_a_homes_log_is_full_is_taken() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let (mut worker, _) = full(&mut world, client);
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

#[test]
fn who_is_refused_while_a_homes_log_is_full_is_not_silent() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.create(client, "inputs", 1);
    let home = |name: &str| GroupName::parse(name).expect("a good name").home();
    let beside = (0..).map(|number| format!("lobby-{number}")).find(|name| home(name) == home("workers"));
    let beside = join_of(&beside.expect("there are 64 homes"), 1, &["inputs"]);
    let mut member = Member::join(&mut world, client, &beside).expect("it is taken");
    let (worker, lease) = full(&mut world, client);
    for _ in 0..4 {
        world.pass(5_000 * MS);
        assert_eq!(member.heartbeat(&mut world).unwrap_err().0, ErrorCode::Busy);
        let nack = worker.nack_of(vec![lease], false);
        assert_eq!(world.ask::<_, LeasesAnswer>(client, &nack).unwrap_err().0, ErrorCode::Busy);
    }
    world.let_files_go();
    world.pass(100 * MS);
    member.heartbeat(&mut world).expect("it is a member");
    let answer: LeasesAnswer = world.ask(client, &worker.nack_of(vec![lease], false)).expect("it is a member");
    assert_eq!(answer.refused, []);
    assert_eq!((member.fenced, world.take::<QueueFenced>(client)), (None, vec![]));
}
