//! Compacted topics: the newest record of each key is always there, whatever happens in between.

use std::collections::BTreeMap;

use corelane_model::{Offset, PartitionId, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, RecordBatch, SealedBatch};
use corelane_storage::{Fetch, StorageConfig};
use proptest::prelude::*;

use crate::world::{World, partition, small_config};

type KeyValue = (String, Option<String>);

/// A partition of a compacted topic and everything that was ever appended to it.
struct Keyed {
    world: World,
    id: PartitionId,
    appended: BTreeMap<u64, KeyValue>,
    count: u64,
}

fn compacted() -> TopicSettings {
    TopicSettings { segment_bytes: 24 << 10, tombstone_ms: 5_000, ..TopicSettings::compacted() }
}

impl Keyed {
    fn new(seed: u64, settings: TopicSettings) -> Self {
        let config = StorageConfig { journal_file_bytes: 128 << 10, ..small_config() };
        let mut world = World::new(seed, config);
        world.add_topic(1, 1, settings);
        Self { world, id: partition(1, 0), appended: BTreeMap::new(), count: 0 }
    }

    /// Appends a batch of records with keys out of so many; one in ten takes its key away.
    fn append(&mut self, keys: u64) {
        let compression = [Compression::None, Compression::Lz4, Compression::Zstd][self.world.chance.place(3)];
        let mut builder = BatchBuilder::new(compression);
        let mut records = Vec::new();
        for _ in 0..1 + self.world.chance.below(8) {
            self.count += 1;
            let key = format!("player-{}", self.world.chance.below(keys));
            let is_tombstone = self.world.chance.permille(100);
            let value = (!is_tombstone).then(|| format!("{:>200}", self.count));
            builder
                .push(WallMillis(5), Some(key.as_bytes()), value.as_deref().map(str::as_bytes), &[])
                .expect("it fits");
            records.push((key, value));
        }
        let batch = SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("sound");
        if let Ok(appended) = self.world.append(self.id, &batch) {
            let base = appended.base_offset.0;
            // After a crash the same offsets may be given again to what comes then.
            self.appended.split_off(&base);
            self.appended.extend((base..).zip(records));
        }
    }

    /// Reads everything from an offset on: what is there, by offset.
    fn read(&mut self, from: Offset) -> BTreeMap<u64, KeyValue> {
        let mut found = BTreeMap::new();
        let mut next = from;
        let mut last = None;
        loop {
            let bytes_max = u32::try_from(self.world.chance.below(40_000)).expect("small");
            match self.world.fetch(self.id, next, bytes_max) {
                Fetch::Batches { batches, next: end } => {
                    for bytes in batches {
                        let batch = RecordBatch::parse(bytes).expect("sound");
                        for record in &batch {
                            assert!(last < Some(record.offset), "{} comes behind {last:?}", record.offset);
                            last = Some(record.offset);
                            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                            let key = text(record.key.expect("every record has a key"));
                            found.insert(record.offset.0, (key, record.value.map(text)));
                        }
                    }
                    assert!(next < end, "a fetch from {next} goes on at {end}");
                    next = end;
                }
                Fetch::AtEnd => return found,
                // Compacted meanwhile: it is asked again, as a subscription does.
                Fetch::Pending(_) => {}
                fetched => panic!("at {next}: {fetched:?}"),
            }
        }
    }

    /// What is durable is there: the newest record of each key, except that a null value may be gone.
    fn check(&mut self) -> usize {
        let durable = self.world.models[&self.id].durable_end.0;
        let found = self.read(Offset::ZERO);
        for (offset, record) in &found {
            assert_eq!(
                Some(record),
                self.appended.get(offset),
                "offset {offset} holds something else than was appended"
            );
        }
        let mut newest = BTreeMap::new();
        for (offset, (key, value)) in self.appended.range(..durable) {
            newest.insert(key, (offset, value));
        }
        for (key, (offset, value)) in newest {
            let is_there = found.contains_key(offset);
            assert!(is_there || value.is_none(), "the newest value of {key}, at offset {offset}, is lost");
            if !is_there {
                let older = found.range(..offset).find(|(_, (other, _))| other == key);
                assert_eq!(older, None, "{key} was taken away at {offset} and came back");
            }
        }
        found.len()
    }

