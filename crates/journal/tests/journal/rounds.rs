//! What a round costs, what waits for what, and what a full ring does.

use bytes::Bytes;
use corelane_journal::{
    Fault, Item, Journal, JournalConfig, JournalDone, JournalEffect, JournalOp, JournalOutput, JournalPosition,
};
use corelane_model::limits::{JOURNAL_CHECKPOINT_ROUND_BYTES, JOURNAL_READS_MAX};
use corelane_model::{MonotonicNanos, Now, Offset, WallMillis};

use crate::disk::{Chance, Crash};
use crate::owner::{FILE_BYTES, Owner, batch, config, partition, stamp_at};

fn now(millis: u64) -> Now {
    Now { monotonic: MonotonicNanos(millis * 1_000_000), wall: WallMillis(0) }
}

/// An owner whose first checkpoint is through and for which nothing is in flight.
fn ready() -> Owner {
    let mut owner = Owner::new(4, 4);
    owner.run_dry();
    owner
}

/// A round large enough not to wait for company.
fn large_round(owner: &mut Owner) {
    assert!(owner.add_batch(4000));
    owner.finish_round();
}

fn is_write(op: &JournalOp) -> bool {
    op.write_bytes() != 0
}

#[test]
fn a_burst_goes_to_disk_as_one_entry_while_more_is_expected() {
    let mut owner = ready();
    let before = owner.history.len();
    for _ in 0..5 {
        owner.add_values(1, &mut Chance(1));
        owner.journal.expect_more();
        owner.finish_round();
    }
    assert_eq!(owner.history.len(), before, "more was expected");
    assert!(owner.journal.next_deadline().is_some(), "whatever happens there is another round");
    owner.finish_round();
    assert_eq!(owner.history.len(), before + 1);
    assert_eq!(owner.history.last().unwrap().values.len(), 5);
    owner.run_dry();
}

#[test]
fn what_is_expected_is_not_waited_for_beyond_a_size() {
    let mut owner = ready();
    let before = owner.history.len();
    for _ in 0..64 {
        owner.journal.expect_more();
        large_round(&mut owner);
        if before < owner.history.len() {
            return;
        }
    }
    panic!("64 large rounds were gathered");
}

#[test]
fn memory_made_ready_while_nothing_happens_changes_no_byte() {
    let images = |rests: bool| {
        let mut owner = ready();
        for round in 0..12 {
            // Entries of one chunk and of several, large ones after small ones and the other way round.
            for _ in 0..1 + round % 4 * 3 {
                assert!(owner.add_batch(1000));
            }
            owner.finish_round();
            owner.run_dry();
            owner.settle(usize::MAX);
            if rests {
                owner.journal.rest();
            }
        }
        owner.disk.images()
    };
    assert_eq!(images(true), images(false));
}

#[test]
fn small_rounds_share_an_entry_while_one_is_in_flight() {
    let mut owner = ready();
    let before = owner.history.len();
    for _ in 0..5 {
        owner.add_values(1, &mut Chance(1));
        owner.finish_round();
    }
    assert_eq!(owner.history.len(), before + 1);
    owner.run_dry();
    assert_eq!(owner.history.len(), before + 2);
    assert_eq!(owner.history.last().unwrap().values.len(), 4);
    assert_eq!(owner.journal.stats().rounds_joined_total, 4 + 2);
}

#[test]
fn four_large_rounds_overlap_and_a_fifth_waits() {
    let mut owner = ready();
    let before = owner.history.len();
    for _ in 0..6 {
        large_round(&mut owner);
    }
    assert_eq!(owner.history.len(), before + 4);
    assert_eq!(owner.disk.in_flight(), 4);
    owner.run_dry();
    assert_eq!(owner.history.len(), before + 5);
    assert_eq!(owner.durable, owner.history.last().unwrap().end);
}

#[test]
fn durable_stops_at_the_first_hole() {
    let mut owner = ready();
    let first = owner.history.len();
    for _ in 0..3 {
        large_round(&mut owner);
    }
    let start = owner.durable;
    // The second and third are written and synced, the first is not written yet.
    owner.complete(1);
    owner.complete(1);
    while let Some(sync) = owner.find(|op| *op == JournalOp::Sync) {
        owner.complete(sync);
    }
    assert_eq!(owner.durable, start);
    owner.complete(0);
    assert_eq!(owner.durable, start);
    owner.complete(0);
    assert_eq!(owner.durable, owner.history[first + 2].end);
}

