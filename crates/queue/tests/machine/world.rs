//! A topic, members and a disk around one queue, and what must hold at each step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use corelane_model::{
    Backoff, GroupName, MemberId, MonotonicNanos, Now, Offset, PartitionIndex, QueueSettings, StartAt, TopicId,
    TopicName, WallMillis,
};
use corelane_queue::{
    Answer, AppendPosition, Effect, Join, LeaseRun, Queue, QueueError, QueueName, ReadBatch, RecordMeta, RequestTicket,
    Restore, Verdict,
};

pub(crate) const VISIBILITY: Duration = Duration::from_secs(1);
pub(crate) const SESSION: Duration = Duration::from_secs(3);
pub(crate) const LIMIT: u32 = 3;
pub(crate) const RECORD_BYTES: u32 = 100;

/// Where a record is.
pub(crate) type Place = (u32, u64);

/// A record as the world knows it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) meta: RecordMeta,
    /// Who has it, which delivery it is, and until when.
    pub(crate) lease: Option<(MemberId, u32, MonotonicNanos)>,
    /// Its failures: where each was appended, `u64::MAX` until it is, and whether it was to be the last.
    pub(crate) failures: Vec<(u64, bool)>,
    pub(crate) not_before: MonotonicNanos,
    /// Position at which it was appended as done.
    pub(crate) done: Option<u64>,
    pub(crate) is_dead: bool,
    pub(crate) deliveries: u32,
}

/// A member's process.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: MemberId,
    pub(crate) is_alive: bool,
    /// Leases that it believes to have.
    pub(crate) has: Vec<LeaseRun>,
    /// Leases that it once had.
    pub(crate) had: Vec<LeaseRun>,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) queue: Queue,
    pub(crate) settings: QueueSettings,
    pub(crate) topic: Vec<Vec<Record>>,
    pub(crate) clients: Vec<Client>,
    /// Reading: where it has come, and bytes that were asked for.
    pub(crate) readers: Vec<(u64, u64)>,
    pub(crate) log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) durable: usize,
    /// Position of the first record of the log since the last restart.
    base: usize,
    pub(crate) dying: VecDeque<Place>,
    pub(crate) answers: BTreeMap<RequestTicket, Answer>,
    pub(crate) fenced: BTreeSet<MemberId>,
    pub(crate) acknowledged: BTreeMap<RequestTicket, Vec<Place>>,
    next: u64,
    pub(crate) removed: bool,
}

pub(crate) fn settings() -> QueueSettings {
    QueueSettings {
        visibility: VISIBILITY,
        delivery_limit: Some(LIMIT),
        backoff: Backoff::Exponential { first: Duration::from_millis(200), cap: Duration::from_millis(700) },
        dead_letter: Some(TopicName::parse("dead").expect("it is sound")),
        ..QueueSettings::default()
    }
}

pub(crate) fn name() -> QueueName {
    QueueName { group: GroupName::parse("workers").expect("it is sound"), topic: TopicId(7) }
}

impl World {
    pub(crate) fn new(settings: QueueSettings, partitions: u32) -> Self {
        let queue = Queue::new(name(), settings.clone(), partitions, StartAt::Earliest, 1).expect("it is sound");
        let count = partitions as usize;
        let mut world = Self {
            now: Now { monotonic: MonotonicNanos(1_000_000_000), wall: WallMillis(1_700_000_000_000) },
            queue,
            settings,
            topic: vec![Vec::new(); count],
            clients: Vec::new(),
            readers: vec![(0, 0); count],
            log: Vec::new(),
            durable: 0,
            base: 0,
            dying: VecDeque::new(),
            answers: BTreeMap::new(),
            fenced: BTreeSet::new(),
            acknowledged: BTreeMap::new(),
            next: 0,
            removed: false,
        };
        world.finish();
        world.sync(usize::MAX);
        world
    }

    pub(crate) fn ticket(&mut self) -> RequestTicket {
        self.next += 1;
        RequestTicket(self.next)
    }

    pub(crate) fn produce(&mut self, partition: u32, key: Option<u32>, delay: Option<Duration>) {
        let records = &mut self.topic[partition as usize];
        let deliver_at =
            delay.map(|delay| WallMillis(self.now.wall.0 + i64::try_from(delay.as_millis()).expect("it is short")));
        let meta = RecordMeta { offset: Offset(records.len() as u64), bytes: RECORD_BYTES, key, deliver_at };
        records.push(Record {
            meta,
            lease: None,
            failures: Vec::new(),
            not_before: self.now.monotonic.after(delay.unwrap_or_default()),
            done: None,
            is_dead: false,
            deliveries: 0,
        });
    }

