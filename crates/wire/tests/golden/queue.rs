//! Frames of shared queues.

use corelane_model::StartAt;
use corelane_wire::{
    AlterQueue, DeleteQueue, DescribeQueue, DescribeQueueAnswer, FrameKind, JoinQueue, JoinQueueAnswer, LeaseRange,
    LeasesAnswer, LeaveQueue, ListQueues, ListQueuesAnswer, QueueAck, QueueBackoff, QueueChange, QueueCredit,
    QueueDeliver, QueueDone, QueueExtend, QueueFenced, QueueMember, QueueNack, QueuePartition, QueueRedriven,
    QueueSummary, RedriveQueue,
};

use crate::{PARTITION, TOPIC, check};

const MEMBER: (u64, u64) = (0x2122_2324_2526_2728, 0x3132_3334_3536_3738);

fn change() -> QueueChange {
    QueueChange {
        visibility_ms: Some(30_000),
        dispatch: Some("weighted".into()),
        order_per_key: Some(true),
        delivery_limit: Some(5),
        backoff: Some(QueueBackoff { first_ms: 1_000, cap_ms: 60_000, steps_ms: vec![100, 2_000] }),
        dead_letter: Some("mail.dead".into()),
    }
}

fn leases() -> Vec<LeaseRange> {
    vec![
        LeaseRange { partition: PARTITION, first: 100, count: 32, attempt: 1 },
        LeaseRange { partition: 2, first: 7, count: 1, attempt: 3 },
    ]
}

pub(crate) fn members(seen: &mut Vec<FrameKind>) {
    let (group, member) = ("mailers".to_owned(), MEMBER);
    let join = JoinQueue {
        group: group.clone(),
        topic: "mail".into(),
        member,
        weight: 3,
        session_timeout_ms: 10_000,
        settings: change(),
        start: StartAt::Earliest.into(),
        credit_records: 256,
        credit_bytes: 1 << 20,
    };
    check(seen, &join, b"");
    let answer = JoinQueueAnswer {
        topic: TOPIC,
        partitions: 8,
        settings: QueueChange { dead_letter: None, ..change() },
        session_timeout_ms: 10_000,
        is_new: true,
    };
    check(seen, &answer, b"");
    check(seen, &QueueCredit { group: group.clone(), topic: TOPIC, member, records: 64, bytes: 65_536 }, b"");
    let leave = LeaveQueue { group: group.clone(), topic: TOPIC, member };
    check(seen, &leave, b"");
    check(seen, &QueueDone { reserved: 0 }, b"");
    let text = "it was silent for longer than its session time-out".into();
    check(seen, &QueueFenced { group, topic: TOPIC, member, reason: 1, text }, b"");
}

pub(crate) fn records(seen: &mut Vec<FrameKind>) {
    let (group, topic, member) = ("mailers".to_owned(), TOPIC, MEMBER);
    let (lease_ms, credit_bytes) = (30_000, 4_000);
    let deliver =
        QueueDeliver { group: group.clone(), topic, member, lease_ms, left_ms: 12_345, credit_bytes, leases: leases() };
    check(seen, &deliver, b"two record batches");
    let ack = QueueAck {
        group: group.clone(),
        topic,
        member,
        leases: leases(),
        processing_micros: Some(750),
        credit_records: 33,
        credit_bytes: 4_096,
    };
    check(seen, &ack, b"");
    let nack = QueueNack {
        group: group.clone(),
        topic,
        member,
        leases: leases(),
        delay_ms: Some(5_000),
        is_dead: true,
        reason: "no such player".into(),
        credit_records: 33,
        credit_bytes: 4_096,
    };
    check(seen, &nack, b"");
    check(seen, &QueueExtend { group, topic, member, leases: leases(), lease_ms: 60_000 }, b"");
    check(seen, &LeasesAnswer { refused: leases() }, b"");
}

fn summary() -> QueueSummary {
    QueueSummary {
        group: "mailers".into(),
        topic: "mail".into(),
        topic_id: TOPIC,
        members: 2,
        ready: 1_000,
        leased: 64,
        delayed: 3,
        dead: 1,
        broken: "format 9".into(),
    }
}

pub(crate) fn descriptions(seen: &mut Vec<FrameKind>) {
    check(seen, &ListQueues { after: ("mailers".into(), 4), most: 100 }, b"");
    check(seen, &ListQueuesAnswer { queues: vec![summary()], is_cut: true, missing_shards: vec![3] }, b"");
    let describe = DescribeQueue {
        group: "mailers".into(),
        topic: "mail".into(),
        from_partition: 2,
        most_partitions: 100,
        after_member: Some(MEMBER),
        most_members: 50,
    };
    check(seen, &describe, b"");
    let partition = QueuePartition {
        partition: PARTITION,
        done_end: 100,
        read_end: 300,
        high_watermark: 900,
        ready: 700,
        leased: 64,
        delayed: 3,
        held: 2,
        dying: 1,
        done: 30,
        dead: 4,
        oldest_ms: Some(1_500),
        is_full: true,
    };
    let member = QueueMember {
        member: MEMBER,
        client: "corelane-rust/0.1.0".into(),
        weight: 3,
        leased: 64,
        credit_records: 10,
        credit_bytes: 9_000,
        processing_micros: Some(750),
        delivered: 5_000,
        acknowledged: 4_900,
        failed: 36,
        silent_ms: 20,
    };
    let answer = DescribeQueueAnswer {
        summary: summary(),
        settings: change(),
        partition_count: 8,
        partitions: vec![partition],
        members: vec![member],
        has_more_members: true,
    };
    check(seen, &answer, b"");
}

pub(crate) fn management(seen: &mut Vec<FrameKind>) {
    let (group, topic) = ("mailers".to_owned(), "mail".to_owned());
    let settings = QueueChange { visibility_ms: Some(5_000), ..QueueChange::default() };
    check(seen, &AlterQueue { group: group.clone(), topic: topic.clone(), settings }, b"");
    let redrive =
        RedriveQueue { group: group.clone(), topic: topic.clone(), most: 500, partition: PARTITION, end: Some(9_000) };
    check(seen, &redrive, b"");
    let stopped = "there is no room".to_owned();
    let redriven = QueueRedriven { records: 12, is_over: false, partition: PARTITION, end: Some(9_000), stopped };
    check(seen, &redriven, b"");
    check(seen, &DeleteQueue { group, topic, topic_id: 0, is_forced: true }, b"");
}
