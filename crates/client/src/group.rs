//! Consuming as a member of a group.

mod commit;
mod committed;
mod drain;
mod error;
mod event;
mod following;
mod turns;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{CommitError, CommitOffset, Effect, GroupKey, GroupNews, GroupSettings, MembershipError};
use corelane_model::limits::GROUP_HANDOVER_BYTES_MAX;
use corelane_model::{
    Generation, GroupName, Isolation, MemberId, Offset, PartitionId, ResetPolicy, StartAt, StaticId, Strategy,
    TopicName,
};

use crate::client::Handle;
use crate::consumer::ReaderQueue;
pub(crate) use commit::CommitCell;
pub use commit::CommitTicket;
pub use committed::Committed;
pub(crate) use committed::fetch as fetch_committed;
pub use drain::Drain;
pub use error::GroupError;
pub use event::{Assigned, Event, FollowedBatch, GroupBatch, TopicPartition};
use following::Following;
use turns::{InHand, Run, Turns};

/// How often what was finished is committed when nothing is said.
const AUTO_COMMIT_DEFAULT: Duration = Duration::from_secs(1);

/// How a member is to join its group; from [`crate::Client::group`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `join`"]
pub struct GroupBuilder {
    handle: Arc<Handle>,
    group: String,
    topics: Vec<String>,
    static_id: Option<String>,
    lagging_above: Option<u64>,
    settings: Wishes,
}

/// What a builder gathers.
#[derive(Clone, Debug)]
struct Wishes {
    pattern: Option<String>,
    strategy: Option<Strategy>,
    capacity: Option<u32>,
    session_timeout: Option<Duration>,
    rebalance_timeout: Option<Duration>,
    reset: ResetPolicy,
    auto_commit: Option<Duration>,
    credit_bytes: Option<u64>,
    isolation: Isolation,
    follow: Option<StartAt>,
}

impl GroupBuilder {
    pub(crate) fn new(handle: Arc<Handle>, group: &str) -> Self {
        let settings = Wishes {
            pattern: None,
            strategy: None,
            capacity: None,
            session_timeout: None,
            rebalance_timeout: None,
            reset: ResetPolicy::default(),
            auto_commit: Some(AUTO_COMMIT_DEFAULT),
            credit_bytes: None,
            isolation: Isolation::Uncommitted,
            follow: None,
        };
        let group = group.to_owned();
        Self { handle, group, topics: Vec::new(), static_id: None, lagging_above: None, settings }
    }

    /// Reads these topics, beside those that were named before. One that does not exist yet counts from when it does, as
    /// long as another one does.
    pub fn topics<I: AsRef<str>>(mut self, topics: impl IntoIterator<Item = I>) -> Self {
        self.topics.extend(topics.into_iter().map(|topic| topic.as_ref().to_owned()));
        self
    }

    /// Reads all topics whose whole name matches a regular expression, today's and those to come.
    pub fn pattern(mut self, pattern: &str) -> Self {
        self.settings.pattern = Some(pattern.to_owned());
        self
    }

