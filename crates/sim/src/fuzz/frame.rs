//! Frames out of a stream, and every body that a frame can have.

use bytes::Bytes;
use corelane_model::{CorrelationId, TopicSettings};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameDecoder, FrameKind};

use super::{Target, no_repair};

pub(super) const TARGET: Target = Target {
    name: "frame",
    about: "a stream's bytes in chunks through the frame decoder, then every body",
    body,
    seeds,
    repair: no_repair,
};

/// The first byte says how the rest is cut into chunks.
fn body(input: &[u8]) -> bool {
    let Some((&cut, stream)) = input.split_first() else { return false };
    let mut decoder = FrameDecoder::default();
    let mut count = 0_u32;
    for chunk in stream.chunks(usize::from(cut) * 7 + 1) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.poll_frame() {
                Ok(Some(frame)) => count += u32::from(is_understood(&frame)),
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    0 < count && !decoder.is_inside_frame()
}

fn is_understood(frame: &Frame) -> bool {
    match frame.head.kind {
        FrameKind::Hello => wire::decode::<wire::Hello>(frame).is_ok(),
        FrameKind::Welcome => wire::decode::<wire::Welcome>(frame).is_ok(),
        FrameKind::Goaway => wire::decode::<wire::Goaway>(frame).is_ok(),
        FrameKind::Refusal => wire::decode::<wire::Refusal>(frame).is_ok(),
        FrameKind::Ping => wire::decode::<wire::Ping>(frame).is_ok(),
        FrameKind::Pong => wire::decode::<wire::Pong>(frame).is_ok(),
        FrameKind::Metadata => wire::decode::<wire::Metadata>(frame).is_ok(),
        FrameKind::MetadataAnswer => wire::decode::<wire::MetadataAnswer>(frame).is_ok(),
        FrameKind::CreateTopic => {
            wire::decode::<wire::CreateTopic>(frame).is_ok_and(|topic| topic.settings.to_model().is_some())
        }
        FrameKind::CreateTopicAnswer => wire::decode::<wire::CreateTopicAnswer>(frame).is_ok(),
        FrameKind::AlterTopic => wire::decode::<wire::AlterTopic>(frame).is_ok(),
        FrameKind::AlterTopicAnswer => wire::decode::<wire::AlterTopicAnswer>(frame).is_ok(),
        FrameKind::DeleteTopic => wire::decode::<wire::DeleteTopic>(frame).is_ok(),
        FrameKind::TruncatePartition => wire::decode::<wire::TruncatePartition>(frame).is_ok(),
        FrameKind::TopicDone => wire::decode::<wire::TopicDone>(frame).is_ok(),
        FrameKind::DescribeTopic => wire::decode::<wire::DescribeTopic>(frame).is_ok(),
        FrameKind::DescribeTopicAnswer => wire::decode::<wire::DescribeTopicAnswer>(frame).is_ok(),
        FrameKind::RequestProducerId => wire::decode::<wire::RequestProducerId>(frame).is_ok(),
        FrameKind::ProducerIdAnswer => wire::decode::<wire::ProducerIdAnswer>(frame).is_ok(),
        FrameKind::FindOffset => {
            wire::decode::<wire::FindOffset>(frame).is_ok_and(|find| find.start.to_model().is_some())
        }
        FrameKind::FindOffsetAnswer => wire::decode::<wire::FindOffsetAnswer>(frame).is_ok(),
        FrameKind::Produce => wire::decode::<wire::Produce>(frame).is_ok(),
        FrameKind::ProduceMany => wire::decode::<wire::ProduceMany>(frame).is_ok(),
        FrameKind::ProduceAnswers => wire::decode::<wire::ProduceAnswers>(frame).is_ok(),
        FrameKind::DurableEnds => wire::decode::<wire::DurableEnds>(frame).is_ok(),
        FrameKind::StorageStopped => wire::decode::<wire::StorageStopped>(frame).is_ok(),
        FrameKind::Subscribe => wire::decode::<wire::Subscribe>(frame).is_ok(),
        FrameKind::SubscribeAnswer => wire::decode::<wire::SubscribeAnswer>(frame).is_ok(),
        FrameKind::Credit => wire::decode::<wire::Credit>(frame).is_ok(),
        FrameKind::Unsubscribe => wire::decode::<wire::Unsubscribe>(frame).is_ok(),
        FrameKind::Push => wire::decode::<wire::Push>(frame).is_ok(),
        FrameKind::PushMany => wire::decode::<wire::PushMany>(frame).is_ok(),
        FrameKind::SubscriptionEnded => wire::decode::<wire::SubscriptionEnded>(frame).is_ok(),
        FrameKind::JoinGroup => wire::decode::<wire::JoinGroup>(frame).is_ok(),
        FrameKind::JoinGroupAnswer => wire::decode::<wire::JoinGroupAnswer>(frame).is_ok(),
        FrameKind::GroupHeartbeat => wire::decode::<wire::GroupHeartbeat>(frame).is_ok(),
        FrameKind::GiveUp => wire::decode::<wire::GiveUp>(frame).is_ok(),
        FrameKind::LeaveGroup => wire::decode::<wire::LeaveGroup>(frame).is_ok(),
        FrameKind::CommitOffsets => wire::decode::<wire::CommitOffsets>(frame).is_ok(),
        FrameKind::GroupDone => wire::decode::<wire::GroupDone>(frame).is_ok(),
        FrameKind::GroupAssignment => wire::decode::<wire::GroupAssignment>(frame).is_ok(),
        FrameKind::HandOver => wire::decode::<wire::HandOver>(frame).is_ok(),
        FrameKind::MemberFenced => wire::decode::<wire::MemberFenced>(frame).is_ok(),
        FrameKind::ListGroups => wire::decode::<wire::ListGroups>(frame).is_ok(),
        FrameKind::ListGroupsAnswer => wire::decode::<wire::ListGroupsAnswer>(frame).is_ok(),
        FrameKind::DescribeGroup => wire::decode::<wire::DescribeGroup>(frame).is_ok(),
        FrameKind::DescribeGroupAnswer => wire::decode::<wire::DescribeGroupAnswer>(frame).is_ok(),
        FrameKind::FetchOffsets => wire::decode::<wire::FetchOffsets>(frame).is_ok(),
        FrameKind::FetchOffsetsAnswer => wire::decode::<wire::FetchOffsetsAnswer>(frame).is_ok(),
        FrameKind::ResetOffsets => wire::decode::<wire::ResetOffsets>(frame).is_ok(),
        FrameKind::AlterGroup => wire::decode::<wire::AlterGroup>(frame).is_ok(),
        FrameKind::DrainGroup => wire::decode::<wire::DrainGroup>(frame).is_ok(),
        FrameKind::ResumeGroup => wire::decode::<wire::ResumeGroup>(frame).is_ok(),
        FrameKind::DeleteGroup => wire::decode::<wire::DeleteGroup>(frame).is_ok(),
        FrameKind::RemoveStaticMember => wire::decode::<wire::RemoveStaticMember>(frame).is_ok(),
        FrameKind::JoinQueue => wire::decode::<wire::JoinQueue>(frame).is_ok(),
        FrameKind::JoinQueueAnswer => wire::decode::<wire::JoinQueueAnswer>(frame).is_ok(),
        FrameKind::QueueCredit => wire::decode::<wire::QueueCredit>(frame).is_ok(),
        FrameKind::QueueDeliver => wire::decode::<wire::QueueDeliver>(frame).is_ok(),
        FrameKind::QueueAck => wire::decode::<wire::QueueAck>(frame).is_ok(),
        FrameKind::QueueNack => wire::decode::<wire::QueueNack>(frame).is_ok(),
        FrameKind::QueueExtend => wire::decode::<wire::QueueExtend>(frame).is_ok(),
        FrameKind::LeasesAnswer => wire::decode::<wire::LeasesAnswer>(frame).is_ok(),
        FrameKind::LeaveQueue => wire::decode::<wire::LeaveQueue>(frame).is_ok(),
        FrameKind::QueueDone => wire::decode::<wire::QueueDone>(frame).is_ok(),
        FrameKind::QueueFenced => wire::decode::<wire::QueueFenced>(frame).is_ok(),
        FrameKind::ListQueues => wire::decode::<wire::ListQueues>(frame).is_ok(),
        FrameKind::ListQueuesAnswer => wire::decode::<wire::ListQueuesAnswer>(frame).is_ok(),
        FrameKind::DescribeQueue => wire::decode::<wire::DescribeQueue>(frame).is_ok(),
        FrameKind::DescribeQueueAnswer => wire::decode::<wire::DescribeQueueAnswer>(frame).is_ok(),
        FrameKind::AlterQueue => wire::decode::<wire::AlterQueue>(frame).is_ok(),
        FrameKind::RedriveQueue => wire::decode::<wire::RedriveQueue>(frame).is_ok(),
        FrameKind::DeleteQueue => wire::decode::<wire::DeleteQueue>(frame).is_ok(),
        FrameKind::InitialiseTransactions
        | FrameKind::InitialiseTransactionsAnswer
        | FrameKind::StageOffsets
        | FrameKind::StageOffsetsAnswer
        | FrameKind::EndTransaction
        | FrameKind::EndTransactionAnswer
        | FrameKind::SubscribeCommitted
        | FrameKind::Passed => is_transaction_understood(frame),
    }
}

fn is_transaction_understood(frame: &Frame) -> bool {
    match frame.head.kind {
        FrameKind::InitialiseTransactions => wire::decode::<wire::InitialiseTransactions>(frame).is_ok(),
        FrameKind::InitialiseTransactionsAnswer => wire::decode::<wire::InitialiseTransactionsAnswer>(frame).is_ok(),
        FrameKind::StageOffsets => wire::decode::<wire::StageOffsets>(frame).is_ok(),
        FrameKind::StageOffsetsAnswer => wire::decode::<wire::StageOffsetsAnswer>(frame).is_ok(),
        FrameKind::EndTransaction => wire::decode::<wire::EndTransaction>(frame).is_ok(),
        FrameKind::EndTransactionAnswer => wire::decode::<wire::EndTransactionAnswer>(frame).is_ok(),
        FrameKind::SubscribeCommitted => wire::decode::<wire::SubscribeCommitted>(frame).is_ok(),
        FrameKind::Passed => wire::decode::<wire::Passed>(frame).is_ok(),
        kind => panic!("{kind:?} is not about transactions"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let start = wire::Start { kind: 2, value: 17 };
    let settings = wire::Settings::from(TopicSettings::default());
    let hello = wire::Hello {
        version_min: 1,
        version_max: 1,
        session: (1, 2),
        client: "fuzz".to_owned(),
        token: "a token that is longer than what fits inline".to_owned(),
    };
    let topic = wire::TopicMetadata { name: "inputs".to_owned(), topic: 4, settings, shards: vec![0, 1, 0, 1] };
    let answers = wire::ProduceAnswers {
        answers: vec![wire::ProduceAnswer { correlation: 4, base_offset: 9, timestamp_ms: 5, code: 33 }],
        texts: vec![(0, "record batch is over the limit of everything".to_owned())],
    };
    let describe = wire::DescribeTopicAnswer {
        topic: wire::TopicDescription { name: "inputs".to_owned(), topic: 4, settings },
        partition_count: 1,
        partitions: vec![wire::PartitionDescription {
            partition: 0,
            shard: 1,
            log_start: 0,
            durable_end: 5,
            log_end: 6,
            settled_end: 4,
            unsettled_bytes: 100,
            disk_bytes: 1000,
            segments: 1,
            corrupt: vec![(1, 2)],
        }],
    };
    let frames = [
        wire::encode(CorrelationId(1), &hello),
        wire::encode(CorrelationId(2), &wire::Metadata { names: vec!["inputs".to_owned(), "states".to_owned()] }),
        wire::encode(
            CorrelationId(3),
            &wire::MetadataAnswer { catalog_version: 3, shards: 2, topics: vec![topic], is_cut: false },
        ),
        wire::encode(CorrelationId(4), &wire::CreateTopic { name: "inputs".to_owned(), partitions: 8, settings }),
        wire::encode(CorrelationId(5), &wire::FindOffset { topic: 4, partition: 1, start }),
        wire::encode_with(
            CorrelationId(6),
            &wire::Produce { topic: 4, partition: 1, acks: 1 },
            vec![Bytes::from_static(b"an attachment that nobody looks at here")],
        ),
        wire::encode(CorrelationId(7), &answers),
        wire::encode_with(
            CorrelationId(0),
            &wire::ProduceMany {
                acks: 1,
                topics: vec![4, 4],
                partitions: vec![1, 2],
                lengths: vec![2, 3],
                correlations: vec![8, 9],
            },
            vec![Bytes::from_static(b"ababc")],
        ),
        wire::encode_with(
            CorrelationId(0),
            &wire::PushMany { subscriptions: vec![1, 2], high_watermarks: vec![8, 9], lengths: vec![2, 3] },
            vec![Bytes::from_static(b"ababc")],
        ),
        wire::encode(
            CorrelationId(0),
            &wire::DurableEnds { ends: vec![wire::DurableEnd { topic: 4, partition: 1, end: 10 }] },
        ),
        wire::encode(
            CorrelationId(8),
            &wire::Subscribe { subscription: 1, topic: 4, partition: 1, start, credit: 1 << 20 },
        ),
        wire::encode(CorrelationId(9), &describe),
    ];
    let mut all = vec![3];
    let mut inputs = Vec::new();
    for frame in frames {
        let bytes = frame.into_pieces().flatten().collect::<Vec<u8>>();
        all.extend_from_slice(&bytes);
        inputs.push([vec![255], bytes].concat());
    }
    inputs.push(all);
    inputs
}
