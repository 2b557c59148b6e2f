//! The journal as its owner sees it: recovering, then written, perhaps stopped.

use std::collections::VecDeque;

use corelane_model::limits::{
    BLOCK_BYTES, JOURNAL_ENTRY_BYTES_MAX, JOURNAL_FILE_BYTES, JOURNAL_FILES_MAX, JOURNAL_FILES_MIN,
    JOURNAL_FLUSH_EAGER_BYTES, JOURNAL_GATHER_BYTES,
};
use corelane_model::{MonotonicNanos, Now, PartitionId};
use corelane_record::{SealedBatch, Stamp};

use crate::effect::Effects;
use crate::entry::ENTRY_HEAD_BYTES;
use crate::recovery::{Recovered, Recovery, RecoveryReport};
use crate::writer::{Out, Writer};
use crate::{
    BatchSlot, ClosedEntry, Fault, Item, JournalEffect, JournalError, JournalId, JournalIoId, JournalPosition,
    JournalResult, JournalStats,
};

/// What a journal is told when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Whose journal it is; every entry says so.
    pub id: JournalId,
    /// Files of the ring, `JOURNAL_FILES_MIN..=JOURNAL_FILES_MAX`.
    pub files: u32,
    /// Bytes of one file: a multiple of the block, at least 64 KiB, less than 4 GiB.
    pub file_bytes: u64,
}

impl JournalConfig {
    /// Bytes of one entry with head and padding: a quarter of a file, [`JOURNAL_ENTRY_BYTES_MAX`] at most.
    #[must_use]
    pub const fn entry_bytes_max(&self) -> u64 {
        let quarter = self.file_bytes / 4 / BLOCK_BYTES * BLOCK_BYTES;
        if quarter < JOURNAL_ENTRY_BYTES_MAX { quarter } else { JOURNAL_ENTRY_BYTES_MAX }
    }

    /// Bytes that users may fill of one entry, its head included: three quarters, so that the owner's own items find room too.
    #[must_use]
    pub const fn user_bytes_max(&self) -> u64 {
        self.entry_bytes_max() / 4 * 3
    }

    /// Bytes of the largest batch that finds room in an entry in which nothing else is.
    #[must_use]
    pub const fn batch_bytes_max(&self) -> u64 {
        self.user_bytes_max() - ENTRY_HEAD_BYTES as u64 - Item::batch_bytes(0)
    }

    /// A round with at least this many bytes is written while others are in flight: [`JOURNAL_FLUSH_EAGER_BYTES`], and
    /// less in proportion when files are small.
    #[must_use]
    pub const fn eager_bytes(&self) -> u64 {
        let part = self.file_bytes / (JOURNAL_FILE_BYTES / JOURNAL_FLUSH_EAGER_BYTES);
        if part < JOURNAL_FLUSH_EAGER_BYTES { part } else { JOURNAL_FLUSH_EAGER_BYTES }
    }

    /// Bytes to which an entry grows while more is expected: [`JOURNAL_GATHER_BYTES`], and less in proportion when files
    /// are small.
    #[must_use]
    pub const fn gather_bytes(&self) -> u64 {
        self.eager_bytes() * (JOURNAL_GATHER_BYTES / JOURNAL_FLUSH_EAGER_BYTES)
    }

    fn check(&self) {
        assert!(JOURNAL_FILES_MIN <= self.files && self.files <= JOURNAL_FILES_MAX, "ring of {} files", self.files);
        assert!(self.file_bytes.is_multiple_of(BLOCK_BYTES), "files of {} bytes", self.file_bytes);
        assert!(64 << 10 <= self.file_bytes && self.file_bytes < 1 << 32, "files of {} bytes", self.file_bytes);
    }
}

/// What a journal tells its owner, by [`Journal::poll_output`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalOutput {
    /// Every item has been polled; what was recovered is on disk; items may be added.
    Recovered(RecoveryReport),
    /// Everything before `end` is on disk. Never moves back, never past a hole.
    Durable {
        /// The exclusive end.
        end: JournalPosition,
    },
    /// A checkpoint is open: add the state of everything in portions of [`Journal::checkpoint_room`] per round.
    CheckpointWanted,
    /// A file could not be created. It is tried again; until then the ring is that much smaller.
    CreateFailed {
        /// Why.
        fault: Fault,
    },
    /// After [`Journal::close`]: the closing mark is on disk, nothing is in flight.
    Closed,
    /// The journal stopped for good: nothing that is not durable by now may be acknowledged.
    Failed(JournalError),
}

