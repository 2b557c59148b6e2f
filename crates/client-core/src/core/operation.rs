//! Requests of the application.

use corelane_model::{CatalogVersion, ConnectionKey, ErrorCode, Isolation, Now, Offset, Retry, TopicId, TopicName};
use corelane_wire::{
    AlterTopic, AlterTopicAnswer, CreateTopic, CreateTopicAnswer, DeleteTopic, DescribeTopic, DescribeTopicAnswer,
    FindOffset, FindOffsetAnswer, Frame, Metadata, MetadataAnswer, TopicDone, TruncatePartition, decode,
};

use super::ClientCore;
use crate::request::{Asker, preferred_shard};
use crate::timers::Timer;
use crate::topics::Known;
use crate::{Answer, Effect, OperationKey, OutStream, Request, RequestError, TopicInfo};

impl ClientCore {
    /// Asks the broker something; [`Effect::Done`] follows. A request that only reads is repeated after a lost
    /// connection; one that changes something fails then, because it may have been carried out.
    pub fn request(&mut self, now: Now, request: Request) -> OperationKey {
        let deadline = now.monotonic.after(self.settings.request_timeout);
        if let Some((topic, _)) = request.target() {
            self.topics.need(topic);
        }
        let operation = self.requests.add_operation(request, deadline);
        if self.is_closed {
            self.finish_operation(operation, Err(RequestError::Closed));
        } else {
            self.timers.at(deadline, Timer::Requests);
            self.has_chores = true;
        }
        operation
    }

    /// Nobody waits for the answer any more; no [`Effect::Done`] follows.
    pub fn cancel(&mut self, operation: OperationKey) {
        if let Some(operation) = self.requests.operations.remove(&operation)
            && let Some(correlation) = operation.correlation
        {
            self.requests.forget(correlation);
        }
    }

    /// Sends what waits for a connection, for knowledge about a topic, or for another attempt.
    pub(super) fn send_operations(&mut self, now: Now) {
        let is_waiting = |key: &OperationKey, core: &Self| {
            let operation = &core.requests.operations[key];
            operation.correlation.is_none() && operation.retry_at <= now.monotonic
        };
        let waiting: Vec<OperationKey> =
            self.requests.operations.keys().filter(|key| is_waiting(key, self)).copied().collect();
        for key in waiting {
            let request = self.requests.operations[&key].request.clone();
            match self.resolve_target(&request) {
                Ok(None) if request.target().is_some() => {}
                Ok(info) => self.send_operation(key, &request, info.as_ref()),
                Err(error) => self.finish_operation(key, Err(error)),
            }
        }
    }

    /// The topic that a request is about, if it needs to be known and is.
    fn resolve_target(&self, request: &Request) -> Result<Option<TopicInfo>, RequestError> {
        let Some((name, partition)) = request.target() else { return Ok(None) };
        match self.topics.known(name) {
            Known::Nothing => Ok(None),
            Known::Missing => Err(RequestError::UnknownTopic { topic: name.clone() }),
            Known::Topic(info) if info.shard(partition).is_none() => {
                let partitions = info.partitions();
                Err(RequestError::UnknownPartition { topic: name.clone(), partition, partitions })
            }
            Known::Topic(info) => Ok(Some(info.clone())),
        }
    }

