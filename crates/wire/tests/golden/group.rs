//! Frames of consumer groups.

use corelane_wire::{
    AlterGroup, CommitOffsets, DeleteGroup, DescribeGroup, DescribeGroupAnswer, DrainGroup, FetchOffsets,
    FetchOffsetsAnswer, FetchedOffset, FrameKind, GiveUp, GroupAssignment, GroupDone, GroupHeartbeat, GroupMember,
    GroupPartition, GroupSummary, HandOver, JoinGroup, JoinGroupAnswer, LeaveGroup, ListGroups, ListGroupsAnswer,
    MemberFenced, OffsetCommit, OffsetReset, OwnedPartition, PartitionRange, RemoveStaticMember, ResetOffsets,
    ResetPolicy, ResumeGroup, RevokedPartition, TopicLabel,
};

use crate::{PARTITION, TOPIC, check};

const MEMBER: (u64, u64) = (0x2122_2324_2526_2728, 0x3132_3334_3536_3738);

pub(crate) fn members(seen: &mut Vec<FrameKind>) {
    let range = PartitionRange { topic: TOPIC, first: PARTITION, count: 3 };
    let join = JoinGroup {
        group: "lobby".into(),
        member: MEMBER,
        static_id: Some("lobby-server-1".into()),
        topics: vec!["chat".into(), "match-7.inputs".into()],
        pattern: Some("match-[0-9]+".into()),
        strategy: Some("cooperative-sticky".into()),
        capacity: 4,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        reset: ResetPolicy { kind: 2, value: 1_790_000_000_000 },
    };
    check(seen, &join, b"");
    let answer = JoinGroupAnswer {
        generation: 12,
        strategy: "sticky".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
    };
    check(seen, &answer, b"");
    let heartbeat = GroupHeartbeat {
        group: "lobby".into(),
        member: MEMBER,
        seen: 12,
        holds: Some(vec![range]),
        processing_micros: Some(250),
    };
    check(seen, &heartbeat, b"");
    let give_up = GiveUp { group: "lobby".into(), member: MEMBER, seen: 12, topic: TOPIC, partition: PARTITION };
    check(seen, &give_up, b"what the next owner needs");
    check(seen, &LeaveGroup { group: "lobby".into(), member: MEMBER, is_restarting: true }, b"");
    let offset =
        OffsetCommit { topic: TOPIC, partition: PARTITION, offset: 90, leader_epoch: 5, metadata: "tick 4711".into() };
    check(seen, &CommitOffsets { group: "lobby".into(), member: MEMBER, generation: 12, offsets: vec![offset] }, b"");
    check(seen, &GroupDone { generation: 12 }, b"");
    let assignment = GroupAssignment {
        group: "lobby".into(),
        member: MEMBER,
        generation: 12,
        is_last: true,
        topics: vec![TopicLabel { topic: TOPIC, name: "match-7.inputs".into() }],
        owned: vec![OwnedPartition { topic: TOPIC, partition: PARTITION, since: 11, committed: Some(90) }],
        revoking: vec![RevokedPartition { topic: TOPIC, partition: PARTITION, since: 9, within_ms: 59_990 }],
        standby: vec![PartitionRange { topic: TOPIC, first: 0, count: 1 }],
    };
    check(seen, &assignment, b"");
    let hand_over = HandOver { group: "lobby".into(), member: MEMBER, topic: TOPIC, partition: PARTITION };
    check(seen, &hand_over, b"what the old owner left");
    let text = "it was silent for longer than its session time-out".into();
    check(seen, &MemberFenced { group: "lobby".into(), member: MEMBER, reason: 1, text }, b"");
}

pub(crate) fn descriptions(seen: &mut Vec<FrameKind>) {
    let group = || String::from("lobby");
    let summary = GroupSummary {
        name: group(),
        state: 1,
        strategy: "cooperative-sticky".into(),
        generation: 12,
        members: 2,
        owned: 8,
    };
    check(seen, &ListGroups { after: "arena".into(), most: 100 }, b"");
    let answer = ListGroupsAnswer { groups: vec![summary.clone()], is_cut: true, missing_shards: vec![3] };
    check(seen, &answer, b"");
    let describe = DescribeGroup {
        group: group(),
        after_member: Some(MEMBER),
        most_members: 10,
        after_partition: Some((TOPIC, PARTITION)),
        most_partitions: 20,
    };
    check(seen, &describe, b"");
    let member = GroupMember {
        member: MEMBER,
        static_id: Some("lobby-server-1".into()),
        client: "corelane-rust/0.1.0".into(),
        state: 1,
        subscription: "chat, /match-[0-9]+/".into(),
        capacity: 4,
        processing_micros: Some(250),
        silent_ms: 120,
        owned: 4,
        revoking: 3,
        awaiting: 2,
        standby: 1,
    };
    let partition = GroupPartition {
        topic: TOPIC,
        partition: PARTITION,
        owner: Some(MEMBER),
        is_revoking: true,
        committed: Some(90),
        committed_ms: 1_790_000_000_000,
        metadata: "tick 4711".into(),
        log_start: Some(10),
        high_watermark: Some(100),
        lag: Some(10),
        lag_ms: Some(350),
    };
    let answer = DescribeGroupAnswer {
        summary,
        standbys: 1,
        retention_ms: 604_800_000,
        partition_count: 8,
        members: vec![member],
        is_members_cut: true,
        topics: vec![TopicLabel { topic: TOPIC, name: "match-7.inputs".into() }],
        partitions: vec![partition],
        is_partitions_cut: false,
    };
    check(seen, &answer, b"");
}

pub(crate) fn offsets_and_settings(seen: &mut Vec<FrameKind>) {
    let group = || String::from("lobby");
    let range = PartitionRange { topic: TOPIC, first: PARTITION, count: 3 };
    check(seen, &FetchOffsets { group: group(), after: Some((TOPIC, PARTITION)), partitions: vec![range] }, b"");
    let offset = FetchedOffset {
        topic: TOPIC,
        partition: PARTITION,
        offset: 90,
        leader_epoch: 5,
        committed_ms: 1_790_000_000_000,
        metadata: "tick 4711".into(),
    };
    check(seen, &FetchOffsetsAnswer { offsets: vec![offset], is_cut: true }, b"");
    let reset = OffsetReset { topic: TOPIC, partition: PARTITION, offset: Some(50), metadata: "by hand".into() };
    check(seen, &ResetOffsets { group: group(), may_create: true, resets: vec![reset] }, b"");
    let alter = AlterGroup {
        group: group(),
        may_create: true,
        strategy: Some("weighted".into()),
        standbys: Some(1),
        retention_ms: Some(86_400_000),
    };
    check(seen, &alter, b"");
    check(seen, &DrainGroup { group: group() }, b"");
    check(seen, &ResumeGroup { group: group() }, b"");
    check(seen, &DeleteGroup { group: group() }, b"");
    check(seen, &RemoveStaticMember { group: group(), static_id: "lobby-server-1".into() }, b"");
}
