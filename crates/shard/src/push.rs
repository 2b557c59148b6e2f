//! Subscriptions at work: batches to those that have credit, in turns.

use bytes::Bytes;
use corelane_model::limits::{PARTITION_SUBSCRIPTIONS_MAX, PUSH_BYTES, SUBSCRIPTION_CREDIT_BYTES_MAX};
use corelane_model::{ErrorCode, Isolation, Offset, PartitionId, StartAt, SubscriptionId, TopicClass};
use corelane_record::BatchHead;
use corelane_session::Refused;
use corelane_storage::{Fetch, OffsetFor, ReadError, ReadTicket};

use crate::Shard;
use crate::active::Active;
use crate::ask::{Answer, Asker, Ending, Peer, PushBatches};
use crate::mesh::Message;
use crate::subscriptions::{ReadFor, State, Subscription, SubscriptionKey};

/// Bytes of batches that a round pushes before it gives appends a turn; what is left goes in the next one.
const ROUND_PUSH_BYTES: u64 = 1 << 20;
/// Subscriptions that have a turn in a round, some 100 µs of work: what a round says leaves when it is over, and the
/// answers to producers are not to wait until thousands of small pushes are made.
const ROUND_PUSH_TURNS: u32 = 128;

const _: () = assert!((PUSH_BYTES as u64) < ROUND_PUSH_BYTES);

/// The client knows topic and partition by their names, and says them.
fn out_of_range(offset: Offset, log_start: Offset, high_watermark: Offset) -> Ending {
    let text = format!(
        "offset {offset} is outside the log, which is from {log_start} to {high_watermark}; begin in it, at earliest or at \
         latest"
    );
    Ending { refused: Refused::new(ErrorCode::OffsetOutOfRange, text), range: Some(log_start..high_watermark) }
}

/// Storage's words without the partition, which the client knows by its name; and the offsets if there are some.
fn unreadable(error: &ReadError) -> Ending {
    let (text, range) = match error {
        &ReadError::Corrupt { first, end, .. } => {
            (format!("records from {first} to {end} are damaged on disk; read on from {end}"), Some(first..end))
        }
        ReadError::Gone => (error.to_string(), None),
        ReadError::Failed { text, .. } => (format!("reading a segment failed: {text}"), None),
    };
    Ending { refused: Refused::new(error.code(), text), range }
}

fn unknown() -> Refused {
    Refused::new(ErrorCode::UnknownPartition, "the partition is not open on its shard")
}

impl Shard {
    /// Begins a subscription of a partition of this shard.
    pub(crate) fn subscribe(
        &mut self,
        asker: Asker,
        partition: PartitionId,
        (id, serial): (SubscriptionId, u64),
        start: StartAt,
        (credit, isolation): (u64, Isolation),
    ) {
        if self.subscriptions.contains(asker.peer, id) {
            let refused = Refused::new(ErrorCode::SubscriptionExists, format!("subscription {id} is in use"));
            return self.refuse(asker, None, refused);
        }
        let readers = self.active.get(partition).map_or(0, |active| active.subscribers.len());
        if PARTITION_SUBSCRIPTIONS_MAX <= readers {
            let text = format!("the partition has {PARTITION_SUBSCRIPTIONS_MAX} subscriptions already");
            return self.refuse(asker, Some((id, serial)), Refused::new(ErrorCode::LimitReached, text));
        }
        let start = self.start_for(partition, start, isolation);
        let found = match self.look_up(partition, start) {
            Ok(found) => found,
            Err(refused) => return self.refuse(asker, Some((id, serial)), refused),
        };
        let key = self.subscriptions.insert(Subscription {
            peer: asker.peer,
            id,
            serial,
            partition,
            isolation,
            next: Offset::ZERO,
            wanted_from: if let StartAt::Offset(offset) = start { Some(offset) } else { None },
            credit: credit.min(SUBSCRIPTION_CREDIT_BYTES_MAX).cast_signed(),
            state: State::Starting { asker },
        });
        // Keys count up, so the list stays in their order.
        self.active.get_or_insert_with(partition, Active::default).subscribers.push(key);
        match found {
            Ok(offset) => self.begin_pushing(key, offset),
            Err(ticket) => self.subscriptions.expect_read(ticket, partition, ReadFor::Start(key, start)),
        }
    }

