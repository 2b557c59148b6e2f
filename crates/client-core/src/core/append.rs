//! Batches that the application made itself: one request and one answer each, once the batch is durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::{ConnectionKey, CorrelationId, ErrorCode, Now, Offset, PartitionId, PartitionIndex};
use corelane_record::BatchHead;
use corelane_wire::{Produce, encode_with};

use super::ClientCore;
use crate::request::Asker;
use crate::{Answer, OperationKey, OutStream, Request, RequestError, TopicInfo};

/// The stream that such batches leave on.
const APPEND_STREAM: u8 = 0;
/// The producer wants to hear of the durable end.
const ACKS_STORED: u8 = 1;

/// A batch that the broker has and that is not durable yet.
#[derive(Debug)]
struct Received {
    connection: ConnectionKey,
    partition: PartitionId,
    base_offset: Offset,
    end: Offset,
}

/// Batches between their answer and their durable end.
#[derive(Debug, Default)]
pub(super) struct Appends {
    received: BTreeMap<OperationKey, Received>,
}

impl ClientCore {
    pub(super) fn send_append(
        &mut self,
        connection: ConnectionKey,
        correlation: CorrelationId,
        info: &TopicInfo,
        (partition, batch): (PartitionIndex, &Bytes),
    ) {
        let body = Produce { topic: info.topic.0, partition: partition.0, acks: ACKS_STORED };
        let frame = encode_with(correlation, &body, vec![batch.clone()]);
        self.send_frame(connection, OutStream::Produce(APPEND_STREAM), frame);
    }

    /// The broker's word about a batch with this correlation id: its base offset, or why it was refused.
    pub(super) fn on_append_answer(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        correlation: CorrelationId,
        outcome: Result<Offset, (ErrorCode, String)>,
    ) {
        let Some(Asker::Operation(key)) = self.requests.take(connection, correlation) else { return };
        self.has_chores = true;
        match outcome {
            Err((code, text)) => self.on_operation_refused(now, key, code, text),
            Ok(base_offset) => {
                let Some(operation) = self.requests.operations.get(&key) else { return };
                let Request::Append { topic, partition, batch } = &operation.request else { return };
                let (Some(info), Ok(head)) = (self.topics.info(topic), BatchHead::parse(batch)) else {
                    return self.finish_operation(key, Err(RequestError::Malformed));
                };
                let partition = PartitionId::new(info.topic, *partition);
                let end = base_offset.advance(u64::from(head.offset_span));
                self.appends.received.insert(key, Received { connection, partition, base_offset, end });
            }
        }
    }

    /// A partition is durable up to an offset.
    pub(super) fn on_append_durable(&mut self, partition: PartitionId, end: Offset) {
        if self.appends.received.is_empty() {
            return;
        }
        let is_durable = |received: &Received| received.partition == partition && received.end <= end;
        let durable: Vec<_> = self.appends.received.extract_if(.., |_, received| is_durable(received)).collect();
        for (key, received) in durable {
            if self.requests.operations.contains_key(&key) {
                self.finish_operation(key, Ok(Answer::Appended { base_offset: received.base_offset }));
            }
        }
    }

    /// The connection is gone: what was not durable is sent again, and the broker knows it by its sequence if it has it.
    pub(super) fn release_appends(&mut self, connection: ConnectionKey) {
        let lost: Vec<_> =
            self.appends.received.extract_if(.., |_, received| received.connection == connection).collect();
        for (key, _) in lost {
            self.on_operation_lost(key);
        }
    }
}
