//! Consuming.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use corelane_client_core::{Effect, FollowKey, OutOfRange, SubscribeSettings, SubscriptionError, SubscriptionKey};
use corelane_model::limits::SUBSCRIPTION_CREDIT_BYTES_DEFAULT;
use corelane_model::{Isolation, Offset, PartitionIndex, StartAt, TopicName, WallMillis};
use corelane_record::{RecordBatch, Records, split_batch};

use crate::client::Handle;
use crate::{ConsumeError, RecordView};

/// How a consumer is to be opened; from [`crate::Client::consumer`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct ConsumerBuilder {
    handle: Arc<Handle>,
    topic: String,
    partitions: Option<Vec<PartitionIndex>>,
    start: StartAt,
    credit_bytes: u64,
    out_of_range: Option<OutOfRange>,
    isolation: Isolation,
}

impl ConsumerBuilder {
    pub(crate) fn new(handle: Arc<Handle>, topic: &str) -> Self {
        Self {
            handle,
            topic: topic.to_owned(),
            partitions: None,
            start: StartAt::Earliest,
            credit_bytes: SUBSCRIPTION_CREDIT_BYTES_DEFAULT,
            out_of_range: None,
            isolation: Isolation::Uncommitted,
        }
    }

    /// Reads this partition, beside those that were named before; without a call all partitions are read.
    pub fn partition(mut self, partition: PartitionIndex) -> Self {
        self.partitions.get_or_insert_default().push(partition);
        self
    }

    /// Reads these partitions; without a call all partitions are read, and those that the topic gets later from their
    /// beginning, at most half a minute after they came to be.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = PartitionIndex>) -> Self {
        self.partitions.get_or_insert_default().extend(partitions);
        self
    }

    /// Where to start in each partition: [`StartAt::Earliest`] by default.
    pub const fn from(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Bytes of record batches that each partition may have under way or waiting here.
    pub const fn credit_bytes(mut self, bytes: u64) -> Self {
        self.credit_bytes = bytes;
        self
    }

    /// What to do when records were dropped before they were read. By default a durable topic's partition ends with an
    /// error, and a memory topic's goes on at its log start. What is missed so is told by [`Consumer::progress`] and counted
    /// in [`Position::missed`].
    pub const fn out_of_range(mut self, out_of_range: OutOfRange) -> Self {
        self.out_of_range = Some(out_of_range);
        self
    }

    /// Which records are read: [`Isolation::Uncommitted`] by default, which is all. A reader of committed ones sees gaps in
    /// the offsets where aborted batches lie, and waits before a transaction that is open.
    pub const fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Opens the consumer: subscribes to all its partitions and waits until the broker has taken that.
    ///
    /// # Errors
    /// The topic or a partition does not exist, a position is outside the log, or no broker answers in time.
    pub async fn open(self) -> Result<Consumer, ConsumeError> {
        let topic = TopicName::parse(&self.topic)?;
        let is_whole = self.partitions.is_none();
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => {
                let info = crate::admin::find_topic(&self.handle, &topic).await?;
                (0..info.partitions()).map(PartitionIndex).collect()
            }
        };
        let queue = Arc::new(ReaderQueue::default());
        let (sources, follow, limit) = self.handle.shared.act(|inner, _| {
            let subscribe = |partition| {
                let settings = SubscribeSettings {
                    credit_bytes: self.credit_bytes,
                    out_of_range: self.out_of_range,
                    isolation: self.isolation,
                    ..SubscribeSettings::new(topic.clone(), partition, self.start)
                };
                let subscription = inner.core.subscribe(settings);
                inner.readers.insert(subscription, Arc::clone(&queue));
                Source { subscription, position: None, partition, is_ended: false }
            };
            let known = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
            let sources = partitions.into_iter().map(subscribe).collect();
            let follow = is_whole.then(|| {
                let settings = SubscribeSettings {
                    credit_bytes: self.credit_bytes,
                    out_of_range: self.out_of_range,
                    isolation: self.isolation,
                    ..SubscribeSettings::new(topic.clone(), PartitionIndex(0), self.start)
                };
                let follow = inner.core.follow(settings, known);
                inner.follows.insert(follow, Arc::clone(&queue));
                follow
            });
            (sources, follow, inner.core.settings().request_timeout)
        });
        let mut consumer =
            Consumer { handle: self.handle, topic, queue, sources, follow, current: None, waiting: VecDeque::new() };
        let opened = consumer.wait_until_open();
        match tokio::time::timeout(limit, opened).await {
            Ok(result) => result.map(|()| consumer),
            Err(_) => Err(corelane_client_core::RequestError::TimedOut { was_sent: false }.into()),
        }
    }
}

