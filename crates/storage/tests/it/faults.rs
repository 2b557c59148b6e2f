//! Disks that fail and run full.

use corelane_model::{ErrorCode, Offset};
use corelane_storage::Fetch;

use crate::world::{World, batch, durable_topic, partition, small_config};

#[test]
fn a_full_disk_refuses_appends_and_heals() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 3, durable_topic());
    for fill in 0..150 {
        world.append_soon(partition(1, 0), &batch(1, 10_000, fill));
        world.make_durable();
    }
    assert_eq!(world.disk.journal_files(), 4, "the ring is whole");
    world.disk.faults.capacity = Some(world.disk.used() + (64 << 10));
    let mut refused = None;
    for fill in 0..5000 {
        if let Err(error) = world.append(partition(1, u32::try_from(fill % 3).unwrap()), &batch(1, 10_000, fill))
            && error.code() == ErrorCode::StorageFull
        {
            refused = Some(error);
            break;
        }
        world.step();
    }
    let refused = refused.expect("a full disk is said to be full");
    assert!(refused.to_string().contains("free space"), "{refused}");
    assert!(world.said.contains(&"space low"));
    world.make_durable();
    world.check_all();
    world.disk.faults.capacity = None;
    world.run_until("space", |world| world.said.contains(&"space back"));
    for fill in 0..600 {
        let batch = batch(1, 10_000, fill);
        let mut rounds = 0;
        while world.append(partition(1, 1), &batch).is_err() {
            world.step();
            rounds += 1;
            assert!(rounds < 10_000, "still refused: {:?}", world.storage.stats());
        }
    }
    world.make_durable();
    world.check_all();
    world.crash();
    world.check_all();
}

#[test]
fn a_ring_that_cannot_grow_is_a_full_disk_too() {
    let mut world = World::new(2, small_config());
    world.add_topic(1, 1, durable_topic());
    world.disk.faults.capacity = Some(world.disk.used() + (100 << 10));
    let mut fill = 0;
    world.run_until("a refusal", |_| true);
    while world.append(partition(1, 0), &batch(1, 10_000, fill)).map_err(|error| error.code())
        != Err(ErrorCode::StorageFull)
    {
        fill += 1;
        assert!(fill < 5000, "never refused: {:?}", world.storage.stats());
        world.step();
        world.pass(1_000_000);
    }
    assert!(world.said.contains(&"space low"));
    world.disk.faults.capacity = None;
    world.run_until("space", |world| world.said.contains(&"space back"));
    for fill in 0..200 {
        world.append_soon(partition(1, 0), &batch(1, 10_000, fill));
    }
    world.make_durable();
    world.check_all();
}

#[test]
fn a_full_disk_does_not_keep_the_broker_from_ending() {
    for seed in 0..10 {
        let mut world = World::new(seed, small_config());
        world.add_topic(1, 3, durable_topic());
        for fill in 0..150 {
            world.append_soon(partition(1, 0), &batch(1, 10_000, fill));
        }
        world.make_durable();
        world.disk.faults.capacity = Some(world.disk.used());
        for fill in 0..400 {
            drop(world.append(partition(1, u32::try_from(fill % 3).unwrap()), &batch(1, 10_000, fill)));
            world.step();
        }
        world.restart_cleanly();
        world.check_all();
    }
}

#[test]
fn failing_segments_are_left_for_new_ones() {
    for seed in 0..30 {
        let mut world = World::new(seed, small_config());
        world.add_topic(1, 3, durable_topic());
        world.disk.faults.segment_write_permille = 150;
        world.disk.faults.segment_sync_permille = 150;
        world.disk.faults.segment_short_permille = 200;
        for fill in 0..300 {
            let id = partition(1, u32::try_from(world.chance.below(3)).unwrap());
            let batch = batch(1, usize::try_from(world.chance.below(20_000)).unwrap(), fill);
            let mut rounds = 0;
            while let Err(error) = world.append(id, &batch) {
                assert_eq!(error.code(), ErrorCode::Busy, "{error}");
                world.step();
                world.pass(5_000_000);
                rounds += 1;
                assert!(rounds < 20_000, "stuck: {:?}", world.storage.stats());
            }
            world.step();
        }
        world.make_durable();
        world.check_all();
        world.crash();
        world.check_all();
        assert!(0 < world.storage.stats().partitions);
    }
}

#[test]
fn a_failed_journal_stops_writes_and_serves_what_is_durable() {
    let mut world = World::new(3, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    world.append_soon(id, &batch(1, 100, 1));
    world.make_durable();
    world.disk.faults.journal_sync = true;
    world.append_soon(id, &batch(1, 100, 2));
    world.run_until("the stop", |world| world.said.contains(&"stopped"));
    let refused = world.append(id, &batch(1, 100, 3)).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StorageFailed);
    assert!(world.storage.truncate(world.now, id, Offset(1)).is_err());
    assert!(matches!(world.storage.fetch(id, Offset(0), 1000), Fetch::Batches { next: Offset(1), .. }));
    assert_eq!(world.storage.fetch(id, Offset(1), 1000), Fetch::AtEnd);
    world.storage.drain();
    world.run_until("the drain", |world| world.said.contains(&"drained"));
    world.crash();
    world.check_all();
}

#[test]
fn damage_is_reported_and_the_rest_served() {
    let mut world = World::new(4, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    for fill in 0..60 {
        world.append_soon(id, &batch(1, 50_000 / 2, fill));
        world.make_durable();
    }
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    world.restart_cleanly();
    let name = world.disk.segments()[0];
    let half = world.disk.length(name) / 2;
    world.disk.flip(name, half);
    let (mut next, mut lost, mut found) = (Offset(0), 0, 0);
    while next < Offset(60) {
        match world.fetch(id, next, 100_000) {
            Fetch::Batches { batches, next: end } => {
                for bytes in batches {
                    assert!(world.models[&id].batches.iter().any(|kept| kept.bytes == bytes));
                    found += 1;
                }
                next = end;
            }
            Fetch::Corrupt { first, end } => {
                assert_eq!(first, next);
                lost += end.since(first);
                next = end;
            }
            fetched => panic!("{fetched:?}"),
        }
    }
    assert!(0 < lost && 0 < found);
    assert_eq!(lost + found, 60);
}
