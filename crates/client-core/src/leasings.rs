//! All memberships of shared queues of a client.

use std::collections::{BTreeMap, VecDeque};

use corelane_model::{ConnectionKey, MemberId, MonotonicNanos, ShardId};

use crate::QueueMemberKey;
use crate::groups::Homes;
use crate::leasing::Leasing;

#[derive(Debug)]
struct Entry {
    leasing: Leasing,
    is_marked: bool,
    /// Whether it stands among those that wait for room.
    is_waiting: bool,
    armed: Option<MonotonicNanos>,
}

/// All memberships of shared queues of a client.
#[derive(Debug, Default)]
pub(crate) struct Leasings {
    entries: BTreeMap<QueueMemberKey, Entry>,
    marked: Vec<QueueMemberKey>,
    /// Those with verdicts for which their connection had no room, in order.
    waiting: BTreeMap<ConnectionKey, VecDeque<QueueMemberKey>>,
    next: u64,
}

impl Leasings {
    pub(crate) fn add(&mut self, leasing: Leasing) -> QueueMemberKey {
        let key = QueueMemberKey(self.next);
        self.next += 1;
        self.entries.insert(key, Entry { leasing, is_marked: true, is_waiting: false, armed: None });
        self.marked.push(key);
        key
    }

    pub(crate) fn remove(&mut self, key: QueueMemberKey) {
        self.entries.remove(&key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<QueueMemberKey> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn get_mut(&mut self, key: QueueMemberKey) -> Option<&mut Leasing> {
        self.entries.get_mut(&key).map(|entry| &mut entry.leasing)
    }

    /// The shards of all homes that are needed.
    pub(crate) fn shards<'a>(&'a self, homes: &'a Homes) -> impl Iterator<Item = ShardId> + 'a {
        self.entries.values().filter_map(|entry| homes.shard(entry.leasing.settings.group.home()))
    }

    /// Who is meant by a frame. A client has few of them.
    pub(crate) fn find(&self, member: MemberId, group: &str) -> Option<QueueMemberKey> {
        let is_meant = |leasing: &Leasing| leasing.member == member && leasing.settings.group.as_str() == group;
        self.entries.iter().find(|(_, entry)| is_meant(&entry.leasing)).map(|(&key, _)| key)
    }

    /// A membership is looked at in this round.
    pub(crate) fn mark(&mut self, key: QueueMemberKey) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !std::mem::replace(&mut entry.is_marked, true)
        {
            self.marked.push(key);
        }
    }

    pub(crate) fn mark_all(&mut self) {
        for key in self.keys() {
            self.mark(key);
        }
    }

    /// A membership is looked at again when its connection has room.
    pub(crate) fn wait(&mut self, connection: ConnectionKey, key: QueueMemberKey) {
        if let Some(entry) = self.entries.get_mut(&key)
            && !std::mem::replace(&mut entry.is_waiting, true)
        {
            self.waiting.entry(connection).or_default().push_back(key);
        }
    }

    /// The membership that has waited longest for room on a connection that has some.
    pub(crate) fn take_waiting(&mut self, has_room: impl Fn(ConnectionKey) -> bool) -> Option<QueueMemberKey> {
        let (&connection, waiting) = self.waiting.iter_mut().find(|&(&connection, _)| has_room(connection))?;
        let key = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&connection);
        }
        if let Some(entry) = key.and_then(|key| self.entries.get_mut(&key)) {
            entry.is_waiting = false;
        }
        key
    }

    pub(crate) fn take_marked(&mut self) -> Option<QueueMemberKey> {
        let key = self.marked.pop()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_marked = false;
        }
        Some(key)
    }

    /// Whether a timer is to be set for that deadline; one that comes earlier does as well.
    pub(crate) fn arm(&mut self, now: MonotonicNanos, key: QueueMemberKey, deadline: MonotonicNanos) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if entry.armed.is_some_and(|armed| now < armed && armed <= deadline) {
            return false;
        }
        entry.armed = Some(deadline);
        true
    }
}
