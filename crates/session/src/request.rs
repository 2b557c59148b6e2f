//! Frames as typed requests.

use bytes::Bytes;
use corelane_model::limits::{
    FRAME_BODY_BYTES_MAX, PRODUCE_BUNDLE_BATCHES_MAX, SUBSCRIPTION_CREDIT_BYTES_DEFAULT, SUBSCRIPTION_CREDIT_BYTES_MAX,
    TOPIC_NAME_BYTES_MAX,
};
use corelane_model::{
    Acks, CorrelationId, ErrorCode, Isolation, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, StartAt,
    SubscriptionId, TopicId, TopicSettings,
};
use corelane_wire::{
    AlterTopic, CreateTopic, Credit, DeleteTopic, DescribeTopic, FindOffset, Frame, FrameKind, ListGroups, ListQueues,
    Metadata, Produce, ProduceMany, RequestProducerId, Settings, Start, Subscribe, SubscribeCommitted,
    TruncatePartition, Unsubscribe, access, decode,
};

use crate::group::parse_group;
use crate::queue::parse_queue;
use crate::transaction::parse_transaction;
use crate::{GroupRequest, QueueRequest, Refused, TransactionRequest};

/// One record batch for one partition. The batch's bytes are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Ties the answer.
    pub correlation: CorrelationId,
    /// Where it goes.
    pub partition: PartitionId,
    /// Whether the producer wants to hear of the durable end.
    pub acks: Acks,
    /// The batch.
    pub batch: Bytes,
}

/// What a client asks of the shard. Every one with a correlation id is answered exactly once, through
/// [`crate::Session::answer`], [`crate::Session::refuse`] or [`crate::Session::answer_produce`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Append a batch.
    Produce(ProduceRequest),
    /// Append the batches of a bundle, in this order, each with an outcome of its own. There may be none left after the
    /// budget; then the outcomes are gathered already.
    ProduceMany(Vec<ProduceRequest>),
    /// Which topics there are.
    Metadata {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Names to look for; none asks for all.
        names: Vec<String>,
    },
    /// Create a topic.
    CreateTopic {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Its name, not checked yet.
        name: String,
        /// How many partitions.
        partitions: u32,
        /// Its settings, bounds not checked yet.
        settings: TopicSettings,
    },
    /// Change a topic.
    AlterTopic {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Its name.
        name: String,
        /// The new number of partitions.
        partitions: Option<u32>,
        /// The new settings, bounds not checked yet.
        settings: Option<TopicSettings>,
    },
    /// Delete a topic.
    DeleteTopic {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Its name.
        name: String,
    },
    /// Raise a partition's log start.
    Truncate {
        /// Ties the answer.
        correlation: CorrelationId,
        /// The partition.
        partition: PartitionId,
        /// The new log start; `None` means the durable end.
        before: Option<Offset>,
    },
    /// A topic in full.
    DescribeTopic {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Its name.
        name: String,
        /// The first partition to describe.
        from: u32,
        /// How many at most.
        most: u32,
    },
    /// A producer id.
    ProducerId {
        /// Ties the answer.
        correlation: CorrelationId,
        /// The id whose epoch is to be raised, with its epoch; `None` asks for a new one.
        raise: Option<(ProducerId, ProducerEpoch)>,
    },
    /// The offset for a start position.
    FindOffset {
        /// Ties the answer.
        correlation: CorrelationId,
        /// The partition.
        partition: PartitionId,
        /// The position.
        start: StartAt,
        /// For which readers.
        isolation: Isolation,
    },
    /// Push a partition's batches. The session has room for it and the id is free; it counts as taken from
    /// [`crate::Session::open_subscription`] on.
    Subscribe {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Chosen by the client.
        subscription: SubscriptionId,
        /// The partition.
        partition: PartitionId,
        /// Where to start.
        start: StartAt,
        /// Bytes that may be pushed before more credit comes; never 0.
        credit: u64,
        /// Which records it wants.
        isolation: Isolation,
    },
    /// More bytes may be pushed. Not answered.
    Credit {
        /// The subscription.
        subscription: SubscriptionId,
        /// How many more.
        bytes: u64,
    },
    /// Push no more. Not answered.
    Unsubscribe {
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// Something of one transactional id.
    Transaction(TransactionRequest),
    /// Something of one consumer group.
    Group(GroupRequest),
    /// Something of one shared queue.
    Queue(QueueRequest),
    /// Which shared queues there are.
    ListQueues {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Queues after this one, as group and topic id.
        after: (String, u64),
        /// How many at most.
        most: u32,
    },
    /// Which consumer groups there are.
    ListGroups {
        /// Ties the answer.
        correlation: CorrelationId,
        /// Names after this one.
        after: String,
        /// How many at most.
        most: u32,
    },
}

