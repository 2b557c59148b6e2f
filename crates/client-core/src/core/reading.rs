//! Subscriptions.

use bytes::Bytes;
use corelane_model::{
    ConnectionKey, CorrelationId, ErrorCode, Isolation, Now, Offset, PartitionIndex, Retry, StartAt, TopicName,
};
use corelane_wire::{
    BodyError, Credit, Frame, Passed, Push, PushMany, Subscribe, SubscribeAnswer, SubscribeCommitted,
    SubscriptionEnded, Unsubscribe, access, decode,
};

use super::ClientCore;
use crate::request::Asker;
use crate::subscription::Follow;
use crate::subscription::{Ending, Phase, Subscription};
use crate::timers::Timer;
use crate::topics::Known;
use crate::{Effect, FollowKey, SubscribeSettings, SubscriptionError, SubscriptionKey};

impl ClientCore {
    /// Reads a partition. [`Effect::Subscribed`] and [`Effect::Deliver`] follow until [`Effect::Ended`] or
    /// [`Self::unsubscribe`]; after a lost connection it goes on where it was.
    pub fn subscribe(&mut self, settings: SubscribeSettings) -> SubscriptionKey {
        let key = SubscriptionKey(self.next_subscription);
        self.next_subscription += 1;
        self.topics.need(&settings.topic);
        self.subscriptions.insert(key, Subscription::new(settings));
        self.update_wanted();
        key
    }

    /// Reads partitions of a topic from `known` on when they come to be, with the settings but for partition and start: as
    /// all their records are new, each is read from its beginning. [`Effect::Grown`] tells of each. It takes as long as it
    /// takes to ask about topics again.
    pub fn follow(&mut self, settings: SubscribeSettings, known: u32) -> FollowKey {
        let key = FollowKey(self.next_follow);
        self.next_follow += 1;
        let topic = settings.topic.clone();
        self.follows.insert(key, Follow { settings, known });
        self.grow(&topic);
        key
    }

    /// Reads no further partitions; those that are read already are not touched.
    pub fn unfollow(&mut self, follow: FollowKey) {
        self.follows.remove(&follow);
    }

    /// Reads what a topic has more.
    fn grow(&mut self, name: &TopicName) {
        let Some(info) = self.topics.info(name) else { return };
        let (topic, end) = (info.topic, info.partitions());
        let mut grown = Vec::new();
        for (&key, follow) in self.follows.iter_mut().filter(|(_, follow)| follow.settings.topic == *name) {
            // Another topic of the same name is not what was asked for.
            if follow.settings.topic_id.get_or_insert(topic) == &topic {
                let settings = &follow.settings;
                grown.extend((follow.known..end).map(|index| (key, PartitionIndex(index), settings.clone())));
                follow.known = follow.known.max(end);
            }
        }
        for (follow, partition, settings) in grown {
            let subscription = self.subscribe(SubscribeSettings { partition, start: StartAt::Earliest, ..settings });
            self.effects.push_back(Effect::Grown { follow, partition, subscription });
        }
    }

    /// The application has taken `bytes` of what was delivered: as much may come again. Returns whether the next round
    /// has credit to give back, hence should not wait for something else to happen.
    pub fn consumed(&mut self, subscription: SubscriptionKey, bytes: u64) -> bool {
        let Some(reader) = self.subscriptions.get_mut(&subscription) else { return false };
        if reader.on_consumed(bytes) && !std::mem::replace(&mut reader.is_listed, true) {
            self.credits.push(subscription);
        }
        reader.is_listed
    }

    /// Ends a subscription; nothing more is delivered for it.
    pub fn unsubscribe(&mut self, subscription: SubscriptionKey) {
        let Some(reader) = self.subscriptions.remove(&subscription) else { return };
        if let Some(connection) = reader.connection() {
            self.send_control(connection, CorrelationId(0), &Unsubscribe { subscription: subscription.0 });
        }
        self.update_wanted();
    }

