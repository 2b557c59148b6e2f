//! Settling: copying durable batches from the journal's slabs into segments, so that the journal can forget them.
//!
//! A *turn* takes several partitions, those first that hold the journal's oldest file back; each gives a *job* of a few
//! extents. When all jobs of a turn are on disk, one note for each goes into the journal, and only when that is durable
//! do the extents count and the batches leave memory.
//!
//! ```text
//! job:   (Delete ▶) (Create ▶) Write ▶ … all written ▶ Sync ▶ synced ─┐
//! turn:  jobs ──────────────── all of them synced or failed ──────────┴▶ notes ▶ durable ▶ settled
//! ```
//! A full disk lets the turn be tried again later, from memory. Any other failure abandons the segment file: after a
//! failed sync nobody knows what of it is on disk, so the same batches go into a new file.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corelane_commitlog::{SegmentChoice, SegmentName, Settle, Settled};
use corelane_model::limits::{
    BLOCK_BYTES, EXTENT_BYTES_MAX, SETTLE_PARTITIONS_MAX, SETTLE_RETRY_MAX, SETTLE_RETRY_MIN, SETTLE_SYNCS_MAX,
    SETTLE_TURN_BATCHES_MAX, SETTLE_TURN_BYTES_MAX,
};
use corelane_model::{Incarnation, MonotonicNanos, Now, Offset, PartitionId};
use corelane_record::BatchHead;

use crate::disk::{Disk, Purpose, SettleStep};
use crate::extent::{ExtentHead, seal_extent};
use crate::partition::{SettleState, Table};
use crate::{FileError, FileName, FileOp, FileOutcome, Urgency};

/// How long settling looks away when nothing could be settled although something waits.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// Why a job came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobFailure {
    /// There is no space: the file is as good as before.
    NoSpace,
    /// The file cannot be trusted any more.
    File,
}

/// One extent of a job.
#[derive(Debug)]
struct JobExtent {
    head: ExtentHead,
    pieces: Vec<Bytes>,
    /// Bytes that were written.
    written: u64,
}

/// What one turn does for one partition.
#[derive(Debug)]
pub(crate) struct Job {
    settle: Settle,
    extents: Vec<JobExtent>,
    /// Effects on their way.
    in_flight: usize,
    /// Extents that are not yet whole in the file.
    unwritten: usize,
    is_synced: bool,
    failure: Option<JobFailure>,
}

impl Job {
    fn new(partition: PartitionId, incarnation: Incarnation, mut settle: Settle) -> Self {
        let mut position = match settle.segment {
            SegmentChoice::Append { bytes, .. } => bytes,
            SegmentChoice::Roll { .. } => 0,
        };
        let mut extents = Vec::new();
        let mut rest = &std::mem::take(&mut settle.batches)[..];
        while !rest.is_empty() {
            let (batches, after) = rest.split_at(count_for_extent(rest));
            let first = BatchHead::parse(&batches[0]).expect("a stamped batch has a sound head");
            let last = BatchHead::parse(&batches[batches.len() - 1]).expect("a stamped batch has a sound head");
            let mut head = ExtentHead {
                partition,
                incarnation,
                position,
                base: first.base_offset,
                end: last.end_offset(),
                first_append: first.append_timestamp,
                last_append: last.append_timestamp,
                payload_bytes: 0,
                payload_crc: 0,
            };
            let pieces = seal_extent(&mut head, batches);
            position += head.disk_bytes();
            extents.push(JobExtent { head, pieces, written: 0 });
            rest = after;
        }
        let unwritten = extents.len();
        Self { settle, extents, in_flight: 0, unwritten, is_synced: false, failure: None }
    }

    /// Base of the segment that it writes.
    pub(crate) const fn segment(&self) -> Offset {
        self.settle.segment.segment()
    }

    /// Heads of its extents, in order.
    pub(crate) fn heads(&self) -> impl Iterator<Item = &ExtentHead> {
        self.extents.iter().map(|extent| &extent.head)
    }

