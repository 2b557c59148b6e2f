//! Consuming a topic as a shared queue.

mod drain;
mod error;
mod leased;
mod verdict;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_client_core::{
    DeliveryKey, Effect, MembershipError, QueueMemberKey, QueueMemberSettings, QueueNews, Verdict, VerdictError,
    VerdictKey,
};
use corelane_model::{Backoff, Dispatch, GroupName, MemberId, MonotonicNanos, QueueWish, StartAt, TopicName};
use corelane_record::{RecordBatch, split_batch};
use corelane_wire::LeaseRange;

use crate::client::Handle;
use crate::consumer::ReaderQueue;
pub use drain::QueueDrain;
pub use error::QueueError;
pub use leased::{Lease, Leased, LeasedRecord, LeasedRecords, Leases};
pub(crate) use verdict::VerdictCell;
pub use verdict::{Nack, VerdictTicket};

/// How a member is to join a shared queue; from [`crate::Client::queue`]. What is said of the queue itself makes a new
/// queue, and has to agree with one that exists.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `join`"]
pub struct QueueBuilder {
    handle: Arc<Handle>,
    group: String,
    topic: String,
    dead_letter: Option<String>,
    wish: QueueWish,
    start: StartAt,
    weight: Option<u32>,
    session_timeout: Option<Duration>,
    credit_records: Option<u32>,
    credit_bytes: Option<u64>,
}

impl QueueBuilder {
    pub(crate) fn new(handle: Arc<Handle>, group: &str, topic: &str) -> Self {
        Self {
            handle,
            group: group.to_owned(),
            topic: topic.to_owned(),
            dead_letter: None,
            wish: QueueWish::default(),
            start: StartAt::Earliest,
            weight: None,
            session_timeout: None,
            credit_records: None,
            credit_bytes: None,
        }
    }

    /// How long a member has a record before it goes to another, 50 ms to 12 h; 30 s by default.
    pub const fn visibility(mut self, visibility: Duration) -> Self {
        self.wish.visibility = Some(visibility);
        self
    }

    /// Who gets the next record; round-robin by default.
    pub const fn dispatch(mut self, dispatch: Dispatch) -> Self {
        self.wish.dispatch = Some(dispatch);
        self
    }

    /// Hands out records of one key one after the other: the next when the one before it is done.
    pub const fn order_per_key(mut self, is_ordered: bool) -> Self {
        self.wish.order_per_key = Some(is_ordered);
        self
    }

    /// Makes a record a dead letter when it was delivered so often and not acknowledged; `None` is for ever.
    pub fn delivery_limit(mut self, limit: Option<u32>) -> Self {
        self.wish.delivery_limit = Some(limit.unwrap_or(0));
        self
    }

    /// How long a record rests after it failed.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.wish.backoff = Some(backoff);
        self
    }

    /// The topic that dead letters go to; it has to exist. A queue without one has no delivery limit.
    pub fn dead_letter(mut self, topic: &str) -> Self {
        self.dead_letter = Some(topic.to_owned());
        self
    }

    /// Everything about the queue itself at once, in place of what was said before.
    pub fn wish(mut self, wish: QueueWish) -> Self {
        self.dead_letter = wish.dead_letter.as_ref().map(|topic| topic.as_str().to_owned());
        self.wish = wish;
        self
    }

    /// Where a new queue begins in each partition; at the earliest by default.
    pub const fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// What this member can do compared to others, for [`Dispatch::Weighted`]; 1 by default.
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Silent for longer, the member is dead and what it has goes to others; 10 s by default. The client itself keeps it
    /// alive.
    pub const fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = Some(timeout);
        self
    }

    /// Records that this member may have at once, and their bytes: under way, waiting here, and not acknowledged. The
    /// rest of a backlog stays on the broker's disk, for whoever is free. 256 and 1 MiB by default; 1 hands out
    /// one record at a time.
    pub const fn credit(mut self, records: u32, bytes: u64) -> Self {
        self.credit_records = Some(records);
        self.credit_bytes = Some(bytes);
        self
    }

    /// Joins, and waits until the queue has taken the member in.
    ///
    /// # Errors
    /// A name breaks a rule, the topic or the dead-letter topic does not exist, a setting is out of its bounds or differs
    /// from the queue's, the group is a consumer group, or its home does not answer. The member is not in the queue then,
    /// or is put out of it after its session time-out.
    pub async fn join(self) -> Result<QueueConsumer, QueueError> {
        let settings = self.settings()?;
        let (group, topic) = (settings.group.clone(), settings.topic.clone());
        let queue = Arc::new(ReaderQueue::default());
        let cell = Arc::new(VerdictCell::new(VerdictError::Ended, VerdictError::Forgotten));
        let key = self.handle.shared.act(|inner, now| {
            let key = inner.core.join_queue(now, settings);
            inner.queues.insert(key, (Arc::clone(&queue), Arc::clone(&cell)));
            key
        });
        let mut consumer = QueueConsumer {
            handle: self.handle,
            key,
            group,
            topic,
            member: MemberId(0),
            queue,
            cell,
            runs: VecDeque::new(),
            measured: Measured::default(),
            is_ended: false,
        };
        loop {
            match poll_fn(|context| consumer.queue.poll(context)).await {
                Effect::Queue { news: QueueNews::Joined { member, .. }, .. } => {
                    consumer.member = member;
                    return Ok(consumer);
                }
                Effect::Queue { news: QueueNews::Ended { error }, .. } => {
                    consumer.is_ended = true;
                    return Err(consumer.membership(error.unwrap_or(MembershipError::Closed)));
                }
                // A queue that is new hands out records before its settings are on disk, and so before the answer.
                Effect::Queue { news: QueueNews::Delivered { delivery, leases, bytes, expires, lease }, .. } => {
                    consumer.on_delivered(delivery, leases, bytes, (expires, lease));
                }
                _ => {}
            }
        }
    }

    fn settings(&self) -> Result<QueueMemberSettings, QueueError> {
        let dead_letter = self.dead_letter.as_deref().map(TopicName::parse).transpose()?;
        let defaults = QueueMemberSettings::new(GroupName::parse(&self.group)?, TopicName::parse(&self.topic)?);
        Ok(QueueMemberSettings {
            weight: self.weight.unwrap_or(defaults.weight),
            session_timeout: self.session_timeout.unwrap_or(defaults.session_timeout),
            wish: QueueWish { dead_letter, ..self.wish.clone() },
            start: self.start,
            credit_records: self.credit_records.unwrap_or(defaults.credit_records),
            credit_bytes: self.credit_bytes.unwrap_or(defaults.credit_bytes),
            ..defaults
        })
    }
}