    /// Subscribes where the topic is known and the owner's connection is ready.
    pub(super) fn send_subscriptions(&mut self, now: Now) {
        let is_waiting =
            |reader: &Subscription| matches!(reader.phase, Phase::Waiting { retry_at } if retry_at <= now.monotonic);
        let waiting: Vec<SubscriptionKey> =
            self.subscriptions.iter().filter(|(_, reader)| is_waiting(reader)).map(|(&key, _)| key).collect();
        for key in waiting {
            let reader = &self.subscriptions[&key];
            let Some(info) = self.topics.info(&reader.settings.topic) else { continue };
            let partition = reader.settings.partition;
            // Who names the topic by its id has heard of the partition from a group: what is known here is older.
            let is_older = |topic| info.topic < topic || info.topic == topic && info.shard(partition).is_none();
            if reader.settings.topic_id.is_some_and(is_older) {
                let topic = info.name.clone();
                self.topics.refresh(&topic);
                self.put_off(now, key);
                continue;
            }
            if reader.settings.topic_id.is_some_and(|topic| topic != info.topic) {
                let topic = info.name.clone();
                self.end_subscription(key, SubscriptionError::TopicReplaced { topic });
                continue;
            }
            if info.shard(partition).is_none() {
                let (topic, partitions) = (info.name.clone(), info.partitions());
                self.end_subscription(key, SubscriptionError::UnknownPartition { topic, partition, partitions });
                continue;
            }
            let Some(connection) = self.connection_for(info, partition) else { continue };
            let asked = info.topic;
            let topic = asked.0;
            let correlation = self.requests.add(connection, Asker::Subscription(key));
            let reader = self.subscriptions.get_mut(&key).expect("just looked at");
            reader.phase = Phase::Asked { connection };
            reader.asked = Some(asked);
            let start = reader.start().into();
            let credit = reader.begin();
            let (subscription, partition) = (key.0, partition.0);
            match reader.settings.isolation {
                Isolation::Uncommitted => {
                    let body = Subscribe { subscription, topic, partition, start, credit };
                    self.send_control(connection, correlation, &body);
                }
                Isolation::Committed => {
                    let body = SubscribeCommitted { subscription, topic, partition, start, credit };
                    self.send_control(connection, correlation, &body);
                }
            }
        }
    }

    pub(super) fn on_subscribed(
        &mut self,
        now: Now,
        key: SubscriptionKey,
        connection: ConnectionKey,
        answer: &SubscribeAnswer,
    ) {
        let Some(reader) = self.subscriptions.get_mut(&key) else { return };
        if !matches!(reader.phase, Phase::Asked { connection: asked } if asked == connection) {
            return;
        }
        // From here on the offsets are those of this topic, and not of whichever has its name later.
        reader.settings.topic_id = reader.settings.topic_id.or(reader.asked);
        let next = *reader.next.get_or_insert(Offset(answer.offset));
        reader.answer = Some((Offset(answer.log_start), Offset(answer.high_watermark)));
        let is_to_wait = reader.first_of.is_some_and(|turn| self.place_turn(turn, key, next));
        if !is_to_wait {
            self.start_reader(now, key);
        }
    }

    /// Readers go on that waited until their group knew where they begin.
    pub(super) fn start_readers(&mut self, now: Now) {
        for key in std::mem::take(&mut self.starting) {
            self.start_reader(now, key);
        }
    }

    /// Hands out what has come since a subscription was answered, and whatever follows.
    fn start_reader(&mut self, now: Now, key: SubscriptionKey) {
        let Some(reader) = self.subscriptions.get_mut(&key) else { return };
        // After a lost connection the next answer finds that there is nothing more to wait for.
        let (Phase::Asked { connection }, Some((log_start, high_watermark))) = (reader.phase, reader.answer.take())
        else {
            return;
        };
        reader.phase = Phase::Active { connection };
        let next = reader.next.expect("it was answered");
        let early = std::mem::take(&mut reader.early);
        let (early_passed, early_end) = (reader.early_passed.take(), reader.early_end.take());
        // An offset beyond the end was not missed: the log may have been another one.
        let missed = reader.missed_from.take().filter(|&from| from < next);
        self.effects.push_back(Effect::Subscribed { subscription: key, next, log_start, high_watermark });
        self.effects.extend(missed.map(|from| Effect::Missed { subscription: key, offsets: from..next }));
        for (bytes, high_watermark) in early {
            self.deliver(key, bytes, high_watermark);
        }
        if let Some((next, high_watermark)) = early_passed {
            self.pass(key, next, high_watermark);
        }
        // What was delivered may have ended it already.
        if let Some(ending) = early_end.filter(|_| self.subscriptions.contains_key(&key)) {
            self.settle_refusal(now, key, ending);
        }
    }

