//! What storage does when nothing goes wrong.

use corelane_model::limits::SETTLE_EARLY;
use corelane_model::{Offset, ProducerEpoch, ProducerId, Sequence, TopicId, WallMillis};
use corelane_record::ProducerStamp;
use corelane_storage::{ChangeTicket, Fetch};

use crate::world::{World, batch, batch_from, batch_of, durable_topic, memory_topic, partition, small_config};

#[test]
fn records_are_visible_when_they_are_durable_and_not_before() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    let appended = world.append_soon(id, &batch(3, 100, 1));
    assert_eq!((appended.base_offset, appended.end_offset), (Offset(0), Offset(3)));
    assert_eq!(world.storage.fetch(id, Offset(0), 1000), Fetch::AtEnd);
    world.round();
    assert_eq!(world.storage.fetch(id, Offset(0), 1000), Fetch::AtEnd);
    world.make_durable();
    assert!(matches!(world.storage.fetch(id, Offset(1), 1000), Fetch::Batches { next: Offset(3), .. }));
    assert!(matches!(world.storage.fetch(id, Offset(4), 1000), Fetch::OutOfRange { .. }));
    assert_eq!(world.storage.fetch(partition(1, 1), Offset(0), 1), Fetch::Unknown);
}

#[test]
fn the_ring_never_fills_for_good_under_sustained_appends() {
    let mut world = World::new(2, small_config());
    world.add_topic(1, 5, durable_topic());
    // A partition that was appended to once must not pin the ring.
    world.append_soon(partition(1, 4), &batch(1, 10, 1));
    let mut refused = 0;
    let mut bytes = 0;
    let mut fill = 0;
    while bytes < 40 << 20 {
        fill += 1;
        let id = partition(1, u32::try_from(world.chance.below(4)).unwrap());
        let batch = batch(1, usize::try_from(world.chance.below(30_000)).unwrap(), fill);
        match world.append(id, &batch) {
            Ok(_) => bytes += batch.bytes().len(),
            Err(error) => {
                assert_eq!(error.code(), corelane_model::ErrorCode::Busy, "{error}");
                refused += 1;
                assert!(refused < 200_000, "stuck after {bytes} bytes: {:?}", world.storage.stats());
            }
        }
        world.step();
    }
    world.make_durable();
    let stats = world.storage.stats();
    assert!(20 << 20 < stats.settled_bytes_total, "{stats:?}");
    assert!(world.disk.max_syncs_in_flight <= corelane_model::limits::SETTLE_SYNCS_MAX);
    assert!(stats.unsettled_bytes <= stats.unsettled_bytes_max, "{stats:?}");
    world.check_all();
}

#[test]
fn a_turn_that_is_due_soon_begins_while_nothing_else_is_to_be_done() {
    let mut world = World::new(5, small_config());
    world.add_topic(1, 4, durable_topic());
    let is_soon = |world: &World| {
        let now = world.now.monotonic;
        world.storage.next_deadline().is_some_and(|due| now < due && due <= now.after(SETTLE_EARLY))
    };
    // Time stands still: the first turn begins at once, the next has to wait for its time.
    let mut fill = 0;
    while world.storage.stats().settle_turns_total == 0 || !is_soon(&world) {
        fill += 1;
        assert!(fill < 1000, "no turn is due: {:?}", world.storage.stats());
        world.append_soon(partition(1, u32::try_from(fill % 4).unwrap()), &batch(1, 2000, fill));
        world.round();
        while world.complete_one() {
            world.round();
        }
    }
    let turns = world.storage.stats().settle_turns_total;
    world.round();
    assert!(world.disk.is_idle(), "it is not due");
    world.rest();
    assert!(!world.disk.is_idle(), "nothing else is to be done");
    while world.complete_one() {
        world.round();
    }
    assert_eq!(world.storage.stats().settle_turns_total, turns + 1);
    assert_eq!(world.disk.max_syncs_in_flight, 1, "there was no hurry");
    world.check_all();
}

#[test]
fn cold_reads_give_the_same_bytes_as_cached_ones() {
    let mut world = World::new(3, small_config());
    world.add_topic(1, 2, durable_topic());
    for fill in 0..300 {
        world.append_soon(partition(1, 0), &batch(2, 9000, fill));
        world.append_soon(partition(1, 1), &batch(1, 50, fill));
        world.make_durable();
    }
    world.check_all();
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    assert!(1 < world.storage.describe(partition(1, 0)).unwrap().segments);
    world.check_all();
    world.restart_cleanly();
    world.check_all();
    assert!(0 < world.storage.stats().fetches_cold_total);
}

