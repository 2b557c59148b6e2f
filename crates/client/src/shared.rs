//! What the tasks of a client share: the machine behind a lock that is held for moments, and who waits for its words.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use corelane_client_core::{
    Answer, ClientCore, ConnectFailure, Effect, Event, FollowKey, GroupKey, GroupNews, OperationKey, OutStream,
    ProducerKey, QueueMemberKey, QueueNews, RequestError, SubscriptionKey,
};
use corelane_model::{ConnectionKey, ErrorCode, MonotonicNanos, Now, ShardId, TopicClass};
use corelane_wire::OutFrame;
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::consumer::ReaderQueue;
use crate::gather::GATHERED_MAX;
use crate::group::CommitCell;
use crate::link::ConnectionIo;
use crate::queue::VerdictCell;
use crate::ticket::Wakers;
use crate::transport::Transport;
use crate::unsettled::UnsettledBatches;

/// A map whose keys the client itself counts up.
type Map<K, V> = HashMap<K, V, ahash::RandomState>;

fn map<K, V>() -> Map<K, V> {
    // Nobody from outside chooses these keys, so fixed seeds do no harm.
    HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

/// What the driver has to do, gathered under the lock and done outside.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) frames: Vec<(ConnectionKey, OutStream, OutFrame)>,
    pub(crate) connects: Vec<(ConnectionKey, ShardId)>,
    pub(crate) established: Vec<(ConnectionKey, ConnectionIo)>,
    pub(crate) closes: Vec<(ConnectionKey, Option<ErrorCode>, String)>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.connects.is_empty() && self.established.is_empty() && self.closes.is_empty()
    }
}

/// What became of a producer that was being opened.
pub(crate) type Opened = Result<(u32, TopicClass), RequestError>;

/// The machine and those who wait for it.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) core: ClientCore,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    pub(crate) batches: UnsettledBatches,
    pub(crate) opening: Map<ProducerKey, oneshot::Sender<Opened>>,
    pub(crate) operations: Map<OperationKey, oneshot::Sender<Result<Answer, RequestError>>>,
    pub(crate) readers: Map<SubscriptionKey, Arc<ReaderQueue>>,
    pub(crate) follows: Map<FollowKey, Arc<ReaderQueue>>,
    pub(crate) groups: Map<GroupKey, (Arc<ReaderQueue>, Arc<CommitCell>)>,
    pub(crate) queues: Map<QueueMemberKey, (Arc<ReaderQueue>, Arc<VerdictCell>)>,
    /// Who waits for the first connection to be ready, or to fail for good.
    pub(crate) first: Option<oneshot::Sender<Result<(), ConnectFailure>>>,
    pub(crate) last_failure: Option<ConnectFailure>,
    driver: Option<Waker>,
    armed: Option<MonotonicNanos>,
    /// Guards that are held so that records gather, and records that wait for them.
    pub(crate) gatherings: u32,
    pub(crate) gathered: u32,
    pub(crate) is_closed: bool,
}

/// One client, as its tasks know it.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    /// Whether the driver will go round without being woken again.
    is_notified: AtomicBool,
    /// Told whenever room in the send buffer comes back.
    pub(crate) room: Notify,
    /// Where monotonic moments count from.
    origin: Instant,
    pub(crate) transport: Transport,
}

impl Shared {
    pub(crate) fn new(
        core: ClientCore,
        transport: Transport,
        first: oneshot::Sender<Result<(), ConnectFailure>>,
    ) -> Self {
        let origin = Instant::now();
        let inner = Inner {
            core,
            clock: Clock::new(origin),
            outbox: Outbox::default(),
            batches: UnsettledBatches::default(),
            opening: map(),
            operations: map(),
            readers: map(),
            follows: map(),
            groups: map(),
            queues: map(),
            first: Some(first),
            last_failure: None,
            driver: None,
            armed: None,
            gatherings: 0,
            gathered: 0,
            is_closed: false,
        };
        Self { inner: Mutex::new(inner), is_notified: AtomicBool::new(false), room: Notify::new(), origin, transport }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the machine does not panic")
    }

    pub(crate) fn instant(&self, moment: MonotonicNanos) -> Instant {
        self.origin + moment.since(MonotonicNanos::default())
    }

