//! What must hold of shared queues.
//!
//! Everything is judged by frames at the broker: which of members arrived, which of the queue's left. A frame that leaves
//! was decided on shortly before, a frame that arrives is handled shortly after, and on the way between shards one may
//! overtake the other; all of that takes less than [`HANDLING`].
//!
//! A record that a member has may go to another only for a reason: its time is over by the broker's monotonic clock, the
//! member failed it, left, or was silent for its session time-out, or the broker was started anew.

mod handing_out;
mod letters;
mod redrive;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_model::{
    ErrorCode, MonotonicNanos, Offset, PartitionId, PartitionIndex, QueueSettings, TopicId, WallMillis,
};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameKind, LeaseRange};

use self::letters::Letter;
pub(crate) use self::redrive::LetterSet;
use self::redrive::Redrives;
use self::settings::KnownSettings;
use super::groups::{MemberName, body};
use super::{Oracle, Violation};
use crate::RecordId;

/// Between a frame's arrival at the broker and the moment at which the queue's home handles it, or between a decision there
/// and the moment at which its frame leaves, lie a round and a message between shards.
const HANDLING: Duration = Duration::from_millis(50);

/// What a queue is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueName {
    pub(crate) group: String,
    pub(crate) topic: TopicId,
}

/// Where a record is in the queue's topic.
type Place = (u32, u64);

/// One life of a member, by what was heard of it.
#[derive(Debug)]
struct Life {
    session_timeout: Duration,
    heard: MonotonicNanos,
    longest_silence: Duration,
    /// It left, or was told that it is out.
    is_gone: bool,
}

/// The newest delivery of a record in this life of the broker.
#[derive(Debug)]
struct Lease {
    member: MemberName,
    attempt: u32,
    left: MonotonicNanos,
    /// It ends then, unless it is extended or given back.
    ends: MonotonicNanos,
    /// Extensions that arrived and are not answered: it may end then instead.
    extensions: BTreeMap<Ticket, MonotonicNanos>,
    /// The member said that it failed, or that it is done, which could not be written down.
    is_given_back: bool,
}

/// What is known of a record that was handed out.
#[derive(Debug, Default)]
struct Handed {
    lease: Option<Lease>,
    /// Failures that were answered as durable.
    failures: u32,
    /// It rests until then, in this life of the broker.
    rests_until: MonotonicNanos,
    /// Acknowledgements that arrived and were not refused: one of them may have been carried out.
    acks: u32,
    /// An acknowledgement was answered as durable.
    is_done: bool,
    /// Of which delivery that was, and when.
    done: Option<(u32, MonotonicNanos)>,
    /// Somebody gave it up for good.
    may_die_early: bool,
    /// It was given up for good, or failed as often as it may, and that was answered as durable.
    is_condemned: bool,
    letters: Vec<Letter>,
}

/// A request of a member, by its connection and correlation.
type Ticket = (u64, u64);

/// Something said of leases that arrived and was not answered.
#[derive(Debug)]
struct Asked {
    name: QueueName,
    member: MemberName,
    leases: Vec<LeaseRange>,
    arrived: MonotonicNanos,
    what: Said,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Ack,
    Nack { delay: Option<Duration>, is_dead: bool },
    Extend { lease: Duration },
}

/// One queue.
#[derive(Debug)]
struct View {
    settings: KnownSettings,
    /// Somebody has joined, or altered it, and was answered: it will always be there.
    is_durable: bool,
    redrives: Redrives,
    records: BTreeMap<Place, Handed>,
    /// Where records of each key were seen, by partition and key, if the queue keeps their order.
    lines: BTreeMap<(u32, Vec<u8>), BTreeSet<u64>>,
    /// Which record each dead letter is, and whether it was read in this phase.
    letters: BTreeMap<(PartitionId, Offset), (Place, bool)>,
}