    /// Bytes of its batches.
    pub(crate) const fn bytes(&self) -> u64 {
        self.settle.bytes
    }

    /// Bytes that it takes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.heads().map(ExtentHead::disk_bytes).sum()
    }

    /// The note of it.
    pub(crate) fn settled(&self) -> Settled {
        let last = self.extents.last().expect("a job has an extent").head;
        self.settle.settled(last.position + last.disk_bytes())
    }

    fn is_over(&self) -> bool {
        self.in_flight == 0 && (self.is_synced || self.failure.is_some())
    }

    /// What is left to write of an extent, and where.
    fn rest_of(&self, extent: usize) -> (u64, Vec<Bytes>) {
        let JobExtent { head, pieces, written } = &self.extents[extent];
        let mut skip = usize::try_from(*written).expect("an extent fits memory");
        let mut rest = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let cut = skip.min(piece.len());
            skip -= cut;
            if cut < piece.len() {
                rest.push(piece.slice(cut..));
            }
        }
        (head.position + written, rest)
    }
}

/// How many of these batches go into one extent: as many as fit, at least one.
fn count_for_extent(batches: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = |batch: &&Bytes| {
        bytes += batch.len() as u64;
        bytes <= EXTENT_BYTES_MAX
    };
    batches.iter().take_while(fits).count().max(1)
}

/// Whether the disk has space, as far as settling knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// It has.
    Enough,
    /// It had none; when to try again, and how long the wait was.
    Low { retry_at: MonotonicNanos, waited: Duration },
}

/// How much a turn may be felt by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Little: it takes few batches, so that the shard is soon free again, and syncs one file after the other, so that
    /// the journal's sync waits for one at most.
    Calm,
    /// As much as it takes.
    Hurry,
}

impl Haste {
    /// About so many record batches at most: those of a partition's extents stay together.
    const fn batches_max(self) -> usize {
        match self {
            Self::Calm => SETTLE_TURN_BATCHES_MAX,
            Self::Hurry => usize::MAX,
        }
    }

    const fn syncs_max(self) -> usize {
        match self {
            Self::Calm => 1,
            Self::Hurry => SETTLE_SYNCS_MAX,
        }
    }
}

/// What became of a turn.
#[derive(Debug)]
pub(crate) struct TurnResult {
    /// Jobs whose extents are on disk.
    pub(crate) synced: Vec<(PartitionId, Job)>,
    /// Partitions and segments whose jobs met a full disk.
    pub(crate) no_space: Vec<PartitionId>,
    /// Partitions whose segment file failed, and whether it was a new one.
    pub(crate) failed: Vec<(PartitionId, Job)>,
}

/// Settling of one shard.
#[derive(Debug)]
pub(crate) struct Settling {
    incarnation: Incarnation,
    jobs: BTreeMap<PartitionId, Job>,
    to_sync: VecDeque<PartitionId>,
    syncs: usize,
    haste: Haste,
    started: MonotonicNanos,
    turn_bytes: u64,
    paused_until: MonotonicNanos,
    pub(crate) space: Space,
}

