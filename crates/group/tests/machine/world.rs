//! A coordinator on a disk, and clients that do what an SDK would.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use corelane_group::{
    AppendPosition, Commit, Effect, FenceReason, Group, GroupError, GroupName, Join, Leave, Report, RequestTicket,
    Restore, Settings, StaticId, Subscription, TopicShape,
};
use corelane_model::limits::GROUP_STEP_MAX;
use corelane_model::{
    Decision, Generation, MemberId, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, TopicId, TopicName,
    Transaction, WallMillis,
};

pub(crate) const SESSION: Duration = Duration::from_secs(10);
pub(crate) const REBALANCE: Duration = Duration::from_secs(20);

pub(crate) fn name() -> GroupName {
    GroupName::parse("match-makers").expect("it is sound")
}

pub(crate) fn partition(topic: u64, index: u32) -> PartitionId {
    PartitionId::new(TopicId(topic), PartitionIndex(index))
}

/// A process that reads in the group.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: MemberId,
    pub(crate) static_id: Option<StaticId>,
    pub(crate) subscription: Subscription,
    pub(crate) capacity: u32,
    pub(crate) is_alive: bool,
    pub(crate) is_joined: bool,
    pub(crate) seen: Generation,
    /// What it works on, and since which generation it believes to have it.
    pub(crate) works: BTreeMap<PartitionId, Generation>,
    pub(crate) standby: Vec<PartitionId>,
    pub(crate) inbox: VecDeque<Effect>,
    pub(crate) handed: Vec<(PartitionId, Vec<u8>)>,
    pub(crate) fenced: Option<FenceReason>,
    /// Reports that it sent, to be sent again late.
    pub(crate) reports: Vec<(Generation, Vec<PartitionId>)>,
}

pub(crate) struct World {
    pub(crate) group: Group,
    pub(crate) now: Now,
    pub(crate) clients: Vec<Client>,
    pub(crate) catalog: BTreeMap<TopicId, u32>,
    /// The home partition; what is beyond `durable` a crash may take.
    pub(crate) log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) durable: usize,
    /// Records that were there when the machine was restored.
    base: usize,
    next_member: u128,
    next_ticket: u64,
    next_offset: u64,
    /// The newest join of each process: only its answer makes it a member.
    joins: BTreeMap<RequestTicket, MemberId>,
    commits: BTreeMap<RequestTicket, (PartitionId, Offset)>,
    /// The newest acknowledged commit of each partition.
    pub(crate) acknowledged: BTreeMap<PartitionId, Offset>,
    pub(crate) answered: BTreeSet<RequestTicket>,
    pub(crate) is_removed: bool,
    /// When the group surely heard of each member last.
    heard: BTreeMap<MemberId, MonotonicNanos>,
}

impl World {
    pub(crate) fn new(settings: Settings, topics: &[u32]) -> Self {
        let now = Now { monotonic: MonotonicNanos(1_000_000_000), wall: WallMillis(1_700_000_000_000) };
        Self {
            group: Group::new(now, name(), settings).expect("it is sound"),
            now,
            clients: Vec::new(),
            catalog: (0..).map(TopicId).zip(topics.iter().copied()).collect(),
            log: Vec::new(),
            durable: 0,
            base: 0,
            next_member: 100,
            next_ticket: 0,
            next_offset: 0,
            joins: BTreeMap::new(),
            commits: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            answered: BTreeSet::new(),
            is_removed: false,
            heard: BTreeMap::new(),
        }
    }

    pub(crate) fn ticket(&mut self) -> RequestTicket {
        self.next_ticket += 1;
        RequestTicket(self.next_ticket)
    }