    /// Lets the driver go round soon.
    pub(crate) fn notify(&self) {
        if !self.is_notified.swap(true, Ordering::AcqRel) {
            let driver = self.lock().driver.take();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }

    /// As [`Self::notify`], for a caller that holds the lock; wake what it returns after letting go of it.
    pub(crate) fn notify_locked(&self, inner: &mut Inner) -> Option<Waker> {
        if self.is_notified.swap(true, Ordering::AcqRel) { None } else { inner.driver.take() }
    }

    /// A record was taken: lets the driver go round, unless records are to gather. As [`Self::notify_locked`].
    pub(crate) fn notify_taken(&self, inner: &mut Inner) -> Option<Waker> {
        inner.gathered += 1;
        if 0 < inner.gatherings && inner.gathered < GATHERED_MAX {
            return None;
        }
        inner.gathered = 0;
        self.notify_locked(inner)
    }

    /// The driver goes round now: what is notified from here on makes it go round again.
    pub(crate) fn begin_round(&self) {
        self.is_notified.store(false, Ordering::Release);
    }

    /// The driver sleeps until it is woken or until `armed`; false when it must go round again at once.
    pub(crate) fn may_sleep(&self, inner: &mut Inner, waker: &Waker, armed: Option<MonotonicNanos>) -> bool {
        inner.armed = armed;
        inner.driver = Some(waker.clone());
        !self.is_notified.load(Ordering::Acquire)
    }

    /// Makes calls to the machine in a round of their own, and passes on what it says.
    pub(crate) fn act<T>(&self, calls: impl FnOnce(&mut Inner, Now) -> T) -> T {
        let mut inner = self.lock();
        let now = inner.clock.now();
        let result = calls(&mut inner, now);
        self.finish(inner, now);
        result
    }

    /// Hands the machine an event and passes on what it says.
    pub(crate) fn handle(&self, event: Event) {
        self.act(|inner, now| inner.core.handle(now, event));
    }

    /// Ends a round of calls: passes on what the machine says, and wakes the driver if there is something to do.
    pub(crate) fn finish(&self, mut inner: MutexGuard<'_, Inner>, now: Now) {
        inner.core.finish_round(now);
        let words = self.collect(&mut inner);
        let has_work = !inner.outbox.is_empty() || {
            let deadline = inner.core.next_deadline();
            deadline.is_some_and(|deadline| inner.armed.is_none_or(|armed| deadline < armed))
        };
        let driver = if has_work { self.notify_locked(&mut inner) } else { None };
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        self.say(words);
    }

    /// Takes the machine's effects: what is to be done goes to the outbox, what became of batches to their cells, and what is
    /// left to be told without the lock is returned.
    pub(crate) fn collect(&self, inner: &mut Inner) -> Words {
        let mut words = Words::default();
        while let Some(effect) = inner.core.poll_effect() {
            match effect {
                Effect::Send { connection, stream, frame } => inner.outbox.frames.push((connection, stream, frame)),
                Effect::Connect { connection, shard } => inner.outbox.connects.push((connection, shard)),
                Effect::Close { connection, code, reason } => inner.outbox.closes.push((connection, code, reason)),
                Effect::Received { batch, placement } => {
                    if let Some(cell) = inner.batches.get(batch) {
                        let now = words.known_at();
                        cell.on_received(placement, now, &mut words.wakers);
                    }
                }
                Effect::Delivered { batch, placement, is_stored } => {
                    words.has_room = true;
                    if let Some(cell) = inner.batches.settle(batch) {
                        let now = words.known_at();
                        cell.on_delivered(placement, is_stored, now, &mut words.wakers);
                    }
                }
                Effect::Failed { batch, detached, error } => {
                    words.has_room = true;
                    if 0 < detached {
                        tracing::warn!(records = detached, %error, "records without a ticket were not delivered");
                    }
                    if let Some(cell) = inner.batches.settle(batch) {
                        cell.on_failed(error, &mut words.wakers);
                    }
                }
                effect => words.others.extend(inner.addressee(effect)),
            }
        }
        words
    }

    /// Passes on what was taken by [`Self::collect`].
    pub(crate) fn say(&self, words: Words) {
        words.wakers.wake();
        words.others.into_iter().for_each(Word::say);
        if words.has_room {
            self.room.notify_waiters();
        }
    }
}

/// What is left to be told without the lock.
#[derive(Debug, Default)]
pub(crate) struct Words {
    wakers: Wakers,
    others: Vec<Word>,
    /// When it was known what became of batches.
    known_at: Option<Instant>,
    /// Batches left the send buffer.
    has_room: bool,
}

impl Words {
    /// One moment for all batches of a round.
    fn known_at(&mut self) -> Instant {
        *self.known_at.get_or_insert_with(Instant::now)
    }
}

/// Something to tell, and to whom.
#[derive(Debug)]
pub(crate) enum Word {
    Commits(Arc<CommitCell>, Box<GroupNews>),
    GroupEnded(Arc<CommitCell>, Option<Waker>),
    Verdicts(Arc<VerdictCell>, Box<QueueNews>),
    QueueEnded(Arc<VerdictCell>, Option<Waker>),
    /// The readers' queues themselves are filled under the lock, so that batches stay in order.
    Wake(Waker),
    Opened(oneshot::Sender<Opened>, Box<Opened>),
    Done(oneshot::Sender<Result<Answer, RequestError>>, Box<Result<Answer, RequestError>>),
    First(oneshot::Sender<Result<(), ConnectFailure>>, Box<Result<(), ConnectFailure>>),
}

impl Word {
    fn say(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Commits(cell, news) => cell.on_news(*news),
            Self::GroupEnded(cell, waker) => {
                cell.on_ended();
                waker.into_iter().for_each(Waker::wake);
            }
            Self::Verdicts(cell, news) => cell.on_news(*news),
            Self::QueueEnded(cell, waker) => {
                cell.on_ended();
                waker.into_iter().for_each(Waker::wake);
            }
            // Whoever asked may have stopped waiting.
            Self::Opened(sender, result) => drop(sender.send(*result)),
            Self::Done(sender, result) => drop(sender.send(*result)),
            Self::First(sender, result) => drop(sender.send(*result)),
        }
    }
}