    fn send_operation(&mut self, key: OperationKey, request: &Request, info: Option<&TopicInfo>) {
        let Some(connection) = self.links.any_ready(preferred_shard(info, request)) else { return };
        let correlation = self.requests.add(connection, Asker::Operation(key));
        self.requests.operations.get_mut(&key).expect("the caller found it").correlation = Some(correlation);
        let topic = info.map_or(0, |info| info.topic.0);
        match request {
            Request::ListTopics { names } => {
                let names = names.iter().map(|name| name.as_str().to_owned()).collect();
                self.send_control(connection, correlation, &Metadata { names });
            }
            Request::CreateTopic { name, partitions, settings } => {
                let name = name.as_str().to_owned();
                let body = CreateTopic { name, partitions: *partitions, settings: (*settings).into() };
                self.send_control(connection, correlation, &body);
            }
            Request::AlterTopic { name, partitions, settings } => {
                let name = name.as_str().to_owned();
                let body = AlterTopic { name, partitions: *partitions, settings: settings.map(Into::into) };
                self.send_control(connection, correlation, &body);
            }
            Request::DeleteTopic { name } => {
                self.send_control(connection, correlation, &DeleteTopic { name: name.as_str().to_owned() });
            }
            Request::TruncatePartition { partition, before, .. } => {
                let before = before.map_or(u64::MAX, |offset| offset.0);
                self.send_control(
                    connection,
                    correlation,
                    &TruncatePartition { topic, partition: partition.0, before },
                );
            }
            Request::DescribeTopic { name, from, most } => {
                let body = DescribeTopic { name: name.as_str().to_owned(), from: from.0, most: *most };
                self.send_control(connection, correlation, &body);
            }
            Request::Group(request) => {
                self.send_frame(connection, OutStream::Control, request.encode(correlation));
            }
            Request::Queue(request) => {
                self.send_frame(connection, OutStream::Control, request.encode(correlation));
            }
            Request::Transaction(request) => {
                self.send_frame(connection, OutStream::Control, request.encode(correlation));
            }
            Request::Append { partition, batch, .. } => {
                self.send_append(connection, correlation, info.expect("it has a target"), (*partition, batch));
            }
            Request::FindOffset { partition, start, isolation, .. } => {
                let isolation = u8::from(*isolation == Isolation::Committed);
                let body = FindOffset { topic, partition: partition.0, start: (*start).into(), isolation };
                self.send_control(connection, correlation, &body);
            }
        }
    }

    pub(super) fn on_operation_answer(&mut self, key: OperationKey, frame: &Frame) {
        let Some(operation) = self.requests.operations.get(&key) else { return };
        let result = read_answer(&operation.request, frame).ok_or(RequestError::Malformed);
        let changed = match &operation.request {
            Request::CreateTopic { name, .. } | Request::AlterTopic { name, .. } | Request::DeleteTopic { name } => {
                Some(name.clone())
            }
            _ => None,
        };
        if let Some(name) = changed.filter(|name| self.is_topic_used(name)) {
            self.topics.refresh(&name);
        }
        self.finish_operation(key, result);
    }

    pub(super) fn on_operation_refused(&mut self, now: Now, key: OperationKey, code: ErrorCode, text: String) {
        let is_ahead = matches!(code, ErrorCode::OutOfSequence | ErrorCode::UnknownProducer) && self.has_earlier(key);
        let Some(operation) = self.requests.operations.get_mut(&key) else { return };
        let may_repeat = match code.retry() {
            // The refusal says that nothing was done, but for a time-out within the broker.
            Retry::Later if waits_for_others(code) => false,
            Retry::Later => code != ErrorCode::TimedOut || operation.request.is_read(),
            Retry::Refresh => operation.request.target().is_some() && operation.attempts == 0,
            // The batch before it was put off: it goes again behind that one.
            Retry::Never => is_ahead,
            Retry::Close => false,
        };
        if !may_repeat {
            self.finish_operation(key, Err(RequestError::Refused { code, text }));
            return;
        }
        operation.correlation = None;
        let attempts = operation.attempts;
        operation.attempts = attempts.saturating_add(1);
        if code.retry() == Retry::Refresh
            && let Some((topic, _)) = operation.request.target()
        {
            let topic: TopicName = topic.clone();
            self.topics.refresh(&topic);
        }
        let retry_at = self.pause(now, attempts);
        self.timers.at(retry_at, Timer::Requests);
        if let Some(operation) = self.requests.operations.get_mut(&key) {
            operation.retry_at = retry_at;
        }
    }

    /// Whether a batch for the same partition that was taken earlier is not finished.
    fn has_earlier(&self, key: OperationKey) -> bool {
        let appends_to = |key| match self.requests.operations.get(&key).map(|operation| &operation.request) {
            Some(Request::Append { topic, partition, .. }) => Some((topic, *partition)),
            _ => None,
        };
        let Some(wanted) = appends_to(key) else { return false };
        self.requests.operations.range(..key).any(|(&earlier, _)| appends_to(earlier) == Some(wanted))
    }