    pub(super) fn on_push(&mut self, connection: ConnectionKey, frame: &Frame) -> Result<(), BodyError> {
        let push = access::<Push>(frame)?;
        let key = SubscriptionKey(push.subscription.to_native());
        self.take_push(connection, key, frame.attachment.clone(), Offset(push.high_watermark.to_native()));
        Ok(())
    }

    pub(super) fn on_push_many(&mut self, connection: ConnectionKey, frame: &Frame) -> Result<(), BodyError> {
        let push = access::<PushMany>(frame)?;
        let lengths = push.lengths.iter().map(|length| length.to_native() as usize);
        let is_whole = [push.subscriptions.len(), push.high_watermarks.len()] == [push.lengths.len(); 2]
            && lengths.clone().sum::<usize>() == frame.attachment.len();
        if !is_whole {
            return Err(BodyError::Malformed { kind: frame.head.kind });
        }
        let mut rest = frame.attachment.clone();
        for ((subscription, high_watermark), length) in
            push.subscriptions.iter().zip(push.high_watermarks.iter()).zip(lengths)
        {
            let key = SubscriptionKey(subscription.to_native());
            self.take_push(connection, key, rest.split_to(length), Offset(high_watermark.to_native()));
        }
        Ok(())
    }

    fn take_push(&mut self, connection: ConnectionKey, key: SubscriptionKey, bytes: Bytes, high_watermark: Offset) {
        // What was under way when the application unsubscribed is dropped.
        let Some(reader) = self.subscriptions.get_mut(&key) else { return };
        match reader.phase {
            Phase::Asked { connection: on } if on == connection => reader.early.push((bytes, high_watermark)),
            Phase::Active { connection: on } if on == connection => self.deliver(key, bytes, high_watermark),
            Phase::Waiting { .. } | Phase::Asked { .. } | Phase::Active { .. } => {}
        }
    }

    /// A reader of committed records is told that it is past aborted ones.
    pub(super) fn on_passed(&mut self, connection: ConnectionKey, frame: &Frame) -> Result<(), BodyError> {
        let Passed { subscription, next, high_watermark } = decode::<Passed>(frame)?;
        let (key, next, high_watermark) = (SubscriptionKey(subscription), Offset(next), Offset(high_watermark));
        let Some(reader) = self.subscriptions.get_mut(&key) else { return Ok(()) };
        match reader.phase {
            Phase::Asked { connection: on } if on == connection => reader.early_passed = Some((next, high_watermark)),
            Phase::Active { connection: on } if on == connection => self.pass(key, next, high_watermark),
            Phase::Waiting { .. } | Phase::Asked { .. } | Phase::Active { .. } => {}
        }
        Ok(())
    }

    fn pass(&mut self, key: SubscriptionKey, next: Offset, high_watermark: Offset) {
        let Some(reader) = self.subscriptions.get_mut(&key) else { return };
        if reader.on_passed(next) {
            self.effects.push_back(Effect::Passed { subscription: key, next, high_watermark });
        }
    }

    fn deliver(&mut self, key: SubscriptionKey, bytes: Bytes, high_watermark: Offset) {
        let Some(reader) = self.subscriptions.get_mut(&key) else { return };
        match reader.on_pushed(&bytes) {
            Ok((count, from)) => {
                // Not before: a broker that cannot read its disk takes a subscription and ends it at once.
                reader.attempts = 0;
                self.stats.batches_pushed += count;
                self.stats.bytes_pushed += bytes.len() as u64;
                self.effects.push_back(Effect::Deliver { subscription: key, bytes, from, high_watermark });
            }
            Err(error) => {
                if let Some(connection) = reader.connection() {
                    self.send_control(connection, CorrelationId(0), &Unsubscribe { subscription: key.0 });
                }
                self.end_subscription(key, error);
            }
        }
    }

