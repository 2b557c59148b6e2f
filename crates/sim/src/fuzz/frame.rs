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

/// Whether the body of a frame is what its kind says, kind for kind.
macro_rules! is_body_of {
    ($frame:expr, $($kind:ident)*) => {
        match $frame.head.kind {
            $(FrameKind::$kind => wire::decode::<wire::$kind>($frame).is_ok(),)*
            FrameKind::CreateTopic => {
                wire::decode::<wire::CreateTopic>($frame).is_ok_and(|topic| topic.settings.to_model().is_some())
            }
            FrameKind::FindOffset => {
                wire::decode::<wire::FindOffset>($frame).is_ok_and(|find| find.start.to_model().is_some())
            }
        }
    };
}

#[rustfmt::skip]
fn is_understood(frame: &Frame) -> bool {
    is_body_of!(
        frame,
        Hello Welcome Goaway Refusal Ping Pong Metadata MetadataAnswer CreateTopicAnswer AlterTopic
        AlterTopicAnswer DeleteTopic TruncatePartition TopicDone DescribeTopic DescribeTopicAnswer
        RequestProducerId ProducerIdAnswer FindOffsetAnswer Produce ProduceMany ProduceAnswers DurableEnds
        StorageStopped Subscribe SubscribeAnswer Credit Unsubscribe Push PushMany SubscriptionEnded JoinGroup
        JoinGroupAnswer GroupHeartbeat GiveUp LeaveGroup CommitOffsets GroupDone GroupAssignment HandOver
        MemberFenced ListGroups ListGroupsAnswer DescribeGroup DescribeGroupAnswer FetchOffsets
        FetchOffsetsAnswer ResetOffsets AlterGroup DrainGroup ResumeGroup DeleteGroup RemoveStaticMember
        JoinQueue JoinQueueAnswer QueueCredit QueueDeliver QueueAck QueueNack QueueExtend LeasesAnswer
        LeaveQueue QueueDone QueueFenced ListQueues ListQueuesAnswer DescribeQueue DescribeQueueAnswer
        AlterQueue RedriveQueue QueueRedriven DeleteQueue InitialiseTransactions InitialiseTransactionsAnswer StageOffsets
        StageOffsetsAnswer EndTransaction EndTransactionAnswer SubscribeCommitted Passed
    )
}

fn description(settings: wire::Settings) -> wire::DescribeTopicAnswer {
    wire::DescribeTopicAnswer {
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
            conflated: 7,
        }],
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
    let frames = [
        wire::encode(CorrelationId(1), &hello),
        wire::encode(CorrelationId(2), &wire::Metadata { names: vec!["inputs".to_owned(), "states".to_owned()] }),
        wire::encode(
            CorrelationId(3),
            &wire::MetadataAnswer { catalog_version: 3, shards: 2, topics: vec![topic], is_cut: false },
        ),
        wire::encode(CorrelationId(4), &wire::CreateTopic { name: "inputs".to_owned(), partitions: 8, settings }),
        wire::encode(CorrelationId(5), &wire::FindOffset { topic: 4, partition: 1, start, isolation: 1 }),
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
        wire::encode(CorrelationId(9), &description(settings)),
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
