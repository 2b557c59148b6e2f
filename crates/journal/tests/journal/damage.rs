//! Damage of what was durable: it is told from a torn tail, named as far as possible, and everything else comes back.

use bytes::Bytes;
use corelane_journal::{
    EntryContext, EntryHead, EntryView, Item, JournalConfig, JournalError, JournalId, JournalPosition, Recovered,
    RecoveryReport, body_crc, recover_images,
};
use corelane_model::{Offset, ShardId};
use corelane_record::{BatchHead, stamp};
use proptest::prelude::*;

use crate::disk::Chance;
use crate::histories::{play, steps};
use crate::owner::{Entry, FILE_BYTES, Owner, config, partition, stamp_at};

/// A history of so many entries with values and a batch each, over several files, ended by the mark of an idle journal.
pub(crate) fn history(entries: usize) -> Owner {
    let mut owner = Owner::new(16, 3);
    let mut chance = Chance(4);
    owner.run_dry();
    for _ in 0..entries {
        owner.add_values(2, &mut chance);
        owner.add_batch(2500);
        owner.run_dry();
    }
    owner.now += 1000;
    owner.run_dry();
    owner
}

/// Where in which slot an entry lies.
pub(crate) fn place(owner: &Owner, position: JournalPosition) -> (u32, usize) {
    let images = owner.disk.images();
    let byte = position.byte() as usize;
    let is_here = |image: &Option<Bytes>| {
        image.as_ref().is_some_and(|bytes| EntryHead::parse(&bytes[byte..]).is_ok_and(|head| head.position == position))
    };
    let slot = images.iter().position(is_here).expect("the entry is on disk");
    (u32::try_from(slot).unwrap(), byte)
}

/// What recovery finds, as entries with content.
fn recover(owner: &Owner) -> (Vec<Entry>, RecoveryReport) {
    let (items, report) = recover_images(config(16), &owner.disk.images()).unwrap();
    (to_entries(items), report)
}

pub(crate) fn to_entries(items: Vec<Recovered>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for recovered in items {
        if entries.last().is_none_or(|entry| entry.position != recovered.position) {
            entries.push(Entry { position: recovered.position, ..Entry::default() });
        }
        let entry = entries.last_mut().unwrap();
        match recovered.item {
            Item::LogStart { partition, offset } => entry.values.push((partition.index.0, offset.0)),
            Item::Batch { batch, .. } => entry.batches.push(BatchHead::parse(&batch).unwrap().base_offset.0),
            _ => {}
        }
    }
    entries.retain(|entry| !entry.values.is_empty() || !entry.batches.is_empty());
    entries
}

/// Recovered entries are entries of the history, in order; what is missing before the known end is in reported damage.
fn check(owner: &Owner) -> RecoveryReport {
    let (found, report) = recover(owner);
    check_found(owner, &found, &report);
    report
}

pub(crate) fn check_found(owner: &Owner, found: &[Entry], report: &RecoveryReport) {
    let mut found = found.iter().peekable();
    for written in owner.history.iter().filter(|entry| !entry.values.is_empty()) {
        if let Some(entry) = found.next_if(|entry| entry.position == written.position) {
            assert_eq!((&entry.values, &entry.batches), (&written.values, &written.batches));
            continue;
        }
        let covers = |from: JournalPosition, to: JournalPosition| from <= written.position && written.end <= to;
        let is_reported = report.damage.iter().any(|damage| covers(damage.from, damage.to));
        assert!(is_reported, "the entry at {} is missing without a word: {report:?}", written.position);
    }
    assert_eq!(found.next(), None, "an entry came back that was never written");
}

#[test]
fn an_undamaged_journal_comes_back_whole() {
    let owner = history(60);
    let report = check(&owner);
    assert_eq!((report.damages, report.torn_bytes, report.was_clean), (0, 0, false));
    assert!(3 <= report.files && 3 <= report.checkpoints, "{report:?}");
}

