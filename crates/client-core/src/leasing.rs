//! One membership of a shared queue.

mod verdicts;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::{ConnectionKey, ErrorCode, MemberId, MonotonicNanos, Retry};
use corelane_wire::LeaseRange;

use crate::{
    DeliveryKey, FenceReason, MembershipError, QueueMemberSettings, QueueNews, Verdict, VerdictError, VerdictKey,
};
pub(crate) use verdicts::Said;
use verdicts::Verdicts;

/// Heartbeats in a session time-out: two may be lost.
const HEARTBEATS: u32 = 3;
/// Room that comes back is said by itself when it is one part in so many of all.
const CREDIT_PART: u32 = 4;

/// How far a membership is.
///
/// ```text
///             join answered
///   Joining ─────────────────▶ Member ───────────────┐ leave
///    │  ▲                        │                   ▼
///    │  └── fenced, unknown: ────┘                Leaving ── answered, or time is up ──▶ (gone)
///    │      another id
///    │ refused for good, time is up
///    ▼
///  (gone) ◀── the queue was deleted
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining {
        /// Where the newest join went.
        asked: Option<ConnectionKey>,
        retry_at: MonotonicNanos,
        /// The first join is given up then.
        deadline: Option<MonotonicNanos>,
    },
    Member {
        /// The connection on which it joined; on another one it says again that it is there.
        on: ConnectionKey,
    },
    Leaving {
        on: Option<ConnectionKey>,
        /// Whether the leave has left, behind the last verdicts.
        is_asked: bool,
        deadline: MonotonicNanos,
    },
}

/// Something to ask of the queue's home.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LeaseAsk {
    Join { records: u32, bytes: u64 },
    Verdict { id: u64, said: Said, records: u32, bytes: u64, processing_micros: Option<u32> },
    Credit { records: u32, bytes: u64 },
    Leave,
}

/// What an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseAsked {
    Join,
    Verdict(u64),
    Leave,
}

/// Records that came together and of which something is still to be said.
#[derive(Debug)]
struct Delivered {
    records: u32,
    bytes: u64,
    expires: MonotonicNanos,
}

/// Room that came back and was not told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    records: u32,
    bytes: u64,
}

/// One membership; it lasts through lives as several members.
#[derive(Debug)]
pub(crate) struct Leasing {
    pub(crate) settings: QueueMemberSettings,
    pub(crate) member: MemberId,
    /// The topic's id, once a join was answered.
    pub(crate) topic: u64,
    state: State,
    pub(crate) attempts: u32,
    /// A join was answered.
    is_told_joined: bool,
    session_timeout: Duration,
    heartbeat_at: MonotonicNanos,
    /// Verdicts that were put off wait until then.
    retry_at: MonotonicNanos,
    delivered: BTreeMap<DeliveryKey, Delivered>,
    next_delivery: u64,
    /// No lease ends before.
    expires: Option<MonotonicNanos>,
    room: Room,
    /// Room that was told of with a verdict that is not answered. A refused one has not given it.
    told: Vec<(u64, Room)>,
    verdicts: Verdicts,
    /// Verdicts wait for others of the connection to be answered.
    is_crowded: bool,
    processing_micros: Option<u32>,
    news: Vec<QueueNews>,
    pub(crate) is_over: bool,
}

impl Leasing {
    /// A member that is to join until `deadline`.
    pub(crate) fn new(settings: QueueMemberSettings, member: MemberId, deadline: MonotonicNanos) -> Self {
        let session_timeout = settings.session_timeout;
        Self {
            settings,
            member,
            topic: 0,
            state: State::Joining { asked: None, retry_at: MonotonicNanos(0), deadline: Some(deadline) },
            attempts: 0,
            is_told_joined: false,
            session_timeout,
            heartbeat_at: MonotonicNanos(0),
            retry_at: MonotonicNanos(0),
            delivered: BTreeMap::new(),
            next_delivery: 0,
            expires: None,
            room: Room::default(),
            told: Vec::new(),
            verdicts: Verdicts::default(),
            is_crowded: false,
            processing_micros: None,
            news: Vec::new(),
            is_over: false,
        }
    }

