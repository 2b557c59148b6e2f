//! One shard's journal and all its partitions' logs, turned into file effects.

mod compact;
mod ids;
mod lifecycle;
mod read;
mod recover;
mod status;
mod transactions;
mod upkeep;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_commitlog::{SegmentName, Shutdown};
use corelane_journal::{Fault, Item, Journal, JournalConfig, JournalDone, JournalId, JournalOp, JournalOutput};
use corelane_model::limits::SETTLE_EARLY;
use corelane_model::{MonotonicNanos, Now, PartitionId, TopicId, Transaction};

use self::ids::IdReads;
use crate::catalog::CatalogLog;
use crate::compaction::Compaction;
use crate::config::MemoryBudget;
use crate::disk::{Disk, Purpose};
use crate::lease::Lease;
use crate::partition::Table;
use crate::reads::Reads;
use crate::round::{Note, Round, Slabs, Submitted};
use crate::settle::{Settling, Space};
use crate::{
    ChangeTicket, FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome, MEMORY_BYTES_MIN, RecoveryError,
    RecoveryReport, StorageConfig, StorageOutput, StorageStats, Urgency,
};

/// What storage is doing.
///
/// ```text
/// Recovering ──journal replayed──▶ Running ──drain──▶ Draining ──closing mark durable, nothing in flight──▶ Drained
///     │                               │                   │
///     ╰── cannot be read ──▶ Stopped ◀┴── journal failed ◀╯   (Drained follows, too, when drain was asked)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Recovering,
    Running,
    Draining { is_closing: bool, is_closed: bool },
    Drained,
}

/// A checkpoint that is being fed to the journal.
#[derive(Debug)]
struct Feed {
    /// Items of the shard itself, last one first; nothing before the first is added.
    items: Option<Vec<Item>>,
    /// The partition that was fed last.
    last: Option<PartitionId>,
    /// Bytes of the partitions so far.
    bytes: u64,
}

/// How a call to settle everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SettleAll {
    No,
    Wanted,
    Said,
}

/// One shard's journal and all its partitions' logs.
///
/// A round is: [`Storage::handle`] for completions, [`Storage::on_deadline`] if that is due, calls of the other methods
/// in any order, then [`Storage::finish_round`], then [`Storage::poll_effect`] and [`Storage::poll_output`] until both
/// yield nothing.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
    budget: MemoryBudget,
    now: Now,
    phase: Phase,
    /// Why the journal stopped.
    failure: Option<String>,
    journal: Journal,
    disk: Disk,
    table: Table,
    reads: Reads,
    ids: IdReads,
    settling: Settling,
    compaction: Compaction,
    settle_all: SettleAll,
    catalog: CatalogLog,
    producer_next: u64,
    producers: Lease,
    is_producer_waiting: bool,
    tickets: u64,
    round: Round,
    submitted: VecDeque<Submitted>,
    /// Ends of transactions that are in the log and not yet durable.
    ending: BTreeMap<(PartitionId, Transaction), ChangeTicket>,
    /// Changes that wait for room in the journal, in order.
    changes: VecDeque<(Item, Note)>,
    slabs: Slabs,
    /// Everything before lies in entries that were closed.
    closed_end: u64,
    feed: Option<Feed>,
    /// Jobs that are on disk and wait for room in the journal for their notes.
    unnoted: Vec<(PartitionId, crate::settle::Job)>,
    /// Partitions whose durable end moved in this round.
    durable: Vec<PartitionId>,
    /// Notes on their way until which the journal may not forget more.
    release_holds: u64,
    deletes: VecDeque<(PartitionId, SegmentName)>,
    deletes_in_flight: usize,
    retained: Option<BTreeSet<TopicId>>,
    /// The journal could not make its next file because the disk is full.
    is_ring_starved: bool,
    /// The shard was told that space is low.
    is_low_said: bool,
    is_imported: bool,
    held_report: Option<RecoveryReport>,
    outputs: VecDeque<StorageOutput>,
    stats: StorageStats,
}

impl Storage {
    /// Starts recovery: the first effects read the journal. [`StorageOutput::Recovered`] says when it is over.
    ///
    /// Panics when the memory is below [`MEMORY_BYTES_MIN`] or the ring is outside the journal's bounds.
    #[must_use]
    pub fn new(config: StorageConfig) -> Self {
        assert!(MEMORY_BYTES_MIN <= config.memory_bytes, "{} bytes of memory are too few", config.memory_bytes);
        let budget = config.budget();
        let journal = Journal::new(JournalConfig {
            id: JournalId { data: config.data_id, shard: config.shard },
            files: config.journal_files,
            file_bytes: config.journal_file_bytes,
        });
        Self {
            config,
            budget,
            now: Now::default(),
            phase: Phase::Recovering,
            failure: None,
            journal,
            disk: Disk::default(),
            table: Table::default(),
            reads: Reads::new(budget.read_bytes, budget.index_bytes),
            ids: IdReads::new(config.data_id),
            settling: Settling::new(config.incarnation),
            compaction: Compaction::new(config.incarnation, budget.compact_bytes),
            settle_all: SettleAll::No,
            catalog: CatalogLog::default(),
            producer_next: 1,
            producers: Lease::default(),
            is_producer_waiting: false,
            tickets: 0,
            round: Round::default(),
            submitted: VecDeque::new(),
            ending: BTreeMap::new(),
            changes: VecDeque::new(),
            slabs: Slabs::default(),
            closed_end: 0,
            feed: None,
            unnoted: Vec::new(),
            durable: Vec::new(),
            release_holds: 0,
            deletes: VecDeque::new(),
            deletes_in_flight: 0,
            retained: None,
            is_ring_starved: false,
            is_low_said: false,
            is_imported: false,
            held_report: None,
            outputs: VecDeque::new(),
            stats: StorageStats::default(),
        }
    }