    /// Answers which offset a start position means.
    pub(crate) fn find_offset(&mut self, asker: Asker, partition: PartitionId, start: StartAt, isolation: Isolation) {
        let start = self.start_for(partition, start, isolation);
        match self.look_up(partition, start) {
            Ok(Ok(offset)) => self.answer_found(asker, partition, offset, isolation),
            Ok(Err(ticket)) => {
                self.subscriptions.expect_read(ticket, partition, ReadFor::Find(asker, start, isolation));
            }
            Err(refused) => self.refuse(asker, None, refused),
        }
    }

    /// The offset for a start position, or the ticket under which it will come.
    fn look_up(&mut self, partition: PartitionId, start: StartAt) -> Result<Result<Offset, ReadTicket>, Refused> {
        let status = self.storage.describe(partition).ok_or_else(unknown)?;
        if let StartAt::Offset(offset) = start {
            return if status.log_start <= offset && offset <= status.high_watermark {
                Ok(Ok(offset))
            } else {
                Err(out_of_range(offset, status.log_start, status.high_watermark).refused)
            };
        }
        match self.storage.offset_for(partition, start) {
            OffsetFor::Found(offset) => Ok(Ok(offset)),
            OffsetFor::Pending(ticket) => Ok(Err(ticket)),
            OffsetFor::Busy => {
                Err(Refused::new(ErrorCode::Busy, "as many reads wait for the disk as may; try again in a moment"))
            }
            OffsetFor::Unknown => Err(unknown()),
        }
    }

    fn answer_found(&mut self, asker: Asker, partition: PartitionId, offset: Offset, isolation: Isolation) {
        let Some(status) = self.storage.describe(partition) else {
            return self.refuse(asker, None, unknown());
        };
        let stable = self.storage.last_stable_offset(partition).filter(|_| isolation == Isolation::Committed);
        let (log_start, high_watermark) = (status.log_start, stable.unwrap_or(status.high_watermark));
        self.answer(asker, None, Answer::Found { offset, log_start, high_watermark });
    }

