//! The queue and what must hold between its parts.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use corelane_model::limits::TOPIC_PARTITIONS_MAX;
use corelane_model::{
    GroupName, MemberId, MonotonicNanos, Now, Offset, PartitionIndex, QueueSettings, StartAt, TopicId,
};

use crate::clock::{Clock, Due};
use crate::dead_letters::{Dying, Redrive};
use crate::dispatch::Chance;
use crate::member::Members;
use crate::partition::Partition;
use crate::round::{Outbox, Round};
use crate::slot::State;
use crate::{Effect, FenceReason, QueueError, QueueStats};

/// What a queue is: a group that consumes a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName {
    /// The group; its home is the queue's.
    pub group: GroupName,
    /// The topic.
    pub topic: TopicId,
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on topic {}", self.group, self.topic)
    }
}

/// One shared queue. See the crate's page for how it is driven.
#[derive(Clone, Debug)]
pub struct Queue {
    pub(crate) name: QueueName,
    pub(crate) settings: QueueSettings,
    /// Where the queue began, in the partitions that there were.
    pub(crate) start: StartAt,
    /// How many partitions there were then; later ones are read from their beginning.
    pub(crate) first_partitions: u32,
    pub(crate) is_deleted: bool,
    pub(crate) partitions: Vec<Partition>,
    /// Partitions with something to hand out.
    pub(crate) listed: VecDeque<u32>,
    pub(crate) members: Members,
    /// Members that were put out, oldest first, so that late traffic hears why.
    pub(crate) fenced: VecDeque<(MemberId, FenceReason)>,
    /// When a session may have expired, one entry a member, moved only when it comes up.
    pub(crate) sessions: BTreeSet<(MonotonicNanos, u16)>,
    pub(crate) clock: Clock,
    pub(crate) dying: Dying,
    pub(crate) redrive: Redrive,
    pub(crate) chance: Chance,
    /// The pass of the member that was last chosen by weight.
    pub(crate) pass: u64,
    pub(crate) round: Round,
    pub(crate) outbox: Outbox,
    pub(crate) stats: QueueStats,
}

impl Queue {
    /// A queue that nobody knew before, of a topic with so many partitions, that begins there in each. `seed` feeds
    /// the dispatch [`corelane_model::Dispatch::Random`].
    ///
    /// # Errors
    /// A setting is out of its bounds.
    pub fn new(
        name: QueueName,
        settings: QueueSettings,
        partitions: u32,
        start: StartAt,
        seed: u64,
    ) -> Result<Self, QueueError> {
        settings.check()?;
        let mut queue = Self::bare(name, settings, seed);
        queue.start = start;
        queue.first_partitions = partitions;
        queue.round.is_new = true;
        queue.round.settings = true;
        queue.on_partitions(partitions);
        Ok(queue)
    }

    /// What is left of a queue with records that cannot be read: it can do nothing but be deleted, before its first round
    /// ends. `keys` are those of all its records in the home's log.
    #[must_use]
    pub fn remains(name: QueueName, keys: Vec<Vec<u8>>, seed: u64) -> Self {
        let mut queue = Self::bare(name, QueueSettings::default(), seed);
        queue.round.remains = keys;
        queue
    }

    /// Without partitions.
    pub(crate) fn bare(name: QueueName, settings: QueueSettings, seed: u64) -> Self {
        Self {
            name,
            settings,
            start: StartAt::Earliest,
            first_partitions: 0,
            is_deleted: false,
            partitions: Vec::new(),
            listed: VecDeque::new(),
            members: Members::default(),
            fenced: VecDeque::new(),
            sessions: BTreeSet::new(),
            clock: Clock::default(),
            dying: Dying::default(),
            redrive: Redrive::default(),
            chance: Chance::new(seed),
            pass: 0,
            round: Round::default(),
            outbox: Outbox::default(),
            stats: QueueStats::default(),
        }
    }