    fn run(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.world.step();
            if self.world.chance.permille(200) {
                self.world.pass(50_000_000);
            }
        }
    }

    fn passes(&self) -> u64 {
        self.world.storage.stats().compaction_passes_total
    }
}

#[test]
fn superseded_records_go_and_offsets_stay() {
    let mut keyed = Keyed::new(1, compacted());
    while keyed.passes() < 3 {
        keyed.append(20);
        keyed.run(1);
    }
    keyed.world.make_durable();
    let left = keyed.check();
    assert!(left < keyed.appended.len() / 2, "{left} of {} are left", keyed.appended.len());
    assert!(keyed.world.storage.stats().compaction_removed_records_total > 100);
    keyed.world.restart_cleanly();
    keyed.check();
    for from in [1, 7, 100, keyed.count / 2] {
        let expected: Vec<u64> = keyed.read(Offset::ZERO).into_keys().filter(|&offset| from <= offset).collect();
        let found: Vec<u64> = keyed.read(Offset(from)).into_keys().filter(|&offset| from <= offset).collect();
        assert_eq!(found, expected, "from {from}");
    }
}

#[test]
fn a_loss_behind_a_segment_without_records_begins_at_its_reader() {
    // A few keys, so that nothing is left of the first segments.
    let mut keyed = Keyed::new(1, compacted());
    while keyed.passes() < 3 {
        keyed.append(3);
        keyed.run(1);
    }
    keyed.world.make_durable();
    keyed.world.restart_cleanly();
    for name in keyed.world.disk.segments() {
        if 0 < keyed.world.disk.length(name) {
            // In the head of its first extent.
            keyed.world.disk.flip(name, 9);
        }
    }
    let asked = Offset(1);
    let lost = keyed.world.fetch(keyed.id, asked, 1_000);
    let Fetch::Corrupt { first, end } = lost else { panic!("nothing is lost: {lost:?}") };
    assert_eq!(first, asked, "whoever counts what is lost waits for what lies before {first}");
    assert!(first < end);
}

#[test]
fn compaction_that_stands_back_asks_for_no_rounds() {
    let mut keyed = Keyed::new(8, compacted());
    keyed.world.disk.faults.capacity = Some(keyed.world.disk.used() + (100 << 10));
    let wants_round = |world: &World| world.storage.next_deadline().is_some_and(|at| at <= world.now.monotonic);
    let mut looks = 0;
    for _ in 0..20_000 {
        keyed.append(20);
        keyed.run(1);
        if keyed.world.storage.stats().is_space_low == 0 || keyed.world.now.monotonic.0 < 2_000_000_000 {
            continue;
        }
        let rounds = (0..100).take_while(|_| {
            keyed.world.round();
            wants_round(&keyed.world)
        });
        let rounds = rounds.count();
        assert!(rounds < 3, "{rounds} rounds in a row, and nothing to do in them");
        looks += 1;
        if looks == 100 {
            return;
        }
    }
    panic!("the disk was full {looks} times: {:?}", keyed.world.storage.stats());
}

#[test]
fn null_values_go_after_their_time_and_nothing_comes_back() {
    let mut keyed = Keyed::new(2, compacted());
    while keyed.passes() < 2 {
        keyed.append(5);
        keyed.run(1);
    }
    keyed.world.make_durable();
    let tombstones = |keyed: &mut Keyed, end: u64| {
        keyed.read(Offset::ZERO).into_iter().filter(|(offset, (_, value))| *offset < end && value.is_none()).count()
    };
    let end = keyed.count;
    assert!(0 < tombstones(&mut keyed, end), "the grace time has not passed");
    // Keys go on, so that there are passes, and the grace time passes: those of before are gone.
    for round in 0..4000 {
        keyed.append(5);
        keyed.run(1);
        keyed.world.pass(100_000_000);
        if round % 50 == 0 {
            keyed.check();
            if tombstones(&mut keyed, end) == 0 {
                return;
            }
        }
    }
    panic!("null values are still there: {:?}", keyed.world.storage.stats());
}