    /// Gives the queue what it asked for, as batches of up to three records.
    pub(crate) fn feed(&mut self, partition: u32, batches: usize) {
        let at = partition as usize;
        for _ in 0..batches {
            let (from, asked) = self.readers[at];
            let end = (from + 3).min(self.topic[at].len() as u64);
            if asked == 0 || end <= from {
                return;
            }
            let range = usize::try_from(from).expect("few")..usize::try_from(end).expect("few");
            let records: Vec<_> = self.topic[at][range].iter().map(|record| record.meta).collect();
            let bytes = u64::from(RECORD_BYTES) * (end - from);
            let batch = ReadBatch {
                partition: PartitionIndex(partition),
                from: Offset(from),
                end: Offset(end),
                timestamp: self.now.wall,
                bytes,
                high_watermark: Offset(self.topic[at].len() as u64),
            };
            self.readers[at] = (end, asked.saturating_sub(bytes));
            self.queue.on_records(self.now, batch, records);
        }
    }

    pub(crate) fn feed_all(&mut self) {
        (0..self.topic.len()).for_each(|at| self.feed(u32::try_from(at).expect("few"), usize::MAX));
    }

    pub(crate) fn client(&mut self) -> usize {
        self.next += 1;
        let id = MemberId(self.next.into());
        self.clients.push(Client { id, is_alive: true, has: Vec::new(), had: Vec::new() });
        self.clients.len() - 1
    }

    pub(crate) fn join_with(&mut self, at: usize, records: u32, weight: u32) -> Result<RequestTicket, QueueError> {
        let ticket = self.ticket();
        let join = Join {
            weight,
            session_timeout: SESSION,
            credit_records: records,
            credit_bytes: 1 << 20,
            ..Join::new(self.clients[at].id)
        };
        self.queue.join(self.now, ticket, join).map(|()| ticket)
    }