    /// The first offset is known: the asker is answered and pushing may begin.
    fn begin_pushing(&mut self, key: SubscriptionKey, offset: Offset) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let State::Starting { asker } = subscription.state else {
            panic!("subscription {} begins twice", subscription.id);
        };
        subscription.state = State::Idle;
        subscription.next = offset;
        let (partition, name) = (subscription.partition, (subscription.id, subscription.serial));
        let Some(status) = self.storage.describe(partition) else {
            self.drop_subscription(key);
            return self.refuse(asker, Some(name), unknown());
        };
        let (log_start, high_watermark) = (status.log_start, status.high_watermark);
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.wanted_from.get_or_insert(high_watermark);
        }
        let active = self.active.get_mut(partition).expect("it has a subscriber");
        active.high_watermark = active.high_watermark.max(high_watermark);
        let high_watermark = self.told_end(key).unwrap_or(high_watermark);
        self.answer(asker, Some(name), Answer::Subscribed { offset, log_start, high_watermark });
        self.subscriptions.wake(key);
    }

    pub(crate) fn add_credit(&mut self, peer: Peer, id: SubscriptionId, bytes: u64) {
        if let Some(key) = self.subscriptions.find(peer, id) {
            self.subscriptions.add_credit(key, bytes);
        }
    }

    pub(crate) fn pause(&mut self, peer: Peer) {
        self.subscriptions.pause(peer);
    }

    pub(crate) fn resume(&mut self, peer: Peer) {
        self.subscriptions.resume(peer);
    }

    /// The client wants nothing more of a subscription.
    pub(crate) fn end_subscription(&mut self, peer: Peer, id: SubscriptionId) {
        let Some(key) = self.subscriptions.find(peer, id) else { return };
        if let Some(Subscription { state: State::Starting { asker }, .. }) = self.drop_subscription(key) {
            let text = "the subscription was ended before it began";
            self.refuse(asker, None, Refused::new(ErrorCode::UnknownSubscription, text));
        }
    }

    /// The connection of these subscriptions is gone; nobody is told.
    pub(crate) fn end_subscriptions_of(&mut self, peer: Peer) {
        for key in self.subscriptions.keys_of(peer) {
            self.drop_subscription(key);
        }
    }

    /// The broker ends a subscription and says why.
    pub(crate) fn abort_subscription(&mut self, key: SubscriptionKey, ending: Ending) {
        let Some(Subscription { peer, id, serial, state, .. }) = self.drop_subscription(key) else { return };
        if let State::Starting { asker } = state {
            return self.refuse(asker, Some((id, serial)), ending.refused);
        }
        let Peer { shard, connection } = peer;
        if shard == self.me() {
            self.tell_ended(connection, id, serial, ending);
        } else {
            self.send_mesh(shard, Message::Ended { connection, subscription: id, serial, ending: Box::new(ending) });
        }
    }

    fn drop_subscription(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let subscription = self.subscriptions.remove(key)?;
        if let Some(active) = self.active.get_mut(subscription.partition)
            && let Ok(at) = active.subscribers.binary_search(&key)
        {
            active.subscribers.remove(at);
        }
        Some(subscription)
    }

    /// Gives each subscription that may push a turn, again and again until the round's bytes are used up. Whether some
    /// are left.
    pub(crate) fn push_round(&mut self) -> bool {
        let mut left = ROUND_PUSH_BYTES;
        for _ in 0..ROUND_PUSH_TURNS {
            if left == 0 {
                break;
            }
            let Some(key) = self.subscriptions.next_ready() else { return false };
            left = left.saturating_sub(self.push_turn(key));
        }
        self.subscriptions.is_any_ready()
    }

    /// One subscription's turn: at most one frame. Bytes that it pushed.
    fn push_turn(&mut self, key: SubscriptionKey) -> u64 {
        let Some(&mut subscription) = self.subscriptions.get_mut(key) else { return 0 };
        let Subscription { peer, partition, next: from, credit, .. } = subscription;
        assert_eq!(subscription.state, State::Queued, "subscription {} has a turn", subscription.id);
        let bytes_max = u32::try_from(credit.clamp(0, i64::from(PUSH_BYTES))).expect("clamped to 32 bits");
        if bytes_max == 0 || self.subscriptions.is_paused(peer) {
            self.set_state(key, State::Idle);
            return 0;
        }
        if self.readable_end(&subscription).is_some_and(|end| end <= from) {
            self.set_state(key, State::Idle);
            return 0;
        }
        match self.storage.fetch(partition, from, bytes_max) {
            Fetch::Batches { batches, next } => {
                let (bytes, next) = self.push_readable(key, batches, next);
                // At the end it would only learn that it is there; the next durable end wakes it.
                if self.active.get(partition).is_some_and(|active| next < active.high_watermark) {
                    self.subscriptions.requeue(key);
                } else {
                    self.set_state(key, State::Idle);
                }
                return bytes;
            }
            Fetch::Pending(ticket) => {
                self.set_state(key, State::Reading);
                self.subscriptions.expect_read(ticket, partition, ReadFor::Push(key));
            }
            Fetch::AtEnd => self.set_state(key, State::Idle),
            Fetch::Busy => self.subscriptions.starve(key),
            Fetch::OutOfRange { log_start, high_watermark } => {
                self.abort_subscription(key, out_of_range(from, log_start, high_watermark));
            }
            Fetch::Corrupt { first, end } => {
                self.abort_subscription(key, unreadable(&ReadError::Corrupt { partition, first, end }));
            }
            Fetch::Unknown => self.abort_subscription(key, unknown().into()),
        }
        0
    }

    pub(crate) fn set_state(&mut self, key: SubscriptionKey, state: State) {
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            subscription.state = state;
        }
    }

    /// Hands batches to a subscription's connection and counts them. Their bytes.
    pub(crate) fn push(&mut self, key: SubscriptionKey, batches: Vec<Bytes>, next: Offset) -> u64 {
        let subscription = self.subscriptions.get_mut(key).expect("the caller has just seen it");
        assert!(subscription.next < next, "batches up to {next} for a reader at {}", subscription.next);
        let bytes = batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        let records: u64 = batches.iter().map(|batch| u64::from(BatchHead::of_checked(batch).record_count)).sum();
        let count = batches.len() as u64;
        subscription.credit -= bytes.cast_signed();
        let missed_from = subscription.wanted_from.map_or(subscription.next, |from| from.max(subscription.next));
        subscription.next = next;
        let Subscription { peer: Peer { shard, connection }, id, serial, partition, .. } = *subscription;
        let moved = crate::Traffic { batches: count, records, bytes };
        self.stats.consumed.merge(moved);
        self.traffic.entry(partition.topic).or_default().consumed.merge(moved);
        let missed = next.0.saturating_sub(missed_from.0).saturating_sub(records);
        if 0 < missed {
            self.note_conflated(partition, missed);
        }
        let high_watermark = self.active.get(partition).map_or(next, |active| active.high_watermark.max(next));
        let high_watermark = self.told_end(key).map_or(high_watermark, |end| end.max(next));
        let push = PushBatches { connection, subscription: id, serial, high_watermark, batches };
        if shard == self.me() {
            self.tell_push(push);
        } else {
            self.send_mesh(shard, Message::Push(push));
        }
        bytes
    }

    /// A reader went past offsets that have no record (any more): on a topic of class `latest` newer ones had come.
    fn note_conflated(&mut self, partition: PartitionId, records: u64) {
        let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(partition.topic));
        if topic.is_some_and(|topic| topic.settings.class == TopicClass::Latest) {
            let traffic = self.traffic.entry(partition.topic).or_default();
            *traffic.conflated.entry(partition.index).or_default() += records;
        }
    }

    /// Batches came from the disk.
    pub(crate) fn on_read(
        &mut self,
        ticket: ReadTicket,
        partition: PartitionId,
        result: Result<Vec<Bytes>, ReadError>,
    ) {
        let key = match self.subscriptions.take_read(ticket) {
            Some(ReadFor::Push(key)) => key,
            Some(ReadFor::Restore) => {
                if let Err(result) = self.on_transactions_read(partition, result) {
                    self.on_restore_read(partition, result);
                }
                return;
            }
            Some(ReadFor::Start(..) | ReadFor::Find(..)) | None => return,
        };
        if self.subscriptions.get_mut(key).is_none() {
            return;
        }
        self.set_state(key, State::Idle);
        match result {
            Ok(batches) => self.push_read_committed(key, partition, batches),
            Err(ReadError::Gone) => self.subscriptions.wake(key),
            Err(error) => self.abort_subscription(key, unreadable(&error)),
        }
    }

    /// Pushes what a read brought, frame by frame, as far as the credit goes; the rest is fetched again when there is
    /// more.
    pub(crate) fn push_read(&mut self, key: SubscriptionKey, batches: Vec<Bytes>) {
        let mut frame = Vec::new();
        let mut frame_bytes = 0;
        let mut frame_end = Offset::ZERO;
        for batch in batches {
            let Some(subscription) = self.subscriptions.get_mut(key) else { return };
            let head = match BatchHead::parse(&batch) {
                Ok(head) => head,
                Err(error) => {
                    let text = format!("a batch read from disk is damaged: {error}");
                    return self.abort_subscription(key, Refused::new(ErrorCode::CorruptLog, text).into());
                }
            };
            if head.end_offset() <= subscription.next {
                continue;
            }
            if subscription.credit <= i64::from(frame_bytes) {
                break;
            }
            let bytes = head.batch_bytes();
            if frame_bytes != 0 && PUSH_BYTES < frame_bytes + bytes {
                self.push(key, std::mem::take(&mut frame), frame_end);
                frame_bytes = 0;
            }
            frame_bytes += bytes;
            frame_end = head.end_offset();
            frame.push(batch);
        }
        if !frame.is_empty() {
            self.push(key, frame, frame_end);
        }
        self.subscriptions.wake(key);
    }

    /// A search by time came back.
    pub(crate) fn on_time_found(
        &mut self,
        ticket: ReadTicket,
        partition: PartitionId,
        result: Result<Offset, ReadError>,
    ) {
        match (self.subscriptions.take_read(ticket), result) {
            (Some(ReadFor::Find(asker, _, isolation)), Ok(offset)) => {
                self.answer_found(asker, partition, offset, isolation);
            }
            (Some(ReadFor::Start(key, _)), Ok(offset)) => self.begin_pushing(key, offset),
            // What was searched is gone by now; the search begins again on what is left.
            (Some(ReadFor::Find(asker, start, isolation)), Err(ReadError::Gone)) => {
                self.find_offset(asker, partition, start, isolation);
            }
            (Some(ReadFor::Start(key, start)), Err(ReadError::Gone)) => self.start_again(key, partition, start),
            (Some(ReadFor::Find(asker, ..)), Err(error)) => {
                self.refuse(asker, None, unreadable(&error).refused);
            }
            (Some(ReadFor::Start(key, _)), Err(error)) => self.abort_subscription(key, unreadable(&error)),
            (Some(ReadFor::Push(_) | ReadFor::Restore), _) => panic!("a fetch was answered with a search"),
            (None, _) => {}
        }
    }

    fn start_again(&mut self, key: SubscriptionKey, partition: PartitionId, start: StartAt) {
        if self.subscriptions.get_mut(key).is_none() {
            return;
        }
        match self.look_up(partition, start) {
            Ok(Ok(offset)) => self.begin_pushing(key, offset),
            Ok(Err(ticket)) => self.subscriptions.expect_read(ticket, partition, ReadFor::Start(key, start)),
            Err(refused) => self.abort_subscription(key, refused.into()),
        }
    }
}