/// Everything that is known of shared queues from outside.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    views: BTreeMap<QueueName, View>,
    lives: BTreeMap<MemberName, Life>,
    asked: BTreeMap<Ticket, Asked>,
    /// Groups of joins that arrived and were not answered.
    joining: BTreeMap<Ticket, String>,
    /// When the broker ended, by the wall clock, and whether that may be relied on.
    ends: Vec<WallMillis>,
    /// The wall clock jumps, so that nothing follows from what it shows.
    is_clock_loose: bool,
    /// This life of the broker takes no writes any more: it refuses what members say before their queue hears of it, so that
    /// nobody can tell from here whom the queue takes for silent.
    is_deaf: bool,
    /// Since when the broker runs.
    since: MonotonicNanos,
}

pub(crate) fn broken(name: &QueueName, what: String) -> Violation {
    Violation::Queue { queue: name.group.clone(), what }
}

/// The single records of ranges, with their delivery.
fn singles(leases: &[LeaseRange]) -> impl Iterator<Item = (Place, u32)> {
    leases.iter().flat_map(|range| {
        let offsets = range.first..range.first + u64::from(range.count);
        offsets.map(|offset| ((range.partition, offset), range.attempt))
    })
}

fn display((high, _): MemberName) -> String {
    format!("member {high:016x}")
}

impl Life {
    /// Whether the queue may have put it out by now, as far as can be told from here.
    fn may_be_out(&self, now: MonotonicNanos) -> bool {
        self.is_gone || self.session_timeout <= self.longest_silence.max(now.since(self.heard)) + HANDLING
    }
}

impl Lease {
    /// Whether the member surely has the record.
    fn is_sure(&self, now: MonotonicNanos) -> bool {
        let ends = self.extensions.values().copied().chain([self.ends]).min().expect("there is one");
        !self.is_given_back && now.after(HANDLING) < ends
    }
}

impl Queues {
    /// A queue of the workload, once its topic is known.
    pub(crate) fn open(&mut self, name: QueueName, settings: QueueSettings) {
        self.views.entry(name).or_insert_with(|| View {
            settings: KnownSettings::new(settings),
            is_durable: false,
            redrives: Redrives::default(),
            records: BTreeMap::new(),
            lines: BTreeMap::new(),
            letters: BTreeMap::new(),
        });
    }

    /// The wall clock jumps in this run.
    pub(crate) const fn loosen_clock(&mut self) {
        self.is_clock_loose = true;
    }

    /// A frame of a client arrives at the broker.
    pub(crate) fn on_arrived(&mut self, now: MonotonicNanos, link: u64, frame: &Frame) {
        let ticket = (link, frame.head.correlation.0);
        match frame.head.kind {
            FrameKind::JoinQueue => self.on_join(now, ticket, &body(frame)),
            FrameKind::QueueCredit => self.on_heard(now, body::<wire::QueueCredit>(frame).member),
            FrameKind::LeaveQueue => {
                let member = body::<wire::LeaveQueue>(frame).member;
                self.on_heard(now, member);
                self.lives.entry(member).and_modify(|life| life.is_gone = true);
            }
            FrameKind::QueueAck => {
                let wire::QueueAck { group, topic, member, leases, .. } = body(frame);
                self.on_said(now, ticket, (group, topic), (member, leases), Said::Ack);
            }
            FrameKind::QueueNack => {
                let wire::QueueNack { group, topic, member, leases, delay_ms, is_dead, .. } = body(frame);
                let said = Said::Nack { delay: delay_ms.map(Duration::from_millis), is_dead };
                self.on_said(now, ticket, (group, topic), (member, leases), said);
            }
            FrameKind::QueueExtend => {
                let wire::QueueExtend { group, topic, member, leases, lease_ms } = body(frame);
                let said = Said::Extend { lease: Duration::from_millis(lease_ms) };
                self.on_said(now, ticket, (group, topic), (member, leases), said);
            }
            FrameKind::AlterQueue => {
                let wire::AlterQueue { group, settings, .. } = body(frame);
                let view = self.view_of(&group);
                view.into_iter().for_each(|view| view.settings.on_asked(now, ticket, &settings));
            }
            FrameKind::RedriveQueue => {
                let group = body::<wire::RedriveQueue>(frame).group;
                self.view_of(&group).into_iter().for_each(|view| view.redrives.on_asked(ticket));
            }
            _ => {}
        }
    }

