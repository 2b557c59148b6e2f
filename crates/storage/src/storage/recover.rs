//! Recovery: what the journal holds becomes partitions again.

use bytes::Bytes;
use corelane_commitlog::{
    CommitLog, CorruptRange as LostRange, LogState, Segment, SegmentName, Shutdown, TransactionEnd,
};
use corelane_journal::{Item, Recovered, RecoveryReport as JournalReport};
use corelane_model::{Now, Offset, PartitionId, TopicClass, TopicSettings};
use corelane_record::BatchHead;

use super::{Phase, Storage};
use crate::lease::Lease;
use crate::partition::Partition;
use crate::payload::{PartitionRecord, decode_settled};
use crate::{CatalogRecovery, CorruptRange, ImportError, RecoveryReport, StorageOutput};

impl Storage {
    /// Takes over a partition of a former shard, right after [`Storage::new`] over an empty journal.
    /// [`StorageOutput::Recovered`] comes when it is durable here.
    ///
    /// # Errors
    /// [`ImportError`] when the bytes are no state of this version.
    pub fn import(&mut self, partition: PartitionId, state: &Bytes) -> Result<(), ImportError> {
        assert!(self.phase == Phase::Recovering, "{partition} is imported after recovery");
        let record = PartitionRecord::decode(state).map_err(|text| ImportError::Malformed { text })?;
        self.is_imported = true;
        restore(self.table.entry(partition), record);
        Ok(())
    }

    /// Hands out no producer id below `until`; in the manner of [`Storage::import`].
    pub fn import_producer_ids(&mut self, until: u64) {
        self.is_imported = true;
        self.producers = Lease::used_up(self.producers.durable.max(until));
    }

    /// Takes over the catalog; in the manner of [`Storage::import`]. It is handed up with [`StorageOutput::Recovered`].
    pub fn import_catalog(&mut self, catalog: CatalogRecovery) {
        self.is_imported = true;
        self.catalog.import(catalog);
    }

    /// One item of the journal, in order. `Err` says what of it this version cannot read.
    pub(super) fn replay(&mut self, recovered: Recovered) -> Result<(), String> {
        let Recovered { position, item } = recovered;
        match item {
            Item::Batch { partition, batch } => self.replay_batch(partition, batch, position.to_u64())?,
            Item::Settled { partition, end, changes } => {
                let settled = decode_settled(end, &changes)?;
                if self.table.entry(partition).log.replay_settled(&settled).is_err() {
                    self.report_mut().misfits += 1;
                }
                self.release_replayed(partition);
            }
            Item::LogStart { partition, offset } => {
                if self.table.entry(partition).log.replay_log_start(offset).is_err() {
                    self.report_mut().misfits += 1;
                }
                self.release_replayed(partition);
            }
            Item::State { partition, state } => {
                restore(self.table.entry(partition), PartitionRecord::decode(&state)?);
                self.release_replayed(partition);
            }
            Item::Catalog { change } => self.catalog.replay_change(change)?,
            Item::CatalogSnapshot { snapshot } => self.catalog.replay_part(snapshot)?,
            Item::OffsetLease { partition, until } => {
                let known = self.table.entry(partition);
                let before = known.lease.map_or(0, |lease| lease.durable);
                known.lease = Some(Lease::used_up(before.max(until.0)));
            }
            Item::ProducerLease { until } => {
                self.producers = Lease::used_up(self.producers.durable.max(until.0));
            }
            Item::TransactionEnd { partition, transaction, decision, first, end } => {
                let end = TransactionEnd { transaction, decision, first, end };
                if self.table.entry(partition).log.replay_transaction_end(&end).is_err() {
                    self.report_mut().misfits += 1;
                }
                self.release_replayed(partition);
            }
            // Storage writes none: epochs are in the partitions' states and in the batches.
            Item::Epoch { .. } => {}
        }
        Ok(())
    }

    fn replay_batch(&mut self, partition: PartitionId, batch: Bytes, position: u64) -> Result<(), String> {
        let head = BatchHead::parse(&batch).map_err(|error| format!("a record batch that is none: {error}"))?;
        if head.batch_bytes() as usize != batch.len() {
            return Err(format!("a record batch of {} bytes in {} bytes", head.batch_bytes(), batch.len()));
        }
        let bytes = batch.len() as u64;
        match self.table.entry(partition).log.replay(&head, batch, position) {
            Ok(()) => self.slabs.add(position, bytes),
            Err(_) => self.report_mut().misfits += 1,
        }
        self.table.refresh(partition);
        Ok(())
    }