    /// A member with credit for so many records.
    pub(crate) fn member(&mut self, records: u32) -> usize {
        let at = self.client();
        self.join_with(at, records, 1).expect("it is sound");
        at
    }

    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now.monotonic = self.now.monotonic.after(duration);
        self.now.wall.0 += i64::try_from(duration.as_millis()).expect("it is short");
        self.expire();
        self.queue.on_deadline(self.now);
        self.take_effects();
    }

    /// What the world knows to be over: the model of time-outs.
    fn expire(&mut self) {
        let (now, settings) = (self.now, self.settings.clone());
        for record in self.topic.iter_mut().flatten() {
            if record.lease.is_some_and(|(_, _, until)| until <= now.monotonic) {
                record.lease = None;
                record.fail(now, &settings, Some(Duration::ZERO));
            }
        }
    }

    /// Ends the round, and checks what it led to.
    pub(crate) fn finish(&mut self) {
        self.queue.finish_round(self.now);
        self.take_effects();
        self.queue.check();
    }

    pub(crate) fn take_effects(&mut self) {
        while let Some(effect) = self.queue.poll_effect() {
            match effect {
                Effect::Append { position, key, value } => self.on_append(position, key, value),
                Effect::Answer { ticket, answer } => {
                    self.answers.insert(ticket, answer);
                }
                Effect::Deliver { member, leases, lease, bytes } => {
                    assert_eq!(lease, self.queue.settings().visibility);
                    let records: u64 = leases.iter().map(|run| u64::from(run.count)).sum();
                    assert_eq!(bytes, records * u64::from(RECORD_BYTES));
                    self.on_delivery(member, &leases, lease);
                }
                Effect::FindStart { partition, .. } => self.queue.on_start(partition, Offset(0)),
                Effect::Read { partition, from, bytes } => {
                    let reader = &mut self.readers[partition.0 as usize];
                    *reader = if reader.0 == from.0 { (from.0, reader.1 + bytes) } else { (from.0, bytes) };
                }
                Effect::DeadLetter { partition, offset, deliveries, .. } => {
                    let record = &self.topic[partition.0 as usize][usize::try_from(offset.0).expect("few")];
                    assert_eq!(record.lease, None, "a dead letter of a record that somebody has");
                    assert!(record.is_dead || self.settings.delivery_limit == Some(deliveries), "{deliveries}");
                    self.dying.push_back((partition.0, offset.0));
                }
                Effect::Fence { member, .. } => self.on_fence(member),
                Effect::Remove => self.removed = true,
                Effect::Redrive { .. } | Effect::Refuse { .. } => {}
            }
        }
    }

    fn on_append(&mut self, position: AppendPosition, key: Vec<u8>, value: Option<Vec<u8>>) {
        assert_eq!(self.base as u64 + position.0, self.log.len() as u64 + 1, "positions are dense");
        if key[1] == 17 {
            let (_, index) = key.split_last_chunk::<4>().expect("it ends in a partition");
            for record in &mut self.topic[u32::from_le_bytes(*index) as usize] {
                let place = self.base as u64 + position.0;
                record.failures.iter_mut().filter(|(at, _)| *at == u64::MAX).for_each(|(at, _)| *at = place);
                record.done = record.done.map(|at| at.min(place));
            }
        }
        self.log.push((key, value));
    }

    fn on_delivery(&mut self, member: MemberId, leases: &[LeaseRun], lease: Duration) {
        let client = self.clients.iter_mut().find(|client| client.id == member).expect("it joined");
        client.has.extend(leases);
        let until = self.now.monotonic.after(lease);
        for (place, attempt) in records_of(leases) {
            let earlier_unfinished = self.unfinished_before(place);
            let record = self.record(place);
            assert_eq!(record.lease, None, "{place:?} is handed out to {member} while somebody has it");
            assert_eq!(record.done, None, "{place:?} is handed out although it is done");
            assert!(!record.is_dead, "{place:?} is handed out although it is dead");
            assert_eq!(record.failures.len() + 1, attempt as usize, "deliveries of {place:?}");
            assert!(attempt <= LIMIT, "{place:?} is handed out for the {attempt}th time");
            record.lease = Some((member, attempt, until));
            record.deliveries += 1;
            let (not_before, now) = (record.not_before, self.now.monotonic);
            assert!(not_before <= now, "{place:?} is handed out {:?} too early", not_before.since(now));
            assert_eq!(earlier_unfinished, None, "of the key of {place:?} there is an earlier one");
        }
    }

    /// In a queue with order, a record of the same key before this one that is not finished.
    fn unfinished_before(&self, (partition, offset): Place) -> Option<u64> {
        let records = &self.topic[partition as usize][..=usize::try_from(offset).expect("few")];
        let (record, before) = records.split_last().expect("it is there");
        let key = record.meta.key.filter(|_| self.settings.order_per_key)?;
        let found = before.iter().find(|other| other.meta.key == Some(key) && other.done.is_none());
        found.map(|other| other.meta.offset.0)
    }

    fn on_fence(&mut self, member: MemberId) {
        self.fenced.insert(member);
        let (now, settings) = (self.now, self.settings.clone());
        for record in self.topic.iter_mut().flatten() {
            if record.lease.is_some_and(|(owner, _, _)| owner == member) {
                record.lease = None;
                record.fail(now, &settings, Some(Duration::ZERO));
            }
        }
    }

    pub(crate) fn record(&mut self, (partition, offset): Place) -> &mut Record {
        &mut self.topic[partition as usize][usize::try_from(offset).expect("few")]
    }

    /// Which of these records the member has, by what the world knows.
    fn held(&mut self, at: usize, leases: &[LeaseRun]) -> Vec<Place> {
        let id = self.clients[at].id;
        let mut held = Vec::new();
        for (place, attempt) in records_of(leases) {
            let is_its = self.record(place).lease.is_some_and(|(owner, known, _)| (owner, known) == (id, attempt));
            if is_its && !held.contains(&place) {
                held.push(place);
            }
        }
        held
    }

    pub(crate) fn acknowledge(&mut self, at: usize, leases: &[LeaseRun]) -> Result<RequestTicket, QueueError> {
        let ticket = self.ticket();
        self.queue.acknowledge(self.now, ticket, self.clients[at].id, leases, None)?;
        let held = self.held(at, leases);
        for &place in &held {
            let record = self.record(place);
            record.lease = None;
            record.done = Some(u64::MAX);
        }
        self.acknowledged.insert(ticket, held);
        Ok(ticket)
    }

    pub(crate) fn reject(&mut self, at: usize, leases: &[LeaseRun], verdict: Verdict) -> Result<(), QueueError> {
        let ticket = self.ticket();
        self.queue.reject(self.now, ticket, self.clients[at].id, leases, verdict, "no")?;
        let (now, settings) = (self.now, self.settings.clone());
        for place in self.held(at, leases) {
            let record = self.record(place);
            record.lease = None;
            match verdict {
                Verdict::Retry(rest) => record.fail(now, &settings, rest),
                Verdict::Dead => {
                    record.fail(now, &settings, None);
                    record.failures.last_mut().expect("it has just failed").1 = true;
                    record.is_dead = true;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn extend(&mut self, at: usize, leases: &[LeaseRun], lease: Duration) -> Result<(), QueueError> {
        let ticket = self.ticket();
        self.queue.extend(self.now, ticket, self.clients[at].id, leases, lease)?;
        let until = self.now.monotonic.after(lease);
        for place in self.held(at, leases) {
            let record = self.record(place);
            record.lease = record.lease.map(|(owner, attempt, _)| (owner, attempt, until));
        }
        Ok(())
    }

    pub(crate) fn leave(&mut self, at: usize) {
        let (ticket, id) = (self.ticket(), self.clients[at].id);
        if self.queue.leave(self.now, ticket, id).is_ok() {
            for record in self.topic.iter_mut().flatten() {
                record.lease = record.lease.filter(|&(owner, _, _)| owner != id);
            }
        }
        self.clients[at].is_alive = false;
    }

    /// The dead-letter topic took the oldest dead letter, or refused it.
    pub(crate) fn settle_dead_letter(&mut self, is_stored: bool) {
        let Some((partition, offset)) = self.dying.pop_front() else { return };
        let (index, place) = (PartitionIndex(partition), Offset(offset));
        if is_stored {
            let record = self.record((partition, offset));
            if record.done.is_none() {
                record.done = Some(u64::MAX);
            }
            self.queue.on_dead_letter_stored(self.now, index, place);
        } else {
            self.queue.on_dead_letter_failed(self.now, index, place);
        }
    }

    /// The log is on disk up to here.
    pub(crate) fn sync(&mut self, up_to: usize) {
        self.durable = self.durable.max(up_to.min(self.log.len()));
        self.queue.on_durable(AppendPosition((self.durable - self.base) as u64));
        self.take_effects();
    }

    /// The broker is killed; of what was not durable some records survive.
    pub(crate) fn crash(&mut self, beyond: usize) {
        let kept = (self.durable + beyond).min(self.log.len());
        self.log.truncate(kept);
        self.durable = kept;
        self.base = kept;
        self.dying.clear();
        self.answers.clear();
        self.readers.fill((0, 0));
        for record in self.topic.iter_mut().flatten() {
            record.lease = None;
            record.done = record.done.filter(|&at| at <= kept as u64);
            record.failures.retain(|&(at, _)| at <= kept as u64);
            // How long what was not durable had to rest nobody knows any more.
            record.not_before = MonotonicNanos(0);
            record.is_dead = record.failures.iter().any(|&(_, is_last)| is_last);
        }
        self.queue = self.restored();
        for client in &mut self.clients {
            client.has.clear();
        }
        self.finish();
    }

    pub(crate) fn restored(&self) -> Queue {
        let mut restore = Restore::new(name());
        for (key, value) in &self.log {
            restore.apply(key, value.as_deref()).expect("we wrote it");
        }
        restore.finish(u32::try_from(self.topic.len()).expect("few"), 1)
    }
}

impl Record {
    fn fail(&mut self, now: Now, settings: &QueueSettings, rest: Option<Duration>) {
        let count = u32::try_from(self.failures.len() + 1).expect("few");
        let is_last = settings.delivery_limit.is_some_and(|limit| limit <= count);
        self.failures.push((u64::MAX, is_last));
        self.not_before = now.monotonic.after(rest.unwrap_or_else(|| settings.backoff.after(count)));
        self.is_dead |= is_last;
    }
}

/// The records of runs, with the number of the delivery.
pub(crate) fn records_of(runs: &[LeaseRun]) -> impl Iterator<Item = (Place, u32)> {
    runs.iter()
        .flat_map(|run| (0..u64::from(run.count)).map(|more| ((run.partition.0, run.first.0 + more), run.attempt)))
}

/// One run for each record.
pub(crate) fn singles(runs: &[LeaseRun]) -> Vec<LeaseRun> {
    let records = records_of(runs);
    records
        .map(|((partition, offset), attempt)| LeaseRun {
            partition: PartitionIndex(partition),
            first: Offset(offset),
            count: 1,
            attempt,
        })
        .collect()
}
