//! Another number of shards.

use corelane_model::{Offset, ShardId};
use corelane_storage::{Storage, StorageConfig};

use crate::world::{World, batch, batch_from, durable_topic, memory_topic, partition, small_config};

#[test]
fn everything_moves_to_a_new_journal() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 2, durable_topic());
    world.add_topic(2, 1, memory_topic());
    for fill in 0..50 {
        world.append_soon(partition(1, 0), &batch(2, 5000, fill));
    }
    world.append_soon(partition(1, 1), &batch_from(7, 3, 0, 4));
    world.append_soon(partition(2, 0), &batch(5, 10, 1));
    let ticket = world.storage.write_catalog(b"change".to_vec().into()).unwrap();
    world.make_durable();
    world.run_until("the catalog", |world| world.catalog_durable == ticket.0);
    let id = world.storage.next_producer_id(world.now).unwrap();

    // The old shard starts without a catalog, settles everything and hands it over.
    world.disk.crash(&mut world.chance);
    world.config.was_clean = false;
    world.storage = Storage::new(world.config);
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    let export = world.storage.export();
    assert_eq!(export.partitions.len(), 3);
    assert!(id.0 & 0xffff < export.producer_ids_until);
    world.storage.drain();
    world.run_until("the drain", |world| world.said.contains(&"drained"));

    // A new shard over an empty journal takes it over.
    world.disk.remove_journals();
    world.config = StorageConfig { shard: ShardId(0), was_clean: true, ..world.config };
    world.storage = Storage::new(world.config);
    for (id, state) in &export.partitions {
        world.storage.import(*id, state).unwrap();
    }
    world.storage.import_producer_ids(export.producer_ids_until);
    world.storage.import_catalog(export.catalog);
    world.report = None;
    world.run_until("recovery", |world| world.report.is_some());
    // What it took over is durable when it says that it recovered.
    world.crash();
    assert_eq!(world.catalog.as_ref().unwrap().changes, vec![&b"change"[..]]);
    world.check_all();
    assert!(world.append_soon(partition(1, 1), &batch_from(7, 3, 0, 4)).is_duplicate);
    assert!(Offset(5) <= world.storage.describe(partition(2, 0)).unwrap().log_start);
    world.run_until("ids", |world| 0 < world.storage.stats().journal_entries_total);
    world.make_durable();
    let next = loop {
        match world.storage.next_producer_id(world.now) {
            Some(id) => break id,
            None => world.run_until("ids", |world| world.said.contains(&"producer ids")),
        }
    };
    assert!(export.producer_ids_until <= next.0, "{next}");
}
