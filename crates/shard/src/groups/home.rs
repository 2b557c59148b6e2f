//! A home partition and the groups that it keeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_group::{AppendPosition, Group, RequestTicket};
use corelane_model::{GroupName, MemberId, MonotonicNanos, PartitionId, TopicId};
use corelane_session::Refused;

use super::HomeRequest;
use super::ends::Parked;
use super::lag::TopicLag;
use super::log::HomeLog;
use super::restore::Restoring;
use super::tell::GroupAnswer;
use crate::ask::{Asker, Peer};
use crate::queues::QueuesOfHome;
use crate::transactions::Apply;

/// ```text
///              the log was read to its end
///  Restoring ──────────────────────────────▶ Serving
///      │                                        │ the journal failed, or the log never takes a record
///      │ a record of another version            ▼
///      └────────────────────────────────────▶ Broken
/// ```
#[derive(Debug)]
pub(crate) enum HomePhase {
    /// The log is read; requests wait for it.
    Restoring(Restoring),
    /// Requests are taken.
    Serving,
    /// Nothing is taken until the broker is started anew, and why.
    Broken(Refused),
}

/// A home partition of this shard.
#[derive(Debug)]
pub(crate) struct Home {
    pub(super) partition: PartitionId,
    pub(crate) phase: HomePhase,
    pub(super) groups: BTreeMap<GroupName, Coordinated>,
    /// Groups to which something happened in this round, each once.
    pub(super) touched: Vec<GroupName>,
    /// When groups want to be looked at, one entry each.
    pub(super) deadlines: BTreeSet<(MonotonicNanos, GroupName)>,
    /// Groups whose subscriptions were not looked up since the catalog changed.
    pub(super) stale: BTreeSet<GroupName>,
    pub(super) log: HomeLog,
    /// Shared queues, which live beside the groups.
    pub(crate) queues: QueuesOfHome,
    /// Bytes of answers that its groups hold until something is durable.
    pub(super) held_bytes: usize,
}

/// Who waits for a ticket.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) asker: Asker,
    /// Session and rebalance time-out in milliseconds, of a join.
    pub(super) joined: Option<(u32, u32)>,
    /// How many offsets were staged within a transaction.
    pub(super) staged: Option<u32>,
}

/// An answer that says what may not be durable yet.
#[derive(Debug)]
pub(crate) struct HeldAnswer {
    /// What must be durable first; `None` until the round ends.
    pub(super) position: Option<AppendPosition>,
    pub(super) asker: Asker,
    pub(super) answer: GroupAnswer,
    /// What it counts for in [`Home::held_bytes`].
    pub(super) bytes: usize,
}

/// A group and who talks to it.
#[derive(Debug)]
pub(crate) struct Coordinated {
    pub(super) group: Group,
    /// Which life of the name it is: a group may be deleted and made again.
    pub(super) serial: u64,
    pub(super) speakers: BTreeMap<MemberId, Peer>,
    pub(super) asked: BTreeMap<RequestTicket, Asked>,
    /// Decisions of transactions that are not durable here yet.
    pub(super) settling: BTreeMap<RequestTicket, Apply>,
    /// Requests that wait for ends of logs, and later ones of the same members, in order.
    pub(super) parked: VecDeque<Parked>,
    /// How many of them are of each member.
    pub(super) parked_of: BTreeMap<MemberId, u32>,
    /// Answers that say what may not be durable yet, in order.
    pub(super) held: VecDeque<HeldAnswer>,
    pub(super) durable: AppendPosition,
    pub(super) is_touched: bool,
    /// Its entry in [`Home::deadlines`].
    pub(super) armed: Option<MonotonicNanos>,
    /// What owners of its partitions said of its lag when the last status was asked for.
    pub(super) lag: BTreeMap<TopicId, TopicLag>,
}

impl Coordinated {
    pub(super) fn new(group: Group, serial: u64) -> Self {
        Self {
            group,
            serial,
            speakers: BTreeMap::new(),
            asked: BTreeMap::new(),
            settling: BTreeMap::new(),
            parked: VecDeque::new(),
            parked_of: BTreeMap::new(),
            held: VecDeque::new(),
            durable: AppendPosition(0),
            is_touched: false,
            armed: None,
            lag: BTreeMap::new(),
        }
    }