/// What the journal is doing.
///
/// ```text
/// Recovering ──all read, checked, safe──▶ Running
///     │                                      │
///     ╰── unreadable, foreign, newer, ──▶ Stopped ◀── a write or a sync failed
///         a write or a sync failed
/// ```
#[derive(Debug)]
enum Phase {
    Recovering(Box<Recovery>),
    Running(Box<Writer>),
    Stopped,
}

/// One shard's journal.
///
/// The owner loops: [`Journal::on_done`] for every completion; while it recovers [`Journal::poll_recovered`] until
/// `None`; after [`JournalOutput::Recovered`] additions, then [`Journal::finish_round`] once a round, whatever happened
/// in it; then [`Journal::poll_output`] and [`Journal::poll_effect`] until `None`.
#[derive(Debug)]
pub struct Journal {
    config: JournalConfig,
    phase: Phase,
    effects: Effects,
    outputs: VecDeque<JournalOutput>,
    stats: JournalStats,
}

impl Journal {
    /// A journal that begins to recover what its files hold; a ring without files is an empty journal. Panics on a
    /// configuration outside the documented bounds.
    #[must_use]
    pub fn new(config: JournalConfig) -> Self {
        config.check();
        let mut effects = Effects::default();
        let recovery = Recovery::new(config, &mut effects);
        let phase = Phase::Recovering(Box::new(recovery));
        Self { config, phase, effects, outputs: VecDeque::new(), stats: JournalStats::default() }
    }

    /// The configuration it was opened with.
    #[must_use]
    pub const fn config(&self) -> &JournalConfig {
        &self.config
    }

    /// Items may be added, room permitting.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    /// An effect completed. A failed or short write and a failed sync stop the journal.
    pub fn on_done(&mut self, id: JournalIoId, result: JournalResult) {
        let mut out = Out { effects: &mut self.effects, outputs: &mut self.outputs, stats: &mut self.stats };
        let done = match &mut self.phase {
            Phase::Recovering(recovery) => recovery.on_done(id, result, out.effects),
            Phase::Running(writer) => writer.on_done(id, &result, &mut out),
            Phase::Stopped => Ok(()),
        };
        match done {
            Ok(()) => self.finish_recovery(),
            Err(error) => self.stop(error),
        }
    }

    /// The next recovered item, in the order of the journal; `None` when more bytes have to come first, or all have.
    /// Does bounded work: reads that are at hand are parsed entry by entry.
    pub fn poll_recovered(&mut self) -> Option<Recovered> {
        let Phase::Recovering(recovery) = &mut self.phase else { return None };
        match recovery.poll_item(&mut self.effects) {
            Ok(Some(item)) => Some(item),
            Ok(None) => {
                self.finish_recovery();
                None
            }
            Err(error) => {
                self.stop(error);
                None
            }
        }
    }

    fn finish_recovery(&mut self) {
        let Phase::Recovering(recovery) = &mut self.phase else { return };
        let Some((report, handover)) = recovery.take_result() else { return };
        self.outputs.push_back(JournalOutput::Recovered(report));
        let mut out = Out { effects: &mut self.effects, outputs: &mut self.outputs, stats: &mut self.stats };
        self.phase = Phase::Running(Box::new(Writer::new(self.config, &handover, &mut out)));
    }

    fn stop(&mut self, error: JournalError) {
        self.effects.clear();
        self.outputs.push_back(JournalOutput::Failed(error));
        self.phase = Phase::Stopped;
    }

    /// Users may add `bytes` more ([`Item::batch_bytes`] for a batch) to this round.
    #[must_use]
    pub fn is_room(&self, bytes: u64) -> bool {
        match &self.phase {
            Phase::Running(writer) => writer.is_room(bytes),
            Phase::Recovering(_) | Phase::Stopped => false,
        }
    }

    /// Whether settling, leases, catalog changes and checkpoints may add `bytes` ([`Item::encoded_bytes`]) to this
    /// round. They have a reserve that users cannot touch. If the answer is no because the open entry is full, users
    /// are refused until it was closed, so that asking again next round succeeds.
    pub fn make_room(&mut self, bytes: u64) -> bool {
        match &mut self.phase {
            Phase::Running(writer) => writer.make_room(bytes),
            Phase::Recovering(_) | Phase::Stopped => false,
        }
    }

    /// As [`Journal::make_room`] for changes that somebody asked for, of which there may be any number: they leave room
    /// for the notes and the checkpoint that make files free, so that the ring cannot fill up for good.
    pub fn make_change_room(&mut self, bytes: u64) -> bool {
        match &mut self.phase {
            Phase::Running(writer) => writer.make_change_room(bytes),
            Phase::Recovering(_) | Phase::Stopped => false,
        }
    }