    /// The queue of this group, whose name requests of operators have.
    fn view_of(&mut self, group: &str) -> Option<&mut View> {
        self.views.iter_mut().find(|(name, _)| name.group == group).map(|(_, view)| view)
    }

    /// Whether the queue is there for ever, as far as was told.
    pub(crate) fn is_durable(&self, name: &QueueName) -> bool {
        self.views.get(name).is_some_and(|view| view.is_durable)
    }

    /// A join was answered: the queue is durable.
    fn on_joined(&mut self, ticket: Ticket) {
        let group = self.joining.remove(&ticket);
        let view = group.and_then(|group| self.view_of(&group));
        view.into_iter().for_each(|view| view.is_durable = true);
    }

    /// A request about the queue itself was carried out.
    fn on_carried_out(&mut self, now: MonotonicNanos, ticket: Ticket) {
        for view in self.views.values_mut() {
            view.is_durable |= view.settings.on_answered(now, ticket);
        }
    }

    fn on_join(&mut self, now: MonotonicNanos, ticket: Ticket, join: &wire::JoinQueue) {
        self.joining.insert(ticket, join.group.clone());
        self.on_heard(now, join.member);
        self.lives.entry(join.member).or_insert_with(|| Life {
            session_timeout: Duration::from_millis(join.session_timeout_ms.into()),
            heard: now,
            longest_silence: Duration::ZERO,
            is_gone: false,
        });
    }

    fn on_heard(&mut self, now: MonotonicNanos, member: MemberName) {
        if let Some(life) = self.lives.get_mut(&member) {
            life.longest_silence = life.longest_silence.max(now.since(life.heard));
            life.heard = now;
        }
    }

    fn on_said(
        &mut self,
        now: MonotonicNanos,
        ticket: Ticket,
        (group, topic): (String, u64),
        (member, leases): (MemberName, Vec<LeaseRange>),
        what: Said,
    ) {
        self.on_heard(now, member);
        let name = QueueName { group, topic: TopicId(topic) };
        let Some(view) = self.views.get_mut(&name) else { return };
        for (place, attempt) in singles(&leases) {
            let Some(record) = view.records.get_mut(&place) else { continue };
            let lease = record.lease.as_mut().filter(|lease| (lease.member, lease.attempt) == (member, attempt));
            match (what, lease) {
                (Said::Ack, _) => record.acks += 1,
                (Said::Nack { is_dead, .. }, lease) => {
                    record.may_die_early |= is_dead;
                    lease.into_iter().for_each(|lease| lease.is_given_back = true);
                }
                (Said::Extend { lease: more }, Some(lease)) => {
                    lease.extensions.insert(ticket, now.after(more));
                }
                (Said::Extend { .. }, None) => {}
            }
        }
        self.asked.insert(ticket, Asked { name, member, leases, arrived: now, what });
    }

    /// A verdict was refused as a whole: nothing came of it, unless what failed was to write it down.
    fn on_refused(&mut self, ticket: Ticket, code: u16) {
        let is_lost = ErrorCode::StorageFailed.to_wire() == code;
        self.is_deaf |= is_lost;
        for view in self.views.values_mut().filter(|_| !is_lost) {
            view.settings.on_refused(ticket);
            view.redrives.on_refused(ticket);
        }
        let Some(Asked { name, member, leases, what, .. }) = self.asked.remove(&ticket) else { return };
        let view = self.views.get_mut(&name).expect("it was there when it arrived");
        for (place, attempt) in singles(&leases) {
            let Some(record) = view.records.get_mut(&place) else { continue };
            match what {
                Said::Ack if ErrorCode::StorageFailed.to_wire() == code => {
                    let lease = record.lease.as_mut();
                    let lease = lease.filter(|lease| (lease.member, lease.attempt) == (member, attempt));
                    lease.into_iter().for_each(|lease| lease.is_given_back = true);
                }
                Said::Ack => record.acks -= 1,
                Said::Nack { .. } => {}
                Said::Extend { .. } if ErrorCode::StorageFailed.to_wire() == code => {}
                Said::Extend { .. } => record.on_extended(ticket, None),
            }
        }
    }

