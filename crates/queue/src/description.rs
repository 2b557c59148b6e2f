//! What can be seen of a queue from outside.

use std::time::Duration;

use corelane_model::{MemberId, MonotonicNanos, Now, Offset, PartitionIndex};

use crate::Queue;
use crate::slot::State;

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its index.
    pub partition: PartitionIndex,
    /// The first record that is not done.
    pub done_end: Offset,
    /// Exclusive end of what was read.
    pub read_end: Offset,
    /// Exclusive end of what can be read, as far as is known.
    pub high_watermark: Offset,
    /// Records that could be handed out, those that were not read included.
    pub ready: u64,
    /// Records that members have.
    pub leased: u64,
    /// Records that rest.
    pub delayed: u64,
    /// Records that wait for one of their key.
    pub held: u64,
    /// Records on their way to the dead-letter topic.
    pub dying: u64,
    /// Records beyond the first that is not done that are done.
    pub done: u64,
    /// Dead letters so far.
    pub dead: u64,
    /// The window is full: there are records behind it, and nothing within it can be handed out before something is done or
    /// its rest is over.
    pub is_full: bool,
    /// Age of the oldest record that is not done; `None` if there is none, or it was not read yet.
    pub oldest: Option<Duration>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member: MemberId,
    /// What its client says of itself.
    pub client: String,
    /// What it declared.
    pub weight: u32,
    /// Records that it has.
    pub leased: u64,
    /// Records that may still be sent to it.
    pub credit_records: u32,
    /// Bytes that may still be sent to it.
    pub credit_bytes: u64,
    /// Smoothed microseconds for a record, if it reports them.
    pub processing_micros: Option<u32>,
    /// Records that were handed out to it.
    pub delivered: u64,
    /// Records that it acknowledged.
    pub acknowledged: u64,
    /// Records that it failed or whose lease ended.
    pub failed: u64,
    /// For how long it was not heard of.
    pub silent: Duration,
}

/// A queue's numbers, summed over its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDescription {
    /// How many members it has.
    pub members: u64,
    /// See [`PartitionDescription::ready`].
    pub ready: u64,
    /// See [`PartitionDescription::leased`].
    pub leased: u64,
    /// See [`PartitionDescription::delayed`].
    pub delayed: u64,
    /// See [`PartitionDescription::dying`].
    pub dying: u64,
    /// See [`PartitionDescription::dead`].
    pub dead: u64,
}

impl Queue {
    /// The queue in one line.
    #[must_use]
    pub fn describe(&self) -> QueueDescription {
        let mut sum = QueueDescription { members: self.members.len() as u64, ..QueueDescription::default() };
        for partition in &self.partitions {
            sum.ready += partition.ready() + partition.high_watermark.saturating_sub(partition.read_end());
            sum.leased += partition.count(State::Leased);
            sum.delayed += partition.count(State::Delayed);
            sum.dying += partition.count(State::Dying);
            sum.dead += partition.dead;
        }
        sum
    }

    /// The first record of a partition that is not done; the beginning for a partition that is not known.
    #[must_use]
    pub fn done_end(&self, partition: PartitionIndex) -> Offset {
        self.partitions.get(partition.0 as usize).map_or(Offset::ZERO, |partition| Offset(partition.done_end))
    }

    /// Its partitions, by index.
    pub fn describe_partitions(&self, now: Now) -> impl Iterator<Item = PartitionDescription> {
        self.partitions.iter().map(move |partition| PartitionDescription {
            partition: partition.index,
            done_end: Offset(partition.done_end),
            read_end: Offset(partition.read_end()),
            high_watermark: Offset(partition.high_watermark.max(partition.read_end())),
            ready: partition.ready() + partition.high_watermark.saturating_sub(partition.read_end()),
            leased: partition.count(State::Leased),
            delayed: partition.count(State::Delayed),
            held: partition.count(State::Held),
            dying: partition.count(State::Dying),
            done: partition.count(State::Done),
            dead: partition.dead,
            is_full: partition.is_full(),
            oldest: partition.oldest().map(|stamp| Duration::from_millis(now.wall.millis_since(stamp))),
        })
    }

    /// Its members, by id.
    pub fn describe_members(&self, now: Now) -> impl Iterator<Item = MemberDescription> {
        self.members.iter().map(move |member| MemberDescription {
            member: member.id,
            client: member.client.clone(),
            weight: member.weight,
            leased: member.leased,
            credit_records: member.credit_records,
            credit_bytes: member.credit_bytes.max(0).cast_unsigned(),
            processing_micros: member.micros,
            delivered: member.delivered,
            acknowledged: member.acknowledged,
            failed: member.failed,
            silent: now.monotonic.since(member.heard),
        })
    }

    /// When [`Queue::on_deadline`] wants to be called. It may then turn out that nothing is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        let clock = self.clock.next().map(|due| due.at);
        let session = self.sessions.first().map(|&(at, _)| at);
        [clock, session, self.dying.deadline()].into_iter().flatten().min()
    }
}