/// Where a consumer is in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset that [`Consumer::next`] will give, as far as it exists.
    pub next: Offset,
    /// Log start offset when the broker last said so.
    pub log_start: Offset,
    /// Exclusive end of what could be read when the broker last said so, for a reader of committed records before the first
    /// open transaction: its distance to `next` is the lag.
    pub high_watermark: Offset,
    /// How many offsets were gone before they could be read, since the consumer was opened; see [`Progress::Missed`].
    pub missed: u64,
}

/// What [`Consumer::progress`] tells.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "batches are what comes, and a box for each would be an allocation")]
pub enum Progress {
    /// The next batch.
    Batch(Batch),
    /// A partition is past aborted records, and nothing that follows them is committed yet.
    Passed(Position),
    /// Records were gone before they could be read: a topic of class `memory` was full, they were too old, or the broker was
    /// started anew; or those of a durable topic were, and [`ConsumerBuilder::out_of_range`] says to go on. Reading goes on
    /// behind them.
    Missed {
        /// The partition.
        partition: PartitionIndex,
        /// Their offsets; a topic in memory leaves some out that had no record when the broker is started anew.
        offsets: Range<Offset>,
    },
}

#[derive(Debug)]
struct Source {
    subscription: SubscriptionKey,
    partition: PartitionIndex,
    position: Option<Position>,
    is_ended: bool,
}

/// Reads assigned partitions of one topic: the broker pushes, nobody polls. Batches of one partition come in order.
///
/// It is also a `Stream` of batches. A lost connection is made again, and every partition goes on where it was.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// let mut consumer = client.consumer("inputs").from(corelane::StartAt::Earliest).open().await?;
/// while let Some(batch) = consumer.next().await {
///     for record in &batch? {
///         println!("{}: {:?}", record.offset, record.value);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    handle: Arc<Handle>,
    topic: TopicName,
    queue: Arc<ReaderQueue>,
    /// By subscription, which count up.
    sources: Vec<Source>,
    /// The wish for partitions to come, when all are read.
    follow: Option<FollowKey>,
    /// A run of batches that was begun.
    current: Option<Run>,
    /// What came while the consumer was being opened.
    waiting: VecDeque<Effect>,
}

/// Batches of one push that were not handed out yet.
#[derive(Debug)]
struct Run {
    source: usize,
    bytes: Bytes,
    from: Offset,
    high_watermark: Offset,
}

