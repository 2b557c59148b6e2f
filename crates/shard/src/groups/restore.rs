//! Reading a home's log, so that its groups are there again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_group::{DecodeError, Restore, group_of};
use corelane_model::{ErrorCode, GroupName, Offset, PartitionId, PartitionIndex};
use corelane_queue::{QueueName, is_queue_key, queue_of};
use corelane_session::Refused;
use corelane_storage::ReadError;

use super::home::{Coordinated, Home, HomePhase};
use super::{GROUPS_TOPIC, HomeRequest};
use crate::Shard;
use crate::home_log::{HomeLogError, HomeReading, ReadStep};
use crate::subscriptions::ReadFor;

/// Bytes of logs that are read in one round, over all homes.
const RESTORE_ROUND_BYTES: u64 = 1 << 20;
/// Requests for one home that wait until it is restored; more are refused.
const WAITING_MAX: usize = 256;

/// How far the log of a home was read.
#[derive(Debug)]
pub(crate) struct Restoring {
    reading: HomeReading,
    groups: BTreeMap<GroupName, Restore>,
    queues: BTreeMap<QueueName, corelane_queue::Restore>,
    /// Queues with a record that cannot be read.
    broken: BTreeMap<QueueName, Remains>,
    bytes: u64,
    /// Requests that came meanwhile.
    waiting: Vec<HomeRequest>,
}

/// What there is of a queue with a record that cannot be read.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) why: String,
    /// Keys of records that live; when none is left, the queue was deleted.
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

impl Remains {
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        if value.is_some() {
            self.keys.insert(key.to_vec());
        } else {
            self.keys.remove(key);
        }
    }
}

