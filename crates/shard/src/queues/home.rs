//! A queue in its home.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{MemberId, MonotonicNanos, Now, PartitionIndex, TopicName};
use corelane_queue::{Queue, QueueName, RequestTicket};
use corelane_session::Refused;

use super::reading::Reader;
use crate::ask::{Asker, Peer};

/// Who waits for a ticket.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) asker: Asker,
    /// Session time-out in milliseconds, of a join.
    pub(super) joined: Option<u32>,
}

/// A queue and who talks to it.
#[derive(Debug)]
pub(crate) struct Homed {
    pub(crate) queue: Queue,
    /// Which life of the name it is.
    pub(crate) serial: u64,
    pub(super) topic: TopicName,
    pub(super) speakers: BTreeMap<MemberId, Peer>,
    pub(super) asked: BTreeMap<RequestTicket, Asked>,
    pub(super) readers: BTreeMap<PartitionIndex, Reader>,
    is_touched: bool,
    armed: Option<MonotonicNanos>,
}

impl Homed {
    pub(crate) const fn new(queue: Queue, serial: u64, topic: TopicName) -> Self {
        Self {
            queue,
            serial,
            topic,
            speakers: BTreeMap::new(),
            asked: BTreeMap::new(),
            readers: BTreeMap::new(),
            is_touched: false,
            armed: None,
        }
    }
}

/// A queue with a record that cannot be read.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What is wrong with the record.
    pub(super) why: String,
    /// What is answered to all requests but that it be deleted.
    pub(super) refused: Refused,
    /// Keys of all its records.
    pub(super) keys: Vec<Vec<u8>>,
}

/// The queues of one home.
#[derive(Debug, Default)]
pub(crate) struct QueuesOfHome {
    pub(crate) by_name: BTreeMap<QueueName, Homed>,
    /// Queues with a record that cannot be read, until they are deleted. The home's log is not shortened meanwhile.
    pub(crate) broken: BTreeMap<QueueName, Broken>,
    /// Queues to which something happened, each once.
    pub(super) touched: Vec<QueueName>,
    /// When queues want to be looked at, one entry each.
    pub(super) deadlines: BTreeSet<(MonotonicNanos, QueueName)>,
    /// The catalog changed since the topics of queues were looked up.
    pub(crate) are_stale: bool,
}

impl QueuesOfHome {
    pub(crate) fn insert(&mut self, name: &QueueName, homed: Homed) {
        self.by_name.insert(name.clone(), homed);
        self.touch(name);
    }

    /// Whether a round has something to do here.
    pub(crate) fn has_work(&self, now: Now, lenient_until: MonotonicNanos) -> bool {
        let is_due = |at: MonotonicNanos| at.max(lenient_until) <= now.monotonic;
        self.is_touched() || self.deadline().is_some_and(is_due)
    }

    /// Whether something happened to a queue here.
    pub(crate) fn is_touched(&self) -> bool {
        self.are_stale || !self.touched.is_empty()
    }

    /// Notes that a queue's round has to be ended.
    pub(super) fn touch(&mut self, name: &QueueName) {
        if let Some(homed) = self.by_name.get_mut(name)
            && !std::mem::replace(&mut homed.is_touched, true)
        {
            self.touched.push(name.clone());
        }
    }

    /// The queues whose round is to be ended now.
    pub(super) fn take_touched(&mut self) -> Vec<QueueName> {
        let touched = std::mem::take(&mut self.touched);
        for name in &touched {
            if let Some(homed) = self.by_name.get_mut(name) {
                homed.is_touched = false;
            }
        }
        touched
    }

    /// Sets a queue's deadline to what it says now.
    pub(super) fn arm(&mut self, name: &QueueName) {
        let Some(homed) = self.by_name.get_mut(name) else { return };
        let next = homed.queue.next_deadline();
        if homed.armed == next {
            return;
        }
        if let Some(before) = homed.armed {
            self.deadlines.remove(&(before, name.clone()));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, name.clone()));
        }
        homed.armed = next;
    }

    /// Lets no time pass, and ends no rounds that are due.
    pub(crate) fn rest(&mut self) {
        self.deadlines.clear();
        self.take_touched();
        for homed in self.by_name.values_mut() {
            homed.armed = None;
        }
    }

    pub(super) fn remove(&mut self, name: &QueueName) -> Option<Homed> {
        let homed = self.by_name.remove(name)?;
        if let Some(before) = homed.armed {
            self.deadlines.remove(&(before, name.clone()));
        }
        Some(homed)
    }

    /// When a queue wants to be looked at first.
    pub(crate) fn deadline(&self) -> Option<MonotonicNanos> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// A queue of this group, if there is one.
    pub(crate) fn of_group(&self, group: &corelane_model::GroupName) -> Option<&QueueName> {
        let first = QueueName { group: group.clone(), topic: corelane_model::TopicId(0) };
        let sound = self.by_name.range(&first..).next().map(|(name, _)| name);
        let broken = self.broken.range(&first..).next().map(|(name, _)| name);
        [sound, broken].into_iter().flatten().find(|name| name.group == *group)
    }

    /// Everybody who waits for an answer; nobody does afterwards.
    pub(crate) fn take_askers(&mut self) -> Vec<Asker> {
        let asked = self.by_name.values_mut().flat_map(|homed| std::mem::take(&mut homed.asked).into_values());
        asked.map(|asked| asked.asker).collect()
    }
}
