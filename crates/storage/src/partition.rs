//! The partitions of one shard, and in which order they need attention.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use corelane_commitlog::{CommitLog, LogState, Segment, SegmentName};
use corelane_model::{
    MonotonicNanos, Offset, PartitionId, PartitionMap, TopicClass, TopicId, TopicSettings, WallMillis,
};

use crate::lease::Lease;
use crate::payload::PartitionRecord;
use crate::reads::SegmentView;

/// Whether and how a partition is being settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettleState {
    /// It can be.
    Idle,
    /// Extents are on their way.
    Busy,
    /// The note of it is in the journal and not yet durable.
    Noted,
    /// A write or sync failed; it is tried again in a new segment file.
    Failed { until: MonotonicNanos },
}

/// Batches with their ends, and their bytes together: there can be many while the disk is slow, and each append looks at
/// how much memory they take.
#[derive(Debug)]
pub(crate) struct Held {
    batches: VecDeque<(Bytes, Offset)>,
    bytes: u64,
}

impl Held {
    pub(crate) fn push(&mut self, batch: Bytes, end: Offset) {
        self.bytes += batch.len() as u64;
        self.batches.push_back((batch, end));
    }

    /// The oldest batch, if it ends at `end` or before.
    pub(crate) fn pop_until(&mut self, end: u64) -> Option<Bytes> {
        let (batch, _) = self.batches.pop_front_if(|(_, batch_end)| batch_end.0 <= end)?;
        self.bytes -= batch.len() as u64;
        Some(batch)
    }

    pub(crate) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) log: CommitLog,
    /// The catalog knows it.
    pub(crate) is_open: bool,
    /// Its topic is deleted; it stays until its files are gone.
    pub(crate) is_removed: bool,
    /// Offsets that a memory partition may hand out.
    pub(crate) lease: Option<Lease>,
    /// Batches of a memory partition whose offsets are not durably leased yet, with their ends.
    pub(crate) held: Held,
    pub(crate) settle: SettleState,
    /// Times that settling failed since it last went well.
    pub(crate) failures: u32,
    /// A segment file of this base failed before anything in it was settled: it is made anew.
    pub(crate) failed_segment: Option<Offset>,
    /// Segments whose files are to be deleted.
    pub(crate) doomed: Vec<SegmentName>,
    /// The durable end moved in this round.
    pub(crate) is_durable_end_new: bool,
    unsettled_key: Option<u64>,
    due_key: Option<WallMillis>,
    ring_bytes: u64,
    id_bytes: u64,
    transaction_bytes: u64,
}

impl Partition {
    /// A partition with this log.
    pub(crate) const fn new(log: CommitLog) -> Self {
        Self {
            log,
            is_open: false,
            is_removed: false,
            lease: None,
            held: Held { batches: VecDeque::new(), bytes: 0 },
            settle: SettleState::Idle,
            failures: 0,
            failed_segment: None,
            doomed: Vec::new(),
            is_durable_end_new: false,
            unsettled_key: None,
            due_key: None,
            ring_bytes: 0,
            id_bytes: 0,
            transaction_bytes: 0,
        }
    }

    /// One of which nothing is known but that the journal mentions it.
    pub(crate) fn unknown(partition: PartitionId) -> Self {
        Self::new(CommitLog::new(partition, TopicSettings::default(), LogState::default()))
    }

    pub(crate) const fn class(&self) -> TopicClass {
        self.log.settings().class
    }

    /// Whether the table has it among those with batches that are in no segment.
    pub(crate) const fn is_known_unsettled(&self) -> bool {
        self.unsettled_key.is_some()
    }

    /// Notes that its durable end has moved, among those whose has in this round.
    pub(crate) fn mark_durable(&mut self, id: PartitionId, marked: &mut Vec<PartitionId>) {
        if !std::mem::replace(&mut self.is_durable_end_new, true) {
            marked.push(id);
        }
    }

    /// What a checkpoint says of it.
    pub(crate) fn record(&self) -> PartitionRecord {
        PartitionRecord {
            lease: self.lease.map(|lease| Offset(lease.asked)),
            is_removed: self.is_removed,
            doomed: self.doomed.clone(),
            log: self.log.state().clone(),
        }
    }

    /// The segment with this base, as far as it may be read.
    pub(crate) fn view(&self, segment: Offset) -> Option<SegmentView> {
        let segments = self.log.segments();
        let place = segments.binary_search_by_key(&segment, |segment| segment.base).ok()?;
        let segment = &segments[place];
        let Segment { base, end, bytes, rewrite, .. } = *segment;
        Some(SegmentView { base, end, bytes, rewrite })
    }

    /// Bytes of records of a memory partition.
    fn count_ring_bytes(&self) -> u64 {
        match self.class() {
            TopicClass::Durable => 0,
            TopicClass::Memory | TopicClass::Latest => self.log.cached_bytes() + self.held.bytes,
        }
    }
}