#[test]
fn a_sync_counts_for_what_was_written_before_it() {
    let mut owner = ready();
    let first = owner.history.len();
    large_round(&mut owner);
    large_round(&mut owner);
    owner.complete(0);
    let sync = owner.find(|op| *op == JournalOp::Sync).expect("the first entry is being synced");
    let write = owner.find(is_write).expect("the second entry is being written");
    owner.complete(write);
    owner.complete(sync.min(owner.disk.in_flight() - 1) - 1);
    assert_eq!(owner.durable, owner.history[first].end);
    owner.run_dry();
    assert_eq!(owner.durable, owner.history[first + 1].end);
}

#[test]
fn writes_that_complete_together_share_a_sync() {
    let mut owner = ready();
    let syncs = owner.journal.stats().syncs_total;
    for _ in 0..4 {
        large_round(&mut owner);
    }
    for _ in 0..4 {
        let (effect, result) = owner.disk.complete(0);
        owner.journal.on_done(effect.id, result);
    }
    owner.run_dry();
    assert_eq!(owner.journal.stats().syncs_total, syncs + 1);
}

#[test]
fn a_failure_stops_the_journal_for_good() {
    for is_short in [true, false] {
        let mut owner = ready();
        large_round(&mut owner);
        large_round(&mut owner);
        let start = owner.durable;
        if is_short {
            owner.complete_short(0);
        } else {
            owner.complete(0);
            let sync = owner.find(|op| *op == JournalOp::Sync).unwrap();
            owner.fail(sync);
        }
        assert!(owner.failure.is_some());
        let in_flight = owner.disk.in_flight();
        while 0 < owner.disk.in_flight() {
            owner.complete(0);
        }
        owner.finish_round();
        assert!(in_flight <= 1 && owner.disk.in_flight() == 0, "effects after the failure");
        assert_eq!(owner.durable, start);
        assert!(!owner.journal.is_room(1) && !owner.journal.make_room(1) && !owner.journal.is_running());
    }
}

#[test]
fn an_idle_journal_writes_one_mark() {
    let mut owner = ready();
    owner.add_values(1, &mut Chance(1));
    owner.run_dry();
    let entries = owner.history.len();
    let deadline = owner.journal.next_deadline().expect("a mark is due");
    assert_eq!(deadline, MonotonicNanos(100_000_000));
    owner.now = 99;
    owner.run_dry();
    assert_eq!(owner.history.len(), entries);
    owner.now = 100;
    owner.run_dry();
    assert_eq!(owner.history.len(), entries + 1);
    owner.now = 1000;
    owner.run_dry();
    assert_eq!((owner.history.len(), owner.journal.next_deadline()), (entries + 1, None));
    assert_eq!(owner.journal.stats().marks_total, 1);
}

#[test]
fn a_closed_journal_is_clean_and_one_that_crashed_is_not() {
    let mut owner = ready();
    owner.add_values(3, &mut Chance(1));
    owner.journal.close();
    owner.run_dry();
    owner.run_dry();
    assert!(owner.closed);
    owner.crash(Crash::Machine, &mut Chance(1)).unwrap();
    assert!(owner.report.was_clean);
    owner.run_dry();
    owner.crash(Crash::Machine, &mut Chance(1)).unwrap();
    assert!(!owner.report.was_clean);
}

#[test]
fn users_cannot_fill_the_ring_so_far_that_it_stays_full() {
    for files in [4, 6, 16] {
        let mut owner = Owner::new(files, 200);
        owner.run_dry();
        owner.add_values(200, &mut Chance(3));
        owner.run_dry();
        for _ in 0..3 {
            while owner.add_batch(2000) {
                owner.run_dry();
            }
            assert!(800 <= owner.journal.pressure(), "refused at {} per mille", owner.journal.pressure());
            for _ in 0..6 {
                owner.settle(1000);
                // What settling writes itself.
                let item =
                    Item::Settled { partition: partition(1), end: Offset(1), changes: Bytes::from(vec![0; 4000]) };
                assert!(owner.journal.make_room(item.encoded_bytes()));
                owner.run_dry();
            }
            assert!(owner.journal.pressure() < 500, "still {} per mille", owner.journal.pressure());
        }
        assert!(2 <= owner.journal.stats().files_recycled_total);
    }
}

