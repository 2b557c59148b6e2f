//! Homes whose records have a hard way into a journal of small files, and homes that take nothing any more.

use corelane_model::ErrorCode;
use corelane_shard::ShardConfig;
use corelane_wire::{GroupDone, JoinGroupAnswer, LeasesAnswer, QueueFenced};

use crate::members::{Member, join_of};
use crate::queues::{MS, Worker, filled, join_of_queue};
use crate::world::{Disk, World, config};

/// One shard whose journal has the smallest files there are: an entry takes some 12 KiB of batches.
fn small() -> World {
    let config = ShardConfig { journal_file_bytes: 64 << 10, ..config(0, 1) };
    let mut world = World::start(vec![config], vec![Disk::default()]);
    world.run();
    world
}

#[test]
fn what_a_home_has_to_write_in_one_round_may_be_more_than_an_entry_takes() {
    let mut world = small();
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    Member::join(&mut world, client, &join_of("lobby", 1_000, &["inputs"])).expect("it is taken");
    world.are_files_held = true;
    world.send(client, &join_of("lobby", 1_001, &["inputs"]));
    world.run();
    let asked: Vec<_> = (0..400).map(|id| world.send(client, &join_of("lobby", id, &["inputs"]))).collect();
    world.let_files_go();
    world.pass(100 * MS);
    for asked in asked {
        let answer = world.answer::<JoinGroupAnswer>(client, asked).expect("its record is on disk");
        answer.expect("it is taken");
    }
}

#[test]
fn a_record_that_never_gets_into_the_log_stops_its_home_alone_and_is_told() {
    let mut world = small();
    let client = world.connect(0);
    world.create(client, "inputs", 4);
    let mut sound = Member::join(&mut world, client, &join_of("sound", 1, &["inputs"])).expect("it is taken");
    let mut other = Member::join(&mut world, client, &join_of("lobby", 2, &["inputs"])).expect("it is taken");
    // Names of topics that are not there yet: a record of some 20 KiB.
    let names: Vec<_> = (0..100).map(|number| format!("{number:0>200}")).collect();
    let topics: Vec<_> = names.iter().map(String::as_str).chain(["inputs"]).collect();
    let large = join_of("lobby", 3, &topics);
    let (code, text) = world.ask::<_, JoinGroupAnswer>(client, &large).unwrap_err();
    assert_eq!(code, ErrorCode::StorageFailed, "{text}");
    assert!(text.contains("of __groups does not take a record: record of 2"), "{text}");
    assert_eq!(other.heartbeat(&mut world).unwrap_err(), (code, text.clone()), "what it keeps is as it was");
    assert_eq!(world.status(0).stopped_homes, [text]);

    // It does not try again, and nobody is put out who cannot be heard.
    let next = world.shards[0].next_deadline().expect("the other group has a session");
    assert!(50 * MS < next.0 - world.now.monotonic.0, "a round is wanted in {} ns", next.0 - world.now.monotonic.0);
    for _ in 0..4 {
        world.pass(5_000 * MS);
        let _alive: GroupDone = sound.heartbeat(&mut world).expect("another home");
    }
    other.hear(&mut world);
    assert_eq!(other.fenced, None);
}

#[test]
fn nobody_is_put_out_of_a_home_whose_journal_failed() {
    let mut world = World::new(1);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 3);
    let mut member = Member::join(&mut world, client, &join_of("lobby", 1, &["mail"])).expect("it is taken");
    let worker = Worker::join(&mut world, client, &join_of_queue(1, "mail", 1));
    world.are_syncs_failing = true;
    let leases = worker.leases();
    let refused = world.ask::<_, LeasesAnswer>(client, &worker.ack_of(leases.clone(), 0)).unwrap_err();
    assert_eq!(refused.0, ErrorCode::StorageFailed);
    let asked = world.now.monotonic;
    for _ in 0..4 {
        world.pass(5_000 * MS);
        let refused = world.ask::<_, LeasesAnswer>(client, &worker.ack_of(leases.clone(), 0)).unwrap_err();
        assert_eq!(refused.0, ErrorCode::StorageFailed);
        assert_eq!(member.heartbeat(&mut world).unwrap_err().0, ErrorCode::StorageFailed);
    }
    member.hear(&mut world);
    assert_eq!(member.fenced, None);
    assert_eq!(world.take::<QueueFenced>(client).len(), 0);
    assert!(20_000 * MS <= world.now.monotonic.0 - asked.0);
    let next = world.shards[0].next_deadline();
    assert!(next.is_none_or(|next| 1_000 * MS < next.0 - world.now.monotonic.0), "{next:?}");
    assert_eq!(world.status(0).stopped_homes.len(), 0, "that the journal failed is said once");
}
