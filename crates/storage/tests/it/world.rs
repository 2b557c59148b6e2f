//! One shard's storage on a disk in memory, and a model of what it was told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_model::{
    Incarnation, MonotonicNanos, Now, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, ShardId, TopicClass,
    TopicId, TopicSettings, Transaction, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, SealedBatch, Stamp, stamp};
use corelane_storage::{
    AppendError, Appended, CatalogRecovery, Fetch, MEMORY_BYTES_MIN, OffsetFor, ReadError, ReadTicket, RecoveryReport,
    Storage, StorageConfig, StorageOutput,
};

use crate::chance::Chance;
use crate::disk::Disk;

/// A batch that was appended, as it must come back.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) time: WallMillis,
    pub(crate) bytes: Bytes,
}

/// What a partition was told and what it said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) batches: Vec<Kept>,
    pub(crate) durable_end: Offset,
    /// Truncation that was asked for, durable or not.
    pub(crate) start_asked: Offset,
    /// Truncation that was said to be durable.
    pub(crate) start_durable: Offset,
}

/// The shard and everything around it.
pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) disk: Disk,
    pub(crate) storage: Storage,
    pub(crate) config: StorageConfig,
    pub(crate) now: Now,
    pub(crate) topics: BTreeMap<TopicId, (u32, TopicSettings)>,
    pub(crate) models: BTreeMap<PartitionId, Model>,
    pub(crate) catalog: Option<CatalogRecovery>,
    pub(crate) report: Option<RecoveryReport>,
    pub(crate) reads: BTreeMap<ReadTicket, Result<Vec<Bytes>, ReadError>>,
    pub(crate) times: BTreeMap<ReadTicket, Result<Offset, ReadError>>,
    pub(crate) said: Vec<&'static str>,
    /// Partitions in which a transaction ended durably.
    pub(crate) ended: Vec<PartitionId>,
    pub(crate) catalog_durable: u64,
}

/// How small the ring is.
pub(crate) fn small_config() -> StorageConfig {
    StorageConfig {
        journal_files: 4,
        journal_file_bytes: 256 << 10,
        ..StorageConfig::new(0x00c0_ffee, ShardId(2), MEMORY_BYTES_MIN)
    }
}

pub(crate) fn durable_topic() -> TopicSettings {
    TopicSettings { segment_bytes: 1 << 20, retention_ms: None, ..TopicSettings::default() }
}

pub(crate) fn memory_topic() -> TopicSettings {
    TopicSettings {
        class: TopicClass::Memory,
        retention_bytes: Some(64 << 10),
        retention_ms: None,
        ..TopicSettings::default()
    }
}

pub(crate) fn partition(topic: u64, index: u32) -> PartitionId {
    PartitionId::new(TopicId(topic), corelane_model::PartitionIndex(index))
}

/// A batch whose value bytes are `fill`.
pub(crate) fn batch(records: u32, bytes: usize, fill: u64) -> SealedBatch {
    batch_of(ProducerStamp::default(), records, bytes, fill)
}

pub(crate) fn batch_from(producer: u64, epoch: u16, sequence: u32, records: u32) -> SealedBatch {
    let producer = ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    };
    batch_of(producer, records, 20, u64::from(sequence))
}

/// One of the transaction that the producer and its epoch name.
pub(crate) fn batch_within(transaction: Transaction, sequence: u32, records: u32) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(5), None, Some(b"within"), &[]).expect("it fits");
    }
    let stamp = ProducerStamp {
        producer_id: transaction.producer,
        producer_epoch: transaction.epoch,
        base_sequence: Sequence(sequence),
    };
    SealedBatch::parse(builder.finish_transactional(stamp, 0)).expect("the builder makes sound batches")
}

pub(crate) fn batch_of(producer: ProducerStamp, records: u32, bytes: usize, fill: u64) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut fill = Chance::new(fill);
    for _ in 0..records {
        let value: Vec<u8> = (0..bytes).map(|_| u8::try_from(fill.below(256)).expect("a byte")).collect();
        builder.push(WallMillis(5), None, Some(&value), &[]).expect("it fits");
    }
    SealedBatch::parse(builder.finish(producer)).expect("the builder makes sound batches")
}

