//! A disk, or a way of reading it, that answers errors: everywhere, or for some blocks.

use bytes::BytesMut;
use corelane_journal::{Fault, Journal, JournalDone, JournalError, JournalOp, JournalOutput, RecoveryReport};
use proptest::prelude::*;

use crate::damage::{check_found, history, place, to_entries};
use crate::disk::{Chance, Crash};
use crate::owner::{Entry, FILE_BYTES, Owner, config};

/// What becomes of a journal whose files are there and answer each read with this.
fn outcome(read: impl Fn(u32) -> Result<JournalDone, Fault>) -> Option<JournalOutput> {
    let mut journal = Journal::new(config(4));
    for _ in 0..1000 {
        while let Some(effect) = journal.poll_effect() {
            let result = match effect.op {
                JournalOp::Length => Ok(JournalDone::Length((effect.slot.0 < 4).then_some(FILE_BYTES))),
                JournalOp::Read { length, .. } => read(length),
                _ => Ok(JournalDone::Done),
            };
            journal.on_done(effect.id, result);
        }
        let output = journal.poll_output();
        if output.is_some() {
            return output;
        }
        assert!(journal.poll_recovered().is_none(), "there is nothing in it");
    }
    None
}

#[test]
fn a_journal_that_cannot_be_read_at_all_is_not_taken_for_a_new_one() {
    let unreadable = outcome(|_| Err(Fault::Os { errno: 95 }));
    let is_examine =
        |error: &JournalError| matches!(error, JournalError::Examine { fault: Fault::Os { errno: 95 }, .. });
    assert!(matches!(&unreadable, Some(JournalOutput::Failed(error)) if is_examine(error)), "{unreadable:?}");
    let zeroed = outcome(|length| Ok(JournalDone::Read(BytesMut::zeroed(length as usize).freeze())));
    assert!(matches!(&zeroed, Some(JournalOutput::Recovered(_))), "{zeroed:?}");
}

/// What recovery finds on the owner's disk, as entries with content; the disk itself stays as it is.
fn recover(owner: &Owner) -> (Vec<Entry>, RecoveryReport) {
    let mut disk = owner.disk.clone();
    let mut journal = Journal::new(config(16));
    let mut items = Vec::new();
    loop {
        items.extend(std::iter::from_fn(|| journal.poll_recovered()));
        match journal.poll_output() {
            Some(JournalOutput::Recovered(report)) => return (to_entries(items), report),
            Some(output) => panic!("{output:?}"),
            None => {}
        }
        while let Some(effect) = journal.poll_effect() {
            disk.issue(effect);
        }
        assert!(disk.in_flight() != 0, "recovery waits for nothing");
        let (effect, result) = disk.complete(0);
        journal.on_done(effect.id, result);
    }
}

fn check(owner: &Owner) -> RecoveryReport {
    let (found, report) = recover(owner);
    check_found(owner, &found, &report);
    report
}

fn refuse(owner: &mut Owner, entry: &Entry) {
    let (slot, byte) = place(owner, entry.position);
    owner.disk.refused.insert((slot, byte / 4096));
}

fn last_with_content(owner: &Owner) -> Entry {
    owner.history.iter().rfind(|entry| !entry.values.is_empty()).unwrap().clone()
}

/// A history whose last entries are stored, and no mark says so.
fn unmarked(entries: usize) -> Owner {
    let mut owner = history(entries);
    owner.add_values(2, &mut Chance(5));
    owner.run_dry();
    owner
}

#[test]
fn a_block_that_cannot_be_read_costs_the_entry_that_it_holds() {
    let mut owner = history(60);
    let hit = owner.history[30].clone();
    refuse(&mut owner, &hit);
    let report = check(&owner);
    let [damage] = &report.damage[..] else { panic!("{report:?}") };
    assert_eq!((damage.from, damage.to, report.unreadable_bytes), (hit.position, hit.end, 4096));
}

#[test]
fn a_block_that_cannot_be_read_where_nothing_was_written_costs_nothing() {
    let mut owner = history(60);
    let end = owner.history.last().unwrap().end;
    let (slot, _) = place(&owner, owner.history.last().unwrap().position);
    assert!(u64::from(end.byte()) + 4096 < FILE_BYTES, "{end}");
    owner.disk.refused.insert((slot, end.byte() as usize / 4096 + 1));
    let report = check(&owner);
    assert_eq!((report.damages, report.torn_bytes), (0, 0), "{report:?}");
}

#[test]
fn the_last_entry_is_not_taken_for_a_torn_tail_when_it_cannot_be_read() {
    let mut owner = unmarked(20);
    let last = last_with_content(&owner);
    assert_eq!(last.end, owner.durable);
    refuse(&mut owner, &last);
    let report = check(&owner);
    let [damage] = &report.damage[..] else { panic!("{report:?}") };
    assert_eq!((damage.from, damage.to, damage.is_incomplete), (last.position, last.end, true));
    assert!(!report.was_clean);
}

#[test]
fn what_can_be_read_again_later_does_not_come_between_what_was_stored_since() {
    let mut owner = unmarked(20);
    let lost = last_with_content(&owner);
    refuse(&mut owner, &lost);
    // A recovery without the entry, and what goes on behind it.
    owner.history.retain(|entry| entry.position < lost.position);
    owner.durable = lost.position;
    owner.crash_with_damage(Crash::Process, &mut Chance(2), 1).unwrap();
    owner.add_values(2, &mut Chance(6));
    owner.run_dry();
    let stored = last_with_content(&owner);
    owner.disk.refused.clear();
    let (found, report) = recover(&owner);
    assert_eq!((report.damages, found.last().map(|entry| entry.position)), (0, Some(stored.position)), "{report:?}");
    assert!(found.iter().all(|entry| entry.position != lost.position), "what was given up is back");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_that_cannot_be_read_are_never_silent(
        entries in 1..40usize, blocks in prop::collection::vec((0..6u32, 0..16usize), 1..6),
    ) {
        let mut owner = unmarked(entries);
        owner.disk.refused.extend(blocks);
        check(&owner);
    }
}
