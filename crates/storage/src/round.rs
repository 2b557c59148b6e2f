//! What the open journal entry carries, and what the closed ones wait for.

use std::collections::VecDeque;

use corelane_commitlog::{Segment, SegmentName};
use corelane_journal::{BatchSlot, ClosedEntry, JournalPosition};
use corelane_model::{Offset, PartitionId, Transaction};

use crate::ChangeTicket;
use crate::settle::Job;

/// Something that is to be done when the entry that carries it is durable.
#[derive(Debug)]
pub(crate) enum Note {
    /// These extents count.
    Settled(PartitionId, Box<Job>),
    /// Other segments stand in the place of these, whose files may go.
    Compacted(PartitionId, Vec<Segment>),
    /// The log start moved; the files of these segments may go.
    LogStart(MovedStart),
    /// The catalog change stands.
    Catalog(ChangeTicket),
    /// The transaction ended in the partition.
    TransactionEnd(PartitionId, Transaction, ChangeTicket),
    /// The memory partition may hand out these offsets.
    OffsetLease(PartitionId, Offset),
    /// The shard may hand out these producer ids.
    ProducerLease(u64),
    /// A checkpoint is whole.
    Checkpoint,
}

/// A log start that moved.
#[derive(Debug)]
pub(crate) struct MovedStart {
    pub(crate) partition: PartitionId,
    pub(crate) log_start: Offset,
    /// Who waits for it.
    pub(crate) ticket: Option<ChangeTicket>,
    /// Segments that lie below it, and their bytes.
    pub(crate) dropped: Vec<(SegmentName, u64)>,
    /// Batches that were in no segment lie below it: the journal keeps them until this is durable.
    pub(crate) gives_up_unsettled: bool,
}

/// What the open entry carries.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) slots: Vec<(PartitionId, BatchSlot, Offset)>,
    pub(crate) notes: Vec<Note>,
    /// Bytes of the batches with their item heads.
    pub(crate) user_bytes: u64,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.notes.is_empty()
    }
}

/// What waits for an entry that is on its way to disk.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) end: JournalPosition,
    pub(crate) ends: Vec<(PartitionId, Offset)>,
    pub(crate) notes: Vec<Note>,
}

/// Memory of entries that hold unsettled batches, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Slabs {
    slabs: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Slabs {
    /// An entry whose memory the cache keeps.
    pub(crate) fn push(&mut self, entry: &ClosedEntry) {
        self.add(entry.position().to_u64(), entry.memory_bytes());
    }

    /// So many bytes at a position of the journal, which never goes back.
    pub(crate) fn add(&mut self, position: u64, bytes: u64) {
        self.bytes += bytes;
        match self.slabs.back_mut() {
            Some((last, held)) if *last == position => *held += bytes,
            _ => self.slabs.push_back((position, bytes)),
        }
    }

    /// Nothing before this position is needed.
    pub(crate) fn release(&mut self, needed: u64) {
        while let Some(&(position, bytes)) = self.slabs.front()
            && position < needed
        {
            self.bytes -= bytes;
            self.slabs.pop_front();
        }
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }
}
