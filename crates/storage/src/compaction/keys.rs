//! The newest offset of each key in a part of the log, in bounded memory.

use std::collections::BTreeMap;

use corelane_model::Offset;
use corelane_model::limits::COMPACT_KEY_COST_BYTES;
use corelane_record::{BatchFlags, BatchHead, BatchKeys, KeyedRecord};

/// Keys, whole: two keys are the same when their bytes are, so that nothing depends on a hash, whoever chose them.
#[derive(Debug)]
pub(super) struct Keys {
    newest: BTreeMap<Box<[u8]>, Offset>,
    bytes: u64,
    bytes_max: u64,
}

/// What takes part in transactions is not judged: whether it counts is known to readers only.
pub(super) const fn is_kept_whole(head: &BatchHead) -> bool {
    head.flags.contains(BatchFlags::TRANSACTIONAL) || head.flags.contains(BatchFlags::CONTROL)
}

impl Keys {
    pub(super) const fn new(bytes_max: u64) -> Self {
        Self { newest: BTreeMap::new(), bytes: 0, bytes_max }
    }

    /// Learns all keys of a batch that lies behind all those before. `false` if there may be no room for them; the first
    /// batch always has room.
    pub(super) fn learn(&mut self, batch: &BatchKeys) -> bool {
        let cost = |record: KeyedRecord<'_>| record.key.map_or(0, |key| key.len() as u64 + COMPACT_KEY_COST_BYTES);
        let needed: u64 = batch.iter().map(cost).sum();
        if !self.newest.is_empty() && self.bytes_max < self.bytes + needed {
            return false;
        }
        for record in batch.iter() {
            let Some(key) = record.key.map(told_apart) else { continue };
            match self.newest.get_mut(key) {
                Some(newest) => *newest = record.offset,
                None => {
                    self.bytes += key.len() as u64 + COMPACT_KEY_COST_BYTES;
                    self.newest.insert(key.into(), record.offset);
                }
            }
        }
        true
    }

    /// Whether a newer record of the same key was learnt.
    pub(super) fn is_superseded(&self, record: &KeyedRecord<'_>) -> bool {
        let newest = record.key.and_then(|key| self.newest.get(told_apart(key)));
        newest.is_some_and(|&newest| record.offset < newest)
    }
}

/// What two keys must agree in to be one: all of it.
fn told_apart(key: &[u8]) -> &[u8] {
    #[cfg(planted)]
    if corelane_model::planted::is_planted(corelane_model::planted::Bug::CompactByPrefix) {
        return key.get(..4).unwrap_or(key);
    }
    key
}
