//! One membership of a consumer group.

mod commits;
mod holding;
mod refusals;
mod standby;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_model::{ConnectionKey, Generation, MemberId, MonotonicNanos, PartitionId};

use crate::{CommitError, FenceReason, GroupNews, GroupSettings, LostReason, MembershipError, SubscriptionKey};
use commits::{Commits, Offsets};
pub(crate) use holding::{Assignment, Revoked};
use holding::{Holding, Phase};
use standby::Standbys;

/// Heartbeats in a session time-out: two may be lost.
const HEARTBEATS: u32 = 3;
/// Every so many heartbeats say in full what the member holds, so that a lost assignment is noticed.
const FULL_REPORT_EVERY: u32 = 4;

/// How far a membership is.
///
/// ```text
///             join answered
///   Joining ─────────────────▶ Member ───────────────┐ leave
///    │  ▲                        │                   ▼
///    │  └── fenced, unknown: ────┘                Leaving ── answered, or time is up ──▶ (gone)
///    │      drops all, another id                    ▲
///    │ refused for good, time is up                  │
///    ▼                                               │
///  (gone) ◀── fenced for good: static id taken, group deleted
/// ```
/// A member that was put out joins again without being asked (*rejoining*): it is `Joining` without a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining {
        /// Where the newest join went. Everything is disregarded until its answer.
        asked: Option<ConnectionKey>,
        retry_at: MonotonicNanos,
        /// The first join is given up then.
        deadline: Option<MonotonicNanos>,
    },
    Member {
        /// The connection on which it last said in full what it holds.
        on: Option<ConnectionKey>,
    },
    Leaving {
        is_restarting: bool,
        /// The connection on which it says its last words.
        on: Option<ConnectionKey>,
        /// Whether the leave is under way.
        is_asked: bool,
        /// It was refused for a while, and goes again then.
        retry_at: MonotonicNanos,
        /// From then on it no longer waits for the commits before it.
        leave_by: MonotonicNanos,
        deadline: MonotonicNanos,
    },
}

/// Something to ask of the coordinator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Join,
    Report { seen: Generation, holds: Option<Vec<PartitionId>>, processing_micros: Option<u32> },
    GiveUp { seen: Generation, partition: PartitionId, blob: Bytes },
    Commit { id: u64, generation: Generation, offsets: Offsets },
    Leave { is_restarting: bool },
}

/// What an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Join,
    Report,
    GiveUp(PartitionId),
    Commit(u64),
    Leave,
}

/// What the client has to do about its subscriptions, and what is told; in order.
#[derive(Debug)]
pub(crate) enum Change {
    /// These turns begin; open what they are read with, then tell.
    Begin(Vec<PartitionId>),
    /// Reading may begin: where it does is committed.
    Start(SubscriptionKey),
    End(SubscriptionKey),
    /// What is stood by for has changed; open what it is followed with, then tell.
    Follow,
    Tell(GroupNews),
}

/// A partition on its way to its next owner, with what was left for that one.
#[derive(Debug)]
struct Giving {
    blob: Bytes,
    was_sent: bool,
    /// Who still has it then is put out.
    deadline: MonotonicNanos,
}

/// One membership; it lasts through lives as several members.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) settings: GroupSettings,
    pub(crate) member: MemberId,
    state: State,
    pub(crate) attempts: u32,
    is_told_joined: bool,
    /// What it was told by the newest assignment that it acted upon.
    pub(crate) seen: Generation,
    /// Frames of an assignment that has not come whole.
    partial: Option<Assignment>,
    pub(crate) holding: Holding,
    pub(crate) standbys: Standbys,
    commits: Commits,
    /// Partitions of which nothing is handed out before their first offset is committed.
    placing: BTreeSet<PartitionId>,
    /// Given up with something for the next owner, and not answered.
    giving: BTreeMap<PartitionId, Giving>,
    /// Whether what it holds is to be said in full now.
    is_report_due: bool,
    /// Reports and what is given up wait until then: the coordinator could not take them.
    say_at: MonotonicNanos,
    heartbeat_at: MonotonicNanos,
    heartbeats: u32,
    /// When what is owed is committed.
    auto_commit_at: Option<MonotonicNanos>,
    /// Commits that were put off wait until then.
    commit_at: MonotonicNanos,
    processing_micros: Option<u32>,
    changes: Vec<Change>,
    pub(crate) is_over: bool,
}

