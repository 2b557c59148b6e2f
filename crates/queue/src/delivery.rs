//! Handing out, and what comes back undone.

use std::time::Duration;

use corelane_model::limits::QUEUE_DELIVERIES_COUNTED_MAX;
use corelane_model::{MemberId, Now};

use crate::clock::Due;
use crate::partition::Failure;
use crate::slot::State;
use crate::{DeadReason, Effect, LeaseRun, Queue};

/// Leases that are over and may be remembered beside those that are not.
const GIVEN_SLACK: u64 = 64;

impl Queue {
    /// Hands out what is ready to members with credit, turn by turn.
    pub(crate) fn hand_out(&mut self, now: Now) {
        if self.listed.is_empty() || self.members.listed.is_empty() {
            return;
        }
        let mut ready: u64 = self.listed.iter().map(|&index| self.partitions[index as usize].ready()).sum();
        let mut served = Vec::new();
        while !self.listed.is_empty() {
            let Some((seat, turn)) = self.next_member(ready) else { break };
            let taken = self.take_turn(now, seat, turn);
            self.end_turn(seat, taken);
            ready = ready.saturating_sub(taken);
            let member = self.members.at(seat);
            if 0 < taken && !std::mem::replace(&mut member.is_served, true) {
                served.push(seat);
            }
        }
        let lease = self.settings.visibility;
        for seat in served {
            let member = self.members.at(seat);
            let leases = std::mem::take(&mut member.gathered);
            let bytes = std::mem::take(&mut member.gathered_bytes);
            member.is_served = false;
            let member = member.id;
            self.note_given(seat, &leases);
            self.outbox.now(Effect::Deliver { member, leases, lease, bytes });
        }
    }

    /// Remembers what a member was given. Entries that are over are dropped when they may be more than half, so that a
    /// lease costs the same however many there are.
    fn note_given(&mut self, seat: u16, leases: &[LeaseRun]) {
        let member = self.members.at(seat);
        member.given.extend_from_slice(leases);
        if member.leased * 2 + GIVEN_SLACK < member.given.len() as u64 {
            let given = std::mem::take(&mut member.given);
            let mut left = Vec::new();
            for run in given {
                self.still_on(seat, run, &mut left);
            }
            self.members.at(seat).given = left;
        }
    }

    /// Everything that a member has, by partition and offset; nothing is remembered of it any more.
    pub(crate) fn take_leases(&mut self, seat: u16) -> Vec<(u32, u64)> {
        let given = std::mem::take(&mut self.members.at(seat).given);
        let mut left = Vec::new();
        for run in given {
            self.still_on(seat, run, &mut left);
        }
        let mut leases: Vec<_> = left
            .iter()
            .flat_map(|run| (run.first.0..run.first.0 + u64::from(run.count)).map(|offset| (run.partition.0, offset)))
            .collect();
        // What was given back and then given again under the same number is there twice.
        leases.sort_unstable();
        leases.dedup();
        leases
    }

    /// Adds what of a run the member on this seat still has, in the delivery that the run names.
    fn still_on(&self, seat: u16, run: LeaseRun, left: &mut Vec<LeaseRun>) {
        let Some(partition) = self.partitions.get(run.partition.0 as usize) else { return };
        for offset in run.first.0..run.first.0 + u64::from(run.count) {
            if partition.slot(offset).is_some_and(|slot| slot.is_leased(seat, run.attempt)) {
                LeaseRun::push(left, run.partition, offset, run.attempt);
            }
        }
    }

    /// Leases up to `turn` records to a member, from one partition after the other. How many.
    fn take_turn(&mut self, now: Now, seat: u16, turn: u64) -> u64 {
        let mut taken = 0;
        while taken < turn {
            let Some(&index) = self.listed.front() else { break };
            let some = self.lease_from(now, index, seat, turn - taken);
            taken += some;
            // Whatever is left here is somebody else's turn, also when the credit was too little for more: else one
            // partition would keep all others waiting. Without any the partition leaves the list.
            self.listed.pop_front();
            let partition = &mut self.partitions[index as usize];
            if partition.next_ready().is_some() {
                self.listed.push_back(index);
            } else {
                partition.is_listed = false;
            }
            if !self.members.at(seat).has_credit() {
                break;
            }
        }
        taken
    }

    /// Leases up to `most` records of one partition to a member with credit. How many. What has its delivery time too far
    /// off becomes a dead letter instead, if it can.
    fn lease_from(&mut self, now: Now, index: u32, seat: u16, most: u64) -> u64 {
        let until = now.monotonic.after(self.settings.visibility);
        let member = self.members.at(seat);
        let partition = &mut self.partitions[index as usize];
        let gives_up = self.settings.dead_letter.is_some();
        let mut too_far = Vec::new();
        let mut taken = 0;
        while taken < most && member.has_credit() {
            let Some(offset) = partition.next_ready() else { break };
            if gives_up && partition.slot(offset).is_some_and(|slot| slot.is_too_far) {
                partition.set_state(offset, State::Dying);
                too_far.push(offset);
                continue;
            }
            partition.lease(offset);
            let slot = partition.slot_mut(offset).expect("it is ready");
            slot.until = until;
            slot.seat = seat;
            slot.attempts = slot.attempts.saturating_add(1);
            let (attempt, bytes) = (u32::from(slot.attempts), slot.bytes);
            #[cfg(planted)]
            if offset % 61 == 7 && corelane_model::planted::is_planted(corelane_model::planted::Bug::LeaseTwice) {
                partition.leave_in_line(offset);
            }
            LeaseRun::push(&mut member.gathered, partition.index, offset, attempt);
            self.clock.push_lease(Due { at: until, partition: index, offset });
            self.stats.redelivered_records += u64::from(1 < attempt);
            member.gathered_bytes += u64::from(bytes);
            member.credit_records -= 1;
            member.credit_bytes -= i64::from(bytes);
            taken += 1;
        }
        member.leased += taken;
        member.delivered += taken;
        self.stats.delivered_records += taken;
        too_far.into_iter().for_each(|offset| self.fail_for_good(now, index, offset, DeadReason::TooFar));
        taken
    }