    /// What was settled needs no memory any more.
    fn release_replayed(&mut self, partition: PartitionId) {
        self.table.refresh(partition);
        self.slabs.release(self.table.oldest_unsettled().unwrap_or(u64::MAX));
    }

    fn report_mut(&mut self) -> &mut RecoveryReport {
        self.held_report.get_or_insert_default()
    }

    /// The journal is replayed to its end.
    pub(super) fn finish_recovery(&mut self, now: Now, found: &JournalReport, shutdown: Shutdown) {
        let mut report = self.held_report.take().unwrap_or_default();
        report.was_clean = shutdown == Shutdown::Clean;
        report.entries = found.entries;
        report.torn_bytes = found.torn_bytes;
        report.damages = found.damages;
        self.replay_damage(found);
        for id in self.table.ids() {
            self.finish_partition(now, id, shutdown, &mut report);
        }
        self.producer_next = self.producers.durable.max(1);
        self.tickets = self.catalog.last_number();
        self.closed_end = found.end.to_u64();
        self.phase = Phase::Running;
        self.release();
        self.lease_producers();
        self.held_report = Some(report);
        if !self.is_imported {
            self.say_recovered();
        }
        if let Some(topics) = self.retained.take() {
            self.retain_topics(&topics);
        }
    }

    /// Batches that stood in damaged entries, unless they were settled.
    fn replay_damage(&mut self, found: &JournalReport) {
        for batch in found.damage.iter().flat_map(|damage| &damage.batches) {
            let log = &mut self.table.entry(batch.partition).log;
            let first = batch.base.max(log.settled_end());
            if first < batch.end && log.replay_corrupt(LostRange { first, end: batch.end }).is_err() {
                self.report_mut().misfits += 1;
            }
        }
    }

    fn finish_partition(&mut self, now: Now, id: PartitionId, shutdown: Shutdown, report: &mut RecoveryReport) {
        let partition = self.table.get_mut(id).expect("it is in the table");
        if partition.is_removed {
            self.deletes.extend(partition.doomed.iter().map(|&name| (id, name)));
            // Batches that the journal still had of it hold nothing back.
            partition.log = CommitLog::new(id, *partition.log.settings(), LogState::default());
            self.table.refresh(id);
            return self.forget_if_gone(id);
        }
        if let Some(lease) = partition.lease {
            start_memory_log(id, partition, Offset(lease.durable));
        }
        let (corrupt, dropped) = partition.log.finish_recovery(now, shutdown);
        let live: Vec<SegmentName> = partition.log.segments().iter().map(Segment::name).collect();
        partition.doomed.extend(dropped.iter().map(Segment::name));
        partition.doomed.sort_unstable();
        partition.doomed.dedup();
        partition.doomed.retain(|name| !live.contains(name));
        self.deletes.extend(partition.doomed.iter().map(|&name| (id, name)));
        report.partitions += 1;
        report.bytes += partition.log.cached_bytes();
        report.corrupt.extend(corrupt.iter().map(|range| CorruptRange {
            partition: id,
            first: range.first,
            end: range.end,
        }));
        self.table.refresh(id);
        self.renew_offsets(id);
    }

    /// Says once that recovery is over; with imported state not before that is durable here.
    pub(super) fn say_recovered(&mut self) {
        if let Some(report) = self.held_report.take() {
            self.outputs.push_back(StorageOutput::Recovered { catalog: self.catalog.content(), report });
        }
    }
}

/// Takes over what a checkpoint says.
fn restore(partition: &mut Partition, record: PartitionRecord) {
    let PartitionRecord { lease, is_removed, doomed, log } = record;
    partition.log.restore(log);
    partition.doomed = doomed;
    partition.is_removed = is_removed;
    if let Some(lease) = lease {
        let before = partition.lease.map_or(0, |lease| lease.durable);
        partition.lease = Some(Lease::used_up(before.max(lease.0)));
    }
}

/// The records of a memory partition are gone with the process; its offsets go on behind all that were leased.
fn start_memory_log(id: PartitionId, partition: &mut Partition, leased: Offset) {
    let mut state = LogState::starting_at(leased.max(partition.log.log_end()));
    state.leader_epoch = partition.log.leader_epoch();
    state.append_timestamp = partition.log.append_timestamp();
    let known = *partition.log.settings();
    let settings = TopicSettings { class: TopicClass::Memory, ..known };
    partition.lease = Some(Lease::used_up(state.log_end.0));
    partition.log = CommitLog::new(id, settings, state);
}
