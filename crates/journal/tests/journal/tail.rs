//! The end of the journal that no head proves to be on disk: recovery writes it again before anybody relies on it.

use bytes::Bytes;
use corelane_journal::{EntryHead, Fault, Journal, JournalError, JournalOp, JournalOutput};
use corelane_model::limits::JOURNAL_FLUSHES_MAX;

use crate::disk::{Chance, Crash, Disk};
use crate::owner::{FILE_BYTES, Owner, config};

const FILES: u32 = 8;

/// A journal with some small entries, all of them durable.
fn with_entries(count: usize) -> Owner {
    let mut owner = Owner::new(FILES, 3);
    let mut chance = Chance(9);
    for _ in 0..count {
        owner.add_values(2, &mut chance);
        owner.run_dry();
    }
    owner
}

fn complete_writes(owner: &mut Owner) {
    while let Some(write) = owner.find(|op| op.write_bytes() != 0) {
        owner.complete(write);
    }
}

/// All syncs in flight fail: what was written is seen, and it is lost.
fn fail_syncs(owner: &mut Owner) {
    while let Some(sync) = owner.find(|op| *op == JournalOp::Sync) {
        owner.fail(sync);
    }
    assert!(matches!(owner.failure, Some(JournalError::Sync { .. })), "{:?}", owner.failure);
}

fn with_a_lost_entry() -> Owner {
    let mut owner = with_entries(5);
    owner.add_values(2, &mut Chance(7));
    owner.finish_round();
    complete_writes(&mut owner);
    fail_syncs(&mut owner);
    owner
}

/// A recovery over the disk, each write answered by `answer`.
struct Recovery {
    writes: Vec<(u32, u64, Bytes)>,
    writes_at_once: usize,
    syncs: usize,
    output: JournalOutput,
}

fn recover(disk: &Disk, answer: impl Fn(u64) -> Result<u64, Fault>) -> Recovery {
    let mut disk = disk.clone();
    let mut journal = Journal::new(config(FILES));
    let (mut writes, mut writes_at_once, mut syncs) = (Vec::new(), 0, 0);
    let is_write = |op: &JournalOp| op.write_bytes() != 0;
    for _ in 0..100_000 {
        while journal.poll_recovered().is_some() {}
        if let Some(output) = journal.poll_output() {
            return Recovery { writes, writes_at_once, syncs, output };
        }
        while let Some(effect) = journal.poll_effect() {
            assert!(effect.op != JournalOp::Sync || disk.find(is_write).is_none(), "a sync before the last write");
            syncs += usize::from(effect.op == JournalOp::Sync);
            if let JournalOp::Write { position, pieces } = &effect.op {
                writes.push((effect.slot.0, *position, Bytes::from(pieces.concat())));
            }
            disk.issue(effect);
        }
        // Writes come last, so that as many gather as may.
        let index = disk.find(|op| !is_write(op)).unwrap_or(0);
        writes_at_once = writes_at_once.max(disk.count(is_write));
        let (effect, result) = disk.complete(index);
        let result = match effect.op.write_bytes() {
            0 => result,
            bytes => answer(bytes).map(corelane_journal::JournalDone::Written),
        };
        journal.on_done(effect.id, result);
    }
    panic!("recovery comes to no end");
}

fn rewritten_bytes(recovery: &Recovery) -> u64 {
    let JournalOutput::Recovered(report) = &recovery.output else { panic!("{:?}", recovery.output) };
    let written: usize = recovery.writes.iter().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(report.rewritten_bytes, written as u64);
    report.rewritten_bytes
}

fn assert_nothing_changes(disk: &Disk, recovery: &Recovery) {
    let images = disk.images();
    for (slot, position, bytes) in &recovery.writes {
        let at = usize::try_from(*position).unwrap();
        let image = images[*slot as usize].as_ref().unwrap();
        assert_eq!(image[at..at + bytes.len()], bytes[..], "other bytes were written to {slot} at {position}");
    }
}

#[test]
fn what_a_failed_sync_lost_survives_the_power_loss_after_a_restart() {
    for seed in 0..50 {
        let mut owner = with_a_lost_entry();
        let mut chance = Chance(seed);
        owner.crash(Crash::Process, &mut chance).unwrap();
        owner.add_values(2, &mut chance);
        owner.run_dry();
        owner.crash(Crash::Machine, &mut chance).unwrap();
    }
}

