//! What recovery found, beside the items.

use bytes::Bytes;
use corelane_model::limits::JOURNAL_DAMAGE_MAX;
use corelane_model::{Offset, PartitionId};
use corelane_record::BatchHead;

use crate::item::{KIND_BATCH, split};
use crate::{FileSequence, JournalPosition};

/// Records that were durable once and are in a damaged entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedBatch {
    /// Their partition.
    pub partition: PartitionId,
    /// The first.
    pub base: Offset,
    /// Their exclusive end.
    pub end: Offset,
}

/// A stretch of the journal that was durable once and cannot be read, or that may have been as the disk refuses to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub from: JournalPosition,
    /// Where the next good entry begins, or where the journal is known to have been durable.
    pub to: JournalPosition,
    /// The batches that can still be named.
    pub batches: Vec<DamagedBatch>,
    /// Whether something may have been there that is not in `batches`.
    pub is_incomplete: bool,
}

impl Damage {
    pub(super) const fn new(from: JournalPosition) -> Self {
        Self { from, to: from, batches: Vec::new(), is_incomplete: false }
    }

    /// Names the batches in the body of an entry whose checksum is wrong, as far as their own heads are good.
    pub(super) fn name(&mut self, body: &Bytes) {
        let mut at = 0;
        while at < body.len() {
            let Ok((kind, partition, payload, end)) = split(body, at) else {
                self.is_incomplete = true;
                return;
            };
            at = end;
            let head = if kind == KIND_BATCH { BatchHead::parse(&payload).ok() } else { None };
            match head {
                Some(head) if self.batches.len() < JOURNAL_DAMAGE_MAX => {
                    self.batches.push(DamagedBatch { partition, base: head.base_offset, end: head.end_offset() });
                }
                Some(_) | None => self.is_incomplete = true,
            }
        }
    }
}

/// What recovery found, beside the items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The journal was closed: its last entry is the closing mark of a clean shutdown.
    pub was_clean: bool,
    /// Files that were read.
    pub files: u32,
    /// Whole checkpoints among what was read. Without one the items are all that there ever was, or the beginning is
    /// lost, and then `damage` says so.
    pub checkpoints: u32,
    /// Good entries.
    pub entries: u64,
    /// Their bytes with padding.
    pub bytes: u64,
    /// The first file that was read.
    pub oldest: FileSequence,
    /// The exclusive end of the last good entry.
    pub end: JournalPosition,
    /// The file that is written next.
    pub next: FileSequence,
    /// Bytes of a torn tail that were cut; nothing in them was ever called durable.
    pub torn_bytes: u64,
    /// Bytes that were written again, because nothing said that they are on disk.
    pub rewritten_bytes: u64,
    /// Bytes that the disk refused to read.
    pub unreadable_bytes: u64,
    /// Stretches that were durable and are damaged, or that the disk refuses to read at the journal's end, at most
    /// `JOURNAL_DAMAGE_MAX`.
    pub damage: Vec<Damage>,
    /// How many there are.
    pub damages: u64,
}

impl RecoveryReport {
    pub(super) fn push(&mut self, damage: Damage) {
        self.damages += 1;
        if self.damage.len() < JOURNAL_DAMAGE_MAX {
            self.damage.push(damage);
        }
    }
}
