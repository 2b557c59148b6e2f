//! A model of a broker that keeps the rules a client may count on, and nothing more: it recognises a producer's latest
//! batches in a partition, forgets what is not stored when it crashes, and answers each frame once.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use corelane_client_core::OutStream;
use corelane_model::limits::PRODUCER_BATCHES_MAX;
use corelane_model::{CorrelationId, ErrorCode, Now, TopicClass, TopicSettings};
use corelane_record::{RecordBatch, SealedBatch, Stamp, stamp};
use corelane_wire::{
    CreateTopic, CreateTopicAnswer, Credit, DurableEnd, DurableEnds, FindOffset, FindOffsetAnswer, Frame, FrameKind,
    Hello, JoinQueue, JoinQueueAnswer, Metadata, MetadataAnswer, OutFrame, Produce, ProduceAnswer, ProduceAnswers,
    ProduceMany, ProducerIdAnswer, Push, QueueAck, QueueDone, QueueNack, Refusal, RequestProducerId, Subscribe,
    SubscribeAnswer, SubscribeCommitted, SubscriptionEnded, TopicMetadata, Unsubscribe, Welcome, decode, encode,
    encode_with,
};

use crate::coordinator::Coordinator;

/// A batch in a partition's log.
#[derive(Clone, Debug)]
pub(crate) struct LogBatch {
    pub(crate) producer: (u64, u16),
    pub(crate) sequence: u32,
    pub(crate) base: u64,
    pub(crate) values: Vec<u64>,
    pub(crate) bytes: Bytes,
}

impl LogBatch {
    pub(crate) fn end(&self) -> u64 {
        self.base + self.values.len() as u64
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) batches: Vec<LogBatch>,
    pub(crate) start: u64,
    pub(crate) durable: u64,
    /// The end of all that ever was, for topics in memory.
    pub(crate) floor: u64,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.batches.last().map_or(self.floor, LogBatch::end)
    }

    fn append(&mut self, batch: &SealedBatch) -> Result<u64, ErrorCode> {
        let head = batch.head();
        let id = (head.producer_id.0, head.producer_epoch.0);
        let (sequence, count) = (head.base_sequence.0, head.record_count as usize);
        let mine: Vec<&LogBatch> = self.batches.iter().filter(|known| known.producer.0 == id.0).collect();
        let newest = mine.iter().map(|known| known.producer.1).max();
        match newest {
            Some(epoch) if id.1 < epoch => return Err(ErrorCode::ProducerFenced),
            Some(epoch) if id.1 == epoch => {
                let last: Vec<&&LogBatch> =
                    mine.iter().filter(|known| known.producer == id).rev().take(PRODUCER_BATCHES_MAX).collect();
                if let Some(same) = last.iter().find(|known| known.sequence == sequence && known.values.len() == count)
                {
                    return Ok(same.base);
                }
                let expected = last.first().map_or(0, |last| last.sequence + u32::try_from(last.values.len()).unwrap());
                if sequence != expected {
                    return Err(ErrorCode::OutOfSequence);
                }
            }
            Some(_) if sequence != 0 => return Err(ErrorCode::OutOfSequence),
            None if sequence != 0 => return Err(ErrorCode::UnknownProducer),
            Some(_) | None => {}
        }
        let base = self.end();
        let mut bytes = batch.bytes().to_vec();
        let given = Stamp { base_offset: corelane_model::Offset(base), ..zero_stamp() };
        stamp(&mut bytes[..corelane_record::BATCH_HEAD_BYTES], given);
        let bytes = Bytes::from(bytes);
        let records = RecordBatch::parse(bytes.clone()).expect("the client sends whole batches");
        let value = |value: Option<&[u8]>| u64::from_le_bytes(value.unwrap()[..8].try_into().unwrap());
        let values = records.iter().map(|record| value(record.value)).collect();
        self.batches.push(LogBatch { producer: id, sequence, base, values, bytes });
        Ok(base)
    }
}