    pub(super) fn on_subscription_refused(
        &mut self,
        now: Now,
        key: SubscriptionKey,
        connection: ConnectionKey,
        code: ErrorCode,
        text: String,
    ) {
        if self.subscriptions.get(&key).and_then(Subscription::connection) == Some(connection) {
            self.settle_refusal(now, key, Ending { code, text, range: None });
        }
    }

    /// A subscription that was taken ends, behind its pushes. As they do, the news may overtake the answer.
    pub(super) fn on_subscription_ended(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        frame: &Frame,
    ) -> Result<(), BodyError> {
        let ended = decode::<SubscriptionEnded>(frame)?;
        let key = SubscriptionKey(ended.subscription);
        let ending = Ending {
            code: ErrorCode::from_wire(ended.code),
            text: ended.text,
            range: ended.range.map(|(first, end)| Offset(first)..Offset(end)),
        };
        let Some(reader) = self.subscriptions.get_mut(&key) else { return Ok(()) };
        match reader.phase {
            Phase::Asked { connection: on } if on == connection => reader.early_end = Some(ending),
            Phase::Active { connection: on } if on == connection => self.settle_refusal(now, key, ending),
            Phase::Waiting { .. } | Phase::Asked { .. } | Phase::Active { .. } => {}
        }
        Ok(())
    }

    /// The broker does not serve a subscription: try again, start elsewhere, or end.
    fn settle_refusal(&mut self, now: Now, key: SubscriptionKey, ending: Ending) {
        let Ending { code, text, range } = ending;
        let reader = self.subscriptions.get_mut(&key).expect("the caller found it");
        let topic = reader.settings.topic.clone();
        let is_memory = self.topics.info(&topic).is_some_and(|info| !info.class().is_durable());
        let goes_on = match code {
            ErrorCode::OffsetOutOfRange => reader.fall_back(is_memory).is_some(),
            _ => match code.retry() {
                Retry::Later => true,
                Retry::Refresh => {
                    self.topics.refresh(&topic);
                    true
                }
                Retry::Never | Retry::Close => false,
            },
        };
        if !goes_on {
            self.end_subscription(key, SubscriptionError::Refused { code, text, range });
            return;
        }
        self.put_off(now, key);
    }

    /// Another attempt comes after a pause.
    fn put_off(&mut self, now: Now, key: SubscriptionKey) {
        let retry_at = self.pause(now, self.subscriptions[&key].attempts);
        let reader = self.subscriptions.get_mut(&key).expect("just used");
        reader.attempts = reader.attempts.saturating_add(1);
        reader.phase = Phase::Waiting { retry_at };
        self.timers.at(retry_at, Timer::Subscription(key));
        self.has_chores = true;
    }

    fn end_subscription(&mut self, key: SubscriptionKey, error: SubscriptionError) {
        self.subscriptions.remove(&key);
        self.effects.push_back(Effect::Ended { subscription: key, error });
        self.update_wanted();
    }

    /// Subscriptions on a lost connection wait for another one.
    pub(super) fn release_subscriptions(&mut self, connection: ConnectionKey) {
        for reader in self.subscriptions.values_mut() {
            if reader.connection() == Some(connection) {
                reader.phase = Phase::Waiting { retry_at: corelane_model::MonotonicNanos::default() };
                reader.forget_early();
            }
        }
    }

    pub(super) fn on_topic_changed_for_readers(&mut self, _now: Now, name: &TopicName) {
        if *self.topics.known(name) != Known::Missing {
            return self.grow(name);
        }
        let gone: Vec<SubscriptionKey> = self
            .subscriptions
            .iter()
            .filter(|(_, reader)| reader.settings.topic == *name)
            .map(|(&key, _)| key)
            .collect();
        for key in gone {
            self.end_subscription(key, SubscriptionError::UnknownTopic { topic: name.clone() });
        }
    }

    /// Gives consumed credit back.
    pub(super) fn return_credits(&mut self) {
        for key in std::mem::take(&mut self.credits) {
            let Some(reader) = self.subscriptions.get_mut(&key) else { continue };
            reader.is_listed = false;
            if let Some((connection, bytes)) = reader.take_credit() {
                self.send_control(connection, CorrelationId(0), &Credit { subscription: key.0, bytes });
            }
        }
    }
}
