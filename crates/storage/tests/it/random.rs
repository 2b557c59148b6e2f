//! Random lives: appends, reads, truncations, failing disks, crashes; what was durable is always there.

use corelane_model::TopicSettings;
use corelane_storage::StorageConfig;
use proptest::prelude::*;

use crate::world::{World, batch, durable_topic, memory_topic, partition, small_config};

/// Which troubles a life has; each seed has some of them.
#[derive(Clone, Copy, Debug)]
struct Troubles {
    crashes: bool,
    failures: bool,
    short: bool,
    full: bool,
    truncates: bool,
    large: bool,
    catalog: bool,
}

fn live(seed: u64, troubles: Troubles, steps: u32) {
    let files = 4 + u32::try_from(seed % 3).unwrap();
    let config = StorageConfig { journal_files: files, journal_file_bytes: 128 << 10, ..small_config() };
    let mut world = World::new(seed, config);
    world.add_topic(1, 3, durable_topic());
    world.add_topic(2, 1, TopicSettings { retention_bytes: Some(2 << 20), ..durable_topic() });
    world.add_topic(3, 1, memory_topic());
    let ids = [partition(1, 0), partition(1, 1), partition(1, 2), partition(2, 0), partition(3, 0)];
    if troubles.failures {
        world.disk.faults.segment_write_permille = 30;
        world.disk.faults.segment_sync_permille = 30;
    }
    if troubles.short {
        world.disk.faults.segment_short_permille = 200;
    }
    for step in 0..steps {
        let id = ids[world.chance.place(ids.len())];
        let size = if troubles.large { 20_000 } else { 400 };
        for _ in 0..world.chance.below(4) {
            let records = u32::try_from(1 + world.chance.below(3)).unwrap();
            let bytes = usize::try_from(world.chance.below(size) / u64::from(records)).unwrap();
            drop(world.append(id, &batch(records, bytes, u64::from(step))));
        }
        if troubles.truncates && world.chance.permille(10) {
            let status = world.storage.describe(id).unwrap();
            let span = status.high_watermark.since(status.log_start) + 1;
            let before = status.log_start.advance(world.chance.below(span));
            if world.storage.truncate(world.now, id, before).is_ok() {
                let model = world.models.get_mut(&id).unwrap();
                model.start_asked = model.start_asked.max(before);
            }
        }
        if troubles.catalog && world.chance.permille(50) {
            drop(world.storage.write_catalog(vec![1; 100].into()));
        }
        if troubles.full && world.chance.permille(8) {
            let used = world.disk.used();
            world.disk.faults.capacity = if world.chance.permille(500) { Some(used + (100 << 10)) } else { None };
        }
        world.step();
        if world.chance.permille(20) {
            look(&mut world, id);
        }
        if troubles.crashes && world.chance.permille(8) {
            world.disk.faults.capacity = None;
            world.crash();
            if world.chance.permille(300) {
                // Again before it has found its feet.
                world.step();
                world.crash();
            }
            world.check_all();
        } else if world.chance.permille(3) {
            world.disk.faults.capacity = None;
            world.restart_cleanly();
            world.check_all();
        }
    }
    world.disk.faults = crate::disk::Faults::default();
    world.make_durable();
    world.check_all();
    world.crash();
    world.check_all();
}

/// Reads somewhere and compares.
fn look(world: &mut World, id: corelane_model::PartitionId) {
    let status = world.storage.describe(id).unwrap();
    let span = status.high_watermark.since(status.log_start);
    if span == 0 {
        return;
    }
    let from = status.log_start.advance(world.chance.below(span));
    match world.fetch(id, from, 5000) {
        corelane_storage::Fetch::Batches { batches, .. } => {
            for bytes in batches {
                let head = corelane_record::BatchHead::parse(&bytes).unwrap();
                let kept = world.models[&id].batches.iter().find(|kept| kept.base == head.base_offset).unwrap();
                assert_eq!(kept.bytes, bytes);
                assert!(kept.end <= world.models[&id].durable_end, "{id} shows what is not durable");
            }
        }
        // The log start may have moved while the read waited.
        corelane_storage::Fetch::OutOfRange { log_start, .. } => assert!(from < log_start),
        fetched => panic!("{id} at {from}: {fetched:?}"),
    }
}

fn troubles(seed: u64) -> Troubles {
    let bit = |place: u32| seed >> place & 1 == 1;
    Troubles {
        crashes: bit(0) || bit(1),
        failures: bit(2),
        short: bit(3),
        full: bit(4) && bit(5),
        truncates: bit(6),
        large: bit(7),
        catalog: bit(8),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn what_was_durable_survives_everything(seed: u64) {
        live(seed, troubles(seed), 400);
    }
}

#[test]
fn a_long_life() {
    let all = Troubles {
        crashes: true,
        failures: true,
        short: true,
        full: false,
        truncates: true,
        large: true,
        catalog: true,
    };
    live(77, all, 2500);
}

/// The lives above would notice if settling called records settled too early.
#[cfg(planted)]
mod bugs {
    use corelane_model::planted::{Bug, select};

    use super::{live, troubles};

    /// `cargo xtask sim planted` runs it alone, because a bug is switched on for the whole process.
    #[test]
    fn a_settle_note_before_its_sync_is_found() {
        select(Some(Bug::SettleBeforeSync));
        let found = (0..1000).find(|&seed| std::panic::catch_unwind(|| live(seed, troubles(seed), 400)).is_err());
        select(None);
        assert!(found.is_some(), "a thousand lives went well");
    }
}
