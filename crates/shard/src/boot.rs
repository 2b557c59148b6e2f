//! From recovery to service, and to the end.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_catalog::{ApplyError, Catalog, DecodeError, decode_change, decode_snapshot, encode_snapshot, shards_of};
use corelane_model::limits::SHARDS_MAX;
use corelane_model::{ErrorCode, MonotonicNanos, ShardId};
use corelane_session::Refused;
use corelane_storage::{CatalogRecovery, ImportError, RecoveryReport, Storage, StorageConfig};
use corelane_wire::{Goaway, encode};

use crate::mesh::Message;
use crate::{AdminAnswer, Boot, Effect, OutStream, RecoveryStatus, Shard, ShardConfig, ShardExport, ShardPhase};

/// How long clients are told that they have after a goaway, in milliseconds.
const GOAWAY_WITHIN_MS: u32 = 5000;

/// ```text
///                journal replayed            drain             storage drained
///                and catalog known
///  Recovering ───────────────────▶ Serving ───────▶ Draining ───────────────▶ Drained
///      │                                               ▲
///      │ the same, started for an export; all settled  │
///      ├───────────────────────────────────────────────┘
///      ▼ the journal or the catalog cannot be read
///    Failed
/// ```
#[derive(Debug)]
pub(crate) enum Phase {
    /// Storage replays, or the catalog is not known yet. `report` is there when storage is through.
    Recovering { since: Option<MonotonicNanos>, report: Option<RecoveryReport> },
    /// Requests are taken.
    Serving { recovery: RecoveryStatus },
    /// Nothing new is taken; storage makes everything durable.
    Draining { recovery: RecoveryStatus },
    /// Everything acknowledged is on disk.
    Drained { recovery: RecoveryStatus },
    /// The shard could not start.
    Failed,
}

impl Phase {
    pub(crate) const fn status(&self) -> ShardPhase {
        match self {
            Self::Recovering { .. } | Self::Failed => ShardPhase::Recovering,
            Self::Serving { .. } => ShardPhase::Serving,
            Self::Draining { .. } => ShardPhase::Draining,
            Self::Drained { .. } => ShardPhase::Drained,
        }
    }

    pub(crate) const fn recovery(&self) -> Option<&RecoveryStatus> {
        match self {
            Self::Serving { recovery } | Self::Draining { recovery } | Self::Drained { recovery } => Some(recovery),
            Self::Recovering { .. } | Self::Failed => None,
        }
    }

    pub(crate) fn refuses(&self) -> Option<Refused> {
        match self {
            Self::Recovering { .. } | Self::Failed => {
                Some(Refused::new(ErrorCode::Recovering, "the shard is recovering its journal; try again in a moment"))
            }
            Self::Serving { .. } => None,
            Self::Draining { .. } | Self::Drained { .. } => {
                Some(Refused::new(ErrorCode::ShuttingDown, "the broker is shutting down"))
            }
        }
    }
}

/// Why the catalog of shard 0 cannot be used.
#[derive(Debug, thiserror::Error)]
enum CatalogFault {
    #[error("the catalog in the journal cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("a change of the catalog in the journal does not follow: {0}")]
    Apply(#[from] ApplyError),
    #[error(
        "the data directory is laid out for {found} shards, but the broker starts with {wanted}; its partitions must \
         be moved first"
    )]
    Shards { found: u16, wanted: u16 },
}

pub(crate) const fn storage_config(config: &ShardConfig) -> StorageConfig {
    StorageConfig {
        data_id: config.data_id,
        shard: config.shard,
        incarnation: config.incarnation,
        was_clean: config.was_clean,
        memory_bytes: config.memory_bytes,
        journal_files: config.journal_files,
        journal_file_bytes: config.journal_file_bytes,
    }
}

/// Hands storage what a former layout knew, before it looks at its own empty journal.
pub(crate) fn import(storage: &mut Storage, config: &ShardConfig) -> Result<(), ImportError> {
    let Boot::Import(export) = &config.boot else { return Ok(()) };
    for (partition, state) in &export.partitions {
        storage.import(*partition, state)?;
    }
    storage.import_producer_ids(export.producer_ids_until);
    if let Some(snapshot) = &export.catalog {
        storage.import_catalog(CatalogRecovery { snapshot: Some(snapshot.clone()), changes: Vec::new() });
    }
    Ok(())
}