    /// How partitions are assigned. The first member of a group chooses; without a call the group's is taken.
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.settings.strategy = Some(strategy);
        self
    }

    /// A name that outlives the process: who comes back with it within the session time-out has its partitions back, and
    /// nobody else notices. A newer member with the same name takes the place of the older.
    pub fn static_id(mut self, id: &str) -> Self {
        self.static_id = Some(id.to_owned());
        self
    }

    /// What this member can do compared to others, for [`Strategy::Weighted`]; 1 by default.
    pub const fn capacity(mut self, capacity: u32) -> Self {
        self.settings.capacity = Some(capacity);
        self
    }

    /// Silent for longer, the member is dead and others get its partitions; 10 s by default. The client itself keeps it
    /// alive: only a process that does not run, or is cut off, is silent.
    pub const fn session_timeout(mut self, timeout: Duration) -> Self {
        self.settings.session_timeout = Some(timeout);
        self
    }

    /// A partition that was asked back must be given up within this time, or the member is put out; 60 s by default.
    pub const fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.settings.rebalance_timeout = Some(timeout);
        self
    }

    /// Where a partition begins for which the group has no committed offset: [`ResetPolicy::Latest`] by default. When
    /// records were dropped before they were read, reading goes on by the same rule.
    pub const fn reset(mut self, reset: ResetPolicy) -> Self {
        self.settings.reset = reset;
        self
    }

    /// Commits by itself what was finished, this often; each second by default. A batch is finished when the next event
    /// is asked for.
    pub const fn auto_commit(mut self, interval: Duration) -> Self {
        self.settings.auto_commit = Some(interval);
        self
    }

    /// Commits nothing by itself.
    pub const fn manual_commit(mut self) -> Self {
        self.settings.auto_commit = None;
        self
    }

    /// Bytes of record batches that each partition may have under way or waiting here: the rest of a backlog stays on
    /// the broker's disk.
    pub const fn credit_bytes(mut self, bytes: u64) -> Self {
        self.settings.credit_bytes = Some(bytes);
        self
    }

    /// Which records are read: [`Isolation::Uncommitted`] by default, which is all.
    pub const fn isolation(mut self, isolation: Isolation) -> Self {
        self.settings.isolation = isolation;
        self
    }

    /// Follows the partitions that this member stands by for, beginning there in each: their records come as
    /// [`Event::Followed`], for a state that is to be warm when the member takes them over. How many follow each partition is
    /// a setting of the group ([`crate::GroupChange::standbys`]). A state that was kept from before is followed on after a
    /// [`GroupConsumer::seek`]. Without a call the member is only told what it stands by for.
    pub const fn follow_standbys(mut self, from: StartAt) -> Self {
        self.settings.follow = Some(from);
        self
    }

    /// Tells by [`Event::Lagging`] when a partition is behind by more records than this.
    pub const fn lagging_above(mut self, records: u64) -> Self {
        self.lagging_above = Some(records);
        self
    }

    /// Joins, and waits until the group has taken the member in. What it has comes as [`Event::Assigned`].
    ///
    /// # Errors
    /// A name breaks a rule, nothing was named to read or nothing matches, a setting is out of its bounds, the group uses
    /// another strategy, or its coordinator does not answer. The member is not in the group then, or is put out of it after
    /// its session time-out.
    pub async fn join(self) -> Result<GroupConsumer, GroupError> {
        let settings = self.settings()?;
        let is_auto = settings.auto_commit.is_some();
        let name = settings.group.clone();
        let queue = Arc::new(ReaderQueue::default());
        let cell = Arc::new(CommitCell::new(CommitError::Ended, CommitError::Forgotten));
        let key = self.handle.shared.act(|inner, now| {
            let key = inner.core.join_group(now, settings);
            inner.groups.insert(key, (Arc::clone(&queue), Arc::clone(&cell)));
            key
        });
        let mut consumer = GroupConsumer {
            handle: self.handle,
            key,
            name,
            member: MemberId(0),
            queue,
            cell,
            is_auto,
            turns: Turns::new(self.lagging_above),
            following: Following::default(),
            ready: VecDeque::new(),
            current: None,
            in_hand: None,
            asked_back: Vec::new(),
            is_measured_by_hand: false,
            is_ended: false,
        };
        loop {
            match poll_fn(|context| consumer.queue.poll(context)).await {
                Effect::Group { news: GroupNews::Joined { member }, .. } => {
                    consumer.member = member;
                    return Ok(consumer);
                }
                Effect::Group { news: GroupNews::Ended { error }, .. } => {
                    consumer.is_ended = true;
                    return Err(consumer.membership(error.unwrap_or(MembershipError::Closed)));
                }
                _ => {}
            }
        }
    }

    fn settings(&self) -> Result<GroupSettings, GroupError> {
        let Wishes { pattern, strategy, reset, auto_commit, .. } = self.settings.clone();
        let group = GroupName::parse(&self.group)?;
        if self.topics.is_empty() && pattern.is_none() {
            return Err(GroupError::NothingNamed { group: self.group.clone() });
        }
        let static_id = self.static_id.as_deref().map(StaticId::parse).transpose()?;
        let topics = self.topics.iter().map(|topic| TopicName::parse(topic)).collect::<Result<_, _>>()?;
        let defaults = GroupSettings::new(group);
        Ok(GroupSettings {
            topics,
            pattern,
            strategy,
            static_id,
            capacity: self.settings.capacity.unwrap_or(defaults.capacity),
            session_timeout: self.settings.session_timeout.unwrap_or(defaults.session_timeout),
            rebalance_timeout: self.settings.rebalance_timeout.unwrap_or(defaults.rebalance_timeout),
            reset,
            auto_commit,
            credit_bytes: self.settings.credit_bytes.unwrap_or(defaults.credit_bytes),
            isolation: self.settings.isolation,
            follow: self.settings.follow,
            ..defaults
        })
    }
}