#[test]
fn a_time_finds_its_batch_wherever_it_is() {
    let mut world = World::new(4, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    for fill in 0..200 {
        world.append_soon(id, &batch(2, 12_000, fill));
        world.make_durable();
        world.pass(1_700_000);
    }
    let batches = world.models[&id].batches.clone();
    let status = world.storage.describe(id).unwrap();
    assert!(Offset::ZERO < status.settled_end && status.settled_end < status.log_end, "{status:?}");
    for round in 0..2 {
        for time in batches[0].time.0 - 2..batches[199].time.0 + 3 {
            let expected = batches.iter().find(|batch| time <= batch.time.0).map_or(Offset(400), |batch| batch.base);
            assert_eq!(world.time_of(id, WallMillis(time)), expected, "time {time}");
        }
        if round == 0 {
            world.crash();
        }
    }
}

#[test]
fn retries_are_told_apart_over_a_restart() {
    let mut world = World::new(5, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    for sequence in [0, 2, 4] {
        assert!(!world.append_soon(id, &batch_from(9, 1, sequence, 2)).is_duplicate);
    }
    world.make_durable();
    world.crash();
    let again = world.append_soon(id, &batch_from(9, 1, 2, 2));
    assert!(again.is_duplicate && again.is_durable_already);
    assert_eq!((again.base_offset, again.end_offset), (Offset(2), Offset(4)));
    assert!(world.append(id, &batch_from(9, 1, 8, 2)).is_err());
    assert!(!world.append_soon(id, &batch_from(9, 1, 6, 2)).is_duplicate);
}

#[test]
fn an_unclean_start_raises_the_leader_epoch_and_a_clean_one_does_not() {
    let mut world = World::new(6, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    world.append_soon(id, &batch(1, 10, 1));
    world.make_durable();
    let epoch = |world: &World| world.storage.describe(id).unwrap().leader_epoch.0;
    let first = epoch(&world);
    world.restart_cleanly();
    assert_eq!(epoch(&world), first);
    assert!(world.report.as_ref().unwrap().was_clean);
    world.append_soon(id, &batch(1, 10, 2));
    world.make_durable();
    world.crash();
    assert_eq!(epoch(&world), first + 1);
    world.append_soon(id, &batch(1, 10, 3));
    world.make_durable();
    world.crash();
    assert_eq!(epoch(&world), first + 2);
    world.check_all();
}

#[test]
fn a_memory_topic_is_a_ring_whose_offsets_never_repeat() {
    let mut world = World::new(7, small_config());
    world.add_topic(1, 1, memory_topic());
    let id = partition(1, 0);
    for fill in 0..100 {
        world.append_soon(id, &batch(2, 1000, fill));
        world.make_durable();
    }
    let status = world.storage.describe(id).unwrap();
    assert!(status.unsettled_bytes <= 64 << 10, "{status:?}");
    assert_eq!((status.high_watermark, status.segments), (Offset(200), 0));
    assert!(Offset::ZERO < status.log_start);
    world.check(id);
    world.restart_cleanly();
    let status = world.storage.describe(id).unwrap();
    assert!(Offset(200) <= status.log_start && status.log_start == status.log_end, "{status:?}");
    world.append_soon(id, &batch(2, 1000, 1));
    world.make_durable();
    world.check(id);
    world.crash();
    assert!(status.log_end.advance(2) <= world.storage.describe(id).unwrap().log_end);
    assert_eq!(world.disk.segments(), vec![]);
}

#[test]
fn memory_topics_lose_records_by_age_and_stay_within_their_share() {
    let mut world = World::new(8, small_config());
    let settings =
        corelane_model::TopicSettings { retention_ms: Some(2000), retention_bytes: Some(64 << 20), ..memory_topic() };
    world.add_topic(1, 2, settings);
    let id = partition(1, 0);
    world.append_soon(id, &batch(1, 1000, 1));
    world.make_durable();
    world.pass(2_200_000_000);
    world.round();
    assert_eq!(world.storage.describe(id).unwrap().log_start, Offset(1));
    for fill in 0..30 {
        world.append_soon(id, &batch(1, 500_000, fill));
        world.make_durable();
    }
    let share = world.config.memory_bytes / 4;
    assert!(world.storage.stats().ring_bytes <= share);
    let refused = world.append(partition(1, 1), &batch(1, 500_000, 1)).unwrap_err();
    assert_eq!(refused.code(), corelane_model::ErrorCode::Busy);
    assert!(refused.to_string().contains("--retention-bytes"), "{refused}");
}

#[test]
fn what_is_not_taken_costs_no_record_of_a_full_memory_partition() {
    let mut world = World::new(8, small_config());
    let settings = corelane_model::TopicSettings { retention_bytes: Some(64 << 20), ..memory_topic() };
    world.add_topic(1, 1, settings);
    let id = partition(1, 0);
    let from = |epoch, sequence| {
        let producer = ProducerStamp {
            producer_id: ProducerId(5),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
        };
        batch_of(producer, 1, 500_000, u64::from(sequence))
    };
    for sequence in 0..30 {
        world.append_soon(id, &from(1, sequence));
        world.make_durable();
    }
    let start = |world: &World| world.storage.describe(id).unwrap().log_start;
    let before = start(&world);
    assert!(Offset::ZERO < before, "it is full");
    assert!(world.append(id, &from(1, 29)).unwrap().is_duplicate);
    assert_eq!(start(&world), before, "a duplicate");
    world.append(id, &from(1, 40)).unwrap_err();
    assert_eq!(start(&world), before, "out of sequence");
    world.append(id, &from(0, 30)).unwrap_err();
    assert_eq!(start(&world), before, "fenced");
    world.append_soon(id, &from(1, 30));
    assert!(before < start(&world), "what is taken takes room");
}

#[test]
fn truncation_and_retention_by_bytes_delete_files_and_survive() {
    let mut world = World::new(9, small_config());
    let bounded = corelane_model::TopicSettings { retention_bytes: Some(3 << 20), ..durable_topic() };
    world.add_topic(1, 1, durable_topic());
    world.add_topic(2, 1, bounded);
    for fill in 0..700 {
        for topic in 1..=2 {
            world.append_soon(partition(topic, 0), &batch(1, 14_000, fill));
        }
        world.make_durable();
    }
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    let bounded = world.storage.describe(partition(2, 0)).unwrap();
    assert!(bounded.disk_bytes < 5 << 20, "{bounded:?}");
    assert!(world.said.contains(&"segments dropped"));
    let before = world.disk.segments().len();
    let id = partition(1, 0);
    world.models.get_mut(&id).unwrap().start_asked = Offset(600);
    world.storage.truncate(world.now, id, Offset(600)).unwrap();
    world.run_until("the truncation", |world| world.models[&id].start_durable == Offset(600));
    world.run_until("deletion", |world| world.disk.segments().len() < before - 3);
    world.check_all();
    // A narrower bound counts at once, without another append.
    world.said.clear();
    let narrow = corelane_model::TopicSettings { retention_bytes: Some(1 << 20), ..durable_topic() };
    world.storage.alter(TopicId(2), &narrow);
    world.run_until("retention", |world| world.said.contains(&"segments dropped"));
    world.crash();
    assert_eq!(world.storage.describe(id).unwrap().log_start, Offset(600));
    world.check_all();
}

#[test]
fn a_deleted_topic_leaves_nothing_behind() {
    let mut world = World::new(10, small_config());
    world.add_topic(1, 2, durable_topic());
    world.add_topic(2, 1, durable_topic());
    for fill in 0..100 {
        for id in [partition(1, 0), partition(1, 1), partition(2, 0)] {
            world.append_soon(id, &batch(1, 9000, fill));
        }
        world.make_durable();
    }
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    world.topics.remove(&TopicId(1));
    world.storage.remove_topic(TopicId(1));
    assert_eq!(world.storage.fetch(partition(1, 0), Offset(0), 1), Fetch::Unknown);
    world.round();
    world.complete_one();
    // The power goes in the middle of it; files may be back, and the next start takes them away.
    for _ in 0..4 {
        world.crash();
        world.run_until("deletion", |world| {
            let is_of_one = |name: &corelane_storage::FileName| {
                matches!(name, corelane_storage::FileName::Segment { partition, .. } if partition.topic == TopicId(1))
            };
            !world.disk.segments().iter().any(is_of_one)
        });
    }
    world.check(partition(2, 0));
}

#[test]
fn the_catalog_comes_back_in_order() {
    let mut world = World::new(11, small_config());
    world.add_topic(1, 1, durable_topic());
    let mut number: u64 = 0;
    for start in 0..6 {
        for _ in 0..40 {
            number += 1;
            let ticket = world.storage.write_catalog(number.to_le_bytes().to_vec().into()).unwrap();
            if number % 16 == 5 {
                world.run_until("the change", |world| world.catalog_durable == ticket.0);
                world.storage.set_catalog_snapshot(number.to_be_bytes().to_vec().into(), Some(ticket));
            }
            // Other traffic turns the ring round.
            for fill in 0..4 {
                drop(world.append(partition(1, 0), &batch(1, 15_000, fill)));
            }
            world.step();
        }
        world.make_durable();
        let wanted = number;
        let last = world.storage.write_catalog(Vec::new().into()).unwrap();
        world.run_until("the last change", |world| world.catalog_durable == last.0);
        if start % 2 == 0 {
            world.crash();
        } else {
            world.restart_cleanly();
        }
        let catalog = world.catalog.clone().unwrap();
        let snapshot = catalog.snapshot.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        let changes: Vec<u64> = catalog
            .changes
            .iter()
            .filter(|change| !change.is_empty())
            .map(|change| u64::from_le_bytes(change[..].try_into().unwrap()))
            .collect();
        let expected: Vec<u64> = (snapshot + 1..=wanted).collect();
        assert_eq!(changes, expected);
    }
}

#[test]
fn producer_ids_never_repeat() {
    let mut world = World::new(12, small_config());
    let mut seen = std::collections::BTreeSet::new();
    for start in 0..4 {
        for _ in 0..3000 {
            match world.storage.next_producer_id(world.now) {
                Some(id) => {
                    assert_eq!(id.0 >> 56, 2, "the shard stands in the high bits");
                    assert!(seen.insert(id), "{id} came twice");
                }
                None => {
                    world.said.clear();
                    world.run_until("ids", |world| world.said.contains(&"producer ids"));
                }
            }
        }
        if start % 2 == 0 { world.crash() } else { world.restart_cleanly() }
    }
}

#[test]
fn a_drain_at_any_moment_of_recovery_ends_and_loses_nothing() {
    let mut is_over = false;
    let mut steps = 0;
    while !is_over {
        let mut world = World::new(21, small_config());
        world.add_topic(1, 3, durable_topic());
        for fill in 0..30 {
            world.append_soon(partition(1, u32::try_from(fill % 3).unwrap()), &batch(2, 900, fill));
            world.step();
        }
        world.make_durable();
        is_over = world.drain_in_recovery(steps);
        world.check_all();
        steps += 1;
    }
    assert!(10 < steps, "recovery took {steps} steps");
}

#[test]
fn a_crowd_of_catalog_changes_is_there_after_a_crash() {
    for seed in 0..20 {
        let mut world = World::new(seed, small_config());
        let mut first_ticket = None;
        for round in 0..200 {
            for _ in 0..world.chance.below(24) {
                let change = vec![7; usize::try_from(world.chance.below(9000)).unwrap()];
                if let Ok(ticket) = world.storage.write_catalog(change.into()) {
                    first_ticket.get_or_insert(ticket.0);
                }
            }
            if round % 8 == 7 {
                let durable = world.catalog_durable;
                world.storage.set_catalog_snapshot(durable.to_string().into(), Some(ChangeTicket(durable)));
            }
            world.step();
        }
        let durable = world.catalog_durable;
        world.crash();
        let catalog = world.catalog.as_ref().expect("recovered");
        let snapshot = catalog
            .snapshot
            .as_ref()
            .map_or(0, |bytes| std::str::from_utf8(bytes).expect("a number").parse::<u64>().expect("a number"));
        let held = snapshot + catalog.changes.len() as u64;
        assert!(durable <= held, "seed {seed}: change {durable} was durable, {held} are there from {first_ticket:?}");
    }
}

#[test]
fn more_producers_than_a_checkpoint_can_hold_do_not_fill_the_ring_for_good() {
    let mut world = World::new(5, small_config());
    world.add_topic(1, 40, durable_topic());
    for producer in 1..=900 {
        for index in 0..40 {
            world.append_soon(partition(1, index), &batch_from(producer, 0, 0, 1));
        }
    }
    world.make_durable();
    world.crash();
    world.append_soon(partition(1, 0), &batch(1, 100, 1));
    world.check_all();
}