fn recover_catalog(recovered: &CatalogRecovery, shards: u16) -> Result<Catalog, CatalogFault> {
    // The oldest piece tells the layout, so that another one is recognised before its changes are read with this one.
    let found = match recovered.snapshot.iter().chain(&recovered.changes).next() {
        Some(oldest) => shards_of(oldest)?,
        None => shards,
    };
    if found != shards {
        return Err(CatalogFault::Shards { found, wanted: shards });
    }
    let mut catalog = match &recovered.snapshot {
        Some(snapshot) => decode_snapshot(snapshot)?,
        None => Catalog::new(shards),
    };
    for change in &recovered.changes {
        catalog.apply(&decode_change(change)?)?;
    }
    Ok(catalog)
}

impl Shard {
    /// Notes when recovery began, for its report.
    pub(crate) const fn start_clock(&mut self) {
        if let Phase::Recovering { since: since @ None, .. } = &mut self.phase {
            *since = Some(self.now.monotonic);
        }
    }

    pub(crate) fn on_recovered(&mut self, recovered: &CatalogRecovery, found: RecoveryReport) {
        // A drain may have come before.
        let Phase::Recovering { report, .. } = &mut self.phase else { return };
        *report = Some(found);
        if self.me() == ShardId(0) {
            match recover_catalog(recovered, self.config.shards) {
                Ok(catalog) => {
                    let snapshot = Bytes::from(encode_snapshot(&catalog));
                    self.changes.on_snapshot(snapshot.len());
                    self.storage.set_catalog_snapshot(snapshot.clone(), None);
                    self.broadcast(|| Message::Catalog(snapshot.clone()));
                    self.catalog = Some(catalog);
                }
                Err(fault) => return self.fail(fault.to_string()),
            }
        }
        self.serve_if_ready();
    }

    /// Another shard's word of the catalog at the start: shard 0 speaks it once and keeps to its own rules, so anything
    /// wrong with it is a mistake of ours.
    pub(crate) fn adopt_catalog(&mut self, snapshot: &[u8]) {
        assert!(self.catalog.is_none() && self.me() != ShardId(0), "the catalog is handed over once, by shard 0");
        let catalog = decode_snapshot(snapshot).expect("shard 0 encodes what it has checked");
        assert_eq!(catalog.shards(), self.config.shards, "all shards start with one number of shards");
        let version = catalog.version();
        self.catalog = Some(catalog);
        self.send_mesh(ShardId(0), Message::Applied(version));
        self.serve_if_ready();
    }

    fn serve_if_ready(&mut self) {
        let Phase::Recovering { since, report } = &mut self.phase else { return };
        let Some(catalog) = &self.catalog else { return };
        let Some(report) = report.take() else { return };
        let took = self.now.monotonic.since(since.unwrap_or(self.now.monotonic));
        let recovery = RecoveryStatus {
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            entries: report.entries,
            torn_bytes: report.torn_bytes,
            damages: report.damages,
            misfits: report.misfits,
            corrupt: report.corrupt.iter().map(|range| (range.partition, range.first, range.end)).collect(),
        };
        for topic in catalog.topics() {
            for partition in topic.partitions_of(self.config.shard) {
                self.storage.open_partition(partition, &topic.settings);
            }
        }
        self.storage.retain_topics(&catalog.topics().map(|topic| topic.id).collect::<BTreeSet<_>>());
        match self.config.boot {
            Boot::Serve | Boot::Import(_) => {
                self.phase = Phase::Serving { recovery };
                self.open_homes();
                self.open_transactions();
                self.inquire_about_partitions();
                self.effects.push_back(Effect::Ready);
            }
            Boot::Export => {
                self.phase = Phase::Draining { recovery };
                self.storage.settle_all();
            }
        }
    }

