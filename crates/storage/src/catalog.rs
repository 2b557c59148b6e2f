//! The catalog as this shard's journal holds it: the latest snapshot and the changes after it, opaque bytes.
//!
//! A snapshot goes into a checkpoint in parts over several rounds, while changes go on being written. Each change
//! carries its number and each part the number up to which the snapshot has all changes, so that replay needs no order
//! between them.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use corelane_journal::Item;

use crate::CatalogRecovery;
use crate::payload::{SnapshotPart, decode_change, encode_change};

/// Bytes of one part of a snapshot.
const PART_BYTES: usize = 128 << 10;

/// Snapshot and changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogLog {
    snapshot: Option<Bytes>,
    /// The snapshot has all changes up to this number.
    until: u64,
    changes: BTreeMap<u64, Bytes>,
    /// Parts of a snapshot that replay has not seen whole, and its number.
    parts: (u64, Vec<Bytes>),
}

impl CatalogLog {
    /// A change that is written now.
    pub(crate) fn push(&mut self, number: u64, change: Bytes) -> Item {
        let item = Item::Catalog { change: encode_change(number, &change) };
        self.changes.insert(number, change);
        item
    }

    /// A snapshot takes the place of the changes up to `until`.
    pub(crate) fn set_snapshot(&mut self, snapshot: Bytes, until: u64) {
        if self.snapshot.is_none() || self.until <= until {
            self.snapshot = Some(snapshot);
            self.until = until;
            self.changes = self.changes.split_off(&(until + 1));
        }
    }

    /// The largest number that was seen.
    pub(crate) fn last_number(&self) -> u64 {
        self.changes.last_key_value().map_or(self.until, |(&number, _)| number.max(self.until))
    }

    /// What a checkpoint that begins now has to carry, last item first.
    pub(crate) fn items(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self
            .changes
            .iter()
            .rev()
            .map(|(&number, change)| Item::Catalog { change: encode_change(number, change) })
            .collect();
        if let Some(snapshot) = &self.snapshot {
            let parts = u32::try_from(snapshot.len().div_ceil(PART_BYTES).max(1)).expect("a snapshot fits memory");
            items.extend((0..parts).rev().map(|part| {
                let start = part as usize * PART_BYTES;
                let bytes = snapshot.slice(start..(start + PART_BYTES).min(snapshot.len()));
                Item::CatalogSnapshot { snapshot: SnapshotPart { until: self.until, part, parts, bytes }.encode() }
            }));
        }
        items
    }

    /// A change from the journal.
    pub(crate) fn replay_change(&mut self, bytes: Bytes) -> Result<(), String> {
        let (number, change) = decode_change(bytes)?;
        if self.snapshot.is_none() || self.until < number {
            self.changes.insert(number, change);
        }
        Ok(())
    }

    /// A part of a snapshot from the journal.
    pub(crate) fn replay_part(&mut self, bytes: Bytes) -> Result<(), String> {
        let SnapshotPart { until, part, parts, bytes } = SnapshotPart::decode(bytes)?;
        if part == 0 {
            self.parts = (until, Vec::new());
        }
        // A snapshot whose first parts lie in a recycled file is one of an earlier checkpoint: a later one follows.
        if self.parts.0 != until || self.parts.1.len() != part as usize {
            return Ok(());
        }
        self.parts.1.push(bytes);
        if self.parts.1.len() == parts as usize {
            let whole = match std::mem::take(&mut self.parts.1) {
                one if one.len() == 1 => one.into_iter().next().expect("there is one"),
                many => {
                    let mut whole = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                    many.iter().for_each(|part| whole.extend_from_slice(part));
                    whole.freeze()
                }
            };
            self.set_snapshot(whole, until);
        }
        Ok(())
    }

    /// Takes over what another journal held.
    pub(crate) fn import(&mut self, catalog: CatalogRecovery) {
        *self = Self { snapshot: catalog.snapshot, ..Self::default() };
        self.changes = (1..).zip(catalog.changes).collect();
    }

    /// What it holds.
    pub(crate) fn content(&self) -> CatalogRecovery {
        CatalogRecovery { snapshot: self.snapshot.clone(), changes: self.changes.values().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(log: &mut CatalogLog, item: Item) {
        match item {
            Item::Catalog { change } => log.replay_change(change).expect("sound"),
            Item::CatalogSnapshot { snapshot } => log.replay_part(snapshot).expect("sound"),
            item => panic!("{item:?}"),
        }
    }

    #[test]
    fn changes_between_the_parts_of_a_snapshot_keep_their_place() {
        let mut log = CatalogLog::default();
        let big = Bytes::from(vec![7; PART_BYTES * 2 + 5]);
        log.push(1, Bytes::from_static(b"one"));
        log.push(2, Bytes::from_static(b"two"));
        log.set_snapshot(big.clone(), 1);
        let mut items = log.items();
        let mut replayed = CatalogLog::default();
        replay(&mut replayed, items.pop().expect("a part"));
        replay(&mut replayed, log.push(3, Bytes::from_static(b"three")));
        log.set_snapshot(Bytes::from_static(b"later"), 3);
        while let Some(item) = items.pop() {
            replay(&mut replayed, item);
        }
        let changes = vec![Bytes::from_static(b"two"), Bytes::from_static(b"three")];
        assert_eq!(replayed.content(), CatalogRecovery { snapshot: Some(big), changes });
        assert_eq!(replayed.last_number(), 3);
    }

    #[test]
    fn an_empty_snapshot_is_one() {
        let mut log = CatalogLog::default();
        log.set_snapshot(Bytes::new(), 0);
        let mut replayed = CatalogLog::default();
        log.items().into_iter().rev().for_each(|item| replay(&mut replayed, item));
        assert_eq!(replayed.content().snapshot, Some(Bytes::new()));
    }
}