impl Settling {
    pub(crate) const fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            jobs: BTreeMap::new(),
            to_sync: VecDeque::new(),
            syncs: 0,
            haste: Haste::Calm,
            started: MonotonicNanos(0),
            turn_bytes: 0,
            paused_until: MonotonicNanos(0),
            space: Space::Enough,
        }
    }

    /// A turn is on its way to disk.
    pub(crate) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// When the next turn may begin at this pace (`None`: as fast as possible).
    pub(crate) fn next_turn(&self, pace: Option<u64>) -> Option<MonotonicNanos> {
        let after_last = match pace {
            None => self.started,
            Some(pace) => self.started.after(crate::pace::turn_time(self.turn_bytes, pace)?),
        };
        let retry = match self.space {
            Space::Enough => MonotonicNanos(0),
            Space::Low { retry_at, .. } => retry_at,
        };
        Some(after_last.max(self.paused_until).max(retry))
    }

    /// Begins no turn before this moment.
    pub(crate) fn pause_until(&mut self, until: MonotonicNanos) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Begins a turn with the partitions that hold the journal back most.
    pub(crate) fn begin_turn(&mut self, now: Now, haste: Haste, table: &mut Table, disk: &mut Disk) {
        assert!(self.jobs.is_empty(), "a turn is on its way");
        self.haste = haste;
        let (mut bytes, mut batches) = (0, 0);
        for id in table.oldest(4 * SETTLE_PARTITIONS_MAX) {
            let is_full = SETTLE_PARTITIONS_MAX <= self.jobs.len() || SETTLE_TURN_BYTES_MAX <= bytes;
            if is_full || haste.batches_max() <= batches {
                break;
            }
            let Some(settle) = plan(now, table, id, SETTLE_TURN_BYTES_MAX - bytes) else { continue };
            bytes += settle.bytes;
            batches += settle.batches.len();
            self.begin_job(id, settle, table, disk);
        }
        if self.jobs.is_empty() {
            self.paused_until = now.monotonic.after(SETTLE_PAUSE);
        } else {
            self.started = now.monotonic;
            self.turn_bytes = bytes;
        }
    }

    fn begin_job(&mut self, id: PartitionId, settle: Settle, table: &mut Table, disk: &mut Disk) {
        let partition = table.get_mut(id).expect("a plan was made for it");
        partition.settle = SettleState::Busy;
        let choice = settle.segment;
        let mut job = Job::new(id, self.incarnation, settle);
        match choice {
            SegmentChoice::Append { .. } => issue_writes(id, &mut job, disk),
            SegmentChoice::Roll { segment } if partition.failed_segment.take() == Some(segment) => {
                issue(id, &mut job, SettleStep::Delete, FileOp::Delete, disk);
            }
            SegmentChoice::Roll { .. } => issue(id, &mut job, SettleStep::Create, FileOp::CreateEmpty, disk),
        }
        self.jobs.insert(id, job);
    }

    /// A step of a job completed.
    pub(crate) fn on_done(
        &mut self,
        id: PartitionId,
        step: SettleStep,
        result: &Result<FileOutcome, FileError>,
        disk: &mut Disk,
    ) {
        let job = self.jobs.get_mut(&id).expect("a job has its steps only while it is on its way");
        job.in_flight -= 1;
        if step == SettleStep::Sync {
            self.syncs -= 1;
        }
        match (step, result) {
            (_, Err(FileError::NoSpace)) if step != SettleStep::Sync => fail(job, JobFailure::NoSpace),
            (_, Err(_)) => fail(job, JobFailure::File),
            (_, Ok(_)) if job.failure.is_some() => {}
            (SettleStep::Delete, Ok(_)) => issue(id, job, SettleStep::Create, FileOp::CreateEmpty, disk),
            (SettleStep::Create, Ok(_)) => issue_writes(id, job, disk),
            (SettleStep::Write { extent }, Ok(outcome)) => {
                let FileOutcome::Written(written) = *outcome else { panic!("a write was answered with {outcome:?}") };
                if on_written(id, job, extent, written, disk) {
                    self.to_sync.push_back(id);
                }
            }
            (SettleStep::Sync, Ok(_)) => job.is_synced = true,
        }
        self.issue_syncs(disk);
    }

    fn issue_syncs(&mut self, disk: &mut Disk) {
        while self.syncs < self.haste.syncs_max()
            && let Some(id) = self.to_sync.pop_front()
        {
            let job = self.jobs.get_mut(&id).expect("a written job is on its way");
            #[cfg(planted)]
            if corelane_model::planted::is_planted(corelane_model::planted::Bug::SettleBeforeSync) {
                let file = FileName::segment(id, SegmentName::settled(job.segment()));
                disk.push(file, FileOp::Sync, Urgency::Background, Purpose::Nothing);
                job.is_synced = true;
                continue;
            }
            self.syncs += 1;
            issue(id, job, SettleStep::Sync, FileOp::Sync, disk);
        }
    }

    /// The turn's result when it is over.
    pub(crate) fn end_turn(&mut self, now: Now) -> Option<TurnResult> {
        if self.jobs.is_empty() || !self.jobs.values().all(Job::is_over) {
            return None;
        }
        let mut result = TurnResult { synced: Vec::new(), no_space: Vec::new(), failed: Vec::new() };
        for (id, job) in std::mem::take(&mut self.jobs) {
            match job.failure {
                None => result.synced.push((id, job)),
                Some(JobFailure::NoSpace) => result.no_space.push(id),
                Some(JobFailure::File) => result.failed.push((id, job)),
            }
        }
        if !result.no_space.is_empty() {
            let waited = match self.space {
                Space::Enough => SETTLE_RETRY_MIN,
                Space::Low { waited, .. } => (waited * 2).min(SETTLE_RETRY_MAX),
            };
            self.space = Space::Low { retry_at: now.monotonic.after(waited), waited };
        } else if !result.synced.is_empty() {
            self.space = Space::Enough;
        }
        Some(result)
    }
}