/// A topic to which nothing is written any more loses its null values all the same.
#[test]
fn null_values_of_a_quiet_topic_go_too() {
    let mut keyed = Keyed::new(4, TopicSettings { tombstone_ms: 60_000, ..compacted() });
    while keyed.passes() < 2 {
        keyed.append(5);
        keyed.run(1);
    }
    let before = keyed.passes();
    keyed.world.pass(61_000_000_000);
    keyed.world.run_until("a pass", |world| before < world.storage.stats().compaction_passes_total);
    keyed.check();
}

/// Each record has a key of its own: nothing is superseded, and the end is reached all the same.
#[test]
fn more_keys_than_memory_take_several_passes() {
    let settings = TopicSettings { segment_bytes: 256 << 10, ..compacted() };
    let mut keyed = Keyed::new(3, settings);
    let mut count = 0;
    // One and a half MiB of memory for keys are room for some 20,000.
    while keyed.world.storage.describe(keyed.id).is_some_and(|status| status.disk_bytes < 2 << 20) {
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..100 {
            count += 1;
            builder.push(WallMillis(5), Some(format!("key-{count}").as_bytes()), Some(b"v"), &[]).expect("it fits");
        }
        let batch = SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("sound");
        let base = keyed.world.append_soon(keyed.id, &batch).base_offset.0;
        let keys = (count - 99..=count).map(|key| (format!("key-{key}"), Some("v".to_owned())));
        keyed.appended.extend((base..).zip(keys));
        keyed.run(1);
    }
    keyed.world.make_durable();
    keyed.world.run_until("two passes", |world| 2 <= world.storage.stats().compaction_passes_total);
    assert_eq!(keyed.check(), keyed.appended.len(), "nothing is superseded");
    assert_eq!(keyed.world.storage.stats().compaction_removed_records_total, 0);
}

fn live(seed: u64, steps: u32) -> u64 {
    let mut keyed = Keyed::new(seed, compacted());
    let keys = [2, 10, 60][keyed.world.chance.place(3)];
    if seed & 1 == 1 {
        keyed.world.disk.faults.segment_write_permille = 10;
        keyed.world.disk.faults.segment_sync_permille = 10;
    }
    if seed & 2 == 2 {
        keyed.world.disk.faults.segment_short_permille = 50;
    }
    let mut passes = 0;
    for _ in 0..steps {
        keyed.append(keys);
        keyed.run(1);
        if keyed.world.chance.permille(5) {
            keyed.world.pass(2_000_000_000);
        }
        if keyed.world.chance.permille(6) {
            passes += keyed.passes();
            keyed.world.crash();
            keyed.check();
        } else if keyed.world.chance.permille(10) {
            keyed.check();
        } else if seed & 4 == 4 && keyed.world.chance.permille(2) {
            passes += keyed.passes();
            keyed.world.restart_cleanly();
            keyed.check();
        }
    }
    keyed.world.disk.faults = crate::disk::Faults::default();
    keyed.world.make_durable();
    keyed.check();
    passes += keyed.passes();
    keyed.world.crash();
    keyed.check();
    passes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_survives_everything(seed: u64) {
        live(seed, 500);
    }
}

#[test]
fn lives_are_long_enough_to_be_compacted() {
    let passes: u64 = (0..8).map(|seed| live(seed, 500)).sum();
    assert!(20 < passes, "{passes} passes");
}

/// The new list of segments or the old one, at each single step of a swap.
#[test]
fn a_crash_between_any_two_effects_loses_nothing() {
    for after in 0..60 {
        let mut keyed = Keyed::new(9, compacted());
        while keyed.world.storage.stats().compaction_read_bytes_total == 0 {
            keyed.append(10);
            keyed.run(1);
        }
        for _ in 0..after {
            keyed.world.round();
            if !keyed.world.complete_one() {
                keyed.world.pass(5_000_000);
            }
        }
        keyed.world.crash();
        keyed.check();
        keyed.append(10);
        keyed.world.make_durable();
        let head = |keyed: &mut Keyed| match keyed.world.fetch(keyed.id, Offset::ZERO, 1) {
            Fetch::Batches { batches, .. } => BatchHead::parse(&batches[0]).expect("a batch").base_offset,
            fetched => panic!("{fetched:?}"),
        };
        assert!(head(&mut keyed) < Offset(keyed.count));
    }
}