impl World {
    pub(crate) fn new(seed: u64, config: StorageConfig) -> Self {
        let mut world = Self {
            chance: Chance::new(seed),
            disk: Disk::default(),
            storage: Storage::new(config),
            config,
            now: Now { monotonic: MonotonicNanos(1), wall: WallMillis(1_000_000) },
            topics: BTreeMap::new(),
            models: BTreeMap::new(),
            catalog: None,
            report: None,
            reads: BTreeMap::new(),
            times: BTreeMap::new(),
            said: Vec::new(),
            ended: Vec::new(),
            catalog_durable: 0,
        };
        world.recover();
        world
    }

    /// A topic that the catalog knows from now on.
    pub(crate) fn add_topic(&mut self, topic: u64, partitions: u32, settings: TopicSettings) {
        self.topics.insert(TopicId(topic), (partitions, settings));
        for index in 0..partitions {
            self.models.entry(partition(topic, index)).or_default();
        }
        self.open_all();
    }

    fn open_all(&mut self) {
        for (&topic, (partitions, settings)) in &self.topics {
            for index in 0..*partitions {
                self.storage.open_partition(partition(topic.0, index), settings);
            }
        }
    }

    /// Ends the round: effects go to the disk, outputs into the model.
    pub(crate) fn round(&mut self) {
        self.storage.finish_round(self.now);
        while let Some(effect) = self.storage.poll_effect() {
            self.disk.submit(effect);
        }
        while let Some(output) = self.storage.poll_output() {
            self.on_output(output);
        }
        while let Some(effect) = self.storage.poll_effect() {
            self.disk.submit(effect);
        }
    }

    /// Nothing is to be done for the moment.
    pub(crate) fn rest(&mut self) {
        self.storage.rest(self.now);
        while let Some(effect) = self.storage.poll_effect() {
            self.disk.submit(effect);
        }
    }

    fn on_output(&mut self, output: StorageOutput) {
        match output {
            StorageOutput::Recovered { catalog, report } => {
                self.catalog = Some(catalog);
                self.report = Some(report);
            }
            StorageOutput::RecoveryFailed { error } => panic!("{error}"),
            StorageOutput::Durable { ends } => {
                for (partition, end) in ends {
                    let model = self.models.get_mut(&partition).expect("a partition of ours");
                    assert!(model.durable_end <= end, "durable end of {partition} went back to {end}");
                    assert!(model.batches.last().is_some_and(|last| end <= last.end), "{end} was never appended");
                    model.durable_end = end;
                }
            }
            StorageOutput::CatalogDurable { ticket } => {
                assert!(self.catalog_durable < ticket.0, "changes are durable in their order");
                self.catalog_durable = ticket.0;
            }
            StorageOutput::TruncateDurable { partition, log_start, .. } => {
                let model = self.models.get_mut(&partition).expect("a partition of ours");
                model.start_durable = model.start_durable.max(log_start);
            }
            StorageOutput::SegmentsDropped { partition, log_start, .. } => {
                let model = self.models.get_mut(&partition).expect("a partition of ours");
                model.start_durable = model.start_durable.max(log_start);
                model.start_asked = model.start_asked.max(log_start);
                self.said.push("segments dropped");
            }
            StorageOutput::TransactionEnded { partition, .. } => self.ended.push(partition),
            StorageOutput::ProducerIdsReady => self.said.push("producer ids"),
            StorageOutput::Read { ticket, result, .. } => drop(self.reads.insert(ticket, result)),
            StorageOutput::TimeFound { ticket, result, .. } => drop(self.times.insert(ticket, result)),
            StorageOutput::Stopped { .. } => self.said.push("stopped"),
            StorageOutput::SpaceLow => self.said.push("space low"),
            StorageOutput::SpaceBack => self.said.push("space back"),
            StorageOutput::AllSettled => self.said.push("all settled"),
            StorageOutput::Drained => self.said.push("drained"),
        }
    }

    /// Lets one effect happen.
    pub(crate) fn complete_one(&mut self) -> bool {
        let Some(done) = self.disk.complete_one(&mut self.chance) else { return false };
        self.storage.handle(self.now, done);
        true
    }

    /// Some effects happen and a round is made; a little time goes by.
    pub(crate) fn step(&mut self) {
        for _ in 0..self.chance.below(4) {
            self.complete_one();
        }
        self.pass(self.chance.clone().below(2_000_000));
        self.round();
    }