#[test]
fn a_ring_turns_round_many_times() {
    let mut owner = Owner::new(4, 20);
    let mut chance = Chance(9);
    for round in 0..2000 {
        owner.add_values(2, &mut chance);
        while !owner.add_batch(1000) {
            // After a crash users wait until a checkpoint says what is not needed any more.
            assert!(round % 100 < 3, "no room in round {round}");
            owner.settle(8);
            owner.run_dry();
        }
        owner.run_dry();
        owner.settle(8);
        if round % 100 == 99 {
            owner.crash(Crash::Machine, &mut chance).unwrap();
        }
    }
    assert!(100 < owner.durable.sequence().0, "only {} files were begun", owner.durable.sequence());
}

#[test]
fn crashing_again_and_again_without_settling_does_not_use_up_the_ring() {
    let mut owner = Owner::new(4, 4);
    let mut chance = Chance(5);
    for _ in 0..30 {
        owner.add_values(1, &mut chance);
        owner.add_batch(100);
        owner.run_dry();
        owner.crash(Crash::Machine, &mut chance).unwrap();
    }
    assert!(!owner.unsettled.is_empty());
    for _ in 0..20 {
        owner.settle(1000);
        owner.add_values(1, &mut chance);
        owner.run_dry();
        owner.now += 1000;
        owner.run_dry();
    }
    assert!(owner.add_batch(1000), "the ring is {} per mille full", owner.journal.pressure());
}

#[test]
fn a_file_that_finds_no_space_is_tried_again_later() {
    let mut journal = Journal::new(config(4));
    drive(&mut journal, |_| true);
    let create = journal.poll_effect().expect("the first file is being made");
    assert!(matches!(create.op, JournalOp::Create { .. }));
    journal.on_done(create.id, Err(Fault::NoSpace));
    let outputs: Vec<_> = std::iter::from_fn(|| journal.poll_output()).collect();
    assert!(outputs.contains(&JournalOutput::CreateFailed { fault: Fault::NoSpace }));
    assert!(!journal.is_room(100));
    assert!(journal.finish_round(now(10)).is_none());
    assert_eq!(journal.poll_effect(), None);
    assert_eq!(journal.next_deadline(), Some(MonotonicNanos(1_000_000_000)));
    assert!(journal.finish_round(now(1000)).is_none());
    let create = journal.poll_effect().expect("tried again");
    journal.on_done(create.id, Ok(JournalDone::Done));
    assert!(journal.is_room(100));
}

/// Answers effects of a journal without files as long as `is_wanted`, until it runs.
fn drive(journal: &mut Journal, is_wanted: impl Fn(&JournalEffect) -> bool) {
    while !journal.is_running() {
        assert_eq!(journal.poll_recovered(), None);
        if journal.is_running() {
            return;
        }
        let effect = journal.poll_effect().expect("a recovery that waits has asked for something");
        assert!(is_wanted(&effect));
        let result = match effect.op {
            JournalOp::Length => JournalDone::Length(None),
            _ => JournalDone::Done,
        };
        journal.on_done(effect.id, Ok(result));
    }
}

#[test]
fn a_checkpoint_of_many_partitions_is_spread_over_rounds() {
    let mut owner = Owner::new(4, 1);
    owner.run_dry();
    let id = config(4).id;
    let mut journal = Journal::new(JournalConfig { id, files: 4, file_bytes: 16 << 20 });
    drive(&mut journal, |_| true);
    let create = journal.poll_effect().unwrap();
    journal.on_done(create.id, Ok(JournalDone::Done));
    let (mut fed, mut rounds) = (0, 0);
    while fed < 10_000 {
        let mut bytes = 0;
        while fed < 10_000 && 0 < journal.checkpoint_room() {
            let item = Item::State { partition: partition(fed), state: Bytes::from(vec![1; 200]) };
            assert!(journal.make_room(item.encoded_bytes()));
            journal.add_checkpoint_item(&item);
            bytes += item.encoded_bytes();
            fed += 1;
        }
        assert!(bytes < JOURNAL_CHECKPOINT_ROUND_BYTES + 300);
        let entry = batch(64);
        let slot = journal.add_batch(partition(0), &entry, stamp_at(rounds));
        let closed = journal.finish_round(now(rounds)).expect("nothing is in flight");
        assert_eq!(closed.batch(slot).len(), entry.bytes().len());
        while let Some(effect) = journal.poll_effect() {
            let written = effect.op.write_bytes();
            let done = if written == 0 { JournalDone::Done } else { JournalDone::Written(written) };
            journal.on_done(effect.id, Ok(done));
        }
        rounds += 1;
    }
    assert_eq!(rounds, 10_000 * 216 / JOURNAL_CHECKPOINT_ROUND_BYTES + 1);
    journal.finish_checkpoint();
    assert_eq!(journal.checkpoint_room(), 0);
}

