//! Retention by age where so little is written that nothing settles.

use corelane_model::{Offset, TopicId, TopicSettings};

use crate::world::{World, batch, durable_topic, partition, small_config};

fn aged(retention_ms: u64) -> TopicSettings {
    TopicSettings { retention_ms: Some(retention_ms), ..durable_topic() }
}

/// Where the logs begin now, which is what a crash may bring back too.
fn starts(world: &mut World, count: u32) -> Vec<Offset> {
    let starts = (0..count).map(|index| world.storage.describe(partition(1, index)).unwrap().log_start);
    let starts: Vec<Offset> = starts.collect();
    for (index, &start) in (0..).zip(&starts) {
        let model = world.models.get_mut(&partition(1, index)).unwrap();
        model.start_asked = model.start_asked.max(start);
    }
    starts
}

#[test]
fn records_that_nothing_settles_go_by_age_and_stay_gone() {
    let mut world = World::new(21, small_config());
    world.add_topic(1, 3, aged(2000));
    for index in 0..2 {
        world.append_soon(partition(1, index), &batch(2, 100, 1));
    }
    world.make_durable();
    world.pass(1_000_000_000);
    world.append_soon(partition(1, 0), &batch(3, 100, 2));
    world.make_durable();
    assert_eq!(starts(&mut world, 3), [Offset(0), Offset(0), Offset(0)]);
    world.pass(1_400_000_000);
    world.round();
    assert_eq!(starts(&mut world, 3), [Offset(2), Offset(2), Offset(0)]);
    // What comes later is durable later.
    world.append_soon(partition(1, 2), &batch(1, 100, 3));
    world.make_durable();
    world.check_all();
    world.crash();
    let begun = starts(&mut world, 3);
    assert!(begun[0] == Offset(2) && begun[1] == Offset(2), "{begun:?}");
    world.append_soon(partition(1, 1), &batch(1, 100, 4));
    world.make_durable();
    world.check_all();
}

#[test]
fn the_ring_turns_while_partitions_expire_all_the_time() {
    let mut world = World::new(22, small_config());
    world.add_topic(1, 8, aged(50));
    for fill in 0..600 {
        for index in 0..8 {
            world.append_soon(partition(1, index), &batch(1, 3000, fill));
        }
        world.pass(7_000_000);
        world.make_durable();
        starts(&mut world, 8);
    }
    // Four files of 256 KiB were written over many times.
    assert!(starts(&mut world, 8).iter().all(|&start| Offset(400) < start));
    // Reads take time, in which nothing more may go.
    world.storage.alter(TopicId(1), &durable_topic());
    world.topics.insert(TopicId(1), (8, durable_topic()));
    world.check_all();
    world.crash();
    world.check_all();
}

#[test]
fn expiry_settling_truncation_and_crashes_get_along() {
    for seed in 0..60 {
        let mut world = World::new(seed, small_config());
        world.add_topic(1, 3, aged(40));
        world.add_topic(2, 1, durable_topic());
        for fill in 0..250 {
            for id in [partition(1, 0), partition(1, 1), partition(1, 2), partition(2, 0)] {
                if world.chance.permille(400) {
                    let bytes = usize::try_from(world.chance.below(12_000)).unwrap();
                    world.append_soon(id, &batch(1, bytes, fill));
                }
            }
            world.step();
            if world.chance.permille(200) {
                world.pass(30_000_000);
            }
            if world.chance.permille(50) {
                let status = world.storage.describe(partition(1, 1)).unwrap();
                drop(world.storage.truncate(world.now, partition(1, 1), status.high_watermark));
            }
            world.round();
            starts(&mut world, 3);
            if world.chance.permille(10) {
                world.crash();
                starts(&mut world, 3);
            }
        }
        world.storage.alter(TopicId(1), &durable_topic());
        world.topics.insert(TopicId(1), (3, durable_topic()));
        world.make_durable();
        starts(&mut world, 3);
        world.crash();
        world.check_all();
    }
}