/// A member of a consumer group: one stream of data and ownership, no callbacks.
///
/// A batch is *finished* when the next event is asked for. Dropped without [`Self::close`] it is to the group as if the
/// process had died: its partitions go to others after its session time-out, and what was not committed is done again.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use corelane::Event;
///
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// let mut consumer = client.group("matchmaker").topics(["tickets"]).manual_commit().join().await?;
/// while let Some(event) = consumer.next().await {
///     match event? {
///         Event::Batch(batch) => {
///             for record in &batch {
///                 println!("{}: {:?}", record.offset, record.value);
///             }
///             consumer.commit_batch(&batch);
///         }
///         Event::Revoking { partitions, .. } => println!("going: {partitions:?}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GroupConsumer {
    handle: Arc<Handle>,
    key: GroupKey,
    name: GroupName,
    member: MemberId,
    queue: Arc<ReaderQueue>,
    cell: Arc<CommitCell>,
    is_auto: bool,
    turns: Turns,
    following: Following,
    /// What is told before anything else.
    ready: VecDeque<Result<Event, GroupError>>,
    /// A run of batches that was begun.
    current: Option<Run>,
    /// The batch that was handed out last.
    in_hand: Option<InHand>,
    /// Partitions that the application was told to give up.
    asked_back: Vec<PartitionId>,
    /// Whether the application says how long a record takes.
    is_measured_by_hand: bool,
    is_ended: bool,
}

impl GroupConsumer {
    /// The group.
    #[must_use]
    pub const fn group(&self) -> &GroupName {
        &self.name
    }

    /// The id under which this member joined. One that was put out comes back under another.
    #[must_use]
    pub const fn member(&self) -> MemberId {
        self.member
    }

    /// The partitions that it has, those that were asked back and not given up included.
    pub fn partitions(&self) -> impl Iterator<Item = &Arc<TopicPartition>> {
        self.turns.partitions()
    }