#[test]
fn a_large_internal_item_gets_its_turn_under_pressure() {
    let mut owner = ready();
    let item = Item::CatalogSnapshot { snapshot: Bytes::from(vec![7; 15_000]) };
    owner.add_batch(4000);
    assert!(!owner.journal.make_room(item.encoded_bytes()));
    assert!(!owner.add_batch(10), "users wait until the entry was closed");
    owner.finish_round();
    assert!(owner.journal.make_room(item.encoded_bytes()));
    owner.journal.add_item(&item);
    assert!(!owner.add_batch(4000));
    owner.run_dry();
    assert!(owner.add_batch(4000));
}

#[test]
fn recovery_keeps_a_bounded_number_of_reads_in_flight() {
    let id = config(4).id;
    let mut journal = Journal::new(JournalConfig { id, files: 4, file_bytes: 16 << 20 });
    let mut waiting = Vec::new();
    let (mut most, mut read) = (0, 0);
    while !journal.is_running() {
        while journal.poll_recovered().is_some() {}
        while let Some(effect) = journal.poll_effect() {
            waiting.push(effect);
        }
        let reads = waiting.iter().filter(|effect| matches!(effect.op, JournalOp::Read { .. })).count();
        most = most.max(reads);
        let Some(effect) = waiting.pop() else { continue };
        let result = match effect.op {
            JournalOp::Length => JournalDone::Length((effect.slot.0 < 4).then_some(16 << 20)),
            JournalOp::Read { length, .. } => {
                read += u64::from(length);
                JournalDone::Read(Bytes::from(vec![0; length as usize]))
            }
            _ => JournalDone::Done,
        };
        journal.on_done(effect.id, Ok(result));
    }
    assert_eq!(most, JOURNAL_READS_MAX);
    assert_eq!(read, 4 * (16 << 20) + 4 * 4096);
    assert_eq!(journal.durable(), JournalPosition::ZERO);
}

#[test]
fn a_record_of_64_bytes_costs_what_the_docs_say() {
    let batch = batch(64).bytes().len() as u64;
    let item = Item::batch_bytes(64) - 64;
    assert_eq!(item, 16);
    assert!(item + batch + batch <= 2 * (64 + 128), "{batch} bytes in the segment, {} in the journal", item + batch);
}

/// A checkpoint that is longer than a file ends in a later one than it began in, which alone is no reason for the next.
#[test]
fn an_idle_journal_with_a_long_checkpoint_comes_to_rest() {
    let mut owner = Owner::new(16, 300);
    let mut chance = Chance(11);
    for _ in 0..60 {
        owner.add_values(60, &mut chance);
        owner.finish_round();
        while 0 < owner.disk.in_flight() {
            owner.complete(0);
        }
        owner.settle(0);
    }
    assert!(owner.journal.stats().checkpoint_bytes_total > FILE_BYTES, "the checkpoint is longer than a file");
    let mut steps = 0;
    owner.finish_round();
    while 0 < owner.disk.in_flight() && steps < 2000 {
        owner.complete(0);
        owner.settle(0);
        owner.finish_round();
        steps += 1;
    }
    assert!(steps < 2000, "nothing was added and it goes on writing");
    let checkpoints = owner.journal.stats().checkpoints_total;
    // And when there is something again, its files come free as before.
    for _ in 0..400 {
        owner.add_values(60, &mut chance);
        owner.finish_round();
        while 0 < owner.disk.in_flight() {
            owner.complete(0);
        }
        owner.settle(0);
    }
    assert!(owner.journal.is_room(100), "the ring is {} per mille full", owner.journal.pressure());
    let stats = owner.journal.stats();
    assert!(checkpoints + 3 < stats.checkpoints_total && 16 < stats.files_begun_total, "{stats:?}");
}