fn zero_stamp() -> Stamp {
    Stamp {
        base_offset: corelane_model::Offset(0),
        append_timestamp: corelane_model::WallMillis(7),
        leader_epoch: corelane_model::LeaderEpoch(0),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) id: u64,
    pub(crate) settings: TopicSettings,
    pub(crate) logs: Vec<Log>,
}

#[derive(Clone, Debug)]
struct Reader {
    topic: u64,
    partition: u32,
    next: u64,
    credit: u64,
}

/// What a connection is to the broker.
#[derive(Clone, Debug, Default)]
struct Session {
    is_greeted: bool,
    /// Partitions whose durable end it wants to hear of, and what it was told.
    interests: BTreeMap<(u64, u32), u64>,
    readers: BTreeMap<u64, Reader>,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) incarnation: u64,
    pub(crate) shards: u16,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) token: String,
    /// Produce frames are refused with these codes, first come, first served.
    pub(crate) refusals: Vec<ErrorCode>,
    /// Batches that were refused as out of sequence.
    pub(crate) out_of_sequence: u32,
    /// Subscriptions are taken, but nothing can be read: each ends with `Busy`. How often that was.
    pub(crate) is_disk_failing: bool,
    pub(crate) failed_reads: u32,
    /// How often somebody asked for committed records.
    pub(crate) committed_readers: u32,
    /// Bundles that came.
    pub(crate) bundles: u32,
    /// Frames with verdicts that are not answered, with their connections; and all that leases were named in.
    pub(crate) verdicts: VecDeque<(u64, CorrelationId)>,
    pub(crate) leases_named: u64,
    /// The coordinator of the one group that there is, and the time as it sees it.
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) now: Now,
    next_id: u64,
    sessions: BTreeMap<u64, Session>,
}

impl Broker {
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            incarnation: 1,
            shards,
            topics: BTreeMap::new(),
            is_disk_failing: false,
            failed_reads: 0,
            committed_readers: 0,
            token: String::new(),
            refusals: Vec::new(),
            out_of_sequence: 0,
            bundles: 0,
            verdicts: VecDeque::new(),
            leases_named: 0,
            coordinator: None,
            now: Now::default(),
            next_id: 1,
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn create(&mut self, name: &str, partitions: usize, class: TopicClass) {
        self.next_id += 1;
        let settings = TopicSettings { class, ..TopicSettings::default() };
        let topic = Topic { id: self.next_id, settings, logs: vec![Log::default(); partitions] };
        self.topics.insert(name.to_owned(), topic);
    }

    pub(crate) fn log(&mut self, name: &str, partition: usize) -> &mut Log {
        &mut self.topics.get_mut(name).unwrap().logs[partition]
    }

    pub(crate) fn owner(&self, partition: u32) -> u8 {
        u8::try_from(partition % u32::from(self.shards)).unwrap()
    }

    /// Everything in memory becomes durable.
    pub(crate) fn sync(&mut self) {
        for log in self.topics.values_mut().flat_map(|topic| &mut topic.logs) {
            log.durable = log.end();
        }
    }

    /// Dies and comes back: what was not durable is gone.
    pub(crate) fn crash(&mut self) {
        self.incarnation += 1;
        self.sessions.clear();
        let now = self.now;
        self.coordinator.iter_mut().for_each(|coordinator| coordinator.crash(now));
        for topic in self.topics.values_mut() {
            for log in &mut topic.logs {
                match topic.settings.class {
                    TopicClass::Durable => log.batches.retain(|batch| batch.end() <= log.durable),
                    TopicClass::Memory | TopicClass::Latest => {
                        log.floor = log.end() + 1000;
                        log.start = log.floor;
                        log.batches.clear();
                    }
                }
            }
        }
    }

    pub(crate) fn forget_session(&mut self, connection: u64) {
        self.sessions.remove(&connection);
    }