impl Membership {
    /// A member that is to join until `deadline`.
    pub(crate) fn new(settings: GroupSettings, member: MemberId, deadline: MonotonicNanos) -> Self {
        Self {
            settings,
            member,
            state: State::Joining { asked: None, retry_at: MonotonicNanos(0), deadline: Some(deadline) },
            attempts: 0,
            is_told_joined: false,
            seen: Generation(0),
            partial: None,
            holding: Holding::default(),
            standbys: Standbys::default(),
            commits: Commits::default(),
            placing: BTreeSet::new(),
            giving: BTreeMap::new(),
            is_report_due: false,
            say_at: MonotonicNanos(0),
            heartbeat_at: MonotonicNanos(0),
            heartbeats: 0,
            auto_commit_at: None,
            commit_at: MonotonicNanos(0),
            processing_micros: None,
            changes: Vec::new(),
            is_over: false,
        }
    }

    /// What happened since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        if let Some(settled) = self.commits.settled() {
            self.tell(settled);
        }
        std::mem::take(&mut self.changes)
    }

    fn tell(&mut self, news: GroupNews) {
        self.changes.push(Change::Tell(news));
    }

    fn tell_all(&mut self, news: Vec<GroupNews>) {
        self.changes.extend(news.into_iter().map(Change::Tell));
    }

    /// When it must be looked at again. Without a connection only what does not need one counts.
    pub(crate) fn next_deadline(&self, is_connected: bool) -> Option<MonotonicNanos> {
        match self.state {
            State::Joining { asked: None, retry_at, deadline } if is_connected => {
                Some(deadline.map_or(retry_at, |at| at.min(retry_at)))
            }
            State::Joining { deadline, .. } => deadline,
            State::Member { .. } if !is_connected => None,
            State::Member { .. } => {
                let commit_at = self.commits.has_pending().then_some(self.commit_at);
                let commit_at = commit_at.filter(|_| !self.commits.is_under_way());
                let is_waiting = self.is_report_due || self.has_unsent();
                let say_at = if is_waiting { self.say_at } else { self.heartbeat_at.max(self.say_at) };
                [Some(say_at), self.auto_commit_at, commit_at].into_iter().flatten().min()
            }
            State::Leaving { is_asked: false, retry_at, leave_by, deadline, .. } if is_connected => {
                let commit_at = self.commits.has_pending().then_some(self.commit_at);
                let say_at = self.has_unsent().then_some(self.say_at);
                let leave_at = if self.is_all_said() { retry_at } else { leave_by.max(retry_at) };
                [Some(deadline), Some(leave_at), commit_at, say_at].into_iter().flatten().min()
            }
            State::Leaving { deadline, .. } => Some(deadline),
        }
    }

    /// Decides what is asked of the coordinator now, on the connection that leads to it.
    pub(crate) fn poll(&mut self, now: MonotonicNanos, connection: Option<ConnectionKey>) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let (Some(before), Some(connection)) = (self.conversation(), connection)
            && before != connection
        {
            self.on_lost(before);
        }
        match self.state {
            State::Joining { deadline: Some(deadline), asked, .. } if deadline <= now => {
                self.end(Some(MembershipError::TimedOut { was_sent: asked.is_some() }));
            }
            State::Joining { asked: None, retry_at, deadline } if retry_at <= now => {
                if let Some(connection) = connection {
                    self.state = State::Joining { asked: Some(connection), retry_at, deadline };
                    asks.push(Ask::Join);
                }
            }
            State::Joining { .. } => {}
            State::Member { on } => {
                if let Some(connection) = connection {
                    self.is_report_due |= on != Some(connection);
                    self.state = State::Member { on: Some(connection) };
                    self.poll_member(now, &mut asks);
                }
            }
            State::Leaving { deadline, .. } if deadline <= now => self.end(None),
            State::Leaving { .. } => {
                if let Some(connection) = connection {
                    self.poll_leaving(now, connection, &mut asks);
                }
            }
        }
        asks
    }

    fn poll_member(&mut self, now: MonotonicNanos, asks: &mut Vec<Ask>) {
        if self.auto_commit_at.is_some_and(|at| at <= now) {
            self.auto_commit_at = None;
            self.owe_all();
        }
        let may_commit = self.commit_at <= now && !self.commits.is_under_way();
        let may_say = self.say_at <= now;
        // What is given up was finished first: its commit goes before, whatever else is under way.
        if may_commit || may_say && (self.has_unsent() || self.is_report_due) {
            self.take_commits(asks);
        }
        if !may_say {
            return;
        }
        self.take_giving(asks);
        if self.is_report_due || self.heartbeat_at <= now {
            self.heartbeats += 1;
            let is_full = std::mem::take(&mut self.is_report_due) || self.heartbeats.is_multiple_of(FULL_REPORT_EVERY);
            let holds = is_full.then(|| self.holds());
            asks.push(Ask::Report { seen: self.seen, holds, processing_micros: self.processing_micros.take() });
            // A commit keeps the session too, but says neither how long a record takes nor all that is held.
            self.heartbeat_at = now.after(self.settings.session_timeout / HEARTBEATS);
        }
    }

    /// Commits what is owed and gives up what was left for others; when all of that is answered, leaves.
    fn poll_leaving(&mut self, now: MonotonicNanos, connection: ConnectionKey, asks: &mut Vec<Ask>) {
        self.owe_all();
        if self.commit_at <= now {
            self.take_commits(asks);
        }
        if self.say_at <= now {
            self.take_giving(asks);
        }
        let is_all_said = self.is_all_said();
        let State::Leaving { is_restarting, on, is_asked, retry_at, leave_by, .. } = &mut self.state else { return };
        *on = Some(connection);
        // A leave that was taken while a commit was put off would leave that one behind.
        if !*is_asked && *retry_at <= now && (is_all_said || *leave_by <= now) {
            *is_asked = true;
            asks.push(Ask::Leave { is_restarting: *is_restarting });
        }
    }

    /// Whether nothing that was committed or given up waits for its answer.
    fn is_all_said(&self) -> bool {
        !self.commits.has_pending() && !self.commits.is_under_way() && self.giving.is_empty()
    }

    /// What it says that it holds. A partition that is on its way with something for the next owner is not given up without.
    fn holds(&self) -> Vec<PartitionId> {
        let held = self.holding.held.keys().chain(self.giving.keys());
        held.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn has_unsent(&self) -> bool {
        self.giving.values().any(|giving| !giving.was_sent)
    }

    fn take_giving(&mut self, asks: &mut Vec<Ask>) {
        let seen = self.seen;
        for (&partition, giving) in &mut self.giving {
            if !std::mem::replace(&mut giving.was_sent, true) {
                asks.push(Ask::GiveUp { seen, partition, blob: giving.blob.clone() });
            }
        }
    }

    fn take_commits(&mut self, asks: &mut Vec<Ask>) {
        // What was under way when its turn ended, and came back, must not be committed in the next turn.
        let held = &self.holding.held;
        let stale = self.commits.retain(|partition, turn| held.get(&partition).is_none_or(|held| held.since == turn));
        self.tell_all(stale);
        while let Some((id, offsets)) = self.commits.take_frame() {
            asks.push(Ask::Commit { id, generation: self.seen, offsets });
        }
    }

    /// The join was answered.
    pub(crate) fn on_joined(&mut self, now: MonotonicNanos, connection: ConnectionKey) {
        if !matches!(self.state, State::Joining { asked, .. } if asked == Some(connection)) {
            return;
        }
        self.attempts = 0;
        self.state = State::Member { on: Some(connection) };
        self.heartbeat_at = now.after(self.settings.session_timeout / HEARTBEATS);
        self.is_report_due = false;
        if !std::mem::replace(&mut self.is_told_joined, true) {
            self.tell(GroupNews::Joined { member: self.member });
        }
    }

    /// The connection that it speaks on.
    const fn conversation(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Joining { asked, .. } => asked,
            State::Member { on } | State::Leaving { on, .. } => on,
        }
    }

    /// A connection is gone: what was under way on it goes again on the next.
    pub(crate) fn on_lost(&mut self, connection: ConnectionKey) {
        if self.conversation() != Some(connection) {
            return;
        }
        match &mut self.state {
            State::Joining { asked, .. } => *asked = None,
            State::Member { on } => *on = None,
            State::Leaving { on, is_asked, .. } => (*on, *is_asked) = (None, false),
        }
        self.partial = None;
        self.commits.put_all_back();
        self.giving.values_mut().for_each(|giving| giving.was_sent = false);
    }

    /// The member was put out: it drops everything, and comes back as another unless that cannot be.
    pub(crate) fn on_fenced(&mut self, reason: FenceReason, fresh: MemberId) {
        match self.state {
            // Meant for an earlier life.
            State::Joining { .. } => return,
            State::Leaving { .. } => return self.end(None),
            State::Member { .. } => {}
        }
        self.drop_all(LostReason::Fenced(reason));
        if !reason.may_return() {
            return self.end(Some(MembershipError::Fenced(reason)));
        }
        self.member = fresh;
        self.attempts = 0;
        self.state = State::Joining { asked: None, retry_at: MonotonicNanos(0), deadline: None };
    }

    fn drop_all(&mut self, reason: LostReason) {
        let failed = self.commits.fail_all(|partition| CommitError::Lost { partition });
        self.tell_all(failed);
        let held = self.holding.clear();
        self.changes.extend(held.values().filter_map(|held| held.subscription).map(Change::End));
        if !held.is_empty() {
            self.tell(GroupNews::Lost { partitions: held.into_keys().collect(), reason });
        }
        if !self.standbys.is_empty() {
            self.stop_following();
            self.tell(GroupNews::Standby(Vec::new()));
        }
        self.placing.clear();
        self.giving.clear();
        self.partial = None;
        self.seen = Generation(0);
        self.auto_commit_at = None;
    }

    fn stop_following(&mut self) {
        let subscriptions = self.standbys.clear();
        self.changes.extend(subscriptions.into_iter().map(Change::End));
    }

    /// Ends the membership; the last word.
    fn end(&mut self, error: Option<MembershipError>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let failed = self.commits.fail_all(|_| CommitError::Ended);
        self.tell_all(failed);
        let settled = self.commits.settled();
        self.changes.extend(settled.map(Change::Tell));
        let held = self.holding.clear();
        self.changes.extend(held.values().filter_map(|held| held.subscription).map(Change::End));
        self.stop_following();
        self.tell(GroupNews::Ended { error });
    }

    /// The client is closed.
    pub(crate) fn on_closed(&mut self) {
        self.end(Some(MembershipError::Closed));
    }

    /// The application leaves. What auto-commit owes is committed on the way, and the leave waits for that until
    /// `leave_by`. At the deadline it is over in any case.
    pub(crate) fn leave(&mut self, (leave_by, deadline): (MonotonicNanos, MonotonicNanos), is_restarting: bool) {
        if self.is_over {
            return;
        }
        let subscriptions: Vec<_> =
            self.holding.held.values_mut().filter_map(|held| held.subscription.take()).collect();
        self.changes.extend(subscriptions.into_iter().map(Change::End));
        self.stop_following();
        let (retry_at, is_asked) = (MonotonicNanos(0), false);
        match self.state {
            State::Member { on } => {
                self.state = State::Leaving { is_restarting, on, is_asked, retry_at, leave_by, deadline };
            }
            // The join may have been carried out, so that there may be something to leave.
            State::Joining { asked: Some(on), .. } => {
                let on = Some(on);
                self.state = State::Leaving { is_restarting, on, is_asked, retry_at, leave_by, deadline };
            }
            State::Joining { asked: None, .. } => self.end(None),
            State::Leaving { .. } => {}
        }
    }

    /// Microseconds that a record takes, to be reported with the next heartbeat.
    pub(crate) const fn measure(&mut self, micros: u32) {
        self.processing_micros = Some(micros);
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{ErrorCode, GroupName};

    use super::*;

    const BEFORE: ConnectionKey = ConnectionKey(1);
    const AFTER: ConnectionKey = ConnectionKey(2);

    fn at(ms: u64) -> MonotonicNanos {
        MonotonicNanos(ms * 1_000_000)
    }

    #[test]
    fn what_is_said_on_a_connection_that_it_has_left_means_nothing() {
        let settings = GroupSettings::new(GroupName::parse("g").unwrap());
        let mut membership = Membership::new(settings, MemberId(7), at(1_000));
        assert_eq!(membership.poll(at(0), Some(BEFORE)), [Ask::Join]);
        membership.on_joined(at(1), BEFORE);
        let reports = |asks: &[Ask]| asks.iter().filter(|ask| matches!(ask, Ask::Report { .. })).count();
        // Its coordinator turns out to be elsewhere.
        assert_eq!(reports(&membership.poll(at(2), Some(AFTER))), 1);
        let refused = (ErrorCode::UnknownMember, "there is no such member".to_owned());
        membership.on_refused((BEFORE, Asked::Report), refused.clone(), at(3), MemberId(8));
        assert_eq!((membership.member, membership.conversation()), (MemberId(7), Some(AFTER)));
        membership.on_refused((AFTER, Asked::Report), refused, at(3), MemberId(8));
        assert_eq!((membership.member, membership.conversation()), (MemberId(8), None));
    }
}
