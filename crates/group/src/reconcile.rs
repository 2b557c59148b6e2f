//! From what is to what is meant to be, partition by partition.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_model::limits::{GROUP_HANDOVER_BYTES_MAX, GROUP_HANDOVERS_BYTES_MAX};
use corelane_model::{Generation, MemberId, Now, PartitionId, PartitionIndex, TopicId};

use crate::deadlines::Timer;
use crate::{Group, GroupError, Hold, Slot, Subscription, TopicShape};

impl Group {
    /// The catalog changed: topics came, grew or went. `resolve` says what a subscription means now.
    pub fn on_catalog(&mut self, resolve: impl FnMut(&Subscription) -> Vec<TopicShape>) {
        self.round.is_stale |= self.subscriptions.resolve(resolve);
    }

    /// A topic was deleted: nobody has its partitions any more and their offsets mean nothing.
    pub fn forget_topic(&mut self, topic: TopicId) {
        self.round.is_stale |= self.subscriptions.forget(topic);
        let all = PartitionId::new(topic, PartitionIndex(0))..=PartitionId::new(topic, PartitionIndex(u32::MAX));
        let held: Vec<_> = self.slots.range(all.clone()).map(|(&partition, _)| partition).collect();
        for partition in held {
            self.set_hold(partition, None);
        }
        let staged: Vec<_> = self.staged.range(all.clone()).map(|(&partition, _)| partition).collect();
        for partition in staged {
            self.drop_staged(partition);
        }
        let committed: Vec<_> = self.offsets.range(all).map(|(&partition, _)| partition).collect();
        for partition in committed {
            self.offsets.remove(&partition);
            self.round.offsets.insert(partition);
        }
    }

    /// The owner of a revoked partition gives it up and may leave something for the next one.
    ///
    /// # Errors
    /// It is no member, does not own the partition, was not asked for it in a generation up to `seen`, or what it leaves
    /// is too large, in which case it still owns the partition.
    pub fn give_up(
        &mut self,
        now: Now,
        member: MemberId,
        seen: Generation,
        partition: PartitionId,
        blob: Option<Bytes>,
    ) -> Result<(), GroupError> {
        self.check_generation(seen)?;
        self.touch(now, member)?;
        match self.slots.get(&partition).map(|slot| slot.hold) {
            Some(Hold::Revoking { owner, revoked, next, .. }) if owner == member && revoked <= seen => {
                self.leave_behind(partition, blob.filter(|_| next.is_some()))?;
                self.settle(partition, next);
                Ok(())
            }
            Some(hold) if hold.owner() == member => Err(GroupError::NotRevoked { member, partition }),
            _ => Err(GroupError::NotOwner { member, partition }),
        }
    }

    fn leave_behind(&mut self, partition: PartitionId, blob: Option<Bytes>) -> Result<(), GroupError> {
        let Some(blob) = blob else { return Ok(()) };
        let old = self.handovers.get(&partition).map_or(0, Bytes::len);
        let would = self.handover_bytes - old + blob.len();
        for (what, would, limit) in [
            ("bytes handed over with one partition", blob.len(), GROUP_HANDOVER_BYTES_MAX),
            ("bytes handed over and not yet taken", would, GROUP_HANDOVERS_BYTES_MAX),
        ] {
            if limit < would {
                return Err(GroupError::Limit { what, would: would as u64, limit: limit as u64 });
            }
        }
        self.handover_bytes = would;
        self.handovers.insert(partition, blob);
        self.round.handovers.insert(partition);
        self.stats.handovers += 1;
        Ok(())
    }

    pub(crate) fn drop_handover(&mut self, partition: PartitionId) {
        if let Some(blob) = self.handovers.remove(&partition) {
            self.handover_bytes -= blob.len();
            self.round.handovers.insert(partition);
        }
    }

    /// A member says which partitions it works on, having acted upon the assignments up to generation `seen`.
    pub(crate) fn reconcile_report(&mut self, member: MemberId, seen: Generation, holds: &BTreeSet<PartitionId>) {
        let known = &self.members[&member];
        // What it holds and does not have, it lost without noticing.
        let mut is_behind = !holds.is_subset(&known.holds);
        let had: Vec<_> = known.holds.iter().copied().collect();
        for partition in had {
            match self.slots[&partition].hold {
                Hold::Owned { since, .. } if since <= seen => {
                    if holds.contains(&partition) {
                        self.drop_handover(partition);
                    } else {
                        is_behind = true;
                    }
                }
                // It has given up only what it was asked for before it spoke.
                Hold::Revoking { revoked, next, .. } if revoked <= seen && !holds.contains(&partition) => {
                    self.settle(partition, next);
                }
                #[cfg(planted)]
                Hold::Revoking { next, .. }
                    if !holds.contains(&partition)
                        && corelane_model::planted::is_planted(corelane_model::planted::Bug::TwoOwners) =>
                {
                    self.settle(partition, next);
                }
                Hold::Owned { .. } | Hold::Revoking { .. } => {}
            }
        }
        if is_behind {
            self.round.tell.insert(member);
        }
    }