    /// One frame of a connection that was made for `shard`; the answers follow.
    pub(crate) fn handle(&mut self, connection: u64, shard: u8, stream: OutStream, frame: &Frame) -> Vec<OutFrame> {
        let correlation = frame.head.correlation;
        let session = self.sessions.entry(connection).or_default();
        if !session.is_greeted {
            return vec![self.greet(connection, shard, frame)];
        }
        let answer = match frame.head.kind {
            FrameKind::Metadata => encode(correlation, &self.metadata(&decode::<Metadata>(frame).unwrap())),
            FrameKind::RequestProducerId => {
                let asked = decode::<RequestProducerId>(frame).unwrap();
                let answer = if asked.producer == 0 {
                    self.next_id += 1;
                    ProducerIdAnswer { producer: self.next_id, epoch: 0 }
                } else {
                    ProducerIdAnswer { producer: asked.producer, epoch: asked.epoch + 1 }
                };
                encode(correlation, &answer)
            }
            FrameKind::Produce => {
                assert!(matches!(stream, OutStream::Produce(_)), "produce frames have streams of their own");
                let Produce { topic, partition, acks } = decode::<Produce>(frame).unwrap();
                return vec![self.produce(
                    connection,
                    (topic, partition),
                    acks,
                    correlation.0,
                    frame.attachment.clone(),
                )];
            }
            FrameKind::ProduceMany => return self.produce_many(connection, stream, frame),
            FrameKind::CreateTopic => {
                let asked = decode::<CreateTopic>(frame).unwrap();
                if self.topics.contains_key(&asked.name) {
                    refusal(correlation, ErrorCode::TopicExists)
                } else {
                    let settings = asked.settings.to_model().unwrap();
                    self.create(&asked.name, asked.partitions as usize, settings.class);
                    encode(correlation, &CreateTopicAnswer { topic: self.next_id, catalog_version: self.next_id })
                }
            }
            FrameKind::FindOffset => self.find_offset(frame),
            FrameKind::Subscribe => return self.subscribe(connection, frame),
            FrameKind::SubscribeCommitted => return self.subscribe_committed(connection, frame),
            FrameKind::Credit => {
                let credit = decode::<Credit>(frame).unwrap();
                if let Some(reader) = self.sessions.get_mut(&connection).unwrap().readers.get_mut(&credit.subscription)
                {
                    reader.credit += credit.bytes;
                }
                return Vec::new();
            }
            FrameKind::Unsubscribe => {
                let ended = decode::<Unsubscribe>(frame).unwrap();
                self.sessions.get_mut(&connection).unwrap().readers.remove(&ended.subscription);
                return Vec::new();
            }
            FrameKind::JoinGroup
            | FrameKind::GroupHeartbeat
            | FrameKind::GiveUp
            | FrameKind::LeaveGroup
            | FrameKind::CommitOffsets => {
                self.coordinator.as_mut().unwrap().handle(self.now, connection, frame);
                return Vec::new();
            }
            _ => return self.handle_of_queue(connection, frame),
        };
        vec![answer]
    }

    /// Verdicts are answered when the test says so.
    fn handle_of_queue(&mut self, connection: u64, frame: &Frame) -> Vec<OutFrame> {
        let correlation = frame.head.correlation;
        let leases = match frame.head.kind {
            FrameKind::JoinQueue => {
                return vec![encode(correlation, &self.join_queue(&decode::<JoinQueue>(frame).unwrap()))];
            }
            FrameKind::LeaveQueue => return vec![encode(correlation, &QueueDone { reserved: 0 })],
            FrameKind::QueueCredit => return Vec::new(),
            FrameKind::QueueAck => decode::<QueueAck>(frame).unwrap().leases,
            FrameKind::QueueNack => decode::<QueueNack>(frame).unwrap().leases,
            kind => panic!("a {kind:?} frame from a client"),
        };
        self.leases_named += leases.iter().map(|range| u64::from(range.count)).sum::<u64>();
        self.verdicts.push_back((connection, correlation));
        Vec::new()
    }

    fn join_queue(&self, asked: &JoinQueue) -> JoinQueueAnswer {
        JoinQueueAnswer {
            topic: self.topics[&asked.topic].id,
            partitions: 1,
            settings: asked.settings.clone(),
            session_timeout_ms: asked.session_timeout_ms,
            is_new: false,
        }
    }