    /// Nothing is told any more to those who are members no longer.
    pub(super) fn forget_strangers(&mut self) {
        let group = &self.group;
        self.speakers.retain(|&member, _| group.has_member(member));
    }
}

impl Home {
    pub(super) fn new(partition: PartitionId, phase: HomePhase) -> Self {
        Self {
            partition,
            phase,
            groups: BTreeMap::new(),
            touched: Vec::new(),
            deadlines: BTreeSet::new(),
            stale: BTreeSet::new(),
            log: HomeLog::default(),
            queues: QueuesOfHome::default(),
            held_bytes: 0,
        }
    }

    /// Why it takes nothing until the next start, if so.
    pub(super) const fn broken(&self) -> Option<&Refused> {
        match &self.phase {
            HomePhase::Broken(refused) => Some(refused),
            HomePhase::Serving | HomePhase::Restoring(_) => None,
        }
    }

    /// Whether it has nothing to do before its first deadline. Whatever makes a round look at a home is named here.
    pub(super) fn is_idle(&self) -> bool {
        let is_touched = !self.touched.is_empty() || !self.stale.is_empty() || self.queues.is_touched();
        match &self.phase {
            HomePhase::Restoring(_) => false,
            HomePhase::Serving => !is_touched && !self.log.has_work(),
            HomePhase::Broken(_) => !is_touched && !self.log.is_waiting(),
        }
    }

    /// When a group or a queue of it wants to be looked at first.
    pub(super) fn first_deadline(&self) -> Option<MonotonicNanos> {
        let group = self.deadlines.first().map(|&(at, _)| at);
        group.into_iter().chain(self.queues.deadline()).min()
    }

    /// Notes that a group's round has to be ended.
    pub(super) fn touch(&mut self, name: &GroupName) {
        if let Some(known) = self.groups.get_mut(name)
            && !std::mem::replace(&mut known.is_touched, true)
        {
            self.touched.push(name.clone());
        }
    }

    /// Sets a group's deadline to what it says now.
    pub(super) fn arm(&mut self, name: &GroupName) {
        let Some(known) = self.groups.get_mut(name) else { return };
        let next = known.group.next_deadline();
        if known.armed == next {
            return;
        }
        if let Some(before) = known.armed {
            self.deadlines.remove(&(before, name.clone()));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, name.clone()));
        }
        known.armed = next;
    }

    /// Takes a group out; what waits for it is handed back.
    pub(super) fn remove(&mut self, name: &GroupName) -> Option<Coordinated> {
        let known = self.groups.remove(name)?;
        if let Some(before) = known.armed {
            self.deadlines.remove(&(before, name.clone()));
        }
        self.stale.remove(name);
        Some(known)
    }

    /// Takes nothing more, and lets no time pass for groups and queues: nobody is put out who cannot be heard. What is on its
    /// way to the disk may still be told. Whose requests no group has taken.
    pub(super) fn close(&mut self, refused: &Refused) -> Vec<Asker> {
        let askers = self.take_untaken();
        self.phase = HomePhase::Broken(refused.clone());
        self.touched.clear();
        self.deadlines.clear();
        self.queues.rest();
        askers
    }

    /// As [`Home::close`] when nothing more becomes durable. Everybody who waits.
    pub(super) fn stop(&mut self, refused: &Refused) -> Vec<Asker> {
        let mut askers = self.close(refused);
        self.log.stop();
        askers.extend(self.take_askers());
        askers
    }

    /// Everybody whose request no group has taken; nobody waits so afterwards.
    fn take_untaken(&mut self) -> Vec<Asker> {
        let mut askers = Vec::new();
        if let HomePhase::Restoring(restoring) = &mut self.phase {
            askers.extend(restoring.take_waiting().iter().filter_map(HomeRequest::waits));
        }
        for known in self.groups.values_mut() {
            askers.extend(known.take_parked().into_iter().map(|parked| parked.request.asker));
        }
        askers
    }

    /// Everybody who waits until something is durable; nobody does afterwards.
    fn take_askers(&mut self) -> Vec<Asker> {
        let mut askers = self.queues.take_askers();
        for known in self.groups.values_mut() {
            askers.extend(std::mem::take(&mut known.asked).into_values().map(|asked| asked.asker));
            askers.extend(std::mem::take(&mut known.held).into_iter().map(|held| held.asker));
        }
        self.held_bytes = 0;
        askers
    }
}
