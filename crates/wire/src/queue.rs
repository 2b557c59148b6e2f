//! Shared queues: what a member says and hears.
//!
//! A queue is a group's name and a topic. Its home is the shard that owns the group's home partition of the internal topic
//! `__groups`; any shard passes these requests on to it. A member is a random id of 128 bits for each life, high half first,
//! and not a connection. Everything that a member sends says that it is alive.

use std::time::Duration;

use corelane_model::{Backoff, Dispatch, NameError, QueueSettings, QueueSettingsError, QueueWish, TopicName};

use crate::Start;
use crate::body::body;

/// Leases of records that follow each other in one partition and were handed out equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct LeaseRange {
    /// The partition.
    pub partition: u32,
    /// The first record.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Which delivery of these records it is, from 1. An acknowledgement of another delivery than the newest is refused.
    pub attempt: u32,
}

/// A back-off on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct QueueBackoff {
    /// Milliseconds after the first failure; doubles with each further one.
    pub first_ms: u64,
    /// Milliseconds at most.
    pub cap_ms: u64,
    /// If it is not empty it holds instead: milliseconds after each failure, the last one for all further ones.
    pub steps_ms: Vec<u64>,
}

/// What somebody wants of a queue's settings; what is `None` is left to the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct QueueChange {
    /// Milliseconds for which a member has a record before it goes to another.
    pub visibility_ms: Option<u64>,
    /// Who gets the next record: round-robin, random, weighted, least-response-time.
    pub dispatch: Option<String>,
    /// Whether records of one key are handed out one after the other.
    pub order_per_key: Option<bool>,
    /// How often a record is handed out before it becomes a dead letter; 0 is for ever.
    pub delivery_limit: Option<u32>,
    /// How long a record rests after a failure.
    pub backoff: Option<QueueBackoff>,
    /// Where dead letters go: a topic by name.
    pub dead_letter: Option<String>,
}

