//! A home partition: its coordinators, and reading them from its log again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_model::{
    ErrorCode, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerId, TransactionalId,
};
use corelane_session::Refused;
use corelane_storage::ReadError;
use corelane_transaction::{Coordinator, DecodeError, RequestTicket, Restore, TransactionStats, id_of};

use super::TRANSACTIONS_TOPIC;
use super::run::Waiter;
use crate::Shard;
use crate::home_log::{self, HomeAppends, HomeLogError, HomeReading, NeverWritten, ReadStep};
use crate::subscriptions::ReadFor;

/// Reads of homes' logs that one round makes.
const RESTORE_ROUND_READS: usize = 16;
/// ```text
///              the log was read to its end
///  Restoring ──────────────────────────────▶ Serving
///      │ a record of another version            │ the journal failed, or the shard drains
///      └──────────────────▶ Broken ◀────────────┘
/// ```
#[derive(Debug)]
pub(super) enum HomePhase {
    Restoring(Restoring),
    Serving,
    Broken(Refused),
}

/// How far the log of a home was read.
#[derive(Debug)]
pub(super) struct Restoring {
    reading: HomeReading,
    ids: BTreeMap<TransactionalId, Restore>,
}

/// A coordinator and who waits for it.
#[derive(Debug)]
pub(super) struct Coordinated {
    pub(super) coordinator: Coordinator,
    /// Which life of the id it is.
    pub(super) serial: u64,
    pub(super) asked: BTreeMap<RequestTicket, Waiter>,
    /// Its entry in [`Home::deadlines`].
    armed: Option<MonotonicNanos>,
    /// Its entry in [`Home::producers`].
    producer: Option<ProducerId>,
    /// Its entry in [`Home::former`].
    former: Option<ProducerId>,
}

/// Up to which record of which id something reaches.
pub(super) type Reach = home_log::Reach<TransactionalId>;

/// A home partition of this shard.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) partition: PartitionId,
    pub(super) phase: HomePhase,
    pub(super) ids: BTreeMap<TransactionalId, Coordinated>,
    /// Whose a producer is now.
    pub(super) producers: BTreeMap<ProducerId, TransactionalId>,
    /// Whose a producer was that had the transaction before.
    pub(super) former: BTreeMap<ProducerId, TransactionalId>,
    /// Ids to which something happened in this round.
    pub(super) touched: BTreeSet<TransactionalId>,
    deadlines: BTreeSet<(MonotonicNanos, TransactionalId)>,
    pub(super) appends: HomeAppends<TransactionalId>,
    /// Counters of ids that are gone.
    pub(super) retired: TransactionStats,
}

/// Why a home cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Log(#[from] HomeLogError),
    #[error(transparent)]
    Record(#[from] DecodeError),
}

impl Restoring {
    fn take(&mut self, batches: Vec<Bytes>, next: Offset) -> Result<(), RestoreError> {
        let Self { reading, ids } = self;
        reading.take(batches, next, |key, value| {
            let restore = ids.entry(id_of(key)?).or_insert_with_key(|id| Restore::new(id.clone()));
            Ok(restore.apply(key, value)?)
        })
    }
}

impl Home {
    fn new(partition: PartitionId, next: Offset, end: Offset) -> Self {
        let restoring = Restoring { reading: HomeReading::new(next, end), ids: BTreeMap::new() };
        Self {
            partition,
            phase: if next < end { HomePhase::Restoring(restoring) } else { HomePhase::Serving },
            ids: BTreeMap::new(),
            producers: BTreeMap::new(),
            former: BTreeMap::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            appends: HomeAppends::default(),
            retired: TransactionStats::default(),
        }
    }

    /// Why nothing is taken at the moment, if so.
    pub(super) fn refuses(&self) -> Option<Refused> {
        match &self.phase {
            HomePhase::Serving if !self.appends.is_full() => None,
            HomePhase::Serving => {
                let text = "records of transactions wait for room in the journal; try again in a moment";
                Some(Refused::new(ErrorCode::Busy, text))
            }
            HomePhase::Restoring(_) => {
                let text = "the transactional id is being read from disk; try again in a moment";
                Some(Refused::new(ErrorCode::Recovering, text))
            }
            HomePhase::Broken(refused) => Some(refused.clone()),
        }
    }

