//! One shard's journal and all its partitions' logs, turned into file effects.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_model::{MonotonicNanos, Now, Offset, PartitionId, ProducerId, StartAt, TopicId, TopicSettings};
use corelane_record::SealedBatch;

use crate::{
    AppendError, Appended, ChangeError, ChangeTicket, Fetch, FileDone, FileEffect, ImportError, OffsetFor,
    PartitionStatus, ShardExport, StorageConfig, StorageOutput, StorageStats,
};

/// One shard's journal and all its partitions' logs.
///
/// A round is: [`Storage::handle`] for completions and calls of the other methods in any order, then
/// [`Storage::finish_round`], then [`Storage::poll_effect`] and [`Storage::poll_output`] until both yield nothing.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
}

impl Storage {
    /// Starts recovery: the first effects read the journal. [`StorageOutput::Recovered`] says when it is over.
    #[must_use]
    pub fn new(config: StorageConfig) -> Self {
        Self { config }
    }

    /// A file effect completed.
    pub fn handle(&mut self, now: Now, done: FileDone) {
        unimplemented!("{:?} {now:?} {done:?}", self.config)
    }

    /// [`Storage::next_deadline`] has passed.
    pub fn on_deadline(&mut self, now: Now) {
        unimplemented!("{now:?}")
    }

    /// When [`Storage::on_deadline`] wants to be called; `None` while nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        unimplemented!()
    }

    /// Closes the round: what was appended goes to the journal as one entry, and settling takes its turn.
    pub fn finish_round(&mut self, now: Now) {
        unimplemented!("{now:?}")
    }

    /// The next thing to do to a file.
    pub fn poll_effect(&mut self) -> Option<FileEffect> {
        unimplemented!()
    }

    /// The next thing that the shard should know.
    pub fn poll_output(&mut self) -> Option<StorageOutput> {
        unimplemented!()
    }

    /// Whether recovery is over and did not fail.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        unimplemented!()
    }

    /// Makes the partition known, or does nothing if it is. State that the journal had of it is taken over.
    pub fn open_partition(&mut self, partition: PartitionId, settings: &TopicSettings) {
        unimplemented!("{partition} {settings:?}")
    }

    /// Gives all open partitions of the topic new settings. Its class stays what it was.
    pub fn alter(&mut self, topic: TopicId, settings: &TopicSettings) {
        unimplemented!("{topic} {settings:?}")
    }

    /// Forgets all partitions of the topic and deletes their files, a few at a time.
    pub fn remove_topic(&mut self, topic: TopicId) {
        unimplemented!("{topic}")
    }

    /// After recovery, once the catalog is known: everything of other topics belongs to deleted ones and goes.
    pub fn retain_topics(&mut self, topics: &BTreeSet<TopicId>) {
        unimplemented!("{topics:?}")
    }

    /// Takes a batch in: it is in the cache and in this round's journal entry, not yet durable.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was taken then.
    pub fn append(&mut self, now: Now, partition: PartitionId, batch: &SealedBatch) -> Result<Appended, AppendError> {
        unimplemented!("{now:?} {partition} {batch:?}")
    }

    /// Visible batches from `from` on, up to `bytes_max` bytes but at least one.
    pub fn fetch(&mut self, partition: PartitionId, from: Offset, bytes_max: u32) -> Fetch {
        unimplemented!("{partition} {from} {bytes_max}")
    }

    /// Where a reader starts.
    pub fn offset_for(&mut self, partition: PartitionId, start: StartAt) -> OffsetFor {
        unimplemented!("{partition} {start:?}")
    }

    /// Drops all records below `before`; [`StorageOutput::TruncateDurable`] says when that is durable.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was changed then.
    pub fn truncate(&mut self, now: Now, partition: PartitionId, before: Offset) -> Result<ChangeTicket, ChangeError> {
        unimplemented!("{now:?} {partition} {before}")
    }

    /// Writes a change of the catalog; [`StorageOutput::CatalogDurable`] says when it is durable. Changes are handed
    /// back in this order at recovery.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was written then.
    pub fn write_catalog(&mut self, change: Bytes) -> Result<ChangeTicket, ChangeError> {
        unimplemented!("{change:?}")
    }

    /// The catalog with all changes up to and with `until`: what checkpoints carry from now on in their place. Called
    /// now and then, at the latest when changes have grown as large as the catalog.
    pub fn set_catalog_snapshot(&mut self, snapshot: Bytes, until: Option<ChangeTicket>) {
        unimplemented!("{snapshot:?} {until:?}")
    }

    /// A producer id that nobody had before. `None` while the journal leases new ones;
    /// [`StorageOutput::ProducerIdsReady`] says when to ask again.
    pub fn next_producer_id(&mut self, now: Now) -> Option<ProducerId> {
        unimplemented!("{now:?}")
    }

    /// One partition as an operator sees it; `None` when it is not open here.
    #[must_use]
    pub fn describe(&self, partition: PartitionId) -> Option<PartitionStatus> {
        unimplemented!("{partition}")
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> StorageStats {
        unimplemented!()
    }

    /// Takes no more appends, makes durable what was taken, writes the closing mark; then [`StorageOutput::Drained`].
    pub fn drain(&mut self) {
        unimplemented!()
    }

    /// Settles everything, whatever the pace would be; then [`StorageOutput::AllSettled`]. For a start with another
    /// number of shards; works without [`Storage::open_partition`].
    pub fn settle_all(&mut self) {
        unimplemented!()
    }

    /// Everything that the shard's journal knows, after [`StorageOutput::AllSettled`].
    #[must_use]
    pub fn export(&self) -> ShardExport {
        unimplemented!()
    }

    /// Takes over a partition of a former shard, right after [`Storage::new`] over an empty journal.
    /// [`StorageOutput::Recovered`] comes when it is durable here.
    ///
    /// # Errors
    /// [`ImportError`] when the bytes are no state of this version.
    pub fn import(&mut self, partition: PartitionId, state: &Bytes) -> Result<(), ImportError> {
        unimplemented!("{partition} {state:?}")
    }

    /// Hands out no producer id below `until`; in the manner of [`Storage::import`].
    pub fn import_producer_ids(&mut self, until: u64) {
        unimplemented!("{until}")
    }

    /// Takes over the catalog; in the manner of [`Storage::import`].
    pub fn import_catalog(&mut self, catalog: crate::CatalogRecovery) {
        unimplemented!("{catalog:?}")
    }
}
