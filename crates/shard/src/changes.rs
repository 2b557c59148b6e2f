//! The catalog's changes: made on shard 0, durable before anything is said, answered when every shard has applied them.

use std::collections::VecDeque;

use bytes::Bytes;
use corelane_catalog::{CatalogChange, decode_change, encode_change, encode_snapshot};
use corelane_model::{CatalogVersion, ErrorCode, PartitionId, ShardId, TopicId};
use corelane_session::Refused;
use corelane_storage::ChangeTicket;

use crate::Shard;
use crate::ask::{Answer, Asker, CatalogRequest, Wish};
use crate::boot::Phase;
use crate::groups::{GROUPS_PARTITIONS, GROUPS_TOPIC, groups_settings};
use crate::mesh::Message;
use crate::transactions::{TRANSACTIONS_PARTITIONS, TRANSACTIONS_TOPIC, transactions_settings};

/// Changes of the catalog that wait for their turn; more are refused.
const WISHES_MAX: usize = 4096;
/// A snapshot replaces changes in the journal's checkpoints at the latest when they have grown to this many bytes.
const SNAPSHOT_AFTER_BYTES_MIN: usize = 16 << 10;

/// A change that is on its way to the disk.
#[derive(Debug)]
struct Writing {
    ticket: ChangeTicket,
    asker: Option<Asker>,
    change: CatalogChange,
    encoded: Bytes,
}

/// A change that is durable and on its way to the other shards.
#[derive(Debug)]
struct Spreading {
    version: CatalogVersion,
    asker: Option<Asker>,
    answer: Answer,
}

/// Wishes in the order of arrival. One change at a time is planned and written, so that each is planned on the catalog
/// that the one before made; any number may be spreading.
///
/// ```text
///  waiting ──▶ writing ──▶ spreading ──▶ answered
///        plan, journal  sync, apply,   every shard
///                       broadcast      has applied
/// ```
#[derive(Debug)]
pub(crate) struct Changes {
    waiting: VecDeque<CatalogRequest>,
    writing: Option<Writing>,
    spreading: VecDeque<Spreading>,
    /// What each shard has applied, by shard; that of shard 0 is not looked at.
    applied: Vec<CatalogVersion>,
    snapshot_bytes: usize,
    bytes_since: usize,
}

impl Changes {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            waiting: VecDeque::new(),
            writing: None,
            spreading: VecDeque::new(),
            applied: vec![CatalogVersion(0); usize::from(shards)],
            snapshot_bytes: 0,
            bytes_since: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.writing.is_some()) + self.spreading.len()
    }

    /// A snapshot of that size has taken the place of the changes before it.
    pub(crate) const fn on_snapshot(&mut self, bytes: usize) {
        self.snapshot_bytes = bytes;
        self.bytes_since = 0;
    }

    fn applied_by_all(&self) -> CatalogVersion {
        self.applied[1..].iter().min().copied().unwrap_or(CatalogVersion(u64::MAX))
    }
}

impl Shard {
    /// Somebody wants the catalog changed, and this is shard 0.
    pub(crate) fn handle_wish(&mut self, request: CatalogRequest) {
        assert_eq!(self.me(), ShardId(0), "the catalog is changed on shard 0");
        if let Some(refused) = self.refuse_phase() {
            return self.refuse_wish(request.asker, refused);
        }
        if WISHES_MAX <= self.changes.waiting.len() {
            let text = format!("{WISHES_MAX} changes of the catalog wait already");
            return self.refuse_wish(request.asker, Refused::new(ErrorCode::Busy, text));
        }
        self.changes.waiting.push_back(request);
        self.write_next_change();
    }