    pub(super) fn insert(&mut self, coordinator: Coordinator, serial: u64) {
        let id = coordinator.id().clone();
        let asked = BTreeMap::new();
        let coordinated = Coordinated { coordinator, serial, asked, armed: None, producer: None, former: None };
        self.ids.insert(id.clone(), coordinated);
        self.touched.insert(id.clone());
        self.index(&id);
    }

    /// Puts an id where its deadline and its producers say.
    pub(super) fn index(&mut self, id: &TransactionalId) {
        let Some(known) = self.ids.get_mut(id) else { return };
        let producer = known.coordinator.current().map(|current| current.producer);
        if known.producer != producer {
            if let Some(before) = std::mem::replace(&mut known.producer, producer) {
                self.producers.remove(&before);
            }
            if let Some(producer) = producer {
                self.producers.insert(producer, id.clone());
            }
        }
        let former = known.coordinator.last().map(|(last, _)| last.producer);
        if known.former != former {
            if let Some(before) = std::mem::replace(&mut known.former, former) {
                self.former.remove(&before);
            }
            if let Some(former) = former {
                self.former.insert(former, id.clone());
            }
        }
        let next = known.coordinator.next_deadline();
        if known.armed != next {
            if let Some(before) = std::mem::replace(&mut known.armed, next) {
                self.deadlines.remove(&(before, id.clone()));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, id.clone()));
            }
        }
    }

    /// Takes an id out that is forgotten.
    pub(super) fn remove(&mut self, id: &TransactionalId) -> Option<Coordinated> {
        let known = self.ids.remove(id)?;
        self.retired.merge(known.coordinator.stats());
        if let Some(before) = known.armed {
            self.deadlines.remove(&(before, id.clone()));
        }
        if let Some(producer) = known.producer {
            self.producers.remove(&producer);
        }
        if let Some(former) = known.former {
            self.former.remove(&former);
        }
        Some(known)
    }

    /// Why it takes nothing until the next start, if so.
    pub(super) const fn broken(&self) -> Option<&Refused> {
        match &self.phase {
            HomePhase::Broken(refused) => Some(refused),
            HomePhase::Serving | HomePhase::Restoring(_) => None,
        }
    }

    /// Whether records found no room in the journal.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, HomePhase::Serving) && self.appends.is_waiting()
    }

    pub(super) fn first_deadline(&self) -> Option<MonotonicNanos> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Whether its round has anything to do.
    pub(super) fn is_busy(&self, now: MonotonicNanos) -> bool {
        let is_due = self.first_deadline().is_some_and(|at| at <= now);
        is_due || !self.touched.is_empty() || self.appends.is_pending() || self.appends.is_waiting()
    }

    /// Tells those whose time has come.
    pub(super) fn meet_deadlines(&mut self, now: Now) {
        while let Some((at, id)) = self.deadlines.first().cloned()
            && at <= now.monotonic
        {
            self.deadlines.pop_first();
            let known = self.ids.get_mut(&id).expect("deadlines are those of ids");
            known.armed = None;
            known.coordinator.on_deadline(now);
            self.index(&id);
            self.touched.insert(id.clone());
            if self.deadlines.first().is_some_and(|(again, next)| *again == at && *next == id) {
                return;
            }
        }
    }

    /// Takes nothing more, and hands back who waits.
    pub(super) fn stop(&mut self, refused: &Refused) -> Vec<Waiter> {
        self.phase = HomePhase::Broken(refused.clone());
        self.touched.clear();
        self.deadlines.clear();
        self.appends.stop();
        self.ids.values_mut().flat_map(|known| std::mem::take(&mut known.asked).into_values()).collect()
    }
}

impl Shard {
    /// Opens the homes of this shard when there is a topic for them.
    pub(super) fn open_transaction_partitions(&mut self, partitions: Vec<PartitionId>) {
        for partition in partitions {
            let Some(status) = self.storage.describe(partition) else { continue };
            let home = || Home::new(partition, status.log_start, status.durable_end);
            self.transactions.homes.entry(partition.index).or_insert_with(home);
        }
    }

    /// Appends the records of a home's round. What finds no room waits for [`WRITE_AGAIN`](home_log::WRITE_AGAIN).
    pub(super) fn write_transactions(&mut self, index: PartitionIndex) {
        let Self { transactions, storage, now, is_storage_touched, .. } = self;
        let Some(Home { appends, partition, .. }) = transactions.homes.get_mut(&index) else { return };
        *is_storage_touched |= appends.is_pending() || appends.is_waiting();
        if let Err(never) = appends.write(&mut transactions.builder, storage, *now, *partition) {
            self.stop_transactions_home(index, &never);
        }
    }

