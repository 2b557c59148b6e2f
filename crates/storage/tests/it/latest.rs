//! Topics of class `latest`: their room, and what is left of them after a start.

use corelane_model::{ErrorCode, Offset, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, SealedBatch};
use corelane_storage::Fetch;

use crate::world::{World, partition, small_config};

fn keyed(keys: &[&str], bytes: usize) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for key in keys {
        builder.push(WallMillis(5), Some(key.as_bytes()), Some(&vec![7; bytes]), &[]).unwrap();
    }
    SealedBatch::parse(builder.finish(ProducerStamp::default())).unwrap()
}

fn next_of(world: &mut World, from: Offset) -> Option<(usize, Offset)> {
    match world.storage.fetch(partition(1, 0), from, 1 << 20) {
        Fetch::Batches { batches, next } => Some((batches.len(), next)),
        Fetch::AtEnd => None,
        fetched => panic!("{fetched:?}"),
    }
}

#[test]
fn a_start_finds_it_empty_and_no_offset_comes_twice() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, TopicSettings::latest());
    let id = partition(1, 0);
    for _ in 0..50 {
        world.append_soon(id, &keyed(&["a", "b", "c"], 50));
    }
    world.make_durable();
    let start = world.storage.describe(id).unwrap().log_start;
    assert_eq!(next_of(&mut world, start), Some((1, start.advance(150))), "three keys are left of 150 records");
    world.crash();
    let status = world.storage.describe(id).unwrap();
    assert!(start.advance(150) <= status.log_start, "{status:?}");
    assert_eq!(next_of(&mut world, status.log_start), None);
    let appended = world.append_soon(id, &keyed(&["a"], 50));
    assert!(start.advance(150) <= appended.base_offset);
}

#[test]
fn newest_records_do_not_give_way_to_other_partitions() {
    let mut world = World::new(2, small_config());
    let settings = TopicSettings { retention_bytes: Some(64 << 20), ..TopicSettings::latest() };
    world.add_topic(1, 1, settings);
    let id = partition(1, 0);
    let mut keys = 0;
    let refused = loop {
        let key = format!("key-{keys}");
        match world.append(id, &keyed(&[&key], 100_000)) {
            Ok(_) => keys += 1,
            // Offsets are being leased, at first.
            Err(corelane_storage::AppendError::LeaseUsedUp) => {}
            Err(error) => break error,
        }
        world.step();
        assert!(keys < 1000, "memory is not bounded");
    };
    assert_eq!(refused.code(), ErrorCode::Busy, "{refused}");
    let status = world.storage.describe(id).unwrap();
    assert!(status.unsettled_bytes <= world.storage.stats().ring_bytes);
    let (batches, _) = next_of(&mut world, status.log_start).unwrap();
    assert!(0 < batches);
}
