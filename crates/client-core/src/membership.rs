//! One membership of a consumer group.

mod commits;
mod holding;
mod standby;
mod turns;

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::{ConnectionKey, ErrorCode, Generation, MemberId, MonotonicNanos, PartitionId};

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
        /// Where the leave went.
        asked: Option<ConnectionKey>,
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
    End(SubscriptionKey),
    /// What is stood by for has changed; open what it is followed with, then tell.
    Follow,
    Tell(GroupNews),
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
    /// Given up with something for the next owner, and not answered.
    giving: BTreeMap<PartitionId, (Bytes, bool)>,
    /// Whether what it holds is to be said in full now.
    is_report_due: bool,
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
            giving: BTreeMap::new(),
            is_report_due: false,
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
                [Some(self.heartbeat_at), self.auto_commit_at, commit_at].into_iter().flatten().min()
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
            State::Leaving { is_restarting, asked: None, deadline } => {
                if let Some(connection) = connection {
                    self.owe_all();
                    self.take_commits(&mut asks);
                    self.take_giving(&mut asks);
                    self.state = State::Leaving { is_restarting, asked: Some(connection), deadline };
                    asks.push(Ask::Leave { is_restarting });
                }
            }
            State::Leaving { .. } => {}
        }
        asks
    }

    fn poll_member(&mut self, now: MonotonicNanos, asks: &mut Vec<Ask>) {
        if self.auto_commit_at.is_some_and(|at| at <= now) {
            self.auto_commit_at = None;
            self.owe_all();
        }
        let may_commit = self.commit_at <= now && !self.commits.is_under_way();
        // What is given up was finished first: its commit goes before, whatever else is under way.
        let has_unsent = self.giving.values().any(|(_, was_sent)| !was_sent);
        if may_commit || has_unsent || self.is_report_due {
            self.take_commits(asks);
        }
        self.take_giving(asks);
        if self.is_report_due || self.heartbeat_at <= now {
            self.heartbeats += 1;
            let is_full = std::mem::take(&mut self.is_report_due) || self.heartbeats.is_multiple_of(FULL_REPORT_EVERY);
            let holds = is_full.then(|| self.holding.held.keys().copied().collect());
            asks.push(Ask::Report { seen: self.seen, holds, processing_micros: self.processing_micros.take() });
            // A commit keeps the session too, but says neither how long a record takes nor all that is held.
            self.heartbeat_at = now.after(self.settings.session_timeout / HEARTBEATS);
        }
    }

    fn take_giving(&mut self, asks: &mut Vec<Ask>) {
        let seen = self.seen;
        for (&partition, (blob, was_sent)) in &mut self.giving {
            if !std::mem::replace(was_sent, true) {
                asks.push(Ask::GiveUp { seen, partition, blob: blob.clone() });
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
            State::Joining { asked, .. } | State::Leaving { asked, .. } => asked,
            State::Member { on } => on,
        }
    }

    /// Anything but a join was answered.
    pub(crate) fn on_done(&mut self, asked: Asked) {
        match asked {
            Asked::Commit(id) => {
                self.commits.on_done(id);
                self.attempts = 0;
            }
            Asked::GiveUp(partition) => drop(self.giving.remove(&partition)),
            Asked::Leave => self.end(None),
            Asked::Join | Asked::Report => {}
        }
    }

    /// A request was refused. `retry_at` is when it may be repeated, `fresh` the member's next id if it needs one.
    pub(crate) fn on_refused(
        &mut self,
        asked: Asked,
        (code, text): (ErrorCode, String),
        retry_at: MonotonicNanos,
        fresh: MemberId,
    ) {
        let is_out = matches!(code, ErrorCode::UnknownMember | ErrorCode::MemberFenced) || reason_of(code).is_some();
        match asked {
            Asked::Join => self.on_join_refused(code, text, retry_at, fresh),
            Asked::Leave => self.end(None),
            _ if !matches!(self.state, State::Member { .. }) => self.put_back(asked),
            _ if is_out => self.on_fenced(reason_of(code).unwrap_or(FenceReason::Unknown), fresh),
            Asked::Report => self.is_report_due |= code == ErrorCode::StaleGeneration,
            Asked::GiveUp(partition) => {
                // The report that follows gives it up without.
                if self.giving.remove(&partition).is_some() && code == ErrorCode::LimitReached {
                    self.tell(GroupNews::HandOverRefused { partition, text });
                }
                self.is_report_due = true;
            }
            Asked::Commit(id) if matches!(code.retry(), corelane_model::Retry::Later) => {
                self.attempts = self.attempts.saturating_add(1);
                self.commit_at = retry_at;
                self.commits.put_back(id);
            }
            Asked::Commit(id) => {
                let is_lost = matches!(code, ErrorCode::NotPartitionOwner | ErrorCode::StaleGeneration);
                let error = |partition| match is_lost {
                    true => CommitError::Lost { partition },
                    false => CommitError::Refused { code, text: text.clone() },
                };
                let news = self.commits.on_refused(id, error);
                // What was lost without notice is told again to whoever says what it holds.
                self.is_report_due |= is_lost;
                self.tell_all(news);
            }
        }
    }

    fn put_back(&mut self, asked: Asked) {
        if let Asked::Commit(id) = asked {
            self.commits.put_back(id);
        }
    }

    fn on_join_refused(&mut self, code: ErrorCode, text: String, retry_at: MonotonicNanos, fresh: MemberId) {
        let State::Joining { deadline, .. } = self.state else { return };
        match code {
            ErrorCode::StaticIdTaken => return self.end(Some(MembershipError::Fenced(FenceReason::StaticIdTaken))),
            ErrorCode::MemberFenced | ErrorCode::SessionExpired | ErrorCode::RebalanceTimedOut => self.member = fresh,
            _ if code.retry() == corelane_model::Retry::Never || code.retry() == corelane_model::Retry::Close => {
                return self.end(Some(MembershipError::Refused { code, text }));
            }
            _ => {}
        }
        self.attempts = self.attempts.saturating_add(1);
        if deadline.is_some_and(|deadline| deadline <= retry_at) {
            return self.end(Some(MembershipError::Refused { code, text }));
        }
        self.state = State::Joining { asked: None, retry_at, deadline };
    }

    /// A connection is gone: what was under way on it goes again on the next.
    pub(crate) fn on_lost(&mut self, connection: ConnectionKey) {
        if self.conversation() != Some(connection) {
            return;
        }
        match &mut self.state {
            State::Joining { asked, .. } | State::Leaving { asked, .. } => *asked = None,
            State::Member { on } => *on = None,
        }
        self.partial = None;
        self.commits.put_all_back();
        self.giving.values_mut().for_each(|(_, was_sent)| *was_sent = false);
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

    /// The application leaves. What auto-commit owes is committed on the way.
    pub(crate) fn leave(&mut self, deadline: MonotonicNanos, is_restarting: bool) {
        if self.is_over {
            return;
        }
        let subscriptions: Vec<_> =
            self.holding.held.values_mut().filter_map(|held| held.subscription.take()).collect();
        self.changes.extend(subscriptions.into_iter().map(Change::End));
        self.stop_following();
        match self.state {
            State::Member { .. } => self.state = State::Leaving { is_restarting, asked: None, deadline },
            // The join may have been carried out, so that there may be something to leave.
            State::Joining { asked: Some(_), .. } => {
                self.state = State::Leaving { is_restarting, asked: None, deadline };
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

/// Why a member was put out, where a refusal says so.
const fn reason_of(code: ErrorCode) -> Option<FenceReason> {
    Some(match code {
        ErrorCode::SessionExpired => FenceReason::SessionExpired,
        ErrorCode::RebalanceTimedOut => FenceReason::RebalanceTimeout,
        ErrorCode::StaticIdTaken => FenceReason::StaticIdTaken,
        ErrorCode::UnknownGroup => FenceReason::GroupDeleted,
        _ => return None,
    })
}
