//! File effects on their way out and what each of them was for.

use std::collections::{BTreeMap, VecDeque};

use corelane_commitlog::SegmentName;
use corelane_journal::JournalIoId;
use corelane_model::PartitionId;

use crate::compaction::CompactStep;
use crate::reads::ReadOrder;
use crate::{FileEffect, FileName, FileOp, IoId, Urgency};

/// What an effect is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The journal asked for it.
    Journal(JournalIoId),
    /// A read of a segment.
    Read(ReadOrder),
    /// A step of settling a partition.
    Settle(PartitionId, SettleStep),
    /// A segment file that is no longer needed.
    Delete(PartitionId, SegmentName),
    /// A step of compaction, with the serial of its pass.
    Compact(u64, CompactStep),
    /// Nobody waits for it: only in a build with planted bugs.
    #[cfg(planted)]
    Nothing,
}

/// What settling does to a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettleStep {
    /// Takes away the file of an attempt that failed.
    Delete,
    /// Makes the file.
    Create,
    /// Writes an extent, or what is left of it, by its place in the job.
    Write {
        /// Which of the job's extents.
        extent: usize,
    },
    /// Makes the extents durable.
    Sync,
}

/// Effects that wait to be polled and those on their way.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    ids: u64,
    on_their_way: BTreeMap<IoId, Purpose>,
    effects: VecDeque<FileEffect>,
}

impl Disk {
    /// Queues an effect.
    pub(crate) fn push(&mut self, file: FileName, op: FileOp, urgency: Urgency, purpose: Purpose) {
        self.ids += 1;
        let id = IoId(self.ids);
        self.on_their_way.insert(id, purpose);
        self.effects.push_back(FileEffect { id, file, op, urgency });
    }

    /// The next effect.
    pub(crate) fn poll(&mut self) -> Option<FileEffect> {
        self.effects.pop_front()
    }

    /// What the effect was for; nothing when it is not one of ours.
    pub(crate) fn take(&mut self, id: IoId) -> Option<Purpose> {
        self.on_their_way.remove(&id)
    }

    /// Nothing is queued and nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.on_their_way.is_empty()
    }
}