#[test]
fn a_flipped_bit_in_a_body_names_the_batch() {
    let mut owner = history(60);
    let hit = owner.history[20].clone();
    let (slot, byte) = place(&owner, hit.position);
    // A bit of the first item, which is no batch: the batch behind it is named.
    owner.disk.flip(slot, byte + 80 + 17);
    let report = check(&owner);
    let [damage] = &report.damage[..] else { panic!("{report:?}") };
    assert_eq!((damage.from, damage.to), (hit.position, hit.end));
    let number = hit.batches[0];
    let [batch] = damage.batches[..] else { panic!("{damage:?}") };
    assert_eq!((batch.partition, batch.base, batch.end), (partition(0), Offset(number), Offset(number + 1)));
    assert_eq!((report.damages, report.torn_bytes), (1, 0));
}

#[test]
fn a_flipped_bit_in_a_head_costs_one_entry() {
    let mut owner = history(60);
    let hit = owner.history[30].clone();
    let (slot, byte) = place(&owner, hit.position);
    owner.disk.flip(slot, byte + 40);
    let report = check(&owner);
    let [damage] = &report.damage[..] else { panic!("{report:?}") };
    assert_eq!((damage.from, damage.to, damage.is_incomplete), (hit.position, hit.end, true));
}

#[test]
fn the_last_entry_before_the_mark_is_damage_and_after_it_a_torn_tail() {
    let mut owner = history(20);
    let last = owner.history.iter().rfind(|entry| !entry.values.is_empty()).unwrap().clone();
    let (slot, byte) = place(&owner, last.position);
    owner.disk.flip(slot, byte + 100);
    let report = check(&owner);
    assert_eq!((report.damages, report.torn_bytes), (1, 0));

    // Without the mark nobody can know that it was durable.
    let mark = owner.history.last().unwrap().clone();
    let (slot, byte) = place(&owner, mark.position);
    owner.disk.flip(slot, byte);
    let (found, report) = recover(&owner);
    assert_eq!((report.damages, report.torn_bytes), (0, u64::from(last.end.byte() - last.position.byte())));
    assert_eq!(found.len(), 19);
}

#[test]
fn a_damaged_first_block_does_not_hide_a_file() {
    let mut owner = history(60);
    let first = owner.history.iter().find(|entry| entry.position.sequence().0 == 2).unwrap().clone();
    assert_eq!(first.position.byte(), 0);
    let (slot, _) = place(&owner, first.position);
    owner.disk.flip(slot, 3);
    let report = check(&owner);
    assert_eq!(report.damages, 1);
    assert_eq!(report.damage[0].to, first.end);
}

#[test]
fn a_missing_file_is_damage() {
    for missing in [1, 2] {
        let owner = history(60);
        let entry = owner.history.iter().find(|entry| entry.position.sequence().0 == missing).unwrap();
        let (slot, _) = place(&owner, entry.position);
        let mut images = owner.disk.images();
        images[slot as usize] = None;
        let (_, report) = recover_images(config(16), &images).unwrap();
        assert_eq!((report.damages, report.damage[0].is_incomplete), (1, true), "{report:?}");
    }
}

#[test]
fn another_journal_and_a_newer_version_are_refused() {
    let owner = history(3);
    let images = owner.disk.images();
    let other = JournalConfig { id: JournalId { data: 1, shard: ShardId(1) }, ..config(16) };
    assert!(matches!(recover_images(other, &images), Err(JournalError::Foreign { .. })));

    let mut newer = images[0].clone().unwrap().to_vec();
    newer[4] = 2;
    let crc = crc32c::crc32c(&newer[..76]).to_le_bytes();
    newer[76..80].copy_from_slice(&crc);
    let images = [Some(Bytes::from(newer))];
    assert!(matches!(recover_images(config(16), &images), Err(JournalError::Version { found: 2, known: 1, .. })));
}

/// A batch's head ends with its own CRC-32C: to another CRC-32C around it any two whole heads look alike.
#[test]
fn an_older_batch_in_the_place_of_a_new_one_is_noticed() {
    let mut owner = history(20);
    let entry = owner.history.iter().find(|entry| !entry.batches.is_empty()).unwrap().clone();
    let (slot, byte) = place(&owner, entry.position);
    let image = owner.disk.images()[slot as usize].clone().unwrap();
    let at = byte + image[byte..].windows(4).position(|bytes| bytes == b"CLRB").unwrap();
    let mut older = image[at..at + 80].to_vec();
    stamp(&mut older, stamp_at(77));
    assert_eq!(crc32c::crc32c(&older), crc32c::crc32c(&image[at..at + 80]));
    owner.disk.overwrite(slot, at, &older);
    assert_eq!(check(&owner).damages, 1);
}