    /// A home's log will never take what its coordinators decided: they must not go on from there, and whoever waits for it
    /// hears of it.
    fn stop_transactions_home(&mut self, index: PartitionIndex, never: &NeverWritten) {
        let text = format!(
            "the log of home {index} of {TRANSACTIONS_TOPIC} does not take a record: {never}; its transactional ids are served \
             again, as they are on disk, when the broker was restarted"
        );
        let refused = Refused::new(ErrorCode::StorageFailed, text);
        let home = self.transactions.homes.get_mut(&index).expect("the caller has it");
        for waiter in home.stop(&refused) {
            self.refuse_waiter(waiter, refused.clone());
        }
    }

    /// Reads on where homes are being restored. Whether more can be done at once.
    pub(super) fn restore_transactions(&mut self) -> bool {
        let restoring = |home: &Home| matches!(home.phase, HomePhase::Restoring(_));
        let homes: Vec<PartitionIndex> =
            self.transactions.homes.iter().filter(|(_, home)| restoring(home)).map(|(&index, _)| index).collect();
        let mut left = RESTORE_ROUND_READS;
        for index in homes {
            while self.restore_transaction_step(index) {
                left -= 1;
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// One read of one home. Whether it may go on.
    fn restore_transaction_step(&mut self, index: PartitionIndex) -> bool {
        let Some(home) = self.transactions.homes.get_mut(&index) else { return false };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return false };
        match restoring.reading.step(&mut self.storage, home.partition) {
            ReadStep::Batches(batches, next) => {
                let taken = restoring.take(batches, next);
                self.note_transactions_restored(index, taken)
            }
            ReadStep::Expected(ticket) => {
                self.subscriptions.expect_read(ticket, home.partition, ReadFor::Restore);
                false
            }
            ReadStep::Damaged => {
                self.stats.home_damages += 1;
                true
            }
            ReadStep::Moved => true,
            ReadStep::Waiting => false,
            ReadStep::Done => {
                self.finish_transaction_restore(index);
                false
            }
        }
    }

    /// A read of a home's log came back; whether it was one of a home of transactions.
    pub(crate) fn on_transactions_read(
        &mut self,
        partition: PartitionId,
        result: Result<Vec<Bytes>, ReadError>,
    ) -> Result<(), Result<Vec<Bytes>, ReadError>> {
        if self.transactions.topic != Some(partition.topic) {
            return Err(result);
        }
        let Some(home) = self.transactions.homes.get_mut(&partition.index) else { return Ok(()) };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return Ok(()) };
        match restoring.reading.on_read(result) {
            ReadStep::Batches(batches, next) => {
                let taken = restoring.take(batches, next);
                self.note_transactions_restored(partition.index, taken);
            }
            ReadStep::Damaged => self.stats.home_damages += 1,
            _ => {}
        }
        self.is_storage_touched = true;
        Ok(())
    }

    fn note_transactions_restored(&mut self, index: PartitionIndex, taken: Result<(), RestoreError>) -> bool {
        let Err(error) = taken else { return true };
        let home = self.transactions.homes.get_mut(&index).expect("it is being restored");
        let text = format!(
            "home {index} of {TRANSACTIONS_TOPIC} cannot be read, so its transactional ids are not served: {error}"
        );
        home.phase = HomePhase::Broken(Refused::new(ErrorCode::CorruptLog, text));
        false
    }

    /// The log was read to its end: the ids are there, and participants of what was decided are told again.
    fn finish_transaction_restore(&mut self, index: PartitionIndex) {
        let Self { transactions, now, .. } = self;
        let home = transactions.homes.get_mut(&index).expect("it is being restored");
        let HomePhase::Restoring(restoring) = std::mem::replace(&mut home.phase, HomePhase::Serving) else {
            panic!("home {index} is restored twice");
        };
        for restore in restoring.ids.into_values().filter(|restore| !restore.is_nothing()) {
            transactions.last_ticket += 1;
            home.insert(restore.finish(*now), transactions.last_ticket);
        }
        self.is_storage_touched = true;
    }
}