/// Why a frame is no request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The request is refused, the connection goes on.
    Refuse(Refused),
    /// Batches are refused, each by its correlation id and with its bytes; the connection goes on.
    RefuseBatches(Vec<(CorrelationId, u64)>, Refused),
    /// The connection is of no more use.
    Close(Refused),
}

impl From<corelane_wire::BodyError> for NoRequest {
    fn from(error: corelane_wire::BodyError) -> Self {
        Self::Close(error.into())
    }
}

pub(crate) fn refuse(code: ErrorCode, text: impl Into<String>) -> NoRequest {
    NoRequest::Refuse(Refused::new(code, text))
}

/// What a frame asks for, its body checked.
pub(crate) fn parse_request(frame: Frame) -> Result<Request, NoRequest> {
    check_shape(&frame)?;
    let correlation = frame.head.correlation;
    match frame.head.kind {
        FrameKind::Produce => parse_produce(frame),
        FrameKind::ProduceMany => parse_bundle(&frame),
        FrameKind::Metadata => Ok(Request::Metadata { correlation, names: decode::<Metadata>(&frame)?.names }),
        FrameKind::CreateTopic | FrameKind::AlterTopic | FrameKind::DeleteTopic | FrameKind::DescribeTopic => {
            parse_topic(&frame)
        }
        FrameKind::TruncatePartition => {
            let TruncatePartition { topic, partition, before } = decode(&frame)?;
            let before = (before != u64::MAX).then_some(Offset(before));
            Ok(Request::Truncate { correlation, partition: partition_of(topic, partition), before })
        }
        FrameKind::RequestProducerId => {
            let RequestProducerId { producer, epoch } = decode(&frame)?;
            let raise = (producer != 0).then_some((ProducerId(producer), ProducerEpoch(epoch)));
            Ok(Request::ProducerId { correlation, raise })
        }
        FrameKind::FindOffset => {
            let FindOffset { topic, partition, start, isolation } = decode(&frame)?;
            let (partition, start) = (partition_of(topic, partition), start_of(start)?);
            Ok(Request::FindOffset { correlation, partition, start, isolation: isolation_of(isolation)? })
        }
        FrameKind::Subscribe => parse_subscribe(correlation, &decode(&frame)?, Isolation::Uncommitted),
        FrameKind::SubscribeCommitted => {
            let SubscribeCommitted { subscription, topic, partition, start, credit } = decode(&frame)?;
            let subscribe = Subscribe { subscription, topic, partition, start, credit };
            parse_subscribe(correlation, &subscribe, Isolation::Committed)
        }
        FrameKind::Credit => {
            let Credit { subscription, bytes } = decode(&frame)?;
            Ok(Request::Credit { subscription: SubscriptionId(subscription), bytes })
        }
        FrameKind::Unsubscribe => {
            let Unsubscribe { subscription } = decode(&frame)?;
            Ok(Request::Unsubscribe { subscription: SubscriptionId(subscription) })
        }
        FrameKind::ListGroups => {
            let ListGroups { after, most } = decode(&frame)?;
            Ok(Request::ListGroups { correlation, after, most })
        }
        FrameKind::ListQueues => {
            let ListQueues { after, most } = decode(&frame)?;
            Ok(Request::ListQueues { correlation, after, most })
        }
        kind => match (parse_group(&frame)?, parse_queue(&frame)?, parse_transaction(&frame)?) {
            (Some(request), ..) => Ok(Request::Group(request)),
            (_, Some(request), _) => Ok(Request::Queue(request)),
            (.., Some(request)) => Ok(Request::Transaction(request)),
            (None, None, None) => Err(unexpected(kind)),
        },
    }
}

