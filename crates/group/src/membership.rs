//! Who is in the group: joining, being heard of, leaving, being put out.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_model::limits::{GROUP_FENCED_MAX, GROUP_MEMBERS_MAX};
use corelane_model::{Generation, MemberId, Now};

use crate::deadlines::Timer;
use crate::member::Member;
use crate::subscriptions::{SubscriptionKey, topics_of};
use crate::{FenceReason, Group, GroupError, Hold, Join, Leave, Phase, Presence, Report, RequestTicket, StaticId};

impl Group {
    /// A member joins, or says again what it said, after which it is answered by [`crate::Effect::Done`] and an assignment.
    ///
    /// With a static id that a member has already, the new one takes its place: the old one is fenced, its partitions and
    /// seat are the new one's, and nothing is assigned anew unless the subscription or the capacity differ.
    ///
    /// # Errors
    /// A wish is out of its bounds, the group is draining, deleted or full, the strategy is not the group's, or this
    /// member was put out before, which needs a new id to come back.
    pub fn join(&mut self, now: Now, ticket: RequestTicket, mut join: Join) -> Result<(), GroupError> {
        self.admit(&join)?;
        if let Some(strategy) = join.strategy.filter(|_| self.members.is_empty()) {
            self.settings.strategy = strategy;
            self.round.meta = true;
        }
        let topics = topics_of(std::mem::take(&mut join.topics));
        let (subscription, is_resolved_anew) = self.subscriptions.acquire(&join.subscription, topics);
        self.round.is_stale |= is_resolved_anew;
        let before = join.static_id.as_ref().and_then(|id| self.statics.get(id)).copied();
        if self.members.contains_key(&join.member) {
            self.rejoin(&join, subscription);
        } else if let Some(before) = before {
            self.take_over(before, &join, subscription);
        } else {
            self.seat(&join, subscription);
        }
        self.revive(now, join.member);
        if self.empty_since.take().is_some() {
            self.timers.disarm_all(Timer::Retention);
        }
        self.round.members.insert(join.member);
        self.round.tell.insert(join.member);
        self.round.answers.push(ticket);
        self.stats.joins += 1;
        Ok(())
    }