/// What of a delivery was not handed out yet.
#[derive(Debug)]
struct Run {
    delivery: DeliveryKey,
    leases: VecDeque<LeaseRange>,
    bytes: Bytes,
    expires: Instant,
    lease: Duration,
}

/// How long a record takes: said by the application, or measured between what is handed out.
#[derive(Debug, Default)]
struct Measured {
    is_manual: bool,
    since: Option<(Instant, u32)>,
}

/// A member of a shared queue: any number of them share a topic, each record goes to one of them for a while, and to
/// another if it is not acknowledged.
///
/// Dropped without [`Self::close`] it is to the queue as if the process had died: what it has goes to others when its
/// leases or its session end.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use corelane::Nack;
///
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// let mut jobs = client.queue("workers", "jobs").delivery_limit(Some(5)).dead_letter("jobs.dead").join().await?;
/// while let Some(leased) = jobs.next().await {
///     for record in &leased? {
///         match record.value {
///             Some(job) => { println!("{} bytes, delivery {}", job.len(), record.lease.attempt); jobs.ack(record.lease); }
///             None => { jobs.nack(record.lease, Nack::because("no value").dead()); }
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct QueueConsumer {
    handle: Arc<Handle>,
    key: QueueMemberKey,
    group: GroupName,
    topic: TopicName,
    member: MemberId,
    queue: Arc<ReaderQueue>,
    cell: Arc<VerdictCell>,
    /// Deliveries of which something was not handed out yet.
    runs: VecDeque<Run>,
    measured: Measured,
    is_ended: bool,
}

impl QueueConsumer {
    /// The group.
    #[must_use]
    pub const fn group(&self) -> &GroupName {
        &self.group
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The id under which this member joined. One that was put out comes back under another.
    #[must_use]
    pub const fn member(&self) -> MemberId {
        self.member
    }

    /// The next records; waits for them. `None` when the membership is over.
    pub async fn next(&mut self) -> Option<Result<Leased, QueueError>> {
        poll_fn(|context| self.poll_leased(context)).await
    }

    /// The next records if some are there; never blocks.
    pub fn try_next(&mut self) -> Option<Result<Leased, QueueError>> {
        match self.poll_leased(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(leased) => leased,
            Poll::Pending => None,
        }
    }

    /// What is there, at most so many times what came together, for loops that may not wait. Never blocks.
    ///
    /// ```no_run
    /// # fn tick(jobs: &mut corelane::QueueConsumer) {
    /// let mut drain = jobs.drain(16);
    /// while let Some(Ok(leased)) = drain.next() {
    ///     drain.consumer().ack(&leased);
    /// }
    /// # }
    /// ```
    pub const fn drain(&mut self, max: usize) -> QueueDrain<'_> {
        QueueDrain::new(self, max)
    }

