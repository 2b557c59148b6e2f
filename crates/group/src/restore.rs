//! A group from its records.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{GROUP_HANDOVERS_BYTES_MAX, GROUP_MEMBERS_MAX, GROUP_OFFSETS_MAX};
use corelane_model::{MemberId, Now, PartitionId};

use crate::deadlines::Timer;
use crate::encoding::{
    Key, MemberRecord, MetaRecord, SlotRecord, decode_handover, decode_key, decode_member, decode_meta, decode_offset,
    decode_slot, decode_staged,
};
use crate::member::Member;
use crate::subscriptions::{Topics, topics_of};
use crate::{
    CommittedOffset, DecodeError, Group, GroupName, Hold, Phase, Settings, Slot, StagedOffset, Strategy, Subscription,
    TopicShape,
};

/// Takes the records of one group in the order in which they were appended, compacted or not, and makes the group.
#[derive(Debug)]
pub struct Restore {
    name: GroupName,
    meta: Option<MetaRecord>,
    members: BTreeMap<MemberId, MemberRecord>,
    slots: BTreeMap<PartitionId, SlotRecord>,
    offsets: BTreeMap<PartitionId, CommittedOffset>,
    staged: BTreeMap<PartitionId, StagedOffset>,
    handovers: BTreeMap<PartitionId, Bytes>,
}

impl Restore {
    /// Nothing yet.
    #[must_use]
    pub const fn new(name: GroupName) -> Self {
        Self {
            name,
            meta: None,
            members: BTreeMap::new(),
            slots: BTreeMap::new(),
            offsets: BTreeMap::new(),
            staged: BTreeMap::new(),
            handovers: BTreeMap::new(),
        }
    }