#[test]
fn an_unknown_item_is_refused() {
    let owner = history(3);
    let entry = owner.history.iter().find(|entry| !entry.values.is_empty()).unwrap();
    let (slot, byte) = place(&owner, entry.position);
    let mut images = owner.disk.images();
    let mut bytes = images[slot as usize].clone().unwrap().to_vec();
    let head = EntryHead::parse(&bytes[byte..]).unwrap();
    bytes[byte + 80] = 0x7f;
    let body = body_crc(&bytes[byte + 80..byte + 80 + head.body_bytes as usize]).to_le_bytes();
    bytes[byte + 68..byte + 76].copy_from_slice(&body);
    let crc = crc32c::crc32c(&bytes[byte..byte + 76]).to_le_bytes();
    bytes[byte + 76..byte + 80].copy_from_slice(&crc);
    images[slot as usize] = Some(Bytes::from(bytes));
    let error = recover_images(config(16), &images).unwrap_err();
    assert!(error.to_string().contains("unknown item kind 127"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_single_flip_anywhere_is_never_silent(entries in 1..40usize, slot in any::<u32>(), byte in any::<usize>()) {
        let mut owner = history(entries);
        let files = owner.disk.images().len();
        let slot = slot % u32::try_from(files).unwrap();
        owner.disk.flip(slot, byte % usize::try_from(FILE_BYTES).unwrap());
        check(&owner);
    }

    #[test]
    fn many_flips_never_bring_back_what_was_not_written(
        entries in 1..40usize, flips in prop::collection::vec((any::<u32>(), any::<usize>()), 1..20),
    ) {
        let mut owner = history(entries);
        let files = u32::try_from(owner.disk.images().len()).unwrap();
        for (slot, byte) in flips {
            owner.disk.flip(slot % files, byte % usize::try_from(FILE_BYTES).unwrap());
        }
        let (found, _) = recover(&owner);
        let mut history = owner.history.iter();
        for entry in found {
            let written = history.find(|written| written.position == entry.position).expect("never written");
            prop_assert_eq!((&entry.values, &entry.batches), (&written.values, &written.batches));
        }
    }

    #[test]
    fn a_flip_after_crashes_brings_back_nothing_that_was_cut(
        seed in any::<u64>(), steps in steps(), slot in any::<u32>(), byte in any::<usize>(),
    ) {
        let mut owner = play(5, 9, seed, &steps).map_err(TestCaseError::fail)?;
        let files = u32::try_from(owner.disk.images().len()).unwrap();
        owner.disk.flip(slot % files, byte % usize::try_from(FILE_BYTES).unwrap());
        let (found, _) = recover(&owner);
        let mut history = owner.history.iter();
        for entry in found {
            let written = history.find(|written| written.position == entry.position).expect("never written, or cut");
            prop_assert_eq!((&entry.values, &entry.batches), (&written.values, &written.batches));
        }
    }

    #[test]
    fn any_bytes_parse_or_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), is_repaired in any::<bool>()) {
        if is_repaired && 80 <= bytes.len() {
            bytes[..8].copy_from_slice(b"CLJE\x01\0\0\0");
            bytes[25] = 0;
            let body = u32::try_from(bytes.len() - 80).unwrap();
            bytes[60..64].copy_from_slice(&body.to_le_bytes());
            let crc = body_crc(&bytes[80..]).to_le_bytes();
            bytes[68..76].copy_from_slice(&crc);
            let crc = crc32c::crc32c(&bytes[..76]).to_le_bytes();
            bytes[76..80].copy_from_slice(&crc);
        }
        let context = EntryContext { journal: config(4).id, position: JournalPosition::ZERO, bytes_left: 1 << 20 };
        let bytes = Bytes::from(bytes);
        if let Ok(view) = EntryView::parse(&bytes, &context) {
            view.items().for_each(drop);
        }
        let mut file = bytes.to_vec();
        file.resize(64 << 10, 0);
        drop(recover_images(config(4), &[Some(Bytes::from(file)), None]));
    }
}