    /// The next event; waits for it. The batch before it is finished by that, and what the last
    /// [`Event::Revoking`] named is given up. `None` when the membership is over.
    pub async fn next(&mut self) -> Option<Result<Event, GroupError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The next event if one is there; never blocks. Otherwise as [`Self::next`].
    pub fn try_next(&mut self) -> Option<Result<Event, GroupError>> {
        match self.poll_event(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// What is there, at most `max` events, for loops that may not wait. Never blocks.
    pub const fn drain(&mut self, max: usize) -> Drain<'_> {
        Drain::new(self, max)
    }

    /// As [`Self::next`], for futures written by hand.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, GroupError>>> {
        self.move_on();
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Poll::Ready(Some(ready));
            }
            // Ownership goes before data: what was asked back is not handed out any more.
            if let Some(effect) = self.queue.take_news() {
                self.take(effect);
                continue;
            }
            if let Some(run) = self.current.take()
                && let Some(event) = self.next_of(run)
            {
                return Poll::Ready(Some(event));
            }
            if !self.ready.is_empty() {
                continue;
            }
            if self.is_ended {
                return Poll::Ready(None);
            }
            match self.queue.poll(context) {
                Poll::Ready(effect) => self.take(effect),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Commits everything that was handed out, the batch in hand included. Cheap: it is gathered with other commits, and
    /// only the newest offset of each partition leaves.
    pub fn commit(&mut self) -> CommitTicket {
        let offsets = self.turns.take_uncommitted();
        self.send_commit(offsets, None)
    }

    /// What [`Self::commit`] would commit, with who commits it; `None` when the member commits by itself or is in no group.
    ///
    /// # Errors
    /// The turn of one of the partitions is over, which the application may not have been told yet. Nothing of it is
    /// committed any more.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    pub(crate) fn take_offsets(&mut self) -> Option<Result<((u64, u64), Generation, Vec<CommitOffset>), CommitError>> {
        if self.is_auto {
            return None;
        }
        let offsets = self.turns.take_uncommitted();
        match self.handle.shared.lock().core.fence_of_offsets(self.key, &offsets) {
            Ok((member, generation)) => Some(Ok((member, generation, offsets))),
            Err(CommitError::Ended) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Commits a batch and everything before it in its partition. Cheap, as [`Self::commit`].
    pub fn commit_batch(&mut self, batch: &GroupBatch) -> CommitTicket {
        self.commit_to(batch, batch.end_offset(), "")
    }

    /// Commits one record of a batch and everything before it in its partition. Cheap, as [`Self::commit`].
    pub fn commit_record(&mut self, batch: &GroupBatch, offset: Offset) -> CommitTicket {
        self.commit_to(batch, offset.advance(1), "")
    }

    /// Commits that everything before `next` is done in the partition of a batch, with up to 4,096 bytes that whoever
    /// reads the committed offset finds again.
    pub fn commit_to(&mut self, batch: &GroupBatch, next: Offset, metadata: &str) -> CommitTicket {
        self.turns.on_committed(batch.id, batch.turn, next);
        let metadata = metadata.to_owned();
        let offset = CommitOffset { partition: batch.id, turn: batch.turn, offset: next, metadata };
        self.send_commit(vec![offset], Some(batch.id))
    }

    fn send_commit(&self, offsets: Vec<CommitOffset>, partition: Option<PartitionId>) -> CommitTicket {
        let key = self.handle.shared.act(|inner, _| inner.core.commit(self.key, offsets));
        CommitTicket::new(Arc::clone(&self.cell), key.unwrap_or(corelane_client_core::CommitKey(u64::MAX)), partition)
    }

    /// Reads a partition from elsewhere, one that is this member's or that it follows. What waited here is dropped; nothing
    /// is committed.
    ///
    /// # Errors
    /// The partition is neither, or was asked back. Nothing is changed.
    pub fn seek(&mut self, partition: &TopicPartition, start: StartAt) -> Result<(), GroupError> {
        let not_held = || GroupError::NotHeld {
            topic: partition.topic.clone(),
            partition: partition.partition,
            wanted: "this member's to read",
        };
        // What is in hand is finished before the seek, not after it.
        if let Some(in_hand) = self.in_hand.take() {
            self.finish(in_hand);
        }
        if let Some(id) = self.following.find(partition) {
            return self.seek_followed(id, start).ok_or_else(not_held);
        }
        let id = self.turns.find(partition).ok_or_else(not_held)?;
        self.seek_turn(id, start).ok_or_else(not_held)
    }

    /// `None` when it is not this member's to read any more.
    fn seek_turn(&mut self, id: PartitionId, start: StartAt) -> Option<()> {
        let turn = self.turns.turn(id)?;
        let queue = Arc::clone(&self.queue);
        let subscription = self.handle.shared.act(|inner, _| {
            let subscription = inner.core.seek(self.key, id, turn, start)?;
            inner.readers.insert(subscription, queue);
            Some(subscription)
        })?;
        self.turns.on_seek(id, subscription);
        Some(())
    }

    /// Gives up a partition that was asked back, and leaves its next owner something, at most 65,536 bytes. Commit what is
    /// done before.
    ///
    /// # Errors
    /// It was not asked back, or the blob is too large. Nothing is changed.
    pub fn give_up(&mut self, partition: &TopicPartition, blob: Option<Bytes>) -> Result<(), GroupError> {
        let len = blob.as_ref().map_or(0, Bytes::len);
        if GROUP_HANDOVER_BYTES_MAX < len {
            return Err(GroupError::HandOverTooLarge { len, limit: GROUP_HANDOVER_BYTES_MAX });
        }
        let found = self.turns.find(partition).filter(|id| self.asked_back.contains(id));
        let Some(id) = found else {
            return Err(GroupError::NotHeld {
                topic: partition.topic.clone(),
                partition: partition.partition,
                wanted: "asked back",
            });
        };
        self.asked_back.retain(|&asked| asked != id);
        self.turns.end(id);
        self.handle.shared.act(|inner, _| inner.core.give_up(self.key, id, blob));
        Ok(())
    }

    /// Says how long a record takes, for [`Strategy::LeastResponseTime`]. Without a call it is measured: the time from
    /// when a batch is handed out until the next event is asked for.
    pub fn processed(&mut self, per_record: Duration) {
        self.is_measured_by_hand = true;
        let micros = u32::try_from(per_record.as_micros()).unwrap_or(u32::MAX).max(1);
        self.handle.shared.lock().core.measure(self.key, micros);
    }

    /// Leaves the group: others get the partitions at once. The batch in hand is finished by that; with auto-commit what
    /// was finished is committed on the way, else only what was committed before counts.
    ///
    /// # Errors
    /// The membership was over already.
    pub async fn close(self) -> Result<(), GroupError> {
        self.leave(false).await
    }

    /// Goes and will be back: a static member's partitions stay its own until it is, at most for its session time-out.
    /// Without a static id as [`Self::close`].
    ///
    /// # Errors
    /// As [`Self::close`].
    pub async fn detach(self) -> Result<(), GroupError> {
        self.leave(true).await
    }

    async fn leave(mut self, is_restarting: bool) -> Result<(), GroupError> {
        if let Some(in_hand) = self.in_hand.take() {
            self.finish(in_hand);
        }
        self.handle.shared.act(|inner, now| inner.core.leave_group(now, self.key, is_restarting));
        while !self.is_ended {
            if let Effect::Group { news: GroupNews::Ended { error }, .. } =
                poll_fn(|context| self.queue.poll(context)).await
            {
                self.is_ended = true;
                return error.map_or(Ok(()), |error| Err(self.membership(error)));
            }
        }
        Ok(())
    }

    fn membership(&self, error: MembershipError) -> GroupError {
        GroupError::Membership { group: self.name.as_str().to_owned(), error }
    }
}

impl futures_core::Stream for GroupConsumer {
    type Item = Result<Event, GroupError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(context)
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        let subscriptions: Vec<_> =
            self.turns.subscriptions().into_iter().chain(self.following.subscriptions()).collect();
        self.handle.shared.act(|inner, _| {
            inner.core.abandon_group(self.key);
            inner.groups.remove(&self.key);
            for subscription in subscriptions {
                inner.readers.remove(&subscription);
            }
        });
    }
}