    fn write_next_change(&mut self) {
        while self.changes.writing.is_none() {
            let Some(CatalogRequest { asker, wish }) = self.changes.waiting.pop_front() else { return };
            let catalog = self.catalog.as_ref().expect("wishes are taken when the catalog is known");
            let planned = match &wish {
                Wish::Create { name, partitions, settings } => catalog.plan_create(name, *partitions, *settings),
                Wish::Alter { name, partitions, settings } => catalog.plan_alter(name, *partitions, *settings),
                Wish::Delete { name } => catalog.plan_delete(name),
                // Several shards may have wished for it.
                Wish::CreateTransactions => {
                    catalog.plan_create_internal(TRANSACTIONS_TOPIC, TRANSACTIONS_PARTITIONS, transactions_settings())
                }
                Wish::CreateGroups => catalog.plan_create_internal(GROUPS_TOPIC, GROUPS_PARTITIONS, groups_settings()),
            };
            let change = match planned {
                Ok(change) => change,
                Err(error) => {
                    self.refuse_wish(asker, Refused::new(error.code(), error.to_string()));
                    continue;
                }
            };
            let encoded = Bytes::from(encode_change(&change, self.config.shards));
            self.is_storage_touched = true;
            match self.storage.write_catalog(encoded.clone()) {
                Ok(ticket) => self.changes.writing = Some(Writing { ticket, asker, change, encoded }),
                Err(error) => self.refuse_wish(asker, Refused::new(error.code(), error.to_string())),
            }
        }
    }

    /// The change is on disk: now it holds.
    pub(crate) fn on_change_durable(&mut self, ticket: ChangeTicket) {
        let Some(Writing { ticket: written, asker, change, encoded }) = self.changes.writing.take() else {
            panic!("a change is durable that nobody wrote");
        };
        assert_eq!(ticket, written, "one change is written at a time");
        self.apply(&change);
        self.broadcast(|| Message::Change(encoded.clone()));
        self.changes.bytes_since += encoded.len();
        if self.changes.snapshot_bytes.max(SNAPSHOT_AFTER_BYTES_MIN) <= self.changes.bytes_since {
            let catalog = self.catalog.as_ref().expect("it was just changed");
            let snapshot = Bytes::from(encode_snapshot(catalog));
            self.changes.on_snapshot(snapshot.len());
            self.storage.set_catalog_snapshot(snapshot, Some(ticket));
        }
        let version = change.version();
        let answer = match change {
            CatalogChange::Created { topic, .. } => Answer::Created { topic, version },
            CatalogChange::Altered { added, .. } => Answer::Altered { version, keys_moved: !added.is_empty() },
            CatalogChange::Deleted { .. } => Answer::Deleted,
        };
        self.changes.spreading.push_back(Spreading { version, asker, answer });
        self.answer_spread();
        self.write_next_change();
    }

    /// A neighbour has applied everything up to that version.
    pub(crate) fn on_applied(&mut self, from: ShardId, version: CatalogVersion) {
        let applied = &mut self.changes.applied[usize::from(from.0)];
        assert!(*applied <= version, "shard {from} went back from catalog {applied} to {version}");
        *applied = version;
        self.answer_spread();
    }

    fn answer_spread(&mut self) {
        let everywhere = self.changes.applied_by_all();
        while let Some(spreading) = self.changes.spreading.front()
            && spreading.version <= everywhere
        {
            let Spreading { asker, answer, .. } = self.changes.spreading.pop_front().expect("it was there");
            if let Some(asker) = asker {
                self.answer(asker, None, answer);
            }
        }
    }

    /// Shard 0 changed the catalog. It has checked the change, so anything wrong with it is a mistake of ours.
    pub(crate) fn apply_foreign_change(&mut self, encoded: &[u8]) {
        let change = decode_change(encoded).expect("shard 0 encodes what it has planned");
        self.apply(&change);
        self.send_mesh(ShardId(0), Message::Applied(change.version()));
    }