    /// A lease is over, whatever becomes of the record. The caller puts it into another state.
    pub(crate) fn unlease(&mut self, index: u32, offset: u64) {
        let slot = self.partitions[index as usize].slot(offset).expect("the caller has just seen it");
        assert_eq!(slot.state, State::Leased, "record {offset} of {index} is leased");
        let member = self.members.at(slot.seat);
        member.leased -= 1;
    }

    /// A record that was handed out comes back as if it had not been.
    pub(crate) fn return_lease(&mut self, index: u32, offset: u64) {
        let partition = &mut self.partitions[index as usize];
        let slot = partition.slot_mut(offset).expect("the caller has just seen it");
        slot.attempts -= 1;
        partition.put_again(offset);
        self.list(index);
    }

    /// What of a run the member still has, in the delivery that the run names.
    #[must_use]
    pub fn still_leased(&self, member: MemberId, run: LeaseRun) -> Vec<LeaseRun> {
        let mut left = Vec::new();
        if let Some(seat) = self.members.seat(member) {
            self.still_on(seat, run, &mut left);
        }
        left
    }

    /// Leases that could not be sent to this member: as far as it still has them, the records are handed out again as if
    /// they had not been.
    pub fn give_back(&mut self, member: MemberId, runs: &[LeaseRun]) {
        let left: Vec<_> = runs.iter().flat_map(|&run| self.still_leased(member, run)).collect();
        for run in left {
            for offset in run.first.0..run.first.0 + u64::from(run.count) {
                self.unlease(run.partition.0, offset);
                self.return_lease(run.partition.0, offset);
                self.stats.unsent_leases += 1;
            }
        }
    }

    /// Nothing can be sent to this member before it gives credit again, or joins.
    pub fn take_credit(&mut self, member: MemberId) {
        if let Some(seat) = self.members.seat(member) {
            let member = self.members.at(seat);
            member.credit_records = 0;
            member.credit_bytes = 0;
        }
    }

    /// A delivery failed: the record rests, for as long as is said or the back-off says, or becomes a dead letter.
    pub(crate) fn fail(
        &mut self,
        now: Now,
        index: u32,
        offset: u64,
        rest: Option<Duration>,
        reason: impl FnOnce() -> DeadReason,
    ) {
        let partition = &mut self.partitions[index as usize];
        let slot = partition.slot_mut(offset).expect("the caller has just seen it");
        let counted = u16::try_from(QUEUE_DELIVERIES_COUNTED_MAX).expect("it has 13 bits");
        slot.attempts = slot.attempts.min(counted);
        let deliveries = slot.attempts;
        let rest = rest.unwrap_or_default();
        let until = now.monotonic.after(rest);
        let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        let not_before = corelane_model::WallMillis(now.wall.0.saturating_add_unsigned(rest_ms));
        let failure = partition.failed.entry(offset).or_insert(Failure {
            deliveries,
            is_dead: false,
            first: now.wall,
            not_before,
            rest_ms,
        });
        failure.deliveries = deliveries;
        failure.not_before = not_before;
        failure.rest_ms = rest_ms;
        self.soil(index);
        if self.settings.delivery_limit.is_some_and(|limit| limit <= u32::from(deliveries)) {
            return self.die(index, offset, reason());
        }
        let partition = &mut self.partitions[index as usize];
        if rest.is_zero() {
            partition.put_again(offset);
            self.list(index);
        } else {
            partition.set_state(offset, State::Delayed);
            partition.slot_mut(offset).expect("it is there").until = until;
            self.clock.push_other(Due { at: until, partition: index, offset });
        }
    }

    /// A moment has come at which a lease may end or a rest be over.
    pub(crate) fn slot_due(&mut self, now: Now, due: Due) {
        let Some(partition) = self.partitions.get_mut(due.partition as usize) else { return };
        let Some(slot) = partition.slot(due.offset).filter(|slot| slot.until == due.at) else { return };
        match slot.state {
            State::Leased => {
                let seat = slot.seat;
                self.members.at(seat).failed += 1;
                self.stats.expired_leases += 1;
                self.unlease(due.partition, due.offset);
                self.fail(now, due.partition, due.offset, None, || DeadReason::TimedOut);
            }
            State::Delayed => {
                partition.put_again(due.offset);
                self.list(due.partition);
            }
            State::Fresh | State::Again | State::Held | State::Dying | State::Done => {}
        }
    }

    /// Whether a moment still counts.
    pub(crate) fn counts(&self, due: &Due) -> bool {
        let slot = self.partitions.get(due.partition as usize).and_then(|partition| partition.slot(due.offset));
        slot.is_some_and(|slot| slot.until == due.at && matches!(slot.state, State::Leased | State::Delayed))
    }

    /// Forgets moments that no longer count, as far as that is cheap.
    pub(crate) fn prune_clock(&mut self) {
        while self.clock.next().is_some_and(|due| !self.counts(&due)) {
            self.clock.pop();
        }
        if self.clock.is_long() {
            let in_state = |state| self.partitions.iter().map(|partition| partition.count(state)).sum::<u64>();
            let live = usize::try_from(in_state(State::Leased) + in_state(State::Delayed)).expect("it is in memory");
            let mut clock = std::mem::take(&mut self.clock);
            clock.prune(live, |due| self.counts(due));
            self.clock = clock;
        }
    }
}