    /// Everything that could refuse a join, before anything changes.
    fn admit(&self, join: &Join) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        if self.phase != Phase::Open {
            return Err(GroupError::Draining);
        }
        join.check()?;
        if let Some(asked) = join.strategy.filter(|&asked| asked != self.settings.strategy && !self.members.is_empty())
        {
            return Err(GroupError::StrategyMismatch { group: self.settings.strategy, asked });
        }
        // Another life needs another id: what was told to this one may still be on its way. And two processes with one
        // static id would put each other out for ever if the loser could come back as it is.
        if let Some(error) = self.fenced_before(join.member) {
            return Err(error);
        }
        if let Some(known) = self.members.get(&join.member) {
            if known.static_id != join.static_id {
                return Err(GroupError::StaticIdChange { member: join.member });
            }
        } else if join.static_id.as_ref().is_none_or(|id| !self.statics.contains_key(id))
            && GROUP_MEMBERS_MAX <= self.members.len()
        {
            let would = self.members.len() as u64 + 1;
            return Err(GroupError::Limit { what: "members", would, limit: GROUP_MEMBERS_MAX as u64 });
        }
        Ok(())
    }

    /// The same member says again, or anew, what it wants.
    fn rejoin(&mut self, join: &Join, subscription: SubscriptionKey) {
        let member = self.members.get_mut(&join.member).expect("the caller saw it");
        let is_changed = member.subscription != subscription || member.capacity != join.capacity;
        let old = std::mem::replace(&mut member.subscription, subscription);
        member.apply(join);
        let place = (member.seat, join.member);
        self.subscriptions.release(old);
        self.round.is_stale |= is_changed;
        if is_changed {
            self.round.reseated.insert(place);
        }
    }

    /// A new member sits down.
    fn seat(&mut self, join: &Join, subscription: SubscriptionKey) {
        let mut member = Member::new(self.next_seat, subscription);
        member.static_id.clone_from(&join.static_id);
        member.apply(join);
        self.round.reseated.insert((self.next_seat, join.member));
        self.next_seat += 1;
        if let Some(static_id) = &join.static_id {
            self.statics.insert(static_id.clone(), join.member);
        }
        self.members.insert(join.member, member);
        self.round.meta = true;
        self.round.is_stale = true;
        self.round.is_membership_changed = true;
    }

    /// A new member takes the place of one with the same static id, which is fenced.
    fn take_over(&mut self, before: MemberId, join: &Join, subscription: SubscriptionKey) {
        let old = self.members.remove(&before).expect("static ids name members");
        let is_changed = old.subscription != subscription || old.capacity != join.capacity;
        let (holds, follows) = (old.holds, old.follows);
        let old_key = old.subscription;
        self.round.reseated.extend([(old.seat, before), (old.seat, join.member)]);
        let mut member = Member::new(old.seat, subscription);
        member.static_id = old.static_id;
        member.displaced = Some(before);
        member.processing_micros = old.processing_micros;
        member.apply(join);
        self.timers.disarm(old.armed, Timer::Session(before));
        self.statics.insert(join.static_id.clone().expect("it was found by it"), join.member);
        self.members.insert(join.member, member);
        self.subscriptions.release(old_key);
        for partition in holds {
            let hold = self.slots[&partition].hold;
            match hold {
                Hold::Owned { since, .. } => self.set_hold(partition, Some(Hold::Owned { owner: join.member, since })),
                // The new process holds nothing yet, so there is nothing to wait for.
                Hold::Revoking { next, .. } => {
                    let next = if next == Some(before) { Some(join.member) } else { next };
                    self.settle(partition, next);
                }
            }
        }
        self.rename_next(before, Some(join.member));
        for partition in follows {
            self.replace_standby(partition, before, Some(join.member));
        }
        if old.presence == Presence::Present {
            self.fence(before, FenceReason::StaticIdTaken);
            self.stats.static_ids_taken += 1;
        } else {
            // It has left and need not be told. A join of its that comes late must not put the newer one out.
            self.remember(before, FenceReason::StaticIdTaken);
        }
        self.round.members.insert(before);
        // What is left of an assignment names the old one.
        self.round.is_stale |= is_changed || !self.aims.is_empty();
        self.stats.static_returns += 1;
    }

    /// A member was heard of by whatever traffic.
    ///
    /// # Errors
    /// It is not in the group; the error says why if the group still knows.
    pub fn touch(&mut self, now: Now, member: MemberId) -> Result<(), GroupError> {
        self.check_alive()?;
        let Some(known) = self.members.get_mut(&member) else { return Err(self.stranger(member)) };
        if known.presence == Presence::Present {
            known.expires = now.monotonic.after(known.session_timeout);
            #[cfg(planted)]
            {
                known.heard_at = now.wall;
            }
        }
        if !known.is_heard {
            // It may have missed what it was told before the group was restored.
            known.is_heard = true;
            self.round.tell.insert(member);
        }
        Ok(())
    }

    /// A member says what it is at. What was revoked in a generation that it has seen, and that it no longer holds, goes
    /// to the next owner. A member that is behind is told again.
    ///
    /// # Errors
    /// As [`Group::touch`]; or the generation is one that the group never had.
    pub fn heartbeat(&mut self, now: Now, member: MemberId, report: Report<'_>) -> Result<(), GroupError> {
        self.check_generation(report.seen)?;
        self.touch(now, member)?;
        if let Some(micros) = report.processing_micros {
            self.members.get_mut(&member).expect("it was touched").measure(micros);
            self.arm_shift(now);
        }
        if let Some(holds) = report.holds {
            self.reconcile_report(member, report.seen, &holds.iter().copied().collect::<BTreeSet<_>>());
        }
        if self.members.get(&member).is_some_and(|known| report.seen < known.told) {
            self.round.tell.insert(member);
        }
        Ok(())
    }

    /// A member leaves. Its partitions go to others in this round, unless it is static and restarts.
    ///
    /// # Errors
    /// As [`Group::touch`].
    pub fn leave(&mut self, now: Now, ticket: RequestTicket, member: MemberId, leave: Leave) -> Result<(), GroupError> {
        self.touch(now, member)?;
        let known = self.members.get_mut(&member).expect("it was touched");
        if leave == Leave::Restarting && known.static_id.is_some() {
            known.presence = Presence::Away;
            self.round.members.insert(member);
        } else {
            self.remove_member(now, member, None);
        }
        self.round.answers.push(ticket);
        self.stats.leaves += 1;
        Ok(())
    }

    /// An operator removes a static member that will not come back.
    ///
    /// # Errors
    /// There is none of that id.
    pub fn remove_static(&mut self, now: Now, ticket: RequestTicket, id: &StaticId) -> Result<(), GroupError> {
        self.check_alive()?;
        let Some(&member) = self.statics.get(id) else {
            return Err(GroupError::UnknownStaticId { static_id: id.clone() });
        };
        self.remove_member(now, member, None);
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Its session begins anew.
    pub(crate) fn revive(&mut self, now: Now, id: MemberId) {
        let member = self.members.get_mut(&id).expect("only members are revived");
        member.presence = Presence::Present;
        member.is_heard = true;
        member.expires = now.monotonic.after(member.session_timeout);
        #[cfg(planted)]
        {
            member.heard_at = now.wall;
        }
        self.timers.disarm(member.armed, Timer::Session(id));
        member.armed = member.expires;
        self.timers.arm(member.expires, Timer::Session(id));
    }

    /// Takes a member out; what it had is free, or goes to who was to have it. Without a reason it went by itself.
    pub(crate) fn remove_member(&mut self, now: Now, id: MemberId, reason: Option<FenceReason>) {
        let member = self.members.remove(&id).expect("only members are removed");
        self.timers.disarm(member.armed, Timer::Session(id));
        if let Some(static_id) = &member.static_id {
            self.statics.remove(static_id);
        }
        self.subscriptions.release(member.subscription);
        self.round.reseated.insert((member.seat, id));
        for partition in member.follows {
            self.replace_standby(partition, id, None);
        }
        self.rename_next(id, None);
        for partition in member.holds {
            let next = match self.slots[&partition].hold {
                Hold::Owned { .. } => None,
                Hold::Revoking { next, .. } => next,
            };
            self.settle(partition, next);
        }
        self.round.members.insert(id);
        self.round.is_stale = true;
        self.round.is_membership_changed = true;
        if let Some(reason) = reason {
            self.fence(id, reason);
            match reason {
                FenceReason::SessionExpired => self.stats.sessions_expired += 1,
                FenceReason::RebalanceTimeout => self.stats.rebalance_timeouts += 1,
                FenceReason::StaticIdTaken | FenceReason::GroupDeleted => {}
            }
        }
        if self.members.is_empty() {
            self.become_empty(now);
        }
    }

    /// Remembers why a member was put out, and tells it.
    pub(crate) fn fence(&mut self, member: MemberId, reason: FenceReason) {
        self.remember(member, reason);
        self.round.fenced.push((member, reason));
    }

    fn remember(&mut self, member: MemberId, reason: FenceReason) {
        self.fenced.push_back((member, reason));
        if GROUP_FENCED_MAX < self.fenced.len() {
            self.fenced.pop_front();
        }
    }

    /// The last member is gone: from now on offsets age.
    pub(crate) fn become_empty(&mut self, now: Now) {
        self.empty_since = Some(now.wall);
        self.timers.disarm_all(Timer::Retention);
        self.timers.arm(now.monotonic.after(self.settings.retention), Timer::Retention);
        self.round.meta = true;
    }

    /// The error for somebody who is no member.
    pub(crate) fn stranger(&self, member: MemberId) -> GroupError {
        self.fenced_before(member).unwrap_or(GroupError::UnknownMember { member })
    }

    /// Why a member was put out, if the group still knows. Of those whose static id was taken it knows the last one even
    /// after a restart: who hears nothing of it would come back and put the newer one out.
    fn fenced_before(&self, member: MemberId) -> Option<GroupError> {
        if let Some(&(member, reason)) = self.fenced.iter().rev().find(|&&(fenced, _)| fenced == member) {
            return Some(GroupError::Fenced { member, reason });
        }
        let mut holders = self.statics.values().filter_map(|holder| self.members.get(holder));
        let is_displaced = holders.any(|holder| holder.displaced == Some(member));
        is_displaced.then_some(GroupError::Fenced { member, reason: FenceReason::StaticIdTaken })
    }

    pub(crate) fn check_alive(&self) -> Result<(), GroupError> {
        if self.phase == Phase::Deleted { Err(GroupError::Deleted) } else { Ok(()) }
    }

    pub(crate) const fn check_generation(&self, said: Generation) -> Result<(), GroupError> {
        if self.generation.0 < said.0 {
            return Err(GroupError::FutureGeneration { said, known: self.generation });
        }
        Ok(())
    }
}

impl Member {
    pub(crate) fn new(seat: u64, subscription: SubscriptionKey) -> Self {
        Self {
            client: String::new(),
            static_id: None,
            displaced: None,
            seat,
            subscription,
            capacity: 1,
            session_timeout: Duration::ZERO,
            rebalance_timeout: Duration::ZERO,
            reset: crate::ResetPolicy::Latest,
            presence: Presence::Present,
            holds: BTreeSet::new(),
            follows: BTreeSet::new(),
            expires: corelane_model::MonotonicNanos(0),
            #[cfg(planted)]
            heard_at: corelane_model::WallMillis(0),
            armed: corelane_model::MonotonicNanos(0),
            processing_micros: None,
            told: Generation(0),
            is_heard: true,
        }
    }

    fn apply(&mut self, join: &Join) {
        // Whole milliseconds, because that is what its record says.
        let whole = |duration: Duration| Duration::from_millis(u64::try_from(duration.as_millis()).expect("bounded"));
        self.client.clone_from(&join.client);
        self.capacity = join.capacity;
        self.session_timeout = whole(join.session_timeout);
        self.rebalance_timeout = whole(join.rebalance_timeout);
        self.reset = join.reset;
    }
}