    /// One record.
    ///
    /// # Errors
    /// It is of another format, malformed, or another group's. Nothing is changed by it.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        let (name, key) = decode_key(key)?;
        if name != self.name {
            let (found, expected) = (name.as_str().to_owned(), self.name.as_str().to_owned());
            return Err(DecodeError::Group { found, expected });
        }
        let (what, found, limit) = match key {
            Key::Meta => {
                self.meta = value.map(decode_meta).transpose()?;
                return Ok(());
            }
            Key::Member(member) => {
                put(&mut self.members, member, value.map(decode_member).transpose()?);
                ("members", self.members.len(), GROUP_MEMBERS_MAX)
            }
            Key::Slot(partition) => {
                put(&mut self.slots, partition, value.map(decode_slot).transpose()?);
                return Ok(());
            }
            Key::Offset(partition) => {
                put(&mut self.offsets, partition, value.map(decode_offset).transpose()?);
                ("committed offsets", self.offsets.len(), GROUP_OFFSETS_MAX)
            }
            Key::Staged(partition) => {
                put(&mut self.staged, partition, value.map(decode_staged).transpose()?);
                ("staged offsets", self.staged.len(), GROUP_OFFSETS_MAX)
            }
            Key::Handover(partition) => {
                let blob = value.map(decode_handover).transpose()?;
                put(&mut self.handovers, partition, blob.map(Bytes::copy_from_slice));
                let bytes = self.handovers.values().map(Bytes::len).sum();
                ("bytes handed over", bytes, GROUP_HANDOVERS_BYTES_MAX)
            }
        };
        if limit < found {
            return Err(DecodeError::Limit { what, found: found as u64, limit: limit as u64 });
        }
        Ok(())
    }

    /// Whether nothing but tombstones came: there is no such group (any more).
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.meta.is_none()
            && self.members.is_empty()
            && self.slots.is_empty()
            && self.offsets.is_empty()
            && self.staged.is_empty()
    }

    /// The group, with members whose sessions begin now. `resolve` says what a subscription means today.
    ///
    /// A crash may have cut a round in the middle. Nobody was told of it then, so what does not hold together is undone:
    /// a partition whose owner is no member is free, and the first round assigns it anew.
    #[must_use]
    pub fn finish(self, now: Now, mut resolve: impl FnMut(&Subscription) -> Vec<TopicShape>) -> Group {
        let meta = self.meta;
        let settings = meta.as_ref().map_or_else(Settings::default, |meta| meta.settings);
        let mut group = Group::bare(self.name, settings);
        if let Some(meta) = &meta {
            group.generation = meta.generation;
            group.next_seat = meta.next_seat;
            group.phase = if meta.is_open { Phase::Open } else { Phase::Draining { asked: Vec::new() } };
        }
        for (id, record) in self.members {
            group.restore_member(now, id, record, &mut resolve);
        }
        for (partition, record) in self.slots {
            group.restore_slot(now, partition, record);
        }
        group.offsets = self.offsets;
        group.staged = self.staged;
        for (partition, blob) in self.handovers {
            if group.slots.contains_key(&partition) {
                group.handover_bytes += blob.len();
                group.handovers.insert(partition, blob);
            } else {
                group.round.handovers.insert(partition);
            }
        }
        if group.members.is_empty() {
            group.restore_empty(now, meta.as_ref().and_then(|meta| meta.empty_since));
        }
        group.round.meta = meta.is_none_or(|meta| {
            meta.generation != group.generation
                || meta.next_seat != group.next_seat
                || meta.empty_since != group.empty_since
        });
        let told = group.generation;
        for member in group.members.values_mut() {
            member.told = told;
        }
        group.round.tell.clear();
        group.restore_aim();
        group.finish_drained();
        group.check();
        group
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

impl Group {
    fn restore_member(
        &mut self,
        now: Now,
        id: MemberId,
        record: MemberRecord,
        resolve: &mut impl FnMut(&Subscription) -> Vec<TopicShape>,
    ) {
        let topics = topics_of(resolve(&record.subscription));
        let (subscription, _) = self.subscriptions.acquire(&record.subscription, topics);
        let mut member = Member::new(record.seat, subscription);
        member.client = record.client;
        member.capacity = record.capacity;
        member.session_timeout = record.session_timeout;
        member.rebalance_timeout = record.rebalance_timeout;
        member.reset = record.reset;
        member.static_id = record.static_id;
        member.displaced = record.displaced;
        self.next_seat = self.next_seat.max(record.seat + 1);
        let twin = member.static_id.as_ref().and_then(|static_id| self.statics.insert(static_id.clone(), id));
        self.members.insert(id, member);
        self.revive(now, id);
        let member = self.members.get_mut(&id).expect("it was just put there");
        member.presence = record.presence;
        member.is_heard = false;
        if let Some(twin) = twin {
            // The crash came between the record of the newer one and the tombstone of the older: neither knows.
            let twin_member = self.members.get_mut(&twin).expect("it was restored before");
            twin_member.static_id = None;
            twin_member.displaced = None;
            self.round.members.insert(twin);
        }
    }

    fn restore_slot(&mut self, now: Now, partition: PartitionId, record: SlotRecord) {
        let owner = record.hold.owner();
        self.generation = self.generation.max(record.hold.since());
        let Some(member) = self.members.get_mut(&owner) else {
            self.round.slots.insert(partition);
            self.round.is_stale = true;
            return;
        };
        member.holds.insert(partition);
        let mut hold = record.hold;
        if let Hold::Revoking { revoked, next, deadline, .. } = &mut hold {
            self.generation = self.generation.max(*revoked);
            *deadline = now.monotonic.after(member.rebalance_timeout);
            self.timers.arm(*deadline, Timer::Revoke(partition));
            self.revoking.insert(partition);
            if next.is_some_and(|next| !self.members.contains_key(&next)) {
                *next = None;
                self.round.slots.insert(partition);
                self.round.is_stale = true;
            }
        }
        let mut standbys = Vec::new();
        for standby in record.standbys {
            match self.members.get_mut(&standby) {
                Some(member) if standby != owner && !standbys.contains(&standby) => {
                    member.follows.insert(partition);
                    standbys.push(standby);
                }
                _ => {
                    self.round.slots.insert(partition);
                }
            }
        }
        self.slots.insert(partition, Slot { hold, standbys });
    }

    fn restore_empty(&mut self, now: Now, since: Option<corelane_model::WallMillis>) {
        self.become_empty(now);
        if let Some(since) = since {
            let passed = Duration::from_millis(now.wall.millis_since(since));
            self.empty_since = Some(since);
            self.timers.disarm_all(Timer::Retention);
            self.timers.arm(now.monotonic.after(self.settings.retention.saturating_sub(passed)), Timer::Retention);
        }
    }

    /// The catalog may have changed while nobody looked, or a crash came in the middle of an assignment: so it is decided anew,
    /// which moves nothing if all is as it should be. By reported times it stays as it was if everything has an owner,
    /// because without the reports the strategy comes to another answer; it is looked at again with the first of them.
    fn restore_aim(&mut self) {
        if self.settings.strategy != Strategy::LeastResponseTime {
            self.round.is_stale = true;
            return;
        }
        let union = if self.phase == Phase::Open { self.subscriptions.union() } else { Topics::new() };
        let subscribed: u64 = union.values().map(|&end| u64::from(end)).sum();
        let targets = self.slots.values().filter(|slot| slot.hold.target().is_some()).count() as u64;
        let has = |topics: &Topics, partition: &PartitionId| {
            topics.get(&partition.topic).is_some_and(|&end| partition.index.0 < end)
        };
        let is_right = |(partition, slot): (&PartitionId, &Slot)| match slot.hold.target() {
            None => !has(&union, partition),
            Some(target) => {
                has(&union, partition) && has(self.subscriptions.topics(self.members[&target].subscription), partition)
            }
        };
        self.round.is_stale |= targets != subscribed || !self.slots.iter().all(is_right);
    }

    fn finish_drained(&mut self) {
        if self.slots.is_empty() && self.phase != Phase::Open {
            self.phase = Phase::Drained;
        }
    }
}