    /// As [`Self::next`], for futures written by hand.
    pub fn poll_leased(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Leased, QueueError>>> {
        self.measure();
        loop {
            // Before the join is answered several deliveries may have come; each is used up before the next.
            while let Some(run) = self.runs.pop_front() {
                if let Some(leased) = self.next_of(run) {
                    return Poll::Ready(Some(leased));
                }
            }
            if self.is_ended {
                return Poll::Ready(None);
            }
            match self.queue.poll(context) {
                Poll::Ready(Effect::Queue { news, .. }) => match news {
                    QueueNews::Delivered { delivery, leases, bytes, expires, lease } => {
                        self.on_delivered(delivery, leases, bytes, (expires, lease));
                    }
                    QueueNews::Lost { reason } => {
                        tracing::warn!(group = %self.group, topic = %self.topic, %reason, "put out of a shared queue");
                    }
                    QueueNews::Ended { error } => {
                        self.is_ended = true;
                        if let Some(error) = error {
                            return Poll::Ready(Some(Err(self.membership(error))));
                        }
                    }
                    QueueNews::Joined { .. } | QueueNews::Settled { .. } | QueueNews::Refused { .. } => {}
                },
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn on_delivered(
        &mut self,
        delivery: DeliveryKey,
        leases: Vec<LeaseRange>,
        bytes: Bytes,
        (expires, lease): (MonotonicNanos, Duration),
    ) {
        let expires = self.handle.shared.instant(expires);
        self.runs.push_back(Run { delivery, leases: leases.into(), bytes, expires, lease });
    }

    fn next_of(&mut self, mut run: Run) -> Option<Result<Leased, QueueError>> {
        let left = |run: &Run| run.leases.iter().map(|range| u64::from(range.count)).sum::<u64>();
        let batch = match split_batch(&mut run.bytes).and_then(|bytes| bytes.map(RecordBatch::parse).transpose()) {
            Ok(Some(batch)) => batch,
            Ok(None) if run.leases.is_empty() => return None,
            Ok(None) => return Some(Err(QueueError::Mismatch { leases: left(&run), records: 0 })),
            Err(error) => return Some(Err(error.into())),
        };
        let count = batch.head().record_count;
        let Some(ranges) = leased::take_ranges(&mut run.leases, count) else {
            return Some(Err(QueueError::Mismatch { leases: left(&run), records: u64::from(count) }));
        };
        let leased = Leased::new(run.delivery, ranges, batch, (run.expires, run.lease));
        self.runs.push_front(run);
        self.measured.since = Some((Instant::now(), count));
        Some(Ok(leased))
    }

    /// Records are done. Cheap: it is gathered with others. Takes a [`Lease`], or a whole [`Leased`] by reference.
    pub fn ack(&self, leases: impl Into<Leases>) -> VerdictTicket {
        self.say(leases.into(), &Verdict::Ack)
    }

    /// Records failed: they are handed out again later, or become dead letters.
    pub fn nack(&self, leases: impl Into<Leases>, nack: Nack) -> VerdictTicket {
        self.say(leases.into(), &nack.into_verdict())
    }

    /// Records take longer: their leases end so long from now, in whole milliseconds.
    pub fn extend(&self, leases: impl Into<Leases>, lease: Duration) -> VerdictTicket {
        self.say(leases.into(), &Verdict::Extend { lease })
    }

    fn say(&self, leases: Leases, verdict: &Verdict) -> VerdictTicket {
        let shared = &self.handle.shared;
        let mut inner = shared.lock();
        let now = inner.clock.now();
        let said = inner.core.say_of_leases(now, self.key, leases.delivery, leases.ranges(), verdict);
        // No round of its own: what is said before the driver goes round leaves in one frame.
        let driver = if said.is_some_and(|said| said.is_ready) { shared.notify_locked(&mut inner) } else { None };
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        let key = said.map_or(VerdictKey(u64::MAX), |said| said.key);
        VerdictTicket::new(Arc::clone(&self.cell), key, leases)
    }

    /// Says how long a record takes, for [`Dispatch::LeastResponseTime`]. Without a call it is measured: the time from
    /// when records are handed out until the next are asked for.
    pub fn processed(&mut self, per_record: Duration) {
        self.measured.is_manual = true;
        self.report(per_record);
    }

    fn measure(&mut self) {
        if let Some((since, records)) = self.measured.since.take()
            && !self.measured.is_manual
            && 0 < records
        {
            self.report(since.elapsed() / records);
        }
    }

    fn report(&self, per_record: Duration) {
        let micros = u32::try_from(per_record.as_micros()).unwrap_or(u32::MAX).max(1);
        self.handle.shared.lock().core.measure_leases(self.key, micros);
    }

    /// Leaves the queue when what was said of records is settled; what this member still has goes to others at once.
    ///
    /// # Errors
    /// The membership was over already.
    pub async fn close(mut self) -> Result<(), QueueError> {
        self.handle.shared.act(|inner, now| inner.core.leave_queue(now, self.key));
        while !self.is_ended {
            if let Effect::Queue { news: QueueNews::Ended { error }, .. } =
                poll_fn(|context| self.queue.poll(context)).await
            {
                self.is_ended = true;
                return error.map_or(Ok(()), |error| Err(self.membership(error)));
            }
        }
        Ok(())
    }

    fn membership(&self, error: MembershipError) -> QueueError {
        QueueError::Membership { group: self.group.as_str().to_owned(), topic: self.topic.as_str().to_owned(), error }
    }
}

impl futures_core::Stream for QueueConsumer {
    type Item = Result<Leased, QueueError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_leased(context)
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.handle.shared.act(|inner, now| {
            // What was said before leaves, as far as it may.
            inner.core.finish_round(now);
            inner.core.abandon_queue(self.key);
            inner.queues.remove(&self.key);
        });
    }
}