#[test]
fn the_entries_of_two_files_are_written_again() {
    let mut owner = with_entries(1);
    while owner.history.last().unwrap().position.byte() < 32 << 10 {
        owner.add_batch(9000);
        owner.run_dry();
    }
    let before = owner.history.len();
    while owner.history.len() < before + JOURNAL_FLUSHES_MAX {
        owner.add_batch(9000);
        owner.finish_round();
    }
    let tail = owner.history[before..].to_vec();
    assert!(tail[0].position.sequence() < tail[3].position.sequence(), "{tail:?}");
    complete_writes(&mut owner);
    fail_syncs(&mut owner);
    // Their heads say that what came before them is durable, and nothing says that they are.
    let recovery = recover(&owner.disk, Ok);
    assert_eq!((rewritten_bytes(&recovery), recovery.syncs), (4 * (12 << 10), 2));
    assert_nothing_changes(&owner.disk, &recovery);
    let mut chance = Chance(3);
    owner.crash(Crash::Process, &mut chance).unwrap();
    assert_eq!(owner.report.end, tail[3].end);
    owner.add_values(2, &mut chance);
    owner.run_dry();
    owner.crash(Crash::Machine, &mut chance).unwrap();
}

#[test]
fn a_tail_that_cannot_be_written_again_stops_the_start_and_stays_as_it_is() {
    let mut owner = with_a_lost_entry();
    let images = owner.disk.images();
    let end = owner.history.last().unwrap().position;
    let failed = recover(&owner.disk, |_| Err(Fault::Os { errno: 5 })).output;
    let JournalOutput::Failed(JournalError::Rewrite { position, fault: Fault::Os { errno: 5 }, .. }) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(position, end);
    let short = recover(&owner.disk, |bytes| Ok(bytes / 2)).output;
    let JournalOutput::Failed(JournalError::ShortRewrite { position, asked: 4096, written: 2048, .. }) = short else {
        panic!("{short:?}")
    };
    assert_eq!(position, end);
    assert_eq!(owner.disk.images(), images);
    owner.crash(Crash::Process, &mut Chance(1)).unwrap();
}

#[test]
fn what_a_head_proves_is_left_alone() {
    let mut owner = with_entries(30);
    owner.now += 1000;
    owner.run_dry();
    // The mark of an idle journal proves all but itself.
    let recovery = recover(&owner.disk, Ok);
    assert_eq!((rewritten_bytes(&recovery), recovery.syncs), (4096, 1));
    assert_nothing_changes(&owner.disk, &recovery);
    let empty = recover(&Disk::default(), Ok);
    assert_eq!((rewritten_bytes(&empty), empty.syncs), (0, 0));
}

/// It says that the entry before it is durable, and perhaps which files may be overwritten next.
#[test]
fn the_head_of_a_torn_entry_that_was_believed_is_written_again() {
    let mut owner = with_entries(5);
    owner.add_batch(9000);
    owner.finish_round();
    let torn = owner.find(|op| op.write_bytes() != 0).unwrap();
    owner.complete_short(torn);
    let entry = owner.history.last().unwrap();
    let recovery = recover(&owner.disk, Ok);
    assert_eq!((rewritten_bytes(&recovery), recovery.syncs), (4096, 1));
    assert_eq!(recovery.writes[0].1, u64::from(entry.position.byte()));
    assert_nothing_changes(&owner.disk, &recovery);
}

/// Heads that prove nothing: as many entries as a file holds are written again, and not all at once.
#[test]
fn however_long_the_tail_is_few_writes_are_in_flight() {
    let owner = with_entries(10);
    let image = owner.disk.images()[0].clone().unwrap();
    let mut disk = owner.disk;
    let (mut at, mut previous, mut bytes) = (0, None, 0);
    while let Ok(head) = EntryHead::parse(&image[at..]) {
        let entry_bytes = usize::try_from(head.entry_bytes()).unwrap();
        let mut changed = image[at..at + entry_bytes].to_vec();
        changed[40..48].fill(0);
        changed[64..68].copy_from_slice(&previous.unwrap_or([0; 4]));
        let crc = crc32c::crc32c(&changed[..76]).to_le_bytes();
        changed[76..80].copy_from_slice(&crc);
        disk.overwrite(0, at, &changed);
        previous = Some(crc);
        bytes += head.entry_bytes();
        at += entry_bytes;
    }
    assert!(8 * 4096 < bytes && bytes < FILE_BYTES, "{bytes}");
    let recovery = recover(&disk, Ok);
    assert_eq!((rewritten_bytes(&recovery), recovery.writes_at_once), (bytes, JOURNAL_FLUSHES_MAX));
    assert_nothing_changes(&disk, &recovery);
}
