//! A queue as people see it.

use corelane_model::{Offset, PartitionId, PartitionIndex, WallMillis};
use corelane_queue::{MemberDescription, PartitionDescription, QueueName};
use corelane_session::QueueAsk;
use corelane_wire::{DescribeQueueAnswer, QueueChange, QueueMember, QueuePartition, QueueSummary};

use super::home::Homed;
use super::{QueueKey, QueueRequest};
use crate::groups::{LagOf, Lagging, member_on_wire};
use crate::{STATUS_QUEUES_MAX, Shard};

/// Partitions, and members, in one answer.
const PAGE: usize = 512;
/// Partitions of queues that one status asks about.
const STATUS_ENDS_MAX: usize = 16_384;
const _: () = assert!(PAGE * (94 + 85 + 256) < corelane_model::limits::FRAME_BODY_BYTES_MAX as usize);

impl Shard {
    pub(super) fn describe_queue(&mut self, home: PartitionIndex, name: &QueueName, request: &QueueRequest) {
        let QueueAsk::Describe { from_partition, most_partitions, after_member, most_members } = request.ask else {
            panic!("only descriptions come here");
        };
        let now = self.now;
        let queues = self.groups.queues_of(home).expect("the request was admitted");
        let homed = &queues.by_name[name];
        let most = |most: u32| usize::try_from(most).unwrap_or(PAGE).min(PAGE);
        let partitions = homed.queue.describe_partitions(now);
        let partitions = partitions.skip_while(|partition| partition.partition.0 < from_partition);
        let members = homed.queue.describe_members(now);
        let mut members = members.skip_while(|member| after_member.is_some_and(|after| member.member <= after));
        let listed: Vec<_> = members.by_ref().take(most(most_members)).map(member_of).collect();
        let has_more_members = members.next().is_some();
        drop(members);
        let answer = Box::new(DescribeQueueAnswer {
            summary: summary(name, homed),
            settings: QueueChange::from(homed.queue.settings()),
            partition_count: homed.queue.partitions_len(),
            partitions: partitions.take(most(most_partitions)).map(partition_of).collect(),
            members: listed,
            has_more_members,
        });
        let wants = answer.partitions.iter().map(|partition| {
            let id = PartitionId::new(name.topic, PartitionIndex(partition.partition));
            (id, Some(Offset(partition.done_end)))
        });
        let wants = wants.collect();
        let key = QueueKey { home, name: name.clone(), serial: homed.serial };
        self.gather_lag(Lagging::Queue(request.asker, key, answer), wants);
    }

    /// Asks the owners of all partitions of queues that a status shows, so that the next one knows what nobody reads.
    pub(crate) fn ask_queue_ends(&mut self) {
        let questions = self.groups.all_queues().take(STATUS_QUEUES_MAX).map(|(name, homed)| {
            let key = QueueKey { home: name.group.home(), name: name.clone(), serial: homed.serial };
            let partitions = homed.queue.describe_partitions(self.now);
            let wants = partitions
                .map(|partition| (PartitionId::new(name.topic, partition.partition), Some(partition.done_end)));
            (key, wants.collect::<Vec<_>>())
        });
        let mut left = STATUS_ENDS_MAX;
        for (key, mut wants) in questions.collect::<Vec<_>>() {
            wants.truncate(left);
            left -= wants.len();
            self.gather_lag(Lagging::Status(key), wants);
        }
    }

    /// Owners of a queue's partitions said where these end, and how old the first record is that is not done.
    pub(crate) fn note_queue_ends(&mut self, key: &QueueKey, lags: &[LagOf]) {
        let wall = self.now.wall;
        let Some(homed) = self.homed(key) else { return };
        for LagOf { partition, stable_end, lag_ms, .. } in lags {
            homed.queue.on_high_watermark(partition.index, *stable_end);
            let done_end = homed.queue.done_end(partition.index);
            let age = lag_ms.and_then(|age| i64::try_from(age).ok());
            let reader = homed.readers.entry(partition.index).or_default();
            reader.oldest = age.map(|age| (done_end, WallMillis(wall.0.saturating_sub(age))));
        }
    }
}

/// What the owners of partitions know better than a queue that has not read as far.
pub(crate) fn fill_in_queue(answer: &mut DescribeQueueAnswer, lags: &[LagOf]) {
    for LagOf { partition, stable_end, lag_ms, .. } in lags {
        let found = answer.partitions.iter_mut().find(|known| known.partition == partition.index.0);
        let Some(known) = found else { continue };
        let unknown = stable_end.0.saturating_sub(known.high_watermark);
        known.high_watermark += unknown;
        known.ready += unknown;
        answer.summary.ready += unknown;
        if known.oldest_ms.is_none() && known.done_end < known.high_watermark {
            known.oldest_ms = *lag_ms;
        }
    }
}

/// A queue in one line.
pub(super) fn summary(name: &QueueName, homed: &Homed) -> QueueSummary {
    let sum = homed.queue.describe();
    QueueSummary {
        group: name.group.as_str().to_owned(),
        topic: homed.topic.as_str().to_owned(),
        topic_id: name.topic.0,
        members: u32::try_from(sum.members).unwrap_or(u32::MAX),
        ready: sum.ready,
        leased: sum.leased,
        delayed: sum.delayed,
        dead: sum.dead,
        broken: String::new(),
    }
}

fn partition_of(partition: PartitionDescription) -> QueuePartition {
    QueuePartition {
        partition: partition.partition.0,
        done_end: partition.done_end.0,
        read_end: partition.read_end.0,
        high_watermark: partition.high_watermark.0,
        ready: partition.ready,
        leased: partition.leased,
        delayed: partition.delayed,
        held: partition.held,
        dying: partition.dying,
        done: partition.done,
        dead: partition.dead,
        oldest_ms: partition.oldest.map(|oldest| u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX)),
        is_full: partition.is_full,
    }
}

fn member_of(member: MemberDescription) -> QueueMember {
    QueueMember {
        member: member_on_wire(member.member),
        client: member.client,
        weight: member.weight,
        leased: member.leased,
        credit_records: member.credit_records,
        credit_bytes: member.credit_bytes,
        processing_micros: member.processing_micros,
        delivered: member.delivered,
        acknowledged: member.acknowledged,
        failed: member.failed,
        silent_ms: u64::try_from(member.silent.as_millis()).unwrap_or(u64::MAX),
    }
}
