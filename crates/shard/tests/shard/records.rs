//! Batches in and out.

use bytes::Bytes;
use corelane_model::{
    CorrelationId, ErrorCode, ProducerEpoch, ProducerId, Sequence, StartAt, TopicClass, TopicSettings, WallMillis,
};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, split_batch};
use corelane_wire::{
    CreateTopic, CreateTopicAnswer, Credit, DurableEnds, FrameKind, Produce, ProduceAnswer, ProduceAnswers, Push,
    Settings, Subscribe, SubscribeAnswer, SubscriptionEnded, decode, encode_with,
};

use crate::world::{Client, World, frame_of};

/// A batch of these values, without a producer id.
pub(crate) fn batch(values: &[&str]) -> Bytes {
    batch_of(
        values,
        ProducerStamp { producer_id: ProducerId::NONE, producer_epoch: ProducerEpoch(0), base_sequence: Sequence(0) },
    )
}

pub(crate) fn batch_of(values: &[&str], stamp: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.push(WallMillis(1), None, Some(value.as_bytes()), &[]).expect("a small record fits");
    }
    builder.finish(stamp)
}

pub(crate) fn memory_topic() -> TopicSettings {
    TopicSettings { class: TopicClass::Memory, retention_bytes: Some(1 << 20), ..TopicSettings::default() }
}

impl World {
    pub(crate) fn create(&mut self, client: Client, name: &str, partitions: u32) -> u64 {
        self.create_with(client, name, partitions, TopicSettings::default())
    }

    pub(crate) fn create_with(&mut self, client: Client, name: &str, partitions: u32, settings: TopicSettings) -> u64 {
        let create = CreateTopic { name: name.to_owned(), partitions, settings: Settings::from(settings) };
        let answer: CreateTopicAnswer = self.ask(client, &create).expect("the topic is fine");
        answer.topic
    }

    /// Sends a batch with `stored`; its correlation id is `correlation`.
    pub(crate) fn produce(&mut self, client: Client, topic: u64, partition: u32, correlation: u64, batch: Bytes) {
        let body = Produce { topic, partition, acks: 1 };
        let frame = frame_of(encode_with(CorrelationId(correlation), &body, vec![batch]));
        self.send_frame(client, frame);
    }

    /// Outcomes that have come, taken out: correlation id, and base offset or code.
    pub(crate) fn outcomes(&mut self, client: Client) -> Vec<(u64, Result<u64, ErrorCode>)> {
        let answers = self.take::<ProduceAnswers>(client).into_iter().flat_map(|frame| frame.answers);
        answers
            .map(|ProduceAnswer { correlation, base_offset, code, .. }| {
                (correlation, if code == 0 { Ok(base_offset) } else { Err(ErrorCode::from_wire(code)) })
            })
            .collect()
    }

    /// Durable ends that have come, taken out: topic, partition, end.
    pub(crate) fn ends(&mut self, client: Client) -> Vec<(u64, u32, u64)> {
        let frames = self.take::<DurableEnds>(client);
        frames.into_iter().flat_map(|frame| frame.ends).map(|end| (end.topic, end.partition, end.end)).collect()
    }

    pub(crate) fn subscribe(
        &mut self,
        client: Client,
        subscription: u64,
        topic: u64,
        partition: u32,
        start: StartAt,
        credit: u64,
    ) -> Result<SubscribeAnswer, (ErrorCode, String)> {
        self.ask(client, &Subscribe { subscription, topic, partition, start: start.into(), credit })
    }

    pub(crate) fn credit(&mut self, client: Client, subscription: u64, bytes: u64) {
        self.send(client, &Credit { subscription, bytes });
    }

    /// Records that were pushed to a subscription, taken out: offset and value.
    pub(crate) fn pushed(&mut self, client: Client, subscription: u64) -> Vec<(u64, String)> {
        let mut records = Vec::new();
        let mut others = std::collections::VecDeque::new();
        for (slot, frame) in std::mem::take(&mut self.inbox(client).pushes) {
            let Some(push) = decode::<Push>(&frame).ok().filter(|push| push.subscription == subscription) else {
                others.push_back((slot, frame));
                continue;
            };
            let mut run = frame.attachment.clone();
            while let Some(bytes) = split_batch(&mut run).expect("batches are whole") {
                let batch = RecordBatch::parse(bytes).expect("batches are sound");
                assert!(batch.head().end_offset().0 <= push.high_watermark, "a record above the high watermark");
                for record in &batch {
                    let value = String::from_utf8(record.value.expect("tests write values").to_vec());
                    records.push((record.offset.0, value.expect("tests write text")));
                }
            }
        }
        self.inbox(client).pushes = others;
        records
    }

    /// Subscriptions that ended by themselves, taken out.
    pub(crate) fn ended(&mut self, client: Client) -> Vec<(u64, ErrorCode, String)> {
        assert!(self.take::<SubscriptionEnded>(client).is_empty(), "ends come behind pushes");
        let pushes = &mut self.inbox(client).pushes;
        let (ends, rest) = std::mem::take(pushes)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, frame)| frame.head.kind == FrameKind::SubscriptionEnded);
        *pushes = rest.into();
        let ends = ends.iter().map(|(_, frame)| decode::<SubscriptionEnded>(frame).expect("a frame of its kind"));
        ends.map(|end| (end.subscription, ErrorCode::from_wire(end.code), end.text)).collect()
    }
}