    fn find_offset(&self, frame: &Frame) -> OutFrame {
        let asked = decode::<FindOffset>(frame).unwrap();
        let Some(topic) = self.topics.values().find(|topic| topic.id == asked.topic) else {
            return refusal(frame.head.correlation, ErrorCode::UnknownTopic);
        };
        let log = &topic.logs[asked.partition as usize];
        let answer = FindOffsetAnswer { offset: log.end(), log_start: log.start, high_watermark: log.end() };
        encode(frame.head.correlation, &answer)
    }

    fn greet(&mut self, connection: u64, shard: u8, frame: &Frame) -> OutFrame {
        let hello = decode::<Hello>(frame).expect("hello comes first");
        if hello.token != self.token {
            return refusal(frame.head.correlation, ErrorCode::Unauthenticated);
        }
        self.sessions.get_mut(&connection).unwrap().is_greeted = true;
        let welcome = Welcome {
            version: 1,
            incarnation: self.incarnation,
            shards: self.shards,
            shard,
            catalog_version: self.next_id,
            frame_bytes_max: corelane_model::limits::FRAME_BYTES_MAX,
            batch_bytes_max: corelane_model::limits::BATCH_BYTES_MAX,
            wall_ms: 0,
        };
        encode(frame.head.correlation, &welcome)
    }

    fn metadata(&self, asked: &Metadata) -> MetadataAnswer {
        let is_asked = |name: &String| asked.names.is_empty() || asked.names.contains(name);
        let topics = self.topics.iter().filter(|(name, _)| is_asked(name)).map(|(name, topic)| TopicMetadata {
            name: name.clone(),
            topic: topic.id,
            settings: topic.settings.into(),
            shards: (0..u32::try_from(topic.logs.len()).unwrap()).map(|index| self.owner(index)).collect(),
        });
        MetadataAnswer { catalog_version: self.next_id, shards: self.shards, topics: topics.collect(), is_cut: false }
    }

    fn produce_many(&mut self, connection: u64, stream: OutStream, frame: &Frame) -> Vec<OutFrame> {
        assert!(matches!(stream, OutStream::Produce(_)), "produce frames have streams of their own");
        let ProduceMany { acks, topics, partitions, lengths, correlations } = decode(frame).unwrap();
        assert!(1 < lengths.len(), "one batch leaves as a produce frame");
        assert_eq!([topics.len(), partitions.len(), correlations.len()], [lengths.len(); 3]);
        let mut rest = frame.attachment.clone();
        let mut answers = Vec::new();
        for at in 0..lengths.len() {
            let batch = rest.split_to(lengths[at] as usize);
            answers.push(self.produce(connection, (topics[at], partitions[at]), acks, correlations[at], batch));
        }
        assert!(rest.is_empty(), "a bundle is its batches");
        self.bundles += 1;
        answers
    }

    fn produce(
        &mut self,
        connection: u64,
        (id, partition): (u64, u32),
        acks: u8,
        correlation: u64,
        bytes: Bytes,
    ) -> OutFrame {
        let batch = SealedBatch::parse(bytes).expect("the client sends whole batches");
        let result = if self.refusals.is_empty() {
            match self.topics.values_mut().find(|topic| topic.id == id) {
                None => Err(ErrorCode::UnknownTopic),
                Some(topic) => topic.logs[partition as usize].append(&batch),
            }
        } else {
            Err(self.refusals.remove(0))
        };
        self.out_of_sequence += u32::from(result == Err(ErrorCode::OutOfSequence));
        if acks == 1 && result.is_ok() {
            let session = self.sessions.get_mut(&connection).unwrap();
            // Interest begins anew with each batch, so that a durable end that is there already is told too.
            session.interests.insert((id, partition), 0);
        }
        let answer = ProduceAnswer {
            correlation,
            base_offset: *result.as_ref().unwrap_or(&0),
            timestamp_ms: 7,
            code: result.err().map_or(0, ErrorCode::to_wire),
        };
        encode(CorrelationId(0), &ProduceAnswers { answers: vec![answer], texts: Vec::new() })
    }