    fn fresh_id(&mut self) -> MemberId {
        self.next_member += 1;
        // Ids are not in the order of joining.
        MemberId(self.next_member.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    /// A process that has not joined yet, which subscribes to the topics with these numbers.
    pub(crate) fn client(&mut self, topics: &[u64], static_id: Option<&str>) -> usize {
        let id = self.fresh_id();
        let topics = topics.iter().map(|topic| TopicName::parse(&format!("t{topic}")).expect("it is sound")).collect();
        self.clients.push(Client {
            id,
            static_id: static_id.map(|id| StaticId::parse(id).expect("it is sound")),
            subscription: Subscription { topics, pattern: None },
            capacity: 1,
            is_alive: true,
            is_joined: false,
            seen: Generation(0),
            works: BTreeMap::new(),
            standby: Vec::new(),
            inbox: VecDeque::new(),
            handed: Vec::new(),
            fenced: None,
            reports: Vec::new(),
        });
        self.clients.len() - 1
    }

    /// A process that has joined and heard so.
    pub(crate) fn member(&mut self, topics: &[u64], static_id: Option<&str>) -> usize {
        let at = self.client(topics, static_id);
        self.join(at).expect("it is sound");
        self.settle_round();
        at
    }

    pub(crate) fn resolve(&self, subscription: &Subscription) -> Vec<TopicShape> {
        resolve(&self.catalog, subscription)
    }

    pub(crate) fn join_of(&self, at: usize) -> Join {
        let client = &self.clients[at];
        let topics = self.resolve(&client.subscription);
        Join {
            static_id: client.static_id.clone(),
            capacity: client.capacity,
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            ..Join::new(client.id, client.subscription.clone(), topics)
        }
    }

    pub(crate) fn join(&mut self, at: usize) -> Result<(), GroupError> {
        let join = self.join_of(at);
        let ticket = self.ticket();
        self.joins.retain(|_, member| *member != join.member);
        self.joins.insert(ticket, join.member);
        let member = join.member;
        self.group.join(self.now, ticket, join)?;
        self.heard.insert(member, self.now.monotonic);
        Ok(())
    }

    /// Ends the round; what is appended is not durable yet.
    pub(crate) fn finish(&mut self) {
        self.finish_step(GROUP_STEP_MAX);
    }

    pub(crate) fn finish_step(&mut self, step: usize) {
        self.group.finish_step(self.now, step);
        self.drain();
        self.check_owners();
    }

    /// The first `count` records of the log are on disk.
    pub(crate) fn sync(&mut self, count: usize) {
        self.durable = self.durable.max(count.min(self.log.len()));
        if self.base <= self.durable {
            self.group.on_durable(AppendPosition((self.durable - self.base) as u64));
        }
        self.drain();
        self.check_owners();
    }

    /// Ends the round, makes it durable and lets everybody act until nothing more happens.
    pub(crate) fn settle_round(&mut self) {
        for _ in 0..8 {
            self.finish();
            self.sync(usize::MAX);
            for at in 0..self.clients.len() {
                self.deliver_all(at);
                self.report(at);
            }
        }
        self.finish();
        self.sync(usize::MAX);
    }

    /// Ends the round and makes it durable, while nobody acts.
    pub(crate) fn end_round(&mut self) {
        self.finish();
        self.sync(usize::MAX);
    }

    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now.monotonic = self.now.monotonic.after(duration);
        self.now.wall.0 += i64::try_from(duration.as_millis()).expect("it is sound");
        if self.group.next_deadline().is_some_and(|at| at <= self.now.monotonic) {
            let (before, overdue) = (self.group.stats().sessions_expired, self.overdue());
            self.group.on_deadline(self.now);
            let expired = self.group.stats().sessions_expired - before;
            assert!(expired <= overdue, "{expired} sessions expired, but only {overdue} members were silent so long");
        }
        self.finish();
    }

    /// How many members were silent for their session time-out, whatever the wall clock says.
    fn overdue(&self) -> u64 {
        let is_overdue = |id: &MemberId| self.heard[id].after(SESSION) <= self.now.monotonic;
        self.group.describe(self.now).members.iter().filter(|member| is_overdue(&member.member)).count() as u64
    }

    /// The broker is killed and started again with what was durable and perhaps some more.
    pub(crate) fn crash(&mut self, beyond: usize) {
        let kept = self.durable + beyond.min(self.log.len() - self.durable);
        self.log.truncate(kept);
        self.durable = kept;
        self.base = kept;
        let mut restore = Restore::new(name());
        for (key, value) in &self.log {
            restore.apply(key, value.as_deref()).expect("it is sound");
        }
        let catalog = self.catalog.clone();
        self.group = restore.finish(self.now, |subscription| resolve(&catalog, subscription));
        self.joins.clear();
        self.commits.clear();
        for (partition, &offset) in &self.acknowledged {
            let found = self.group.committed(*partition).map(|committed| committed.offset);
            assert!(
                found.is_some_and(|found| offset <= found),
                "{partition}: {offset} was acknowledged, found {found:?}"
            );
        }
    }

    pub(crate) fn compacted(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        for (key, value) in &self.log {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        records
    }

    fn drain(&mut self) {
        while let Some(effect) = self.group.poll_effect() {
            match effect {
                Effect::Append { position, key, value } => {
                    self.log.push((key, value));
                    assert_eq!(position.0, (self.log.len() - self.base) as u64, "positions are dense");
                }
                Effect::Done { ticket } => self.done(ticket),
                Effect::Assign { member, .. } | Effect::HandOver { member, .. } | Effect::Fence { member, .. } => {
                    if let Some(client) = self.clients.iter_mut().find(|client| client.id == member && client.is_joined)
                    {
                        client.inbox.push_back(effect);
                    }
                }
                Effect::Remove => self.is_removed = true,
            }
        }
    }

    fn done(&mut self, ticket: RequestTicket) {
        assert!(self.answered.insert(ticket), "{ticket:?} was answered twice");
        if let Some(member) = self.joins.remove(&ticket)
            && let Some(client) = self.clients.iter_mut().find(|client| client.id == member)
        {
            client.is_joined = true;
        }
        if let Some((partition, offset)) = self.commits.remove(&ticket) {
            let newest = self.acknowledged.entry(partition).or_insert(offset);
            *newest = (*newest).max(offset);
        }
    }

    pub(crate) fn deliver_all(&mut self, at: usize) {
        while self.deliver(at) {}
    }

    /// The client acts upon the next thing that it was told.
    pub(crate) fn deliver(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(effect) = client.inbox.pop_front() else { return false };
        if !client.is_alive {
            return true;
        }
        match effect {
            Effect::Assign { assignment, .. } => {
                client.seen = assignment.generation;
                client.works = assignment.owned.iter().map(|owned| (owned.partition, owned.since)).collect();
                client.standby = assignment.standby;
            }
            Effect::HandOver { partition, blob, .. } => client.handed.push((partition, blob.to_vec())),
            Effect::Fence { reason, .. } => self.put_out(at, Some(reason)),
            Effect::Append { .. } | Effect::Done { .. } | Effect::Remove => unreachable!("not for members"),
        }
        self.check_owners();
        true
    }

    /// The client learns that it is out: it drops everything, and joins again unless its static id is another's.
    pub(crate) fn put_out(&mut self, at: usize, reason: Option<FenceReason>) {
        let id = self.fresh_id();
        let client = &mut self.clients[at];
        client.works.clear();
        client.inbox.clear();
        client.reports.clear();
        client.is_joined = false;
        client.seen = Generation(0);
        client.id = id;
        client.fenced = reason.or(client.fenced);
        client.is_alive &= reason != Some(FenceReason::StaticIdTaken);
    }

    /// The client says what it is at, or joins if it has not.
    pub(crate) fn report(&mut self, at: usize) {
        let client = &self.clients[at];
        if !client.is_alive {
            return;
        }
        if !client.is_joined {
            // What it was told before belongs to an earlier life: until the answer it has nothing.
            self.clients[at].inbox.clear();
            self.clients[at].works.clear();
            match self.join(at) {
                Ok(()) | Err(GroupError::Draining) => {}
                Err(GroupError::Fenced { reason, .. }) => self.put_out(at, Some(reason)),
                Err(error) => panic!("cannot join: {error}"),
            }
            return;
        }
        let (seen, holds): (_, Vec<_>) = (client.seen, client.works.keys().copied().collect());
        self.clients[at].reports.push((seen, holds.clone()));
        self.send_report(at, seen, &holds);
    }

    /// A report that was sent before arrives again, late.
    pub(crate) fn report_late(&mut self, at: usize, which: usize) {
        let reports = &self.clients[at].reports;
        if self.clients[at].is_joined && !reports.is_empty() {
            let (seen, holds) = reports[which % reports.len()].clone();
            self.send_report(at, seen, &holds);
        }
    }

    fn send_report(&mut self, at: usize, seen: Generation, holds: &[PartitionId]) {
        let report = Report { seen, holds: Some(holds), processing_micros: None };
        let id = self.clients[at].id;
        match self.group.heartbeat(self.now, id, report) {
            Ok(()) => drop(self.heard.insert(id, self.now.monotonic)),
            Err(GroupError::Fenced { reason, .. }) => self.put_out(at, Some(reason)),
            Err(GroupError::UnknownMember { .. }) => self.put_out(at, None),
            Err(error) => panic!("heartbeat: {error}"),
        }
    }

    /// Commits the next offset for a partition with the client's generation or an older one.
    pub(crate) fn commit(&mut self, at: usize, partition: PartitionId, said: Generation) -> Result<(), GroupError> {
        self.next_offset += 1;
        let offset = Offset(self.next_offset);
        let ticket = self.ticket();
        let (now, id) = (self.now, self.clients[at].id);
        self.group.commit(now, ticket, id, said, &[Commit::new(partition, offset)])?;
        self.commits.insert(ticket, (partition, offset));
        Ok(())
    }

    /// Stages the next offset for a partition with the client's generation.
    pub(crate) fn stage(
        &mut self,
        at: usize,
        partition: PartitionId,
        transaction: Transaction,
    ) -> Result<Offset, GroupError> {
        self.next_offset += 1;
        let offset = Offset(self.next_offset);
        let ticket = self.ticket();
        let (now, client) = (self.now, &self.clients[at]);
        let speaker = (client.id, client.seen);
        self.group.stage(now, ticket, transaction, speaker, &[Commit::new(partition, offset)])?;
        Ok(offset)
    }

    pub(crate) fn settle_transaction(&mut self, transaction: Transaction, decision: Decision) {
        let ticket = self.ticket();
        self.group.settle_transaction(ticket, transaction, decision);
    }

    pub(crate) fn leave(&mut self, at: usize, leave: Leave) {
        let ticket = self.ticket();
        let _refused = self.group.leave(self.now, ticket, self.clients[at].id, leave);
        self.clients[at].works.clear();
        self.clients[at].is_alive = false;
    }

    /// The process is killed.
    pub(crate) fn kill(&mut self, at: usize) {
        self.clients[at].is_alive = false;
    }

    /// Whether the group counts the client among its members.
    pub(crate) fn is_member(&self, at: usize) -> bool {
        let id = self.clients[at].id;
        self.group.describe(self.now).members.iter().any(|member| member.member == id)
    }

    /// At most one of the group's members works on a partition, dead ones that still count as members included.
    pub(crate) fn check_owners(&self) {
        let members: BTreeSet<MemberId> =
            self.group.describe(self.now).members.iter().map(|member| member.member).collect();
        let mut owners: BTreeMap<PartitionId, MemberId> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| members.contains(&client.id)) {
            for &partition in client.works.keys() {
                let other = owners.insert(partition, client.id);
                assert!(other.is_none(), "{partition} is worked on by {} and {other:?}", client.id);
            }
        }
    }

    /// How many partitions each client works on.
    pub(crate) fn loads(&self) -> Vec<usize> {
        self.clients.iter().map(|client| client.works.len()).collect()
    }

    pub(crate) fn works(&self, at: usize) -> Vec<PartitionId> {
        self.clients[at].works.keys().copied().collect()
    }
}

pub(crate) fn resolve(catalog: &BTreeMap<TopicId, u32>, subscription: &Subscription) -> Vec<TopicShape> {
    let is_wanted = |topic: &TopicId| {
        let name = format!("t{topic}");
        subscription.pattern.as_deref() == Some("t.*") || subscription.topics.iter().any(|known| known.as_str() == name)
    };
    let topics = catalog.iter().filter(|(topic, _)| is_wanted(topic));
    topics.map(|(&topic, &partitions)| TopicShape { topic, partitions }).collect()
}