    /// How full the room for users is, in per mille.
    #[must_use]
    pub fn pressure(&self) -> u32 {
        match &self.phase {
            Phase::Running(writer) => writer.pressure(),
            Phase::Recovering(_) => 0,
            Phase::Stopped => 1000,
        }
    }

    /// Copies a batch into the open entry and stamps the copy. Panics unless [`Journal::is_room`] said yes for it.
    pub fn add_batch(&mut self, partition: PartitionId, batch: &SealedBatch, stamp: Stamp) -> BatchSlot {
        self.writer().add_batch(partition, batch, stamp)
    }

    /// Adds a change to the open entry. Panics unless [`Journal::make_room`] said yes for it.
    pub fn add_item(&mut self, item: &Item) {
        self.writer().add_item(item);
    }

    /// Bytes of checkpoint items that this round may still carry (one item may go over); 0 when no checkpoint is open.
    #[must_use]
    pub fn checkpoint_room(&self) -> u64 {
        match &self.phase {
            Phase::Running(writer) => writer.checkpoint_room(),
            Phase::Recovering(_) | Phase::Stopped => 0,
        }
    }

    /// Adds a part of the open checkpoint: what holds at this moment, everything added before included. Panics unless
    /// [`Journal::checkpoint_room`] is left and [`Journal::make_room`] said yes.
    pub fn add_checkpoint_item(&mut self, item: &Item) {
        self.writer().add_checkpoint_item(item);
    }

    /// The open checkpoint is whole. When it is durable, files before it are kept only for unsettled batches.
    pub fn finish_checkpoint(&mut self) {
        self.writer().finish_checkpoint();
    }

    /// More input is known to wait and will come in a round of its own: the coming [`Journal::finish_round`] lets the open
    /// entry grow, within [`JournalConfig::gather_bytes`], so that a burst costs one write and one sync.
    pub fn expect_more(&mut self) {
        if let Phase::Running(writer) = &mut self.phase {
            writer.expect_more();
        }
    }

    /// Nothing is to be done for the moment: what the next entry would have to wait for is done now, while no entry is
    /// open or on its way to disk. Nothing else changes.
    pub fn rest(&mut self) {
        if let Phase::Running(writer) = &mut self.phase {
            writer.rest();
        }
    }

    /// Ends the round: closes the open entry and queues its write, unless enough is in flight, more is expected or no file is ready; then
    /// the entry goes on growing. Call it in every round and at [`Journal::next_deadline`]. The slots handed out since
    /// the last closed entry are good for the one that comes back.
    pub fn finish_round(&mut self, now: Now) -> Option<ClosedEntry> {
        let Phase::Running(writer) = &mut self.phase else { return None };
        let mut out = Out { effects: &mut self.effects, outputs: &mut self.outputs, stats: &mut self.stats };
        writer.finish_round(now, &mut out)
    }

    /// When [`Journal::finish_round`] has something to do although nothing happened.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        match &self.phase {
            Phase::Running(writer) => writer.next_deadline(),
            Phase::Recovering(_) | Phase::Stopped => None,
        }
    }

    /// Nothing before `needed` is needed any more: every batch there is settled, by items that are durable. Files
    /// before it are recycled once a checkpoint that began later is durable too.
    pub fn release(&mut self, needed: JournalPosition) {
        if let Phase::Running(writer) = &mut self.phase {
            writer.release(needed);
        }
    }

    /// Everything before is on disk.
    #[must_use]
    pub fn durable(&self) -> JournalPosition {
        match &self.phase {
            Phase::Running(writer) => writer.durable(),
            Phase::Recovering(_) | Phase::Stopped => JournalPosition::ZERO,
        }
    }

    /// Takes nothing new; writes the closing mark when everything is durable; [`JournalOutput::Closed`] follows.
    pub fn close(&mut self) {
        if let Phase::Running(writer) = &mut self.phase {
            writer.close();
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<JournalEffect> {
        if let Phase::Running(writer) = &mut self.phase {
            let mut out = Out { effects: &mut self.effects, outputs: &mut self.outputs, stats: &mut self.stats };
            writer.issue_syncs(&mut out);
        }
        self.effects.pop()
    }

    /// The next thing to know.
    pub fn poll_output(&mut self) -> Option<JournalOutput> {
        self.outputs.pop_front()
    }

    /// What was counted so far.
    #[must_use]
    pub const fn stats(&self) -> &JournalStats {
        &self.stats
    }

    fn writer(&mut self) -> &mut Writer {
        match &mut self.phase {
            Phase::Running(writer) => writer,
            phase => panic!("an item was added to a journal that is not running: {phase:?}"),
        }
    }
}
