//! What happens by itself when time passes.

use std::collections::BTreeSet;

use corelane_model::limits::GROUP_SHIFT_INTERVAL;
use corelane_model::{MemberId, MonotonicNanos, Now, PartitionId};

use crate::{FenceReason, Group, Hold, Strategy};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A member's session may have expired; it may also have been heard of since.
    Session(MemberId),
    /// The owner of a revoked partition is waited for until then.
    Revoke(PartitionId),
    /// Reports of processing time are looked at.
    Shift,
    /// Offsets of a group without members expire.
    Retention,
}

/// Deadlines in order. A session has one entry, which is moved only when it comes up, so that traffic costs nothing here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(MonotonicNanos, Timer)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: MonotonicNanos, timer: Timer) {
        self.queue.insert((at, timer));
    }

    pub(crate) fn disarm(&mut self, at: MonotonicNanos, timer: Timer) {
        self.queue.remove(&(at, timer));
    }

    /// Drops every entry of the kind that is meant.
    pub(crate) fn disarm_all(&mut self, timer: Timer) {
        self.queue.retain(|&(_, armed)| armed != timer);
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    fn first(&self) -> Option<MonotonicNanos> {
        self.queue.first().map(|&(at, _)| at)
    }

    fn pop_due(&mut self, now: MonotonicNanos) -> Option<(MonotonicNanos, Timer)> {
        if self.queue.first()?.0 <= now { self.queue.pop_first() } else { None }
    }
}

impl Group {
    /// When [`Group::on_deadline`] wants to be called. It may then turn out that a member was heard of and nothing is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        self.timers.first()
    }

    /// Puts out members whose time is over, looks at reports, and lets offsets of a dead group expire.
    ///
    /// It alone expires sessions. Call it after the round's traffic was handled, so that a member whose heartbeat waited
    /// behind a stalled shard is not taken for dead.
    pub fn on_deadline(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.pop_due(now.monotonic) {
            match timer {
                Timer::Session(member) => self.session_due(now, member),
                Timer::Revoke(partition) => self.revoke_due(now, at, partition),
                Timer::Shift => {
                    self.round.is_shift_armed = false;
                    self.round.is_stale = true;
                }
                Timer::Retention => self.retention_due(),
            }
        }
    }

    fn session_due(&mut self, now: Now, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let expires = member.expires;
        #[cfg(planted)]
        let expires = if corelane_model::planted::is_planted(corelane_model::planted::Bug::WallClockSession) {
            let silent = std::time::Duration::from_millis(now.wall.millis_since(member.heard_at));
            now.monotonic.after(member.session_timeout.saturating_sub(silent))
        } else {
            expires
        };
        if now.monotonic < expires {
            member.armed = expires;
            self.timers.arm(expires, Timer::Session(id));
        } else {
            self.remove_member(now, id, Some(FenceReason::SessionExpired));
        }
    }

    fn revoke_due(&mut self, now: Now, at: MonotonicNanos, partition: PartitionId) {
        let Some(slot) = self.slots.get(&partition) else { return };
        if let Hold::Revoking { owner, deadline, .. } = slot.hold {
            assert_eq!(deadline, at, "a revoked partition has the one deadline that is armed");
            self.remove_member(now, owner, Some(FenceReason::RebalanceTimeout));
        }
    }

    /// A report of processing time came; the assignment is looked at again, but not for every report.
    pub(crate) fn arm_shift(&mut self, now: Now) {
        if self.settings.strategy == Strategy::LeastResponseTime && !self.round.is_shift_armed {
            self.round.is_shift_armed = true;
            self.timers.arm(now.monotonic.after(GROUP_SHIFT_INTERVAL), Timer::Shift);
        }
    }
}