    /// A verdict was answered: it is durable but for what is refused.
    fn on_answered(&mut self, now: MonotonicNanos, ticket: Ticket, refused: &[LeaseRange]) -> Result<(), Violation> {
        let Some(Asked { name, member, leases, arrived, what }) = self.asked.remove(&ticket) else { return Ok(()) };
        // What a request names twice may be taken once and refused once.
        let mut refusals = BTreeMap::<_, u32>::new();
        singles(refused).for_each(|single| *refusals.entry(single).or_default() += 1);
        let Self { views, lives, .. } = self;
        let View { settings, records, .. } = views.get_mut(&name).expect("it was there when it arrived");
        for (place, attempt) in singles(&leases) {
            let Some(record) = records.get_mut(&place) else { continue };
            let refusals = refusals.get_mut(&(place, attempt)).filter(|refusals| 0 < **refusals);
            let is_taken = refusals.is_none();
            refusals.into_iter().for_each(|refusals| *refusals -= 1);
            match what {
                Said::Ack if is_taken => record.on_done(now, lives, member, attempt),
                Said::Ack => {
                    record.acks -= 1;
                    Ok(())
                }
                Said::Nack { delay, is_dead } if is_taken => {
                    let rest = delay.unwrap_or_else(|| settings.least_rest(arrived, attempt));
                    let is_last = is_dead || settings.is_surely_last(arrived, attempt);
                    record.on_failed((member, attempt), arrived.after(rest), is_last)
                }
                Said::Nack { .. } => Ok(()),
                Said::Extend { lease } => {
                    record.on_extended(ticket, is_taken.then(|| arrived.after(lease)));
                    Ok(())
                }
            }
            .map_err(|what| broken(&name, format!("{}/{} offset {}: {what}", name.topic, place.0, place.1)))?;
        }
        Ok(())
    }

    /// A member is told that it is out.
    fn on_fenced(&mut self, now: MonotonicNanos, told: &wire::QueueFenced) -> Result<(), Violation> {
        let Some(life) = self.lives.get_mut(&told.member) else { return Ok(()) };
        let is_just = told.reason != 1 || self.is_deaf || life.may_be_out(now);
        life.is_gone = true;
        if is_just {
            return Ok(());
        }
        let name = QueueName { group: told.group.clone(), topic: TopicId(told.topic) };
        let silence = life.longest_silence.max(now.since(life.heard));
        Err(broken(&name, format!("{} was put out, silent for {silence:?} at most", display(told.member))))
    }

    /// The broker is gone, and with it every lease and everything that was not answered.
    pub(crate) fn on_broker_gone(&mut self, now: MonotonicNanos, wall: WallMillis) {
        self.ends.push(wall);
        self.since = now;
        self.is_deaf = false;
        self.asked.clear();
        self.joining.clear();
        self.lives.clear();
        for record in self.views.values_mut().flat_map(|view| view.records.values_mut()) {
            record.lease = None;
            // Nothing that was decided before comes late any more.
            record.done = None;
            record.rests_until = MonotonicNanos(0);
        }
    }

    /// A member believes that an acknowledgement was carried out.
    ///
    /// # Errors
    /// None of this record was answered.
    pub(crate) fn on_told_done(&self, name: &QueueName, place: Place) -> Result<(), Violation> {
        let record = self.views.get(name).and_then(|view| view.records.get(&place));
        if record.is_some_and(|record| record.is_done) {
            return Ok(());
        }
        let (partition, offset) = place;
        Err(broken(name, format!("a member takes {partition} offset {offset} for done, nobody was answered so")))
    }
}