fn unexpected(kind: FrameKind) -> NoRequest {
    NoRequest::Close(Refused::new(
        ErrorCode::UnexpectedFrame,
        format!("a client may not send a frame of kind {kind:?} here"),
    ))
}

/// What holds for every frame of a client beyond its head.
pub(crate) fn check_shape(frame: &Frame) -> Result<(), NoRequest> {
    let head = &frame.head;
    if FRAME_BODY_BYTES_MAX < head.body_length {
        let text = format!("frame body of {} bytes is over the limit of {FRAME_BODY_BYTES_MAX}", head.body_length);
        return Err(NoRequest::Close(Refused::new(ErrorCode::FrameTooLarge, text)));
    }
    let carries_bytes = matches!(head.kind, FrameKind::Produce | FrameKind::ProduceMany | FrameKind::GiveUp);
    if !carries_bytes && !frame.attachment.is_empty() {
        let text = format!("a {:?} frame carries {} bytes beside its body", head.kind, frame.attachment.len());
        return Err(NoRequest::Close(Refused::new(ErrorCode::Malformed, text)));
    }
    Ok(())
}

const fn partition_of(topic: u64, partition: u32) -> PartitionId {
    PartitionId::new(TopicId(topic), PartitionIndex(partition))
}

fn start_of(start: Start) -> Result<StartAt, NoRequest> {
    start.to_model().ok_or_else(|| {
        refuse(ErrorCode::InvalidSetting, format!("start position of kind {} is not known; 0 to 3 are", start.kind))
    })
}

fn settings_of(settings: Settings) -> Result<TopicSettings, NoRequest> {
    settings.to_model().ok_or_else(|| {
        let (class, cleanup) = (settings.class, settings.cleanup);
        let text =
            format!("topic class {class} with cleanup {cleanup} is not known; classes 0 to 2 and cleanups 0 and 1 are");
        refuse(ErrorCode::InvalidSetting, text)
    })
}

/// A name may break the rules of names, but not be so long that carrying it to another shard costs anything.
fn name_of(name: String) -> Result<String, NoRequest> {
    if name.len() <= TOPIC_NAME_BYTES_MAX {
        return Ok(name);
    }
    let text = format!("topic name of {} bytes is over the limit of {TOPIC_NAME_BYTES_MAX} bytes", name.len());
    Err(refuse(ErrorCode::InvalidTopicName, text))
}

fn parse_produce(frame: Frame) -> Result<Request, NoRequest> {
    let body = access::<Produce>(&frame)?;
    let partition = partition_of(body.topic.to_native(), body.partition.to_native());
    let acks = acks_of(body.acks).map_err(|refused| {
        NoRequest::RefuseBatches(vec![(frame.head.correlation, frame.attachment.len() as u64)], refused)
    })?;
    Ok(Request::Produce(ProduceRequest {
        correlation: frame.head.correlation,
        partition,
        acks,
        batch: frame.attachment,
    }))
}

