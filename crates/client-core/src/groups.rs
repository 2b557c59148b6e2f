//! All memberships of a client, and where their coordinators are.

use std::collections::BTreeMap;

use corelane_model::{MemberId, MonotonicNanos, PartitionIndex, ShardId};

use crate::GroupKey;
use crate::membership::Membership;

/// The internal topic whose partitions keep groups; the owner of one is the coordinator of its groups.
pub(crate) const HOMES_TOPIC: &str = "__groups";

/// Who owns which home.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    shards: Option<Vec<ShardId>>,
    pub(crate) is_asked: bool,
    is_stale: bool,
    retry_at: MonotonicNanos,
}

impl Homes {
    pub(crate) fn is_wanted(&self, now: MonotonicNanos) -> bool {
        (self.shards.is_none() || self.is_stale) && !self.is_asked && self.retry_at <= now
    }

    /// `None` from a broker that does not say; it passes requests on.
    pub(crate) fn on_answer(&mut self, shards: Option<Vec<ShardId>>) {
        *self = Self { shards: Some(shards.unwrap_or_default()), ..Self::default() };
    }

    pub(crate) const fn retry(&mut self, retry_at: MonotonicNanos) {
        self.is_asked = false;
        self.retry_at = retry_at;
    }

    pub(crate) const fn refresh(&mut self) {
        self.is_stale = true;
    }

    pub(crate) fn shard(&self, home: PartitionIndex) -> Option<ShardId> {
        self.shards.as_ref()?.get(usize::try_from(home.0).ok()?).copied()
    }

    /// Whether the broker was asked and does not say.
    pub(crate) fn is_missing(&self) -> bool {
        self.shards.as_ref().is_some_and(Vec::is_empty)
    }
}

#[derive(Debug)]
struct Entry {
    membership: Membership,
    /// As what it is found.
    member: MemberId,
    is_marked: bool,
    armed: Option<MonotonicNanos>,
}

/// All memberships of a client.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    entries: BTreeMap<GroupKey, Entry>,
    by_member: BTreeMap<MemberId, GroupKey>,
    marked: Vec<GroupKey>,
    next: u64,
    pub(crate) homes: Homes,
}

impl Groups {
    pub(crate) fn add(&mut self, membership: Membership) -> GroupKey {
        let key = GroupKey(self.next);
        self.next += 1;
        let member = membership.member;
        self.by_member.insert(member, key);
        self.entries.insert(key, Entry { membership, member, is_marked: true, armed: None });
        self.marked.push(key);
        key
    }

    pub(crate) fn remove(&mut self, key: GroupKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.by_member.remove(&entry.member);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn keys(&self) -> Vec<GroupKey> {
        self.entries.keys().copied().collect()
    }

    pub(crate) fn get(&self, key: GroupKey) -> Option<&Membership> {
        self.entries.get(&key).map(|entry| &entry.membership)
    }

    pub(crate) fn get_mut(&mut self, key: GroupKey) -> Option<&mut Membership> {
        self.entries.get_mut(&key).map(|entry| &mut entry.membership)
    }

    /// The shards of all coordinators that are needed.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.entries.values().filter_map(|entry| self.homes.shard(entry.membership.settings.group.home()))
    }

    /// Who is meant by a frame.
    pub(crate) fn find(&self, member: MemberId, group: &str) -> Option<GroupKey> {
        let key = *self.by_member.get(&member)?;
        let is_meant = self.entries.get(&key)?.membership.settings.group.as_str() == group;
        is_meant.then_some(key)
    }

    /// A membership may have another member id than before.
    pub(crate) fn renamed(&mut self, key: GroupKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let before = std::mem::replace(&mut entry.member, entry.membership.member);
        if before != entry.member {
            self.by_member.remove(&before);
            self.by_member.insert(entry.member, key);
        }
    }

    /// A membership is looked at in this round.
    pub(crate) fn mark(&mut self, key: GroupKey) {
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

    pub(crate) fn take_marked(&mut self) -> Option<GroupKey> {
        let key = self.marked.pop()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_marked = false;
        }
        Some(key)
    }

    /// Whether a timer is to be set for that deadline; one that comes earlier does as well.
    pub(crate) fn arm(&mut self, now: MonotonicNanos, key: GroupKey, deadline: MonotonicNanos) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if entry.armed.is_some_and(|armed| now < armed && armed <= deadline) {
            return false;
        }
        entry.armed = Some(deadline);
        true
    }
}