/// Why a home cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Log(#[from] HomeLogError),
    #[error(transparent)]
    Record(#[from] DecodeError),
    #[error(transparent)]
    Queue(#[from] corelane_queue::DecodeError),
}

impl Restoring {
    pub(super) fn new(log_start: Offset, end: Offset) -> Self {
        Self {
            reading: HomeReading::new(log_start, end),
            groups: BTreeMap::new(),
            queues: BTreeMap::new(),
            broken: BTreeMap::new(),
            bytes: 0,
            waiting: Vec::new(),
        }
    }

    /// Keeps a request until the groups are there, or hands it back.
    pub(crate) fn hold(&mut self, request: HomeRequest) -> Option<HomeRequest> {
        if WAITING_MAX <= self.waiting.len() {
            return Some(request);
        }
        self.waiting.push(request);
        None
    }

    pub(super) fn take_waiting(&mut self) -> Vec<HomeRequest> {
        std::mem::take(&mut self.waiting)
    }

    fn take(&mut self, batches: Vec<Bytes>, next: Offset) -> Result<(), RestoreError> {
        self.bytes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        let Self { reading, groups, queues, broken, .. } = self;
        reading.take(batches, next, |key, value| {
            if is_queue_key(key) {
                return take_queue_record(queues, broken, key, value);
            }
            let restore = groups.entry(group_of(key)?).or_insert_with_key(|name| Restore::new(name.clone()));
            Ok(restore.apply(key, value)?)
        })
    }
}

/// A record of a queue. One that cannot be read breaks its queue and no other, until that is deleted.
fn take_queue_record(
    queues: &mut BTreeMap<QueueName, corelane_queue::Restore>,
    broken: &mut BTreeMap<QueueName, Remains>,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), RestoreError> {
    let name = queue_of(key)?;
    let mut remains = match broken.remove(&name) {
        Some(remains) => remains,
        None => {
            let fresh = |name: &QueueName| corelane_queue::Restore::new(name.clone());
            let restore = queues.entry(name.clone()).or_insert_with_key(fresh);
            let Err(error) = restore.apply(key, value) else { return Ok(()) };
            let keys = restore.keys().collect();
            queues.remove(&name);
            Remains { why: error.to_string(), keys }
        }
    };
    remains.take(key, value);
    if !remains.keys.is_empty() {
        broken.insert(name, remains);
    }
    Ok(())
}

impl Shard {
    /// Reads on where homes are being restored. Whether more can be done at once.
    pub(super) fn restore_homes(&mut self) -> bool {
        let mut left = RESTORE_ROUND_BYTES;
        let restoring = |home: &Home| matches!(home.phase, HomePhase::Restoring(_));
        for index in self.groups.homes.awake_that(restoring) {
            while self.restore_step(index, &mut left) {
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// One read of one home. Whether it may go on.
    fn restore_step(&mut self, index: PartitionIndex, left: &mut u64) -> bool {
        let Some(home) = self.groups.homes.get_mut(&index) else { return false };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return false };
        match restoring.reading.step(&mut self.storage, home.partition) {
            ReadStep::Batches(batches, next) => {
                let bytes = batches.iter().map(|batch| batch.len() as u64).sum();
                *left = left.saturating_sub(bytes);
                let taken = restoring.take(batches, next);
                self.note_restored(index, taken)
            }
            ReadStep::Expected(ticket) => {
                self.subscriptions.expect_read(ticket, home.partition, ReadFor::Restore);
                false
            }
            // What does not hold together without the damaged records is undone.
            ReadStep::Damaged => {
                self.stats.home_damages += 1;
                true
            }
            ReadStep::Moved => true,
            ReadStep::Waiting => false,
            ReadStep::Done => {
                self.finish_restore(index);
                false
            }
        }
    }

    /// A read of a home's log came back.
    pub(crate) fn on_restore_read(&mut self, partition: PartitionId, result: Result<Vec<Bytes>, ReadError>) {
        let Some(home) = self.groups.home_of(partition) else { return };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return };
        match restoring.reading.on_read(result) {
            ReadStep::Batches(batches, next) => {
                let taken = restoring.take(batches, next);
                self.note_restored(partition.index, taken);
            }
            ReadStep::Damaged => self.stats.home_damages += 1,
            _ => {}
        }
        self.is_storage_touched = true;
    }

    fn note_restored(&mut self, index: PartitionIndex, taken: Result<(), RestoreError>) -> bool {
        let Err(error) = taken else { return true };
        let home = self.groups.homes.get_mut(&index).expect("it is being restored");
        let waiting = match &mut home.phase {
            HomePhase::Restoring(restoring) => restoring.take_waiting(),
            HomePhase::Serving | HomePhase::Broken(_) => Vec::new(),
        };
        let text =
            format!("home {index} of {GROUPS_TOPIC} cannot be read, so its groups and queues are not served: {error}");
        home.phase = HomePhase::Broken(Refused::new(ErrorCode::CorruptLog, text));
        for request in waiting {
            self.run_home(request);
        }
        false
    }

    /// The log was read to its end: the groups are there, and members have their whole session time-out before them.
    fn finish_restore(&mut self, index: PartitionIndex) {
        let home = self.groups.homes.get_mut(&index).expect("it is being restored");
        let HomePhase::Restoring(restoring) = std::mem::replace(&mut home.phase, HomePhase::Serving) else {
            panic!("home {index} is restored twice");
        };
        home.log.restored(restoring.bytes);
        let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
        let patterns = &mut self.groups.patterns;
        let mut staged = Vec::new();
        for (name, restore) in restoring.groups {
            if restore.is_nothing() {
                continue;
            }
            let group = restore.finish(self.now, |subscription| patterns.resolve(subscription, catalog));
            staged.push((name.clone(), group.transactions()));
            self.groups.last_ticket += 1;
            home.groups.insert(name.clone(), Coordinated::new(group, self.groups.last_ticket));
            // A topic may have gone while nobody looked.
            home.stale.insert(name.clone());
            home.touch(&name);
        }
        for (name, transactions) in staged {
            self.inquire_about_group(&name, transactions);
        }
        self.restore_queues(index, restoring.queues, restoring.broken);
        for request in restoring.waiting {
            self.run_home(request);
        }
    }

    fn run_home(&mut self, request: HomeRequest) {
        match request {
            HomeRequest::Group(request) => self.run_group(request),
            HomeRequest::Queue(request) => self.run_queue(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{Now, QueueSettings, StartAt, TopicId, WallMillis};
    use corelane_record::{BatchBuilder, Compression, ProducerStamp};

    use super::*;

    fn queue(group: &str) -> corelane_queue::Queue {
        let group = GroupName::parse(group).expect("it is sound");
        let name = QueueName { group, topic: TopicId(7) };
        let queue = corelane_queue::Queue::new(name, QueueSettings::default(), 1, StartAt::Earliest, 1);
        queue.expect("it is sound")
    }

    #[test]
    fn a_record_that_cannot_be_read_breaks_its_queue_alone() {
        let (sound, bad) = (queue("sound"), queue("bad"));
        let records_of = |queue: &corelane_queue::Queue| queue.records(Now::default()).collect::<Vec<_>>();
        let (records, damaged) = (records_of(&sound), records_of(&bad));
        let mut builder = BatchBuilder::new(Compression::None);
        let mut push = |key: &[u8], value: &[u8]| builder.push(WallMillis(1), Some(key), Some(value), &[]);
        for (key, value) in &damaged {
            push(key, &value[..value.len() - 1]).expect("it is small");
        }
        for (key, value) in records.iter().chain(&damaged) {
            push(key, value).expect("it is small");
        }
        let mut restoring = Restoring::new(Offset(0), Offset(100));
        restoring.take(vec![builder.finish(ProducerStamp::default())], Offset(0)).expect("the home is not broken");
        assert_eq!(restoring.queues.keys().collect::<Vec<_>>(), [sound.name()]);
        assert_eq!(restoring.broken.keys().collect::<Vec<_>>(), [bad.name()]);

        let keys: Vec<_> = restoring.broken[bad.name()].keys.iter().cloned().collect();
        assert_eq!(keys.len(), damaged.len());
        let Restoring { queues, broken, .. } = &mut restoring;
        for key in &keys {
            take_queue_record(queues, broken, key, None).expect("it is a key");
        }
        assert!(broken.is_empty(), "every record of it was taken away");
        for (key, value) in &damaged {
            take_queue_record(queues, broken, key, Some(value)).expect("it is sound");
        }
        assert_eq!(restoring.queues.keys().collect::<Vec<_>>(), [bad.name(), sound.name()], "one that is made anew");
        assert!(restoring.broken.is_empty());
    }
}
