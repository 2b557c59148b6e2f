//! A queue as people see it.

use corelane_model::PartitionIndex;
use corelane_queue::{MemberDescription, PartitionDescription, QueueName};
use corelane_session::QueueAsk;
use corelane_wire::{DescribeQueueAnswer, QueueChange, QueueMember, QueuePartition, QueueSummary};

use super::QueueRequest;
use super::home::Homed;
use super::tell::QueueAnswer;
use crate::Shard;
use crate::ask::Answer;
use crate::groups::member_on_wire;

/// Partitions, and members, in one answer.
const PAGE: usize = 512;
const _: () = assert!(PAGE * (93 + 85 + 256) < corelane_model::limits::FRAME_BODY_BYTES_MAX as usize);

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
        let answer = DescribeQueueAnswer {
            summary: summary(name, homed),
            settings: QueueChange::from(homed.queue.settings()),
            partition_count: homed.queue.partitions_len(),
            partitions: partitions.take(most(most_partitions)).map(partition_of).collect(),
            members: listed,
            has_more_members,
        };
        self.answer(request.asker, None, Answer::Queue(QueueAnswer::Described(Box::new(answer))));
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