    /// What there is to tell since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<QueueNews> {
        if !self.is_over {
            self.news.extend(self.verdicts.settled());
        }
        std::mem::take(&mut self.news)
    }

    /// When it must be looked at again. Without a connection only what does not need one counts.
    pub(crate) fn next_deadline(&self, is_connected: bool) -> Option<MonotonicNanos> {
        let own = match self.state {
            State::Joining { asked: None, retry_at, deadline } if is_connected => {
                Some(deadline.map_or(retry_at, |at| at.min(retry_at)))
            }
            State::Joining { deadline, .. } => deadline,
            State::Member { .. } if !is_connected => None,
            State::Member { .. } => {
                let retry_at = self.may_leave().then_some(self.retry_at);
                Some(retry_at.map_or(self.heartbeat_at, |at| at.min(self.heartbeat_at)))
            }
            State::Leaving { deadline, is_asked, .. } => {
                let may_say = self.may_leave() || self.verdicts.is_empty() && !is_asked;
                let says = is_connected && self.is_told_joined && may_say;
                Some(if says { deadline.min(self.retry_at) } else { deadline })
            }
        };
        own.into_iter().chain(self.expires).min()
    }

    /// Whether something that was said would leave but for the time.
    fn may_leave(&self) -> bool {
        self.verdicts.is_ready() && !self.is_crowded
    }

    /// Whether verdicts wait for others of the connection to be answered: it is to be looked at when there is room.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Decides what is asked of the queue's home now, on the connection that leads to it, which has room for so many frames
    /// with verdicts.
    pub(crate) fn poll(
        &mut self,
        now: MonotonicNanos,
        connection: Option<ConnectionKey>,
        room: usize,
    ) -> Vec<LeaseAsk> {
        let mut asks = Vec::new();
        self.is_crowded = false;
        self.expire(now);
        if let (Some(before), Some(connection)) = (self.conversation(), connection)
            && before != connection
        {
            self.on_lost(before);
        }
        match (self.state, connection) {
            (State::Joining { deadline: Some(deadline), asked, .. }, _) if deadline <= now => {
                self.end(Some(MembershipError::TimedOut { was_sent: asked.is_some() }));
            }
            (State::Joining { asked: None, retry_at, deadline }, Some(connection)) if retry_at <= now => {
                self.state = State::Joining { asked: Some(connection), retry_at, deadline };
                self.room = Room::default();
                self.told.clear();
                let (records, bytes) = self.held();
                asks.push(LeaseAsk::Join {
                    records: self.settings.credit_records.saturating_sub(records),
                    bytes: self.settings.credit_bytes.saturating_sub(bytes),
                });
            }
            (State::Member { on }, Some(connection)) if on == connection => self.poll_member(now, room, &mut asks),
            (State::Leaving { deadline, .. }, _) if deadline <= now => self.end(None),
            // What is said names the topic by its id, which comes with the answer to the join; that answer is lost.
            (State::Leaving { on: None, .. }, Some(_)) if !self.is_told_joined => self.end(None),
            (State::Leaving { is_asked: false, deadline, .. }, Some(connection)) if self.is_told_joined => {
                // After a lost connection it says on the next what was not answered: it is the same member there.
                self.state = State::Leaving { on: Some(connection), is_asked: false, deadline };
                self.take_verdicts(now, room, &mut asks);
                if self.verdicts.is_empty() && self.retry_at <= now {
                    self.state = State::Leaving { on: Some(connection), is_asked: true, deadline };
                    asks.push(LeaseAsk::Leave);
                }
            }
            _ => {}
        }
        asks
    }

    fn poll_member(&mut self, now: MonotonicNanos, room: usize, asks: &mut Vec<LeaseAsk>) {
        self.take_verdicts(now, room, asks);
        let Room { records, bytes } = self.room;
        let is_much = self.settings.credit_records <= records.saturating_mul(CREDIT_PART)
            || self.settings.credit_bytes <= bytes.saturating_mul(u64::from(CREDIT_PART));
        if is_much || self.heartbeat_at <= now {
            self.room = Room::default();
            asks.push(LeaseAsk::Credit { records, bytes });
        }
        if !asks.is_empty() {
            self.heartbeat_at = now.after(self.session_timeout / HEARTBEATS);
        }
    }

    fn take_verdicts(&mut self, now: MonotonicNanos, frames: usize, asks: &mut Vec<LeaseAsk>) {
        if now < self.retry_at {
            return;
        }
        for _ in 0..frames {
            let Some((id, said)) = self.verdicts.take_frame() else { break };
            let room = match said.verdict {
                Verdict::Ack | Verdict::Nack { .. } => std::mem::take(&mut self.room),
                Verdict::Extend { .. } => Room::default(),
            };
            self.told.push((id, room));
            let Room { records, bytes } = room;
            let processing_micros = match said.verdict {
                Verdict::Ack => self.processing_micros.take(),
                Verdict::Nack { .. } | Verdict::Extend { .. } => None,
            };
            asks.push(LeaseAsk::Verdict { id, said, records, bytes, processing_micros });
        }
        self.is_crowded = self.verdicts.is_ready();
    }

    /// What the member has, and what of it counts against its credit.
    fn held(&self) -> (u32, u64) {
        self.delivered.values().fold((0, 0), |(records, bytes), delivered| {
            (records.saturating_add(delivered.records), bytes.saturating_add(delivered.bytes))
        })
    }

    /// Leases that are over make room: the records went to others.
    fn expire(&mut self, now: MonotonicNanos) {
        if self.expires.is_none_or(|expires| now < expires) {
            return;
        }
        let room = &mut self.room;
        self.delivered.retain(|_, delivered| {
            let stays = now < delivered.expires;
            if !stays {
                room.records = room.records.saturating_add(delivered.records);
                room.bytes = room.bytes.saturating_add(delivered.bytes);
            }
            stays
        });
        self.expires = self.delivered.values().map(|delivered| delivered.expires).min();
    }

    /// The connection that it speaks on.
    const fn conversation(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Joining { asked, .. } => asked,
            State::Member { on } => Some(on),
            State::Leaving { on, .. } => on,
        }
    }

    /// The join was answered.
    pub(crate) fn on_joined(
        &mut self,
        now: MonotonicNanos,
        connection: ConnectionKey,
        (topic, partitions): (u64, u32),
        session_timeout: Duration,
    ) {
        if self.conversation() != Some(connection) || matches!(self.state, State::Member { .. }) {
            return;
        }
        self.attempts = 0;
        self.topic = topic;
        self.session_timeout = session_timeout;
        if let State::Leaving { .. } = self.state {
            self.is_told_joined = true;
            return;
        }
        self.state = State::Member { on: connection };
        self.heartbeat_at = now.after(session_timeout / HEARTBEATS);
        if !std::mem::replace(&mut self.is_told_joined, true) {
            self.news.push(QueueNews::Joined { member: self.member, partitions });
        }
    }

    /// Records came. Those of an earlier conversation are not looked at: they go to others when their time is over.
    pub(crate) fn on_delivered(
        &mut self,
        now: MonotonicNanos,
        connection: ConnectionKey,
        (leases, bytes): (Vec<LeaseRange>, Bytes),
        credit_bytes: u64,
        (lease, left): (Duration, Duration),
    ) {
        let is_meant = matches!(self.state, State::Member { on } if on == connection)
            || matches!(self.state, State::Joining { asked: Some(on), .. } if on == connection);
        if !is_meant {
            return;
        }
        let delivery = DeliveryKey(self.next_delivery);
        self.next_delivery += 1;
        let expires = now.after(left);
        let records = leases.iter().fold(0_u32, |records, range| records.saturating_add(range.count));
        self.delivered.insert(delivery, Delivered { records, bytes: credit_bytes, expires });
        self.expires = Some(self.expires.map_or(expires, |first| first.min(expires)));
        self.news.push(QueueNews::Delivered { delivery, leases, bytes, expires, lease });
    }

    /// The application says something of records that came together.
    pub(crate) fn say(
        &mut self,
        now: MonotonicNanos,
        delivery: DeliveryKey,
        leases: &[LeaseRange],
        verdict: &Verdict,
    ) -> VerdictKey {
        if let Err(error) = self.verdicts.check_room(leases) {
            let key = self.verdicts.skip();
            self.news.push(QueueNews::Refused { verdicts: key..=key, leases: leases.to_vec(), error });
            return key;
        }
        if let Some(delivered) = self.delivered.get_mut(&delivery) {
            match verdict {
                Verdict::Ack | Verdict::Nack { .. } => {
                    let said = leases.iter().fold(0_u32, |records, range| records.saturating_add(range.count));
                    let said = said.min(delivered.records);
                    delivered.records -= said;
                    self.room.records = self.room.records.saturating_add(said);
                    if delivered.records == 0 {
                        self.room.bytes = self.room.bytes.saturating_add(delivered.bytes);
                        self.delivered.remove(&delivery);
                    }
                }
                Verdict::Extend { lease } => delivered.expires = delivered.expires.max(now.after(*lease)),
            }
        }
        self.verdicts.add(verdict, leases)
    }

    /// Whether something that was said may leave.
    pub(crate) fn has_verdicts_ready(&self) -> bool {
        self.verdicts.is_ready()
    }

    /// Whether there is something to tell.
    pub(crate) const fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// A verdict was answered.
    pub(crate) fn on_verdict(&mut self, id: u64, refused: Vec<LeaseRange>) {
        self.attempts = 0;
        self.take_told(id);
        self.news.extend(self.verdicts.on_answer(id, refused));
    }

    /// The room that was told of with a verdict.
    fn take_told(&mut self, id: u64) -> Room {
        let at = self.told.iter().position(|(told, _)| *told == id);
        at.map(|at| self.told.swap_remove(at).1).unwrap_or_default()
    }

    /// The leave was answered.
    pub(crate) fn on_left(&mut self) {
        self.end(None);
    }

    /// A request was refused. `retry_at` is when it may be repeated, `fresh` the member's next id if it needs one.
    pub(crate) fn on_refused(
        &mut self,
        asked: LeaseAsked,
        (code, text): (ErrorCode, String),
        retry_at: MonotonicNanos,
        fresh: MemberId,
    ) {
        if let LeaseAsked::Verdict(id) = asked {
            let Room { records, bytes } = self.take_told(id);
            self.room.records = self.room.records.saturating_add(records);
            self.room.bytes = self.room.bytes.saturating_add(bytes);
        }
        match asked {
            LeaseAsked::Join => self.on_join_refused(code, text, retry_at, fresh),
            LeaseAsked::Leave => self.on_leave_refused(code, retry_at),
            LeaseAsked::Verdict(_) if code == ErrorCode::UnknownQueueMember => {
                self.on_fenced(FenceReason::Unknown, fresh);
            }
            LeaseAsked::Verdict(_) if code == ErrorCode::UnknownQueue => {
                self.on_fenced(FenceReason::GroupDeleted, fresh);
            }
            LeaseAsked::Verdict(id) if code.retry() == Retry::Later => {
                self.attempts = self.attempts.saturating_add(1);
                self.retry_at = retry_at;
                self.verdicts.put_back(id);
            }
            LeaseAsked::Verdict(id) => {
                self.news.extend(self.verdicts.on_refused(id, VerdictError::Refused { code, text }));
            }
        }
    }

    /// What the broker cannot take at the moment is asked again: what the member has would else be nobody's until its session
    /// ends.
    fn on_leave_refused(&mut self, code: ErrorCode, at: MonotonicNanos) {
        match &mut self.state {
            State::Leaving { is_asked, .. } if code.retry() == Retry::Later => {
                *is_asked = false;
                self.attempts = self.attempts.saturating_add(1);
                self.retry_at = at;
            }
            _ => self.end(None),
        }
    }

    fn on_join_refused(&mut self, code: ErrorCode, text: String, retry_at: MonotonicNanos, fresh: MemberId) {
        if matches!(self.state, State::Leaving { .. }) && !self.is_told_joined {
            return self.end(None);
        }
        let State::Joining { deadline, .. } = self.state else { return };
        match code {
            ErrorCode::UnknownQueueMember | ErrorCode::MemberFenced => self.member = fresh,
            ErrorCode::UnknownTopic => return self.end(Some(MembershipError::Refused { code, text })),
            _ if matches!(code.retry(), Retry::Never | Retry::Close) => {
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

    /// The queue has put the member out: it drops everything, and comes back under another id if it may.
    pub(crate) fn on_fenced(&mut self, reason: FenceReason, fresh: MemberId) {
        if self.is_over {
            return;
        }
        self.delivered.clear();
        self.expires = None;
        self.room = Room::default();
        self.told.clear();
        self.news.extend(self.verdicts.fail_all(&VerdictError::Fenced(reason)));
        if matches!(self.state, State::Leaving { .. }) {
            return self.end(None);
        }
        self.news.push(QueueNews::Lost { reason });
        if !reason.may_return() {
            return self.end(Some(MembershipError::Fenced(reason)));
        }
        self.member = fresh;
        self.state = State::Joining { asked: None, retry_at: MonotonicNanos(0), deadline: None };
    }

    /// A connection is gone: the member joins again under the same id on the next, and says again what was not answered.
    pub(crate) fn on_lost(&mut self, connection: ConnectionKey) {
        if self.conversation() != Some(connection) {
            return;
        }
        self.verdicts.put_all_back();
        match &mut self.state {
            State::Joining { asked, .. } => *asked = None,
            State::Member { .. } => {
                self.state = State::Joining { asked: None, retry_at: MonotonicNanos(0), deadline: None };
            }
            State::Leaving { on, is_asked, .. } => (*on, *is_asked) = (None, false),
        }
    }

    /// The application leaves. What it said before is settled on the way; what it has goes to others.
    pub(crate) fn leave(&mut self, deadline: MonotonicNanos) {
        match self.state {
            _ if self.is_over => {}
            State::Member { on } => self.state = State::Leaving { on: Some(on), is_asked: false, deadline },
            // Who was in the queue is in it still, as far as it knows, and has perhaps something to say there.
            State::Joining { asked, .. } if asked.is_some() || self.is_told_joined => {
                self.state = State::Leaving { on: asked, is_asked: false, deadline };
            }
            State::Joining { .. } => self.end(None),
            State::Leaving { .. } => {}
        }
    }

    /// The client is closed.
    pub(crate) fn on_closed(&mut self) {
        self.end(Some(MembershipError::Closed));
    }

    /// Ends the membership; the last word.
    fn end(&mut self, error: Option<MembershipError>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.delivered.clear();
        self.expires = None;
        self.news.extend(self.verdicts.fail_all(&VerdictError::Ended));
        self.news.extend(self.verdicts.settled());
        self.news.push(QueueNews::Ended { error });
    }

    /// Microseconds that a record takes, to be told with the next acknowledgement.
    pub(crate) const fn measure(&mut self, micros: u32) {
        self.processing_micros = Some(micros);
    }
}

#[cfg(test)]
mod tests;