    /// Durable ends that a connection has not heard of.
    pub(crate) fn durable_ends(&mut self, connection: u64) -> Option<OutFrame> {
        let session = self.sessions.get_mut(&connection)?;
        let mut ends = Vec::new();
        for (&(topic, partition), told) in &mut session.interests {
            let Some(known) = self.topics.values().find(|known| known.id == topic) else { continue };
            let end = known.logs[partition as usize].durable;
            if *told < end {
                *told = end;
                ends.push(DurableEnd { topic, partition, end });
            }
        }
        (!ends.is_empty()).then(|| encode(CorrelationId(0), &DurableEnds { ends }))
    }

    fn subscribe(&mut self, connection: u64, frame: &Frame) -> Vec<OutFrame> {
        self.begin_reader(connection, frame.head.correlation, &decode::<Subscribe>(frame).unwrap())
    }

    /// Here nothing is of a transaction: a test says itself what was passed.
    fn subscribe_committed(&mut self, connection: u64, frame: &Frame) -> Vec<OutFrame> {
        let SubscribeCommitted { subscription, topic, partition, start, credit } = decode(frame).unwrap();
        self.committed_readers += 1;
        let asked = Subscribe { subscription, topic, partition, start, credit };
        self.begin_reader(connection, frame.head.correlation, &asked)
    }

    fn begin_reader(&mut self, connection: u64, correlation: CorrelationId, asked: &Subscribe) -> Vec<OutFrame> {
        let Some(topic) = self.topics.values().find(|topic| topic.id == asked.topic) else {
            return vec![refusal(correlation, ErrorCode::UnknownTopic)];
        };
        let log = &topic.logs[asked.partition as usize];
        let next = match asked.start.kind {
            0 => log.start,
            1 => log.end(),
            _ => asked.start.value,
        };
        if next < log.start || log.end() < next {
            return vec![refusal(correlation, ErrorCode::OffsetOutOfRange)];
        }
        let answer = SubscribeAnswer { offset: next, log_start: log.start, high_watermark: log.end() };
        let reader = Reader { topic: asked.topic, partition: asked.partition, next, credit: asked.credit };
        self.sessions.get_mut(&connection).unwrap().readers.insert(asked.subscription, reader);
        vec![encode(correlation, &answer)]
    }

    /// At most one push for each subscription of a connection, within its credit.
    pub(crate) fn pushes(&mut self, connection: u64) -> Vec<OutFrame> {
        let Some(session) = self.sessions.get_mut(&connection) else { return Vec::new() };
        let mut frames = Vec::new();
        if self.is_disk_failing {
            for (subscription, _) in std::mem::take(&mut session.readers) {
                let body = SubscriptionEnded {
                    subscription,
                    code: ErrorCode::Busy.to_wire(),
                    range: None,
                    text: String::new(),
                };
                frames.push(encode(CorrelationId(0), &body));
                self.failed_reads += 1;
            }
            return frames;
        }
        for (&subscription, reader) in &mut session.readers {
            let Some(topic) = self.topics.values().find(|topic| topic.id == reader.topic) else { continue };
            let log = &topic.logs[reader.partition as usize];
            let Some(batch) = log.batches.iter().find(|batch| reader.next < batch.end()) else { continue };
            let is_visible = topic.settings.class == TopicClass::Memory || batch.end() <= log.durable;
            let len = batch.bytes.len() as u64;
            if is_visible && len <= reader.credit {
                reader.credit -= len;
                reader.next = batch.end();
                let push = Push { subscription, high_watermark: log.end() };
                frames.push(encode_with(CorrelationId(0), &push, vec![batch.bytes.clone()]));
            }
        }
        frames
    }
}

fn refusal(correlation: CorrelationId, code: ErrorCode) -> OutFrame {
    encode(correlation, &Refusal { code: code.to_wire(), text: format!("{code:?}") })
}