/// The next batches of the partition, if it may be settled now.
fn plan(now: Now, table: &mut Table, id: PartitionId, bytes_max: u64) -> Option<Settle> {
    let partition = table.get_mut(id)?;
    let may_settle = match partition.settle {
        SettleState::Idle => true,
        SettleState::Busy | SettleState::Noted => false,
        SettleState::Failed { until } => until <= now.monotonic,
    };
    if !may_settle || partition.is_removed {
        return None;
    }
    // One plan goes into one segment; this keeps a segment from growing far beyond its bound.
    let active = partition.log.segments().last().filter(|segment| !segment.is_sealed);
    let room = partition.log.settings().segment_bytes.saturating_sub(active.map_or(0, |active| active.bytes));
    let bytes_max = bytes_max.min(room.max(EXTENT_BYTES_MAX));
    partition.log.settle_plan(u32::try_from(bytes_max).unwrap_or(u32::MAX))
}

fn issue(id: PartitionId, job: &mut Job, step: SettleStep, op: FileOp, disk: &mut Disk) {
    job.in_flight += 1;
    let file = FileName::segment(id, SegmentName::settled(job.segment()));
    disk.push(file, op, Urgency::Background, Purpose::Settle(id, step));
}

fn issue_writes(id: PartitionId, job: &mut Job, disk: &mut Disk) {
    for extent in 0..job.extents.len() {
        let (position, pieces) = job.rest_of(extent);
        issue(id, job, SettleStep::Write { extent }, FileOp::Write { position, pieces }, disk);
    }
}

/// Part of an extent is in the file; returns whether all extents are whole now. A short write goes on where it stopped.
fn on_written(id: PartitionId, job: &mut Job, extent: usize, written: u64, disk: &mut Disk) -> bool {
    let whole = job.extents[extent].head.disk_bytes();
    let blocks = written / BLOCK_BYTES * BLOCK_BYTES;
    job.extents[extent].written += blocks;
    assert!(job.extents[extent].written <= whole, "{written} bytes were written at the end of {whole}");
    if job.extents[extent].written == whole {
        job.extents[extent].pieces = Vec::new();
        job.unwritten -= 1;
        return job.unwritten == 0;
    }
    if blocks == 0 {
        fail(job, JobFailure::NoSpace);
    } else {
        let (position, pieces) = job.rest_of(extent);
        issue(id, job, SettleStep::Write { extent }, FileOp::Write { position, pieces }, disk);
    }
    false
}

/// The worst failure of a job is the one that counts.
fn fail(job: &mut Job, failure: JobFailure) {
    if job.failure != Some(JobFailure::File) {
        job.failure = Some(failure);
    }
}

/// Whether a job's segment was made by it: its file holds nothing that counts.
pub(crate) const fn is_new_segment(job: &Job) -> bool {
    matches!(job.settle.segment, SegmentChoice::Roll { .. })
}