    /// The connection broke before the answer.
    pub(super) fn on_operation_lost(&mut self, key: OperationKey) {
        let Some(operation) = self.requests.operations.get_mut(&key) else { return };
        if operation.request.is_read() {
            operation.correlation = None;
        } else {
            self.finish_operation(key, Err(RequestError::ConnectionLost));
        }
    }

    pub(super) fn expire_operations(&mut self, now: Now) {
        let is_over = |deadline| deadline <= now.monotonic;
        let over: Vec<OperationKey> =
            self.requests.operations.iter().filter(|(_, op)| is_over(op.deadline)).map(|(&key, _)| key).collect();
        for key in over {
            let was_sent = self.requests.operations[&key].correlation.is_some();
            self.finish_operation(key, Err(RequestError::TimedOut { was_sent }));
        }
    }

    pub(super) fn finish_operation(&mut self, operation: OperationKey, result: Result<Answer, RequestError>) {
        self.cancel(operation);
        self.effects.push_back(Effect::Done { operation, result: Box::new(result) });
    }

    /// The connection that a new conversation about a partition should use.
    pub(super) fn connection_for(
        &self,
        info: &TopicInfo,
        partition: corelane_model::PartitionIndex,
    ) -> Option<ConnectionKey> {
        self.links.ready(info.shard(partition)?)
    }
}

/// Whether a refusal lasts for as long as others like: members stay, a redrive goes on. Whoever asks is told at once.
const fn waits_for_others(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::GroupInUse | ErrorCode::GroupDraining | ErrorCode::QueueInUse | ErrorCode::RedriveRunning)
}

/// The answer that belongs to a request; `None` if the frame is anything else.
fn read_answer(request: &Request, frame: &Frame) -> Option<Answer> {
    Some(match request {
        Request::ListTopics { .. } => {
            let answer = decode::<MetadataAnswer>(frame).ok()?;
            Answer::Topics {
                catalog_version: CatalogVersion(answer.catalog_version),
                shards: answer.shards,
                topics: answer.topics.iter().map(TopicInfo::from_wire).collect::<Option<_>>()?,
                is_cut: answer.is_cut,
            }
        }
        Request::CreateTopic { .. } => {
            let answer = decode::<CreateTopicAnswer>(frame).ok()?;
            let catalog_version = CatalogVersion(answer.catalog_version);
            Answer::TopicCreated { topic: TopicId(answer.topic), catalog_version }
        }
        Request::AlterTopic { .. } => {
            let answer = decode::<AlterTopicAnswer>(frame).ok()?;
            let catalog_version = CatalogVersion(answer.catalog_version);
            Answer::TopicAltered { catalog_version, keys_moved: answer.keys_moved }
        }
        Request::DeleteTopic { .. } => decode::<TopicDone>(frame).ok().map(|_| Answer::TopicDeleted)?,
        Request::TruncatePartition { .. } => {
            Answer::Truncated { log_start: Offset(decode::<TopicDone>(frame).ok()?.log_start) }
        }
        Request::DescribeTopic { .. } => {
            let answer = decode::<DescribeTopicAnswer>(frame).ok()?;
            Answer::Topic {
                name: TopicName::parse(&answer.topic.name).ok()?,
                topic: TopicId(answer.topic.topic),
                settings: answer.topic.settings.to_model()?,
                partition_count: answer.partition_count,
                partitions: answer.partitions,
            }
        }
        Request::Group(request) => Answer::Group(request.read_answer(frame)?),
        Request::Queue(request) => Answer::Queue(request.read_answer(frame)?),
        Request::Transaction(request) => Answer::Transaction(request.read_answer(frame)?),
        // It is answered among the outcomes of batches.
        Request::Append { .. } => return None,
        Request::FindOffset { .. } => {
            let answer = decode::<FindOffsetAnswer>(frame).ok()?;
            Answer::Offset {
                offset: Offset(answer.offset),
                log_start: Offset(answer.log_start),
                high_watermark: Offset(answer.high_watermark),
            }
        }
    })
}