/// Why a wish cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueChangeError {
    /// It names no dispatch of this version.
    #[error(transparent)]
    Settings(#[from] QueueSettingsError),
    /// The dead-letter topic has no topic's name.
    #[error("dead-letter topic: {0}")]
    DeadLetter(#[from] NameError),
}

impl From<&Backoff> for QueueBackoff {
    fn from(backoff: &Backoff) -> Self {
        match backoff {
            Backoff::Exponential { first, cap } => {
                Self { first_ms: millis(*first), cap_ms: millis(*cap), steps_ms: Vec::new() }
            }
            Backoff::Steps(steps) => {
                Self { first_ms: 0, cap_ms: 0, steps_ms: steps.iter().copied().map(millis).collect() }
            }
        }
    }
}

impl QueueBackoff {
    /// The back-off in the words of the model, its bounds not checked.
    #[must_use]
    pub fn to_model(&self) -> Backoff {
        if self.steps_ms.is_empty() {
            let (first, cap) = (Duration::from_millis(self.first_ms), Duration::from_millis(self.cap_ms));
            Backoff::Exponential { first, cap }
        } else {
            Backoff::Steps(self.steps_ms.iter().copied().map(Duration::from_millis).collect())
        }
    }
}

impl From<&QueueWish> for QueueChange {
    fn from(wish: &QueueWish) -> Self {
        Self {
            visibility_ms: wish.visibility.map(millis),
            dispatch: wish.dispatch.map(|dispatch| dispatch.name().to_owned()),
            order_per_key: wish.order_per_key,
            delivery_limit: wish.delivery_limit,
            backoff: wish.backoff.as_ref().map(QueueBackoff::from),
            dead_letter: wish.dead_letter.as_ref().map(|name| name.as_str().to_owned()),
        }
    }
}

impl From<&QueueSettings> for QueueChange {
    fn from(settings: &QueueSettings) -> Self {
        Self {
            visibility_ms: Some(millis(settings.visibility)),
            dispatch: Some(settings.dispatch.name().to_owned()),
            order_per_key: Some(settings.order_per_key),
            delivery_limit: Some(settings.delivery_limit.unwrap_or(0)),
            backoff: Some((&settings.backoff).into()),
            dead_letter: settings.dead_letter.as_ref().map(|name| name.as_str().to_owned()),
        }
    }
}

impl QueueChange {
    /// The wish in the words of the model, numbers not held against their bounds.
    ///
    /// # Errors
    /// A name that is none.
    pub fn to_model(&self) -> Result<QueueWish, QueueChangeError> {
        Ok(QueueWish {
            visibility: self.visibility_ms.map(Duration::from_millis),
            dispatch: self.dispatch.as_deref().map(Dispatch::parse).transpose()?,
            order_per_key: self.order_per_key,
            delivery_limit: self.delivery_limit,
            backoff: self.backoff.as_ref().map(QueueBackoff::to_model),
            dead_letter: self.dead_letter.as_deref().map(TopicName::parse).transpose()?,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

body! {
    /// A member joins, or says again what it said. The first one makes the queue. Answered when the queue is durable;
    /// records follow as far as the credit goes.
    JoinQueue (JoinQueue, 1) {
        /// The group; a name is either a consumer group's or a shared queue's.
        group: String,
        /// The topic, by name.
        topic: String,
        /// Random, made by the client for this life of the member.
        member: (u64, u64),
        /// What it can do compared to others, for the dispatch weighted; 0 counts as 1.
        weight: u32,
        /// Silent for longer, it has died; 0 takes the default.
        session_timeout_ms: u32,
        /// Settings for a new queue. What is named has to agree with a queue that exists.
        settings: QueueChange,
        /// Where a new queue begins in each partition; a queue that exists goes on where it is.
        start: Start,
        /// Records that may be sent before more credit comes. Joining again sets what is left anew.
        credit_records: u32,
        /// Bytes that may be sent before more credit comes, one larger record excepted.
        credit_bytes: u64,
    }

    /// Answers [`JoinQueue`].
    JoinQueueAnswer (JoinQueueAnswer, 1) {
        /// The topic's id, by which everything that follows names it.
        topic: u64,
        /// How many partitions it has.
        partitions: u32,
        /// The settings that hold; all but the dead-letter topic are there.
        settings: QueueChange,
        /// The session time-out that holds.
        session_timeout_ms: u32,
        /// Whether this made the queue.
        is_new: bool,
    }

    /// More may be sent to a member. With nothing more it only says that the member is alive. Not answered, unless the
    /// member is none: then by [`QueueFenced`].
    QueueCredit (QueueCredit, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// More records.
        records: u32,
        /// More bytes.
        bytes: u64,
    }

    /// Records for a member, each leased to it. The attachment is record batches one after another; their records, in
    /// order, are those of the leases, in order. Offsets in the heads of these batches mean nothing.
    QueueDeliver (QueueDeliver, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// For how many milliseconds a member has a record, unless it asks for more.
        lease_ms: u64,
        /// What is left of them: less if the records had to be read first, 0 if others may have them already.
        left_ms: u64,
        /// Bytes that this takes off the member's credit; each record takes one off its credit of records.
        credit_bytes: u64,
        /// Which records these are.
        leases: Vec<LeaseRange>,
    }

    /// Records are done. Answered by [`LeasesAnswer`] when that is durable.
    QueueAck (QueueAck, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// Which records.
        leases: Vec<LeaseRange>,
        /// Microseconds that the member takes for a record, for the dispatch least-response-time.
        processing_micros: Option<u32>,
        /// More records that may be sent.
        credit_records: u32,
        /// More bytes that may be sent.
        credit_bytes: u64,
    }

    /// Records failed. They are handed out again later, or become dead letters. Answered by [`LeasesAnswer`] when that is
    /// durable.
    QueueNack (QueueNack, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// Which records.
        leases: Vec<LeaseRange>,
        /// Milliseconds that they rest; `None` leaves it to the queue's back-off.
        delay_ms: Option<u64>,
        /// They are dead letters at once, however often they were delivered.
        is_dead: bool,
        /// Why, for the dead letter; at most 256 bytes.
        reason: String,
        /// More records that may be sent.
        credit_records: u32,
        /// More bytes that may be sent.
        credit_bytes: u64,
    }

    /// The member needs longer: its leases end so many milliseconds from now. Answered by [`LeasesAnswer`] at once.
    QueueExtend (QueueExtend, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// Which records.
        leases: Vec<LeaseRange>,
        /// From now on.
        lease_ms: u64,
    }

    /// Answers [`QueueAck`], [`QueueNack`] and [`QueueExtend`].
    LeasesAnswer (LeasesAnswer, 1) {
        /// Those that the member did not have (any more): their time was over, or they are done. Nothing was changed for
        /// them; everything else was taken.
        refused: Vec<LeaseRange>,
    }

    /// A member leaves. What it has goes to others at once, as if it had not been handed out. Answered by [`QueueDone`].
    LeaveQueue (LeaveQueue, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
    }

    /// Answers every request for a queue that asks for nothing else, when it is durable.
    QueueDone (QueueDone, 1) {
        /// 0; kept for what a later request may have to say.
        reserved: u64,
    }

    /// A member is no longer in the queue; what it has goes to others. It may come back under another member id.
    QueueFenced (QueueFenced, 1) {
        /// The group.
        group: String,
        /// The topic.
        topic: u64,
        /// Who.
        member: (u64, u64),
        /// 1 session expired, 2 the queue was deleted, 3 there is no such member (any more).
        reason: u8,
        /// The same in words.
        text: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_wire() {
        let settings = QueueSettings {
            visibility: Duration::from_millis(1500),
            dispatch: Dispatch::Weighted,
            order_per_key: true,
            delivery_limit: Some(7),
            backoff: Backoff::Steps(vec![Duration::from_millis(5), Duration::from_secs(2)]),
            dead_letter: Some(TopicName::parse("dead").unwrap()),
        };
        let wish = QueueChange::from(&settings).to_model().unwrap();
        assert_eq!(QueueSettings::default().with(&wish), settings);
        let wish = QueueChange::from(&QueueSettings::default()).to_model().unwrap();
        assert_eq!(QueueSettings::default().with(&wish), QueueSettings::default());
    }

    #[test]
    fn a_wish_with_wrong_names_is_refused_in_words() {
        let change = QueueChange { dispatch: Some("fair".into()), ..QueueChange::default() };
        assert!(change.to_model().unwrap_err().to_string().contains("least-response-time"));
        let change = QueueChange { dead_letter: Some("a b".into()), ..QueueChange::default() };
        assert!(change.to_model().unwrap_err().to_string().starts_with("dead-letter topic"));
    }
}