    fn apply(&mut self, change: &CatalogChange) {
        let catalog = self.catalog.as_mut().expect("the catalog comes before its changes");
        catalog.apply(change).expect("shard 0 planned it on the same catalog");
        // Before, recovery will open what the catalog then holds; afterwards the next start will.
        if matches!(self.phase, Phase::Serving { .. } | Phase::Draining { .. }) {
            self.is_storage_touched = true;
            match change {
                CatalogChange::Created { topic, .. } => self.open_partitions(*topic),
                CatalogChange::Altered { topic, settings, .. } => {
                    self.storage.alter(*topic, settings);
                    self.open_partitions(*topic);
                }
                CatalogChange::Deleted { topic, .. } => self.remove_topic(*topic),
            }
            if matches!(self.phase, Phase::Serving { .. }) {
                self.on_catalog_of_groups();
                if matches!(change, CatalogChange::Created { name, .. } if name.as_str() == GROUPS_TOPIC) {
                    self.open_homes();
                }
                if matches!(change, CatalogChange::Created { name, .. } if name.as_str() == TRANSACTIONS_TOPIC) {
                    self.open_transactions();
                }
            }
            self.route_parked();
        }
    }

    /// Opens this shard's partitions of a topic; those that are open stay as they are.
    fn open_partitions(&mut self, topic: TopicId) {
        let catalog = self.catalog.as_ref().expect("it was just changed");
        let topic = catalog.topic(topic).expect("it was just changed");
        for partition in topic.partitions_of(self.config.shard) {
            self.storage.open_partition(partition, &topic.settings);
        }
    }

    fn remove_topic(&mut self, topic: TopicId) {
        let deleted = || Refused::new(ErrorCode::Deleted, format!("topic {topic} was deleted"));
        for request in self.backlog.take_topic(topic) {
            self.refuse_request(request, deleted());
        }
        self.forget_topic_in_transactions(topic, &deleted());
        let partitions: Vec<PartitionId> = self.active.ids_of(topic).collect();
        for partition in partitions {
            let mut active = self.active.remove(partition).expect("it was just listed");
            for subscription in active.subscribers {
                self.abort_subscription(subscription, deleted().into());
            }
            // The records are gone because somebody wanted them gone, durably: nothing is left that could be lost, and
            // nobody shall wait for it.
            for (peer, wanted) in active.waiters.take() {
                self.send_durable(peer, partition, wanted);
            }
        }
        for asker in self.subscriptions.take_reads_of(topic) {
            self.refuse(asker, None, deleted());
        }
        let truncations = std::mem::take(&mut self.truncations);
        for (ticket, (asker, partition)) in truncations {
            if partition.topic == topic {
                self.refuse(asker, None, deleted());
            } else {
                self.truncations.insert(ticket, (asker, partition));
            }
        }
        self.traffic.remove(&topic);
        self.storage.remove_topic(topic);
    }

    /// Refuses the changes that are not written yet.
    pub(crate) fn refuse_wishes(&mut self, refused: &Refused) {
        for CatalogRequest { asker, .. } in std::mem::take(&mut self.changes.waiting) {
            self.refuse_wish(asker, refused.clone());
        }
    }

    fn refuse_wish(&mut self, asker: Option<Asker>, refused: Refused) {
        if let Some(asker) = asker {
            self.refuse(asker, None, refused);
        }
    }

    /// The journal failed: what is on its way to it will never be known to be there.
    pub(crate) fn refuse_changes(&mut self, text: &str) {
        let refused = Refused::new(ErrorCode::StorageFailed, text);
        self.refuse_wishes(&refused);
        if let Some(Writing { asker, .. }) = self.changes.writing.take() {
            self.refuse_wish(asker, refused.clone());
        }
        for (asker, _) in std::mem::take(&mut self.truncations).into_values() {
            self.refuse(asker, None, refused.clone());
        }
        for asker in std::mem::take(&mut self.producer_askers) {
            self.refuse(asker, None, refused.clone());
        }
        for request in self.backlog.take_all() {
            self.refuse_request(request, refused.clone());
        }
        self.stop_groups(&refused);
        self.stop_transactions(&refused);
    }
}
