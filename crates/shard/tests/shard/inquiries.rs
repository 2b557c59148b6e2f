//! What is open after a start although its coordinator is through with it: damage took the end.

use corelane_model::Incarnation;
use corelane_shard::ShardConfig;
use corelane_wire::{FetchOffsets, FetchOffsetsAnswer};

use crate::late_transactions::{member_here, partition_on, pipe_on};
use crate::members::Member;
use crate::records::batch;
use crate::transactions::{ABORT, COMMIT, Pipe, restart};
use crate::world::{World, config};

const SECOND: u64 = 1_000_000_000;

/// A transaction of an id whose home is on shard 0 has a record on shard 1, and one lies behind it.
struct Scene {
    world: World,
    pipe: Pipe,
    near: (u64, u32),
    far: (u64, u32),
}

fn scene() -> Scene {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 2);
    let near = (topic, partition_on(&mut world, client, "output", 0));
    let far = (topic, partition_on(&mut world, client, "output", 1));
    let mut pipe = pipe_on(&mut world, client, 0);
    pipe.write(&mut world, far, "asked about").expect("it may begin");
    world.produce(client, far.0, far.1, 900, batch(&["behind"]));
    world.run();
    Scene { world, pipe, near, far }
}

/// The broker ends and begins anew, and the disk of a shard has lost what came after this moment.
fn restart_without_the_end(mut world: World, shard: usize, end: impl FnOnce(&mut World)) -> World {
    let before = world.disks[shard].clone();
    end(&mut world);
    world.disks[shard] = before;
    restart(world, 2)
}

/// What a reader of committed records sees.
fn committed(world: &mut World, partition: (u64, u32)) -> Vec<String> {
    let client = world.connect(1);
    world.subscribe_committed(client, 1, partition);
    world.pass(SECOND);
    world.values(client, 1)
}

#[test]
fn a_partition_that_lost_an_end_hears_it_again() {
    for (decision, expected) in [(COMMIT, &["asked about", "behind"][..]), (ABORT, &["behind"])] {
        let Scene { world, mut pipe, far, .. } = scene();
        let end = |world: &mut World| pipe.end(world, decision).expect("it goes on");
        let mut world = restart_without_the_end(world, 1, end);
        assert_eq!(committed(&mut world, far), expected);
        assert_eq!(world.status(1).transaction_totals.lost, 0);
    }
}

#[test]
fn what_nobody_knows_any_more_is_aborted() {
    let Scene { world, mut pipe, near, far, .. } = scene();
    let end = |world: &mut World| {
        pipe.end(world, ABORT).expect("it goes on");
        pipe.write(world, near, "the next").expect("it may begin");
        pipe.end(world, COMMIT).expect("it goes on");
    };
    let mut world = restart_without_the_end(world, 1, end);
    assert_eq!(committed(&mut world, far), ["behind"]);
    assert_eq!(committed(&mut world, near), ["the next"]);
    assert_eq!(world.status(1).transaction_totals.lost, 1);
    // It is over for good.
    let mut world = restart(world, 3);
    assert_eq!(committed(&mut world, far), ["behind"]);
    assert_eq!(world.status(1).transaction_totals.lost, 0);
}

#[test]
fn what_is_open_stays_open_and_is_as_old_as_the_start() {
    let Scene { world, mut pipe, far, .. } = scene();
    let mut world = restart(world, 2);
    assert_eq!(committed(&mut world, far), [""; 0]);
    world.pass(2 * SECOND);
    let age = world.status(1).transaction_totals.oldest_open_ms;
    assert!((3000..3100).contains(&age), "{age}");
    pipe.client = world.connect(0);
    pipe.end(&mut world, COMMIT).expect("it goes on");
    assert_eq!(committed(&mut world, far), ["asked about", "behind"]);
    assert_eq!(world.status(1).transaction_totals.oldest_open_ms, 0);
}

#[test]
fn nothing_is_decided_before_everybody_has_spoken() {
    let Scene { mut world, mut pipe, far, .. } = scene();
    let before = world.disks[1].clone();
    pipe.end(&mut world, COMMIT).expect("it goes on");
    world.disks[1] = before;
    let configs =
        (0..2).map(|shard| ShardConfig { incarnation: Incarnation(2), was_clean: false, ..config(shard, 2) }).collect();
    let mut world = World::start(configs, world.into_disks());
    world.cut_off.insert(0);
    world.run();
    assert_eq!(committed(&mut world, far), [""; 0], "only one of two shards does not know it");
    world.pass(60 * SECOND);
    world.cut_off.clear();
    assert_eq!(committed(&mut world, far), ["asked about", "behind"]);
}

#[test]
fn a_group_that_lost_an_end_hears_it_again() {
    for (decision, expected) in [(COMMIT, 2), (ABORT, 1)] {
        let mut world = World::new(2);
        let client = world.connect(0);
        let input = world.create(client, "input", 1);
        for record in 0..3 {
            world.produce(client, input, 0, record, batch(&["x"]));
        }
        world.run();
        let mut member: Member = member_here(&mut world, client, "input");
        member.commit(&mut world, &[((input, 0), 1)]).expect("it owns the partition");
        let mut pipe = pipe_on(&mut world, client, 1);
        pipe.stage(&mut world, &member, ((input, 0), 2)).expect("it owns the partition");
        let end = |world: &mut World| pipe.end(world, decision).expect("it goes on");
        let mut world = restart_without_the_end(world, 0, end);
        world.pass(SECOND);
        member.client = world.connect(0);
        let body = FetchOffsets { group: member.group.clone(), after: None, partitions: Vec::new() };
        let answer: FetchOffsetsAnswer = world.ask(member.client, &body).expect("the group is there");
        assert_eq!(answer.offsets[0].offset, expected);
        member.commit(&mut world, &[((input, 0), 3)]).expect("nothing is staged any more");
    }
}