impl Handed {
    /// An acknowledgement of a delivery is durable.
    fn on_done(
        &mut self,
        now: MonotonicNanos,
        lives: &BTreeMap<MemberName, Life>,
        member: MemberName,
        attempt: u32,
    ) -> Result<(), String> {
        self.is_done = true;
        self.done = Some((attempt, now));
        if !self.letters.is_empty() {
            return Err("it is acknowledged and was a dead letter before".to_owned());
        }
        let is_gone = |member: MemberName| lives.get(&member).is_none_or(|life| life.is_gone);
        match &self.lease {
            Some(lease)
                if attempt < lease.attempt
                    || (attempt == lease.attempt && member != lease.member && !is_gone(lease.member)) =>
            {
                let (other, newer) = (display(lease.member), lease.attempt);
                Err(format!("delivery {attempt} was acknowledged after delivery {newer} to {other}"))
            }
            _ => Ok(()),
        }
    }

    /// A failure is durable; a record that is to rest is handed out to nobody until then.
    fn on_failed(
        &mut self,
        (member, attempt): (MemberName, u32),
        rests_until: MonotonicNanos,
        is_last: bool,
    ) -> Result<(), String> {
        self.failures = self.failures.max(attempt);
        self.is_condemned |= is_last;
        let Some(lease) = &self.lease else { return Ok(()) };
        if (lease.member, lease.attempt) == (member, attempt) {
            self.rests_until = self.rests_until.max(rests_until);
            return Ok(());
        }
        // It was handed out again before its failure was answered.
        if attempt < lease.attempt && is_last {
            return Err(format!("it was handed out again after delivery {attempt}, the last that may fail"));
        }
        if attempt < lease.attempt && lease.left < rests_until {
            return Err(format!("it was handed out again while it was to rest after delivery {attempt}"));
        }
        Ok(())
    }

    /// An extension was answered.
    fn on_extended(&mut self, ticket: Ticket, ends: Option<MonotonicNanos>) {
        if let Some(lease) = &mut self.lease
            && lease.extensions.remove(&ticket).is_some()
            && let Some(ends) = ends
        {
            lease.ends = ends;
        }
    }
}

impl Oracle {
    /// A frame of the broker leaves.
    ///
    /// # Errors
    /// It says or gives something that no queue may.
    pub(crate) fn on_queue_left(
        &mut self,
        now: corelane_model::Now,
        link: u64,
        frame: &Frame,
    ) -> Result<(), Violation> {
        let ticket = (link, frame.head.correlation.0);
        match frame.head.kind {
            FrameKind::QueueDeliver => self.on_handed_out(now, &body(frame), &frame.attachment),
            FrameKind::LeasesAnswer => {
                self.queues.on_answered(now.monotonic, ticket, &body::<wire::LeasesAnswer>(frame).refused)
            }
            FrameKind::QueueFenced => self.queues.on_fenced(now.monotonic, &body(frame)),
            FrameKind::JoinQueueAnswer => {
                self.queues.on_joined(ticket);
                Ok(())
            }
            FrameKind::QueueDone => {
                self.queues.on_carried_out(now.monotonic, ticket);
                Ok(())
            }
            FrameKind::QueueRedriven => self.queues.on_redriven(ticket, &body(frame)),
            FrameKind::DescribeQueueAnswer => self.queues.on_described(now.monotonic, &body(frame)),
            FrameKind::Refusal => {
                self.queues.on_refused(ticket, body::<wire::Refusal>(frame).code);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Records that must be done or dead letters in the end and are not known to be: everything that was stored, but for
    /// transactions that are not known to be committed and for what was truncated.
    pub(crate) fn undone_of_queue(&self, name: &QueueName) -> impl Iterator<Item = (PartitionId, Offset, RecordId)> {
        let view = &self.queues.views[name];
        let topic = name.topic;
        let first = PartitionId::new(topic, PartitionIndex(0));
        let ledgers = self.ledgers.range(first..).take_while(move |(partition, _)| partition.topic == topic);
        ledgers.flat_map(move |(&partition, ledger)| {
            let undone = ledger.stored.iter().filter(move |&(&offset, &record)| {
                let handed = view.records.get(&(partition.index.0, offset.0));
                let is_over = handed.is_some_and(|handed| 0 < handed.acks || !handed.letters.is_empty());
                !is_over && self.transactions.is_surely_seen(record)
            });
            undone.map(move |(&offset, &record)| (partition, offset, record))
        })
    }
}

#[cfg(test)]
mod tests;