impl Consumer {
    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Where it is in each partition, in the order in which they were named.
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.sources.iter().filter_map(|source| source.position).collect()
    }

    /// The next batch; waits for it. `None` when every partition has ended with an error before. Records that were gone before
    /// they could be read are gone over without a word: [`Self::progress`] tells of them, and [`Position::missed`] counts them.
    pub async fn next(&mut self) -> Option<Result<Batch, ConsumeError>> {
        poll_fn(|context| self.poll_batch(context)).await
    }

    /// The next batch if one is there.
    pub fn try_next(&mut self) -> Option<Result<Batch, ConsumeError>> {
        match self.poll_batch(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(batch) => batch,
            Poll::Pending => None,
        }
    }

    /// As [`Self::next`], for futures written by hand.
    pub fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Batch, ConsumeError>>> {
        loop {
            match self.poll_progress(context) {
                Poll::Ready(Some(Ok(Progress::Passed(_) | Progress::Missed { .. }))) => {}
                Poll::Ready(Some(Ok(Progress::Batch(batch)))) => return Poll::Ready(Some(Ok(batch))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// As [`Self::next`]; tells also what was gone before it could be read, and a reader of committed records that it is past
    /// aborted ones, for whoever reads up to an offset.
    pub async fn progress(&mut self) -> Option<Result<Progress, ConsumeError>> {
        poll_fn(|context| self.poll_progress(context)).await
    }

    /// As [`Self::progress`], for futures written by hand.
    pub fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Progress, ConsumeError>>> {
        loop {
            if let Some(run) = self.current.take()
                && let Some(batch) = self.next_of(run)
            {
                return Poll::Ready(Some(batch.map(Progress::Batch)));
            }
            let effect = match self.waiting.pop_front() {
                Some(effect) => effect,
                None if self.sources.iter().all(|source| source.is_ended) => return Poll::Ready(None),
                None => match self.queue.poll(context) {
                    Poll::Ready(effect) => effect,
                    Poll::Pending => return Poll::Pending,
                },
            };
            if let Effect::Passed { subscription, next, high_watermark } = effect {
                if let Some(position) = self.pass(subscription, next, high_watermark) {
                    return Poll::Ready(Some(Ok(Progress::Passed(position))));
                }
                continue;
            }
            if let Effect::Missed { subscription, offsets } = effect {
                if let Some(missed) = self.miss(subscription, offsets) {
                    return Poll::Ready(Some(Ok(missed)));
                }
                continue;
            }
            if let Some(error) = self.take(effect) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    async fn wait_until_open(&mut self) -> Result<(), ConsumeError> {
        while self.sources.iter().any(|source| source.position.is_none()) {
            match poll_fn(|context| self.queue.poll(context)).await {
                effect @ (Effect::Deliver { .. } | Effect::Passed { .. } | Effect::Missed { .. }) => {
                    self.waiting.push_back(effect);
                }
                // A partition that was open has records before its end, and they wait here.
                effect @ Effect::Ended { subscription, .. } if self.is_open(subscription) => {
                    self.waiting.push_back(effect);
                }
                effect => self.take(effect).map_or(Ok(()), Err)?,
            }
        }
        Ok(())
    }

    /// Takes in what the machine said; an error is the end of a partition.
    fn take(&mut self, effect: Effect) -> Option<ConsumeError> {
        match effect {
            Effect::Subscribed { subscription, next, log_start, high_watermark } => {
                let source = self.find(subscription)?;
                let partition = self.sources[source].partition;
                // A run that waits here lies before what was subscribed to again.
                let before = self.sources[source].position;
                let (next, missed) = before.map_or((next, 0), |position| (position.next, position.missed));
                self.sources[source].position = Some(Position { partition, next, log_start, high_watermark, missed });
                None
            }
            Effect::Deliver { subscription, bytes, from, high_watermark } => {
                let source = self.find(subscription)?;
                self.current = Some(Run { source, bytes, from, high_watermark });
                None
            }
            Effect::Grown { partition, subscription, .. } => {
                self.sources.push(Source { subscription, position: None, partition, is_ended: false });
                None
            }
            Effect::Ended { subscription, error } => {
                let source = self.find(subscription)?;
                self.sources[source].is_ended = true;
                let (topic, partition) = (self.topic.clone(), self.sources[source].partition);
                Some(ConsumeError::Subscription { topic, partition, error })
            }
            _ => None,
        }
    }

    fn pass(&mut self, subscription: SubscriptionKey, next: Offset, high_watermark: Offset) -> Option<Position> {
        let source = self.find(subscription)?;
        let position = self.sources[source].position.as_mut()?;
        position.next = position.next.max(next);
        position.high_watermark = high_watermark;
        Some(*position)
    }

    fn miss(&mut self, subscription: SubscriptionKey, offsets: Range<Offset>) -> Option<Progress> {
        let source = self.find(subscription)?;
        let position = self.sources[source].position.as_mut()?;
        position.next = position.next.max(offsets.end);
        position.missed += offsets.end.since(offsets.start);
        Some(Progress::Missed { partition: position.partition, offsets })
    }

    fn is_open(&self, subscription: SubscriptionKey) -> bool {
        self.find(subscription).is_some_and(|source| self.sources[source].position.is_some())
    }

    fn find(&self, subscription: SubscriptionKey) -> Option<usize> {
        self.sources.binary_search_by_key(&subscription, |source| source.subscription).ok()
    }

    /// Cuts the next batch off a run; what is left stays for the next call.
    fn next_of(&mut self, mut run: Run) -> Option<Result<Batch, ConsumeError>> {
        let source = &mut self.sources[run.source];
        let bytes = split_batch(&mut run.bytes).expect("the machine has checked the heads")?;
        let taken = bytes.len() as u64;
        let (partition, subscription) = (source.partition, source.subscription);
        let result = match RecordBatch::parse(bytes) {
            Ok(records) => {
                if let Some(position) = &mut source.position {
                    position.next = records.head().end_offset();
                    position.high_watermark = run.high_watermark;
                }
                Ok(Batch::new(partition, records, run.from, run.high_watermark))
            }
            Err(error) => {
                source.is_ended = true;
                let topic = self.topic.clone();
                Err(ConsumeError::Subscription { topic, partition, error: SubscriptionError::Batch(error) })
            }
        };
        if result.is_ok() {
            self.current = Some(run);
        }
        let shared = &self.handle.shared;
        let mut inner = shared.lock();
        if result.is_err() {
            inner.readers.remove(&subscription);
            inner.core.unsubscribe(subscription);
        }
        let has_credit = inner.core.consumed(subscription, taken);
        let driver = if has_credit || result.is_err() { shared.notify_locked(&mut inner) } else { None };
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(result)
    }
}

impl futures_core::Stream for Consumer {
    type Item = Result<Batch, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_batch(context)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let shared = &self.handle.shared;
        shared.act(|inner, _| {
            if let Some(follow) = self.follow {
                inner.follows.remove(&follow);
                inner.core.unfollow(follow);
            }
            for source in &self.sources {
                inner.readers.remove(&source.subscription);
                inner.core.unsubscribe(source.subscription);
            }
        });
    }
}

/// One record batch of one partition; lends its records in place.
#[derive(Clone, Debug)]
pub struct Batch {
    partition: PartitionIndex,
    records: RecordBatch,
    from: Offset,
    /// Records from there on are not of it, although they are in the same record batch.
    until: Offset,
    high_watermark: Offset,
}

impl Batch {
    pub(crate) fn new(partition: PartitionIndex, records: RecordBatch, from: Offset, high_watermark: Offset) -> Self {
        let until = records.head().end_offset();
        Self { partition, records, from, until, high_watermark }
    }

    /// The same with the records alone that are in a range of offsets too.
    pub(crate) fn between(self, range: Range<Offset>) -> Self {
        Self { from: self.from.max(range.start), until: self.until.min(range.end), ..self }
    }

    pub(crate) const fn base_offset(&self) -> Offset {
        self.records.head().base_offset
    }

    pub(crate) const fn head(&self) -> &corelane_record::BatchHead {
        self.records.head()
    }

    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// The records, in order, from the offset that was asked for on.
    #[must_use]
    pub fn iter(&self) -> Records<'_> {
        self.records.iter_between(self.from, self.until)
    }

    /// How many records [`Self::iter`] gives.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().len()
    }

    /// Whether [`Self::iter`] gives nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exclusive end of the batch's offsets.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.until
    }

    /// When the broker took the batch.
    #[must_use]
    pub const fn append_timestamp(&self) -> WallMillis {
        self.records.head().append_timestamp
    }

    /// Exclusive end of what could be read when the batch left the broker.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The whole batch as it lies on the broker's disk, records before the offset that was asked for included.
    #[must_use]
    pub const fn records(&self) -> &RecordBatch {
        &self.records
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = RecordView<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// What came for a consumer and was not taken yet; bounded by the credit of its subscriptions.
#[derive(Debug, Default)]
pub(crate) struct ReaderQueue {
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    effects: VecDeque<Effect>,
    /// What a membership tells; goes before records.
    news: VecDeque<Effect>,
    waker: Option<Waker>,
}

impl ReaderQueue {
    /// Queues; returns whom to wake.
    pub(crate) fn push(&self, effect: Effect) -> Option<Waker> {
        let mut state = self.state.lock().expect("no panic while it is held");
        match effect {
            Effect::Group { .. } => state.news.push_back(effect),
            effect => state.effects.push_back(effect),
        }
        state.waker.take()
    }

    /// The next thing that a membership tells.
    pub(crate) fn take_news(&self) -> Option<Effect> {
        self.state.lock().expect("no panic while it is held").news.pop_front()
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Effect> {
        let mut state = self.state.lock().expect("no panic while it is held");
        let news = state.news.pop_front();
        if let Some(effect) = news.or_else(|| state.effects.pop_front()) {
            return Poll::Ready(effect);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