impl Inner {
    /// What a membership tells goes to its consumer, and what it tells of commits to their tickets.
    fn group_news(&mut self, group: GroupKey, news: GroupNews) -> Option<Word> {
        let (queue, cell) = self.groups.get(&group)?;
        match &news {
            GroupNews::CommitsSettled { .. } | GroupNews::CommitFailed { .. } => {
                return Some(Word::Commits(Arc::clone(cell), Box::new(news)));
            }
            GroupNews::Assigned(assigned) => {
                let subscriptions = assigned.iter().filter_map(|one| one.subscription);
                self.readers.extend(subscriptions.map(|subscription| (subscription, Arc::clone(queue))));
            }
            GroupNews::Standby(standbys) => {
                let subscriptions = standbys.iter().filter_map(|one| one.subscription);
                self.readers.extend(subscriptions.map(|subscription| (subscription, Arc::clone(queue))));
            }
            GroupNews::Ended { .. } => {
                let cell = Arc::clone(cell);
                let waker = queue.push(Effect::Group { group, news });
                self.groups.remove(&group);
                return Some(Word::GroupEnded(cell, waker));
            }
            _ => {}
        }
        queue.push(Effect::Group { group, news }).map(Word::Wake)
    }

    /// What a membership of a shared queue tells goes to its consumer, and what it tells of verdicts to their tickets.
    fn queue_news(&mut self, queue: QueueMemberKey, news: QueueNews) -> Option<Word> {
        let (reader, cell) = self.queues.get(&queue)?;
        match &news {
            QueueNews::Settled { .. } | QueueNews::Refused { .. } => {
                Some(Word::Verdicts(Arc::clone(cell), Box::new(news)))
            }
            QueueNews::Ended { .. } => {
                let cell = Arc::clone(cell);
                let waker = reader.push(Effect::Queue { queue, news });
                self.queues.remove(&queue);
                Some(Word::QueueEnded(cell, waker))
            }
            _ => reader.push(Effect::Queue { queue, news }).map(Word::Wake),
        }
    }

    /// Who is to be told.
    fn addressee(&mut self, effect: Effect) -> Option<Word> {
        match effect {
            Effect::Subscribed { subscription, .. }
            | Effect::Deliver { subscription, .. }
            | Effect::Passed { subscription, .. }
            | Effect::Missed { subscription, .. } => {
                self.readers.get(&subscription).and_then(|queue| queue.push(effect)).map(Word::Wake)
            }
            Effect::Ended { subscription, .. } => {
                self.readers.remove(&subscription).and_then(|queue| queue.push(effect)).map(Word::Wake)
            }
            Effect::Grown { follow, subscription, .. } => {
                let queue = Arc::clone(self.follows.get(&follow)?);
                self.readers.insert(subscription, Arc::clone(&queue));
                queue.push(effect).map(Word::Wake)
            }
            Effect::Group { group, news } => self.group_news(group, news),
            Effect::Queue { queue, news } => self.queue_news(queue, news),
            Effect::ProducerOpened { producer, partitions, class } => {
                self.opening.remove(&producer).map(|sender| Word::Opened(sender, Box::new(Ok((partitions, class)))))
            }
            Effect::ProducerFailed { producer, error } => {
                self.opening.remove(&producer).map(|sender| Word::Opened(sender, Box::new(Err(error))))
            }
            Effect::Done { operation, result } => {
                self.operations.remove(&operation).map(|sender| Word::Done(sender, result))
            }
            Effect::Ready { .. } => self.first.take().map(|sender| Word::First(sender, Box::new(Ok(())))),
            Effect::Unreachable { shard, failure } => {
                tracing::debug!(%shard, %failure, "connection lost");
                self.last_failure = Some(failure.clone());
                if failure.is_retriable() {
                    None
                } else {
                    self.first.take().map(|sender| Word::First(sender, Box::new(Err(failure))))
                }
            }
            Effect::Send { .. }
            | Effect::Connect { .. }
            | Effect::Close { .. }
            | Effect::Received { .. }
            | Effect::Delivered { .. }
            | Effect::Failed { .. } => {
                unreachable!("what is to be done and what became of batches was sorted out before")
            }
        }
    }
}