    /// What it is.
    #[must_use]
    pub const fn name(&self) -> &QueueName {
        &self.name
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions_len(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("the limit of partitions is below 2^32")
    }

    /// How many members it has.
    #[must_use]
    pub fn members_len(&self) -> usize {
        self.members.len()
    }

    /// Counters since it was made or restored.
    #[must_use]
    pub const fn stats(&self) -> &QueueStats {
        &self.stats
    }

    /// The topic has so many partitions. It never has fewer than before.
    pub fn on_partitions(&mut self, count: u32) {
        assert!(count <= TOPIC_PARTITIONS_MAX, "{count} partitions are over the limit");
        for index in self.partitions_len()..count {
            self.partitions.push(Partition::new(PartitionIndex(index), self.settings.order_per_key));
            self.find_start(index);
        }
    }

    /// Asks where a partition begins.
    pub(crate) fn find_start(&mut self, index: u32) {
        let start = if index < self.first_partitions { self.start } else { StartAt::Earliest };
        self.round.unstarted += 1;
        self.outbox.now(Effect::FindStart { partition: PartitionIndex(index), start });
    }

    /// Asks again for what [`Effect::FindStart`] asked of this partition, after the answer was lost. Does nothing if its
    /// beginning is known.
    pub fn find_start_again(&mut self, partition: PartitionIndex) {
        if !self.is_deleted && self.partition(partition).is_some_and(|partition| !partition.is_started) {
            self.round.unstarted -= 1;
            self.find_start(partition.0);
        }
    }

    /// Answers [`Effect::FindStart`]: the queue begins there. A repeated answer changes nothing.
    pub fn on_start(&mut self, partition: PartitionIndex, offset: Offset) {
        let Some(partition) = self.partitions.get_mut(partition.0 as usize) else { return };
        if !partition.is_started && !self.is_deleted {
            partition.start(offset.0);
            partition.is_dirty = true;
            self.round.dirty.push(partition.index.0);
            self.round.unstarted -= 1;
        }
    }

    /// The partition of that index; offsets and indexes from outside may name none.
    pub(crate) fn partition(&mut self, index: PartitionIndex) -> Option<&mut Partition> {
        self.partitions.get_mut(index.0 as usize)
    }

    /// Marks a partition whose record is to be written, if it is not marked.
    pub(crate) fn soil(&mut self, index: u32) {
        let partition = &mut self.partitions[index as usize];
        if !partition.is_dirty {
            partition.is_dirty = true;
            self.round.dirty.push(index);
        }
    }

    /// Puts a partition into the list of those with something to hand out, if it has.
    pub(crate) fn list(&mut self, index: u32) {
        let partition = &mut self.partitions[index as usize];
        if 0 < partition.ready() && !partition.is_listed {
            partition.is_listed = true;
            self.listed.push_back(index);
        }
    }

    /// A record is done: whoever stands behind it may go.
    pub(crate) fn finish(&mut self, now: Now, index: u32, offset: u64) {
        let partition = &mut self.partitions[index as usize];
        if !partition.is_dirty {
            self.round.dirty.push(index);
        }
        let before = partition.done_end;
        let next = partition.finish(offset);
        let is_moved = before < partition.done_end;
        if let Some(next) = next {
            self.release(now, index, next);
        }
        if is_moved {
            self.list(index);
        }
    }

    /// The record before in its line is done.
    fn release(&mut self, now: Now, index: u32, offset: u64) {
        let partition = &mut self.partitions[index as usize];
        let Some(slot) = partition.slot(offset).filter(|slot| slot.state == State::Held) else { return };
        let until = slot.until;
        if now.monotonic < until {
            partition.set_state(offset, State::Delayed);
            self.clock.push_other(Due { at: until, partition: index, offset });
        } else {
            partition.put_again(offset);
            self.list(index);
        }
    }

    /// The request is for a queue that is there.
    pub(crate) const fn check_alive(&self) -> Result<(), QueueError> {
        if self.is_deleted { Err(QueueError::Deleted) } else { Ok(()) }
    }

    /// What must hold between two rounds. It costs as much as the windows are large: for tests.
    pub fn check(&self) {
        let mut leased = vec![0u64; usize::from(u16::MAX)];
        for partition in &self.partitions {
            partition.check();
            for (offset, slot) in partition.in_state(State::Leased) {
                let member = self.members.get(slot.seat);
                assert!(member.is_some(), "record {offset} of {} is leased to nobody", partition.index);
                leased[usize::from(slot.seat)] += 1;
            }
            let may_wait = self.listed.contains(&partition.index.0) == partition.is_listed;
            assert!(may_wait, "partition {} and the list disagree", partition.index);
        }
        for seat in self.members.seats() {
            let member = self.members.get(seat).expect("it is listed");
            assert_eq!(member.leased, leased[usize::from(seat)], "leases of member {}", member.id);
            let given: u64 = member.given.iter().map(|run| u64::from(run.count)).sum();
            assert!(member.leased <= given, "a lease of member {} is not remembered", member.id);
            assert_eq!(self.members.listed.contains(&seat), member.is_listed, "list of members");
        }
    }
}