    /// A file effect completed.
    ///
    /// Panics on the completion of an effect that is not on its way.
    pub fn handle(&mut self, now: Now, done: FileDone) {
        self.now = now;
        let purpose = self.disk.take(done.id).unwrap_or_else(|| panic!("{:?} is not on its way", done.id));
        match purpose {
            Purpose::Journal(id) => {
                self.journal.on_done(id, done.result.map(journal_done).map_err(|error| fault(&error)));
                self.on_journal(now);
            }
            Purpose::Read(order) => {
                let result = done.result.map(|outcome| match outcome {
                    FileOutcome::Read(bytes) => bytes,
                    outcome => panic!("a read was answered with {outcome:?}"),
                });
                let log_start = self.table.get(order.partition).filter(|partition| !partition.is_removed);
                let log_start = log_start.map(|partition| partition.log.log_start());
                self.reads.on_read(&order, result, log_start);
            }
            Purpose::Settle(partition, step) => self.settling.on_done(partition, step, &done.result, &mut self.disk),
            Purpose::Delete(partition, name) => self.on_deleted(partition, name, done.result.is_ok()),
            Purpose::Compact(serial, step) => self.compaction.on_done(serial, step, done.result),
            #[cfg(planted)]
            Purpose::Nothing => {}
        }
    }

    /// [`Storage::next_deadline`] has passed. What is due is done by [`Storage::finish_round`].
    pub const fn on_deadline(&mut self, now: Now) {
        self.now = now;
    }