    pub(crate) fn begin_drain(&mut self) {
        // What groups have taken is appended while that is possible, and answered when the drain has made it durable.
        self.finish_groups();
        match &mut self.phase {
            Phase::Serving { recovery } => {
                self.phase = Phase::Draining { recovery: std::mem::take(recovery) };
                self.say_goaway();
                self.refuse_waiting();
                self.storage.drain();
            }
            // Nothing was acknowledged since the start; the journal stays as it is for the next one.
            Phase::Recovering { .. } => {
                self.phase = Phase::Draining { recovery: RecoveryStatus::default() };
                self.storage.drain();
            }
            Phase::Draining { .. } | Phase::Drained { .. } | Phase::Failed => {}
        }
    }

    pub(crate) fn on_all_settled(&mut self) {
        self.storage.drain();
    }

    pub(crate) fn on_drained(&mut self) {
        let Phase::Draining { recovery } = &mut self.phase else {
            panic!("storage drains when it is told to, the shard is {:?}", self.phase);
        };
        self.phase = Phase::Drained { recovery: std::mem::take(recovery) };
        let refused = self.refuse_phase().expect("the shard is drained");
        self.stop_groups(&refused);
        // Everybody hears of the last durable ends before the broker closes the connections.
        self.flush_gathered();
        self.effects.push_back(Effect::Drained);
    }

    pub(crate) fn export(&self) -> AdminAnswer {
        let is_through = matches!((&self.phase, &self.config.boot), (Phase::Drained { .. }, Boot::Export));
        AdminAnswer::Export(is_through.then(|| {
            let stored = self.storage.export();
            let catalog = self.catalog.as_ref().filter(|_| self.me() == ShardId(0));
            Box::new(ShardExport {
                catalog: catalog.map(|catalog| encode_snapshot(catalog).into()),
                partitions: stored.partitions,
                producer_ids_until: stored.producer_ids_until,
            })
        }))
    }

    fn say_goaway(&mut self) {
        let frame = encode(corelane_model::CorrelationId(0), &Goaway { within_ms: GOAWAY_WITHIN_MS });
        for (&connection, _) in self.connections.iter().filter(|(_, state)| state.session.is_open()) {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame: frame.clone() });
        }
    }

    /// Refuses everything that waits and was not taken yet.
    fn refuse_waiting(&mut self) {
        let refused = self.refuse_phase().expect("the shard is draining");
        for request in self.parked.take_all() {
            self.refuse_request(request, refused.clone());
        }
        for request in self.backlog.take_all() {
            self.refuse_request(request, refused.clone());
        }
        self.refuse_wishes(&refused);
        self.drain_groups(&refused);
        self.stop_transactions(&refused);
        for asker in std::mem::take(&mut self.producer_askers) {
            self.refuse(asker, None, refused.clone());
        }
        self.is_storage_touched = true;
    }
}

/// Spreads what a former number of shards exported over another number: one import for each new shard.
///
/// # Errors
/// The catalog among the exports cannot be read.
pub fn reshard(exports: &[ShardExport], shards: u16) -> Result<Vec<ShardExport>, DecodeError> {
    assert!(0 < shards && usize::from(shards) <= SHARDS_MAX, "{shards} shards");
    let snapshot = exports.iter().find_map(|export| export.catalog.as_ref());
    let catalog = snapshot.map(|bytes| decode_snapshot(bytes)).transpose()?;
    let catalog = catalog.map_or_else(|| Catalog::new(shards), |catalog| catalog.reassign(shards));
    // Each shard counts on in a range of its own, so that the highest of all is safe for everyone.
    let producer_ids_until = exports.iter().map(|export| export.producer_ids_until).max().unwrap_or(0);
    let mut imports = vec![ShardExport { producer_ids_until, ..ShardExport::default() }; usize::from(shards)];
    for (partition, state) in exports.iter().flat_map(|export| &export.partitions) {
        let owners = catalog.topic(partition.topic).map(|topic| &topic.shards);
        if let Some(owner) = owners.and_then(|owners| owners.get(partition.index.0 as usize)) {
            imports[usize::from(owner.0)].partitions.push((*partition, state.clone()));
        }
    }
    imports[0].catalog = Some(encode_snapshot(&catalog).into());
    Ok(imports)
}