    /// Time goes by, in nanoseconds.
    pub(crate) fn pass(&mut self, nanos: u64) {
        self.now.monotonic.0 += nanos;
        self.now.wall.0 = 1_000_000 + i64::try_from(self.now.monotonic.0 / 1_000_000).expect("fits");
        if self.storage.next_deadline().is_some_and(|deadline| deadline <= self.now.monotonic) {
            self.storage.on_deadline(self.now);
        }
    }

    /// Rounds until nothing is on its way and the condition holds; time goes from deadline to deadline.
    pub(crate) fn run_until(&mut self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            self.round();
            if is_done(self) {
                return;
            }
            if !self.complete_one() {
                let deadline = self.storage.next_deadline();
                let nanos = deadline.map_or(1_000_000, |deadline| deadline.0.saturating_sub(self.now.monotonic.0));
                self.pass(nanos.clamp(1000, 1_000_000_000));
            }
        }
        panic!("waited in vain for: {what}; {:?}", self.storage.stats());
    }

    fn recover(&mut self) {
        self.report = None;
        self.run_until("recovery", |world| world.report.is_some());
    }

    /// A new start from what is on the disk.
    pub(crate) fn restart(&mut self, was_clean: bool) {
        self.config.incarnation = Incarnation(self.config.incarnation.0 + 1);
        self.config.was_clean = was_clean;
        self.storage = Storage::new(self.config);
        self.said.clear();
        self.reads.clear();
        self.catalog_durable = 0;
        self.recover();
        self.storage.retain_topics(&self.topics.keys().copied().collect::<BTreeSet<_>>());
        self.open_all();
    }

    /// Cuts the power and starts again; what is there must be what was durable, and perhaps more of what was appended.
    pub(crate) fn crash(&mut self) {
        self.disk.crash(&mut self.chance);
        self.restart(false);
        self.settle_model();
    }

    /// Cuts the power, starts again, drains after so many steps of recovery, and starts once more. Whether recovery was
    /// over before the drain.
    pub(crate) fn drain_in_recovery(&mut self, steps: usize) -> bool {
        self.disk.crash(&mut self.chance);
        self.config.was_clean = false;
        self.storage = Storage::new(self.config);
        self.said.clear();
        self.report = None;
        for _ in 0..steps {
            self.round();
            self.complete_one();
        }
        let is_over = self.storage.is_recovered();
        self.storage.drain();
        self.run_until("the drain", |world| world.said.contains(&"drained"));
        assert!(self.disk.is_idle(), "something is in flight after the drain");
        assert_eq!(self.report.is_some(), is_over, "recovery went on after the drain");
        self.crash();
        is_over
    }

    /// Drains and starts again.
    pub(crate) fn restart_cleanly(&mut self) {
        self.storage.drain();
        self.run_until("the drain", |world| world.said.contains(&"drained"));
        assert!(self.disk.is_idle(), "something is in flight after the drain");
        self.disk.crash(&mut self.chance);
        self.restart(true);
        self.settle_model();
    }

    /// What survived is from now on what was appended.
    fn settle_model(&mut self) {
        let ids: Vec<PartitionId> = self.models.keys().copied().collect();
        for id in ids {
            let Some(status) = self.storage.describe(id) else { continue };
            let model = self.models.get_mut(&id).expect("it is a key");
            if !status.class.is_durable() {
                assert!(model.durable_end <= status.log_end, "{id} repeats offsets");
                model.batches.clear();
                (model.durable_end, model.start_asked, model.start_durable) =
                    (status.log_end, status.log_start, status.log_start);
                continue;
            }
            assert!(model.durable_end <= status.durable_end, "{id}: {} was durable: {status:?}", model.durable_end);
            assert!(
                model.start_durable <= status.log_start
                    && status.log_start <= model.start_asked.max(model.start_durable)
            );
            model.start_durable = status.log_start;
            model.start_asked = status.log_start;
            let is_boundary = status.log_end <= status.log_start
                || model.batches.iter().any(|batch| batch.end == status.log_end)
                || status.log_end == Offset::ZERO;
            assert!(is_boundary, "{id}: {} is no end of a batch", status.log_end);
            model.batches.retain(|batch| batch.end <= status.log_end);
            model.durable_end = status.log_end;
        }
    }

    /// Appends and remembers.
    pub(crate) fn append(&mut self, id: PartitionId, batch: &SealedBatch) -> Result<Appended, AppendError> {
        let appended = self.storage.append(self.now, id, batch)?;
        if !appended.is_duplicate {
            let leader_epoch = self.storage.describe(id).expect("it is open").leader_epoch;
            let mut bytes = batch.bytes().to_vec();
            let Appended { base_offset, append_timestamp, .. } = appended;
            stamp(&mut bytes, Stamp { base_offset, append_timestamp, leader_epoch });
            let model = self.models.get_mut(&id).expect("a partition of ours");
            let expected =
                model.batches.last().map_or_else(|| model.durable_end.max(model.start_asked), |last| last.end);
            assert_eq!(base_offset, expected, "offsets are dense");
            model.batches.push(Kept {
                base: base_offset,
                end: appended.end_offset,
                time: append_timestamp,
                bytes: bytes.into(),
            });
        }
        Ok(appended)
    }

    /// Appends as soon as there is room.
    pub(crate) fn append_soon(&mut self, id: PartitionId, batch: &SealedBatch) -> Appended {
        for _ in 0..20_000 {
            match self.append(id, batch) {
                Ok(appended) => return appended,
                Err(error) => assert_eq!(error.code(), corelane_model::ErrorCode::Busy, "{error}"),
            }
            self.step();
        }
        panic!("no room: {:?}", self.storage.stats());
    }

    /// Batches from an offset on, from wherever they are.
    pub(crate) fn fetch(&mut self, id: PartitionId, from: Offset, bytes_max: u32) -> Fetch {
        match self.storage.fetch(id, from, bytes_max) {
            Fetch::Pending(ticket) => {
                self.run_until("a read", |world| world.reads.contains_key(&ticket));
                match self.reads.remove(&ticket).expect("it was answered") {
                    Ok(batches) => {
                        let last = BatchHead::parse(batches.last().expect("never empty")).expect("a batch");
                        Fetch::Batches { batches, next: last.end_offset() }
                    }
                    Err(ReadError::Corrupt { first, end, .. }) => Fetch::Corrupt { first, end },
                    // What was read is not there any more: a reader asks again.
                    Err(ReadError::Gone) => Fetch::Pending(ticket),
                    Err(error) => panic!("{error}"),
                }
            }
            fetched => fetched,
        }
    }

    /// Everything that a partition shows must be what was appended, without a hole, up to its high watermark.
    pub(crate) fn check(&mut self, id: PartitionId) {
        let status = self.storage.describe(id).expect("it is open");
        let batches = self.models[&id].batches.clone();
        let mut next = status.log_start;
        let mut place = batches.partition_point(|batch| batch.end <= next);
        while next < status.high_watermark {
            let bytes_max = u32::try_from(1 + self.chance.below(100_000)).expect("fits");
            match self.fetch(id, next, bytes_max) {
                Fetch::Batches { batches: found, next: end } => {
                    for bytes in found {
                        let expected = &batches[place];
                        assert_eq!(bytes, expected.bytes, "{id} differs from {} on", expected.base);
                        place += 1;
                    }
                    assert_eq!(end, batches[place - 1].end);
                    next = end;
                }
                fetched => panic!("{id} at {next}: {fetched:?}; {status:?}"),
            }
        }
    }

    pub(crate) fn check_all(&mut self) {
        for id in self.models.keys().copied().collect::<Vec<_>>() {
            if self.storage.describe(id).is_some() {
                self.check(id);
            }
        }
    }

    pub(crate) fn time_of(&mut self, id: PartitionId, time: WallMillis) -> Offset {
        match self.storage.offset_for(id, corelane_model::StartAt::Time(time)) {
            OffsetFor::Found(offset) => offset,
            OffsetFor::Pending(ticket) => {
                self.run_until("a time", |world| world.times.contains_key(&ticket));
                self.times.remove(&ticket).expect("it was answered").expect("the disk is sound")
            }
            found => panic!("{found:?}"),
        }
    }

    /// Waits until everything that was appended is durable.
    pub(crate) fn make_durable(&mut self) {
        self.run_until("all to be durable", |world| {
            world.models.iter().all(|(id, model)| {
                world.storage.describe(*id).is_none()
                    || model.batches.last().is_none_or(|last| last.end <= model.durable_end)
            })
        });
    }
}