    /// When a round should be made although nothing happened; `None` while nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        if self.phase == Phase::Drained {
            return None;
        }
        let settle = if self.may_settle() { self.settling.next_turn(self.pace()) } else { None };
        let retention = self.table.first_due().filter(|_| self.is_running()).map(|(due, _)| {
            self.now.monotonic.after(std::time::Duration::from_millis(due.millis_since(self.now.wall)))
        });
        let may_compact = self.is_running() && !self.is_compaction_held();
        let compaction = if may_compact { self.compaction.next_deadline() } else { None };
        let ids = self.ids.deadline(self.now.monotonic).filter(|_| self.is_running());
        [self.journal.next_deadline(), settle, retention, compaction, ids].into_iter().flatten().min()
    }

    /// More input is known to wait and will come in a round of its own: in the coming [`Self::finish_round`] the journal may
    /// go on gathering, see [`corelane_journal::Journal::expect_more`].
    pub fn expect_more(&mut self) {
        self.journal.expect_more();
    }

    /// Nothing is to be done for the moment: a turn of settling that is due soon is begun now rather than in the midst of
    /// what comes, and see [`corelane_journal::Journal::rest`]. [`Self::poll_effect`] has what follows.
    pub fn rest(&mut self, now: Now) {
        self.now = now;
        self.journal.rest();
        if self.is_running() {
            self.begin_settling(now, now.monotonic.after(SETTLE_EARLY));
        }
    }

    /// Closes the round: what was appended goes to the journal, and settling, checkpoints and retention take their
    /// turns, each with a bound on its work.
    pub fn finish_round(&mut self, now: Now) {
        self.now = now;
        if self.phase != Phase::Recovering && self.failure.is_none() {
            self.read_message_ids(now);
            self.retain_due(now);
            self.lease_producers();
            self.write_changes();
            self.note_settled(now);
            self.compact(now);
            self.feed_checkpoint();
            self.begin_close();
            if let Some(entry) = self.journal.finish_round(now) {
                self.on_closed(&entry);
            }
            self.on_journal(now);
            self.begin_settling(now, now.monotonic);
        } else if self.settling.is_busy() {
            self.note_settled(now);
        }
        self.start_deletes();
        self.say_durable();
        self.say_space();
        self.say_settled();
        self.say_drained();
    }

    /// Passes on what the journal and the reads want of files.
    fn gather_effects(&mut self) {
        while let Some(effect) = self.journal.poll_effect() {
            let file = FileName::Journal { shard: self.config.shard, slot: effect.slot.0 };
            let urgency = match effect.op {
                JournalOp::Create { .. } => Urgency::Background,
                _ => Urgency::Now,
            };
            self.disk.push(file, file_op(effect.op), urgency, Purpose::Journal(effect.id));
        }
        while let Some(order) = self.reads.poll_order() {
            let name = SegmentName { base: order.segment, rewrite: order.rewrite };
            let file = FileName::segment(order.partition, name);
            let op = FileOp::Read { position: order.position, length: order.length };
            self.disk.push(file, op, order.urgency, Purpose::Read(order));
        }
    }

    /// The next thing to do to a file.
    pub fn poll_effect(&mut self) -> Option<FileEffect> {
        self.gather_effects();
        self.disk.poll()
    }

    /// The next thing that the shard should know.
    pub fn poll_output(&mut self) -> Option<StorageOutput> {
        if self.outputs.is_empty() {
            self.take_answers();
        }
        self.outputs.pop_front()
    }

    /// Whether recovery is over and did not fail.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.phase != Phase::Recovering
    }

    /// Whether the journal takes additions.
    fn is_running(&self) -> bool {
        self.phase == Phase::Running && self.failure.is_none()
    }

    /// What the journal has to say.
    fn on_journal(&mut self, now: Now) {
        if self.phase == Phase::Recovering {
            while let Some(recovered) = self.journal.poll_recovered() {
                if let Err(text) = self.replay(recovered) {
                    self.fail_recovery(RecoveryError::Content { shard: self.config.shard.0, text });
                    return;
                }
            }
        }
        while let Some(output) = self.journal.poll_output() {
            // A drain came before the end of recovery: the journal stays as it is for the next start.
            let is_given_up = matches!(self.phase, Phase::Draining { is_closing: false, is_closed: true });
            match output {
                JournalOutput::Recovered(_) | JournalOutput::CheckpointWanted if is_given_up => {}
                JournalOutput::Recovered(report) => {
                    let is_clean = self.config.was_clean && report.was_clean;
                    let shutdown = if is_clean { Shutdown::Clean } else { Shutdown::Unclean };
                    self.finish_recovery(now, &report, shutdown);
                }
                JournalOutput::Durable { end } => self.on_durable(end),
                JournalOutput::CheckpointWanted => self.begin_checkpoint(),
                JournalOutput::CreateFailed { fault } => self.is_ring_starved |= fault == Fault::NoSpace,
                JournalOutput::Closed => self.phase = Phase::Draining { is_closing: true, is_closed: true },
                JournalOutput::Failed(error) => self.on_journal_failed(error.to_string()),
            }
        }
    }

    fn on_journal_failed(&mut self, text: String) {
        if self.phase == Phase::Recovering {
            return self.fail_recovery(RecoveryError::Journal { shard: self.config.shard.0, text });
        }
        if self.failure.is_none() {
            self.failure = Some(text.clone());
            self.outputs.push_back(StorageOutput::Stopped { text });
        }
    }

    fn fail_recovery(&mut self, error: RecoveryError) {
        if self.failure.is_none() {
            self.failure = Some(error.to_string());
            self.outputs.push_back(StorageOutput::RecoveryFailed { error });
        }
    }

    /// Whether the disk is known to be full.
    fn is_space_low(&self) -> bool {
        matches!(self.settling.space, Space::Low { .. }) || self.is_ring_short()
    }

    /// Whether the journal goes without files for want of space. It tries again by itself, and until then its ring is
    /// that much smaller.
    fn is_ring_short(&self) -> bool {
        let whole = u64::from(self.config.journal_files) * self.config.journal_file_bytes;
        self.is_ring_starved && self.journal.stats().ring_bytes < whole
    }

    fn say_space(&mut self) {
        self.is_ring_starved = self.is_ring_short();
        let is_low = self.is_space_low();
        if is_low != self.is_low_said {
            self.is_low_said = is_low;
            self.outputs.push_back(if is_low { StorageOutput::SpaceLow } else { StorageOutput::SpaceBack });
        }
    }
}

fn journal_done(outcome: FileOutcome) -> JournalDone {
    match outcome {
        FileOutcome::Done => JournalDone::Done,
        FileOutcome::Written(bytes) => JournalDone::Written(bytes),
        FileOutcome::Read(bytes) => JournalDone::Read(bytes),
        FileOutcome::Length(length) => JournalDone::Length(length),
    }
}

fn file_op(op: JournalOp) -> FileOp {
    match op {
        JournalOp::Create { length } => FileOp::CreateZeroed { length },
        JournalOp::Write { position, pieces } => FileOp::Write { position, pieces },
        JournalOp::Sync => FileOp::Sync,
        JournalOp::Read { position, length } => FileOp::Read { position, length },
        JournalOp::Length => FileOp::Length,
    }
}

const fn fault(error: &FileError) -> Fault {
    match error {
        FileError::NoSpace => Fault::NoSpace,
        FileError::NotFound => Fault::NotFound,
        FileError::Os { errno } => Fault::Os { errno: *errno },
    }
}