/// Only what holds together as a whole is a bundle: columns of one length, and batches that fill the attachment.
fn parse_bundle(frame: &Frame) -> Result<Request, NoRequest> {
    let body = access::<ProduceMany>(frame)?;
    let count = body.correlations.len();
    let lengths = [body.topics.len(), body.partitions.len(), body.lengths.len()];
    if count == 0 || PRODUCE_BUNDLE_BATCHES_MAX < count || lengths != [count; 3] {
        let text = format!(
            "a bundle has {count} correlation ids and {lengths:?} topics, partitions and lengths; it must have as many of \
             each, from 1 to {PRODUCE_BUNDLE_BATCHES_MAX}"
        );
        return Err(NoRequest::Close(Refused::new(ErrorCode::Malformed, text)));
    }
    let bytes = body.lengths.iter().map(|length| u64::from(length.to_native())).sum::<u64>();
    if bytes != frame.attachment.len() as u64 {
        let text = format!("the batches of a bundle have {bytes} bytes, its attachment has {}", frame.attachment.len());
        return Err(NoRequest::Close(Refused::new(ErrorCode::Malformed, text)));
    }
    let acks = acks_of(body.acks).map_err(|refused| {
        let batches = body.correlations.iter().zip(body.lengths.iter());
        let batches = batches.map(|(tie, length)| (CorrelationId(tie.to_native()), u64::from(length.to_native())));
        NoRequest::RefuseBatches(batches.collect(), refused)
    })?;
    let mut rest = frame.attachment.clone();
    let mut requests = Vec::with_capacity(count);
    for at in 0..count {
        requests.push(ProduceRequest {
            correlation: CorrelationId(body.correlations[at].to_native()),
            partition: partition_of(body.topics[at].to_native(), body.partitions[at].to_native()),
            acks,
            batch: rest.split_to(body.lengths[at].to_native() as usize),
        });
    }
    Ok(Request::ProduceMany(requests))
}

fn acks_of(acks: u8) -> Result<Acks, Refused> {
    match acks {
        0 => Ok(Acks::Received),
        1 => Ok(Acks::Stored),
        other => {
            let text = format!("acks of {other} are not known; 0 (received) and 1 (stored) are");
            Err(Refused::new(ErrorCode::InvalidSetting, text))
        }
    }
}

fn parse_topic(frame: &Frame) -> Result<Request, NoRequest> {
    let correlation = frame.head.correlation;
    Ok(match frame.head.kind {
        FrameKind::CreateTopic => {
            let CreateTopic { name, partitions, settings } = decode(frame)?;
            let settings = settings_of(settings)?;
            Request::CreateTopic { correlation, name: name_of(name)?, partitions, settings }
        }
        FrameKind::AlterTopic => {
            let AlterTopic { name, partitions, settings } = decode(frame)?;
            let settings = settings.map(settings_of).transpose()?;
            Request::AlterTopic { correlation, name: name_of(name)?, partitions, settings }
        }
        FrameKind::DeleteTopic => {
            Request::DeleteTopic { correlation, name: name_of(decode::<DeleteTopic>(frame)?.name)? }
        }
        kind => {
            assert_eq!(kind, FrameKind::DescribeTopic, "only frames about topics come here");
            let DescribeTopic { name, from, most } = decode(frame)?;
            Request::DescribeTopic { correlation, name: name_of(name)?, from, most }
        }
    })
}

fn isolation_of(number: u8) -> Result<Isolation, NoRequest> {
    match number {
        0 => Ok(Isolation::Uncommitted),
        1 => Ok(Isolation::Committed),
        number => {
            Err(refuse(ErrorCode::InvalidSetting, format!("isolation {number} is not known; 0 all, 1 committed are")))
        }
    }
}

fn parse_subscribe(
    correlation: CorrelationId,
    subscribe: &Subscribe,
    isolation: Isolation,
) -> Result<Request, NoRequest> {
    let Subscribe { subscription, topic, partition, start, credit } = *subscribe;
    if SUBSCRIPTION_CREDIT_BYTES_MAX < credit {
        let text = format!("credit of {credit} bytes is over the limit of {SUBSCRIPTION_CREDIT_BYTES_MAX} bytes");
        return Err(refuse(ErrorCode::InvalidSetting, text));
    }
    Ok(Request::Subscribe {
        correlation,
        isolation,
        subscription: SubscriptionId(subscription),
        partition: partition_of(topic, partition),
        start: start_of(start)?,
        credit: if credit == 0 { SUBSCRIPTION_CREDIT_BYTES_DEFAULT } else { credit },
    })
}