    /// The owner no longer has it: the next one gets it, or nobody.
    pub(crate) fn settle(&mut self, partition: PartitionId, next: Option<MemberId>) {
        let Some(next) = next else { return self.set_hold(partition, None) };
        let is_again = self.slots.get(&partition).is_some_and(|slot| slot.hold.owner() == next);
        if is_again {
            // What it says with the generation of its first turn must be stale in the second.
            self.advance_generation();
        }
        self.grant(partition, next);
    }

    fn grant(&mut self, partition: PartitionId, owner: MemberId) {
        self.set_hold(partition, Some(Hold::Owned { owner, since: self.generation }));
        self.stats.granted_partitions += 1;
    }

    fn advance_generation(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
        self.round.meta = true;
        self.stats.generations += 1;
    }

    /// The one place where who has a partition changes: keeps indexes and deadlines, notes whom to tell.
    pub(crate) fn set_hold(&mut self, partition: PartitionId, hold: Option<Hold>) {
        let before = self.slots.get(&partition).map(|slot| slot.hold);
        if let Some(before) = before {
            if let Hold::Revoking { deadline, .. } = before {
                self.timers.disarm(deadline, Timer::Revoke(partition));
                self.revoking.remove(&partition);
            }
            if let Some(member) = self.members.get_mut(&before.owner()) {
                member.holds.remove(&partition);
            }
            self.round.tell.insert(before.owner());
        }
        self.round.slots.insert(partition);
        let Some(hold) = hold else {
            if let Some(slot) = self.slots.remove(&partition) {
                for standby in slot.standbys {
                    self.unfollow(partition, standby);
                }
            }
            self.drop_handover(partition);
            return;
        };
        let owner = hold.owner();
        self.round.is_handed_on |= before.is_none_or(|before| before.owner() != owner);
        self.members.get_mut(&owner).expect("only members own").holds.insert(partition);
        self.round.tell.insert(owner);
        if let Hold::Revoking { deadline, .. } = hold {
            self.timers.arm(deadline, Timer::Revoke(partition));
            self.revoking.insert(partition);
        }
        let slot = self.slots.entry(partition).or_insert_with(|| Slot { hold, standbys: Vec::new() });
        slot.hold = hold;
        if slot.standbys.contains(&owner) {
            self.replace_standby(partition, owner, None);
        }
    }

    /// Whoever waits for a partition that `before` was to get waits for `after`.
    pub(crate) fn rename_next(&mut self, before: MemberId, after: Option<MemberId>) {
        for &partition in &self.revoking {
            let slot = self.slots.get_mut(&partition).expect("what is revoked has a slot");
            if let Hold::Revoking { next, .. } = &mut slot.hold
                && *next == Some(before)
            {
                *next = after;
                self.round.slots.insert(partition);
                self.round.is_stale |= after.is_none();
            }
        }
    }

    /// Decides anew who is meant to have what, and begins to make it so: `step` partitions now, the others by
    /// [`Group::go_on`]. Standbys are chosen for the whole, so with them nothing is left.
    pub(crate) fn reassign(&mut self, now: Now, step: usize) {
        // Nobody follows anything where a balance was kept.
        let was_kept = self.is_balance_kept();
        self.aims = self.moved_targets().into();
        if self.round.is_membership_changed || !self.aims.is_empty() {
            self.advance_generation();
        }
        let is_followed = || self.members.values().any(|member| !member.follows.is_empty());
        let has_standbys = self.settings.standbys != 0 || (!was_kept && is_followed());
        self.aim_some(now, if has_standbys { usize::MAX } else { step });
        if has_standbys {
            let (union, order) = self.union_and_order();
            self.choose_standbys(&union, &order);
        }
    }

    /// Goes on with what the last assignment left to do. It is another generation: what moves now was not told before.
    pub(crate) fn go_on(&mut self, now: Now, step: usize) {
        self.advance_generation();
        self.aim_some(now, step);
    }

    fn aim_some(&mut self, now: Now, step: usize) {
        for _ in 0..step {
            let Some((partition, target)) = self.aims.pop_front() else { return };
            self.aim(now, partition, target);
        }
    }

    /// Chooses standbys anew while everybody keeps what it is meant to have.
    pub(crate) fn fill_standbys(&mut self) {
        if self.settings.standbys != 0 {
            let (union, order) = self.union_and_order();
            self.choose_standbys(&union, &order);
        }
    }

    /// Makes `target` who is meant to have the partition, without taking it from anybody.
    fn aim(&mut self, now: Now, partition: PartitionId, target: Option<MemberId>) {
        match self.slots.get(&partition).map(|slot| slot.hold) {
            None => {
                if let Some(target) = target {
                    self.grant(partition, target);
                }
            }
            Some(Hold::Owned { owner, since }) if target != Some(owner) => {
                let deadline = now.monotonic.after(self.members[&owner].rebalance_timeout);
                let revoked = self.generation;
                self.set_hold(partition, Some(Hold::Revoking { owner, since, revoked, next: target, deadline }));
                self.stats.revoked_partitions += 1;
            }
            Some(Hold::Owned { .. }) => {}
            Some(Hold::Revoking { owner, since, revoked, next, deadline }) => {
                if next != target {
                    let slot = self.slots.get_mut(&partition).expect("it was just looked at");
                    slot.hold = Hold::Revoking { owner, since, revoked, next: target, deadline };
                    self.round.slots.insert(partition);
                }
            }
        }
    }
}