/// All partitions, by id, by the oldest journal position that they need, and by when retention is due.
#[derive(Debug, Default)]
pub(crate) struct Table {
    partitions: PartitionMap<Partition>,
    unsettled: BTreeSet<(u64, PartitionId)>,
    due: BTreeSet<(WallMillis, PartitionId)>,
    ring_bytes: u64,
    id_bytes: u64,
    transaction_bytes: u64,
}

impl Table {
    pub(crate) fn get(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(partition)
    }

    pub(crate) fn get_mut(&mut self, partition: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(partition)
    }

    /// The partition, if the catalog knows it.
    pub(crate) fn open(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(partition).filter(|partition| partition.is_open)
    }

    /// The partition, if the catalog knows it.
    pub(crate) fn open_mut(&mut self, partition: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(partition).filter(|partition| partition.is_open)
    }

    /// The partition, made unknown if it is not there.
    pub(crate) fn entry(&mut self, partition: PartitionId) -> &mut Partition {
        self.partitions.get_or_insert_with(partition, || Partition::unknown(partition))
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let partition = self.partitions.remove(id)?;
        if let Some(key) = partition.unsettled_key {
            self.unsettled.remove(&(key, id));
        }
        if let Some(key) = partition.due_key {
            self.due.remove(&(key, id));
        }
        self.ring_bytes -= partition.ring_bytes;
        self.id_bytes -= partition.id_bytes;
        self.transaction_bytes -= partition.transaction_bytes;
        Some(partition)
    }

    /// Puts the partition where it belongs after its log changed.
    pub(crate) fn refresh(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let unsettled = partition.log.oldest_unsettled();
        if unsettled != partition.unsettled_key {
            if let Some(key) = std::mem::replace(&mut partition.unsettled_key, unsettled) {
                self.unsettled.remove(&(key, id));
            }
            if let Some(key) = unsettled {
                self.unsettled.insert((key, id));
            }
        }
        let ring_bytes = partition.count_ring_bytes();
        self.ring_bytes = self.ring_bytes - std::mem::replace(&mut partition.ring_bytes, ring_bytes) + ring_bytes;
        let id_bytes = partition.log.id_bytes();
        self.id_bytes = self.id_bytes - std::mem::replace(&mut partition.id_bytes, id_bytes) + id_bytes;
        let transaction_bytes = partition.log.transaction_bytes();
        self.transaction_bytes -= std::mem::replace(&mut partition.transaction_bytes, transaction_bytes);
        self.transaction_bytes += transaction_bytes;
        if partition.due_key.is_none() {
            self.schedule(id, WallMillis(i64::MIN));
        }
    }

    /// Says when retention looks at the partition next: when its log asks for it, but not before this moment.
    pub(crate) fn schedule(&mut self, id: PartitionId, not_before: WallMillis) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        let deadline = partition.log.retention_deadline().filter(|_| partition.is_open);
        let due = deadline.map(|deadline| deadline.max(not_before));
        if let Some(key) = std::mem::replace(&mut partition.due_key, due) {
            self.due.remove(&(key, id));
        }
        if let Some(key) = due {
            self.due.insert((key, id));
        }
    }

    /// The partition for which retention is due first, and when.
    pub(crate) fn first_due(&self) -> Option<(WallMillis, PartitionId)> {
        self.due.first().copied()
    }

    /// The oldest journal position that is needed.
    pub(crate) fn oldest_unsettled(&self) -> Option<u64> {
        self.unsettled.first().map(|&(position, _)| position)
    }

    /// Up to `limit` partitions with unsettled batches, those that hold the journal back first.
    pub(crate) fn oldest(&self, limit: usize) -> Vec<PartitionId> {
        self.unsettled.iter().take(limit).map(|&(_, id)| id).collect()
    }

    /// The first partition after this one, or the first of all.
    pub(crate) fn after(&self, id: Option<PartitionId>) -> Option<(PartitionId, &Partition)> {
        self.partitions.iter_from(id.unwrap_or_default()).find(|&(known, _)| Some(known) != id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions.iter()
    }

    pub(crate) fn ids(&self) -> Vec<PartitionId> {
        self.partitions.iter().map(|(id, _)| id).collect()
    }

    /// Ids of the topic's partitions.
    pub(crate) fn ids_of(&self, topic: TopicId) -> Vec<PartitionId> {
        self.partitions.ids_of(topic).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Bytes of message ids.
    pub(crate) const fn id_bytes(&self) -> u64 {
        self.id_bytes
    }

    /// Bytes of transactions that partitions remember.
    pub(crate) const fn transaction_bytes(&self) -> u64 {
        self.transaction_bytes
    }

    /// Bytes of records of memory partitions.
    pub(crate) const fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }
}
