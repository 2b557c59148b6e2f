//! A whole shard that serves one connection: whatever bytes the connection's streams carry.

use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{JOURNAL_FILES_MIN, SESSION_DATA_STREAMS_MAX};
use corelane_model::{ConnectionKey, CorrelationId, MonotonicNanos, Now, ShardId, TopicSettings, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};
use corelane_shard::{Effect, Event, OutStream, Shard, ShardConfig};
use corelane_wire as wire;
use corelane_wire::{FRAME_HEAD_BYTES, Frame, FrameDecoder, FrameHead, FrameKind, OutFrame};

use super::Target;
use crate::network::carry;
use crate::scenario::DiskFaults;
use crate::{Disk, Random};

pub(super) const TARGET: Target = Target {
    name: "session_ops",
    about: "a shard with a topic, and a connection that sends anything, before hello or after",
    body,
    seeds,
    repair,
};

const CONNECTION: ConnectionKey = ConnectionKey(1);
/// Rounds that one frame may lead to.
const ROUNDS_MAX: u32 = 200;

/// The first byte says whether hello and a topic come first, and where the stream is cut into chunks.
fn body(input: &[u8]) -> bool {
    let Some((&first, stream)) = input.split_first() else { return false };
    let mut bench = Bench::new();
    if first & 1 == 0 {
        bench.greet();
    }
    let mut decoder = FrameDecoder::default();
    for chunk in stream.chunks(usize::from(first) * 16 + 64) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.poll_frame() {
                Ok(Some(frame)) => bench.take(Event::Frame { connection: CONNECTION, frame }),
                Ok(None) => break,
                Err(error) => {
                    bench.take(Event::Garbage { connection: CONNECTION, error });
                    return 0 < bench.answers;
                }
            }
            if bench.is_closed {
                return 0 < bench.answers;
            }
        }
    }
    bench.take(Event::Disconnected { connection: CONNECTION });
    0 < bench.answers
}

/// One shard on a disk that never fails.
struct Bench {
    shard: Shard,
    disk: Disk,
    now: Now,
    is_closed: bool,
    /// Answers that are no refusals.
    answers: u32,
}

impl Bench {
    fn new() -> Self {
        let config = ShardConfig {
            journal_files: JOURNAL_FILES_MIN,
            journal_file_bytes: 128 << 10,
            memory_bytes: 64 << 20,
            ..ShardConfig::first_start(ShardId(0), 1, 7)
        };
        let mut bench = Self {
            shard: Shard::new(config),
            disk: Disk::new(Random::new(1), DiskFaults::default()),
            now: Now { monotonic: MonotonicNanos(1), wall: WallMillis(1_700_000_000_000) },
            is_closed: false,
            answers: 0,
        };
        bench.run();
        bench.take(Event::Connected { connection: CONNECTION });
        bench
    }

    /// Says hello and creates topic 1.
    fn greet(&mut self) {
        for frame in [wire::encode(CorrelationId(1), &hello()), wire::encode(CorrelationId(2), &create("inputs"))] {
            self.take(Event::Frame { connection: CONNECTION, frame: carry(frame) });
        }
        assert_eq!(self.answers, 2, "a good hello and a good topic are answered");
        self.answers = 0;
    }

    fn take(&mut self, event: Event) {
        self.shard.handle(self.now, event);
        self.run();
    }

    /// Rounds until nothing is due within a millisecond.
    fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.shard.finish_round(self.now);
            let mut done = Vec::new();
            while let Some(effect) = self.shard.poll_effect() {
                match effect {
                    Effect::File(effect) => {
                        let (io, _) = self.disk.issue(effect);
                        done.extend(self.disk.complete(self.now.monotonic, io));
                    }
                    Effect::Send { frame, stream, .. } => self.look_at(&carry(frame), stream),
                    Effect::Close { .. } => self.is_closed = true,
                    Effect::Mesh { .. } | Effect::Admin { .. } | Effect::Ready | Effect::Drained => {}
                    Effect::Failed { text } => panic!("a shard on a good disk fails: {text}"),
                }
            }
            self.now.monotonic = self.now.monotonic.after(Duration::from_micros(20));
            let soon = self.now.monotonic.after(Duration::from_millis(1));
            if done.is_empty() && self.shard.next_deadline().is_none_or(|deadline| soon < deadline) {
                return;
            }
            for (done, _) in done {
                self.shard.handle(self.now, Event::File(done));
            }
        }
    }

    fn look_at(&mut self, frame: &Frame, stream: OutStream) {
        if let OutStream::Push(slot) = stream {
            assert!(u32::from(slot) < SESSION_DATA_STREAMS_MAX, "push stream {slot} is over the limit");
        }
        self.answers += u32::from(frame.head.kind != FrameKind::Refusal);
    }
}

fn hello() -> wire::Hello {
    wire::Hello { version_min: 1, version_max: 1, session: (1, 2), client: "fuzz".to_owned(), token: String::new() }
}

fn create(name: &str) -> wire::CreateTopic {
    let settings = wire::Settings::from(TopicSettings::default());
    wire::CreateTopic { name: name.to_owned(), partitions: 2, settings }
}

fn produce(correlation: u64, sequence: u32) -> OutFrame {
    let mut builder = BatchBuilder::new(Compression::None);
    let pushed = builder.push(WallMillis(1_700_000_000_000), Some(b"player"), Some(b"a value"), &[]);
    assert!(pushed.is_ok(), "a small record fits");
    let stamp = ProducerStamp {
        producer_id: corelane_model::ProducerId(1),
        producer_epoch: corelane_model::ProducerEpoch(0),
        base_sequence: corelane_model::Sequence(sequence),
    };
    let body = wire::Produce { topic: 1, partition: 1, acks: 1 };
    wire::encode_with(CorrelationId(correlation), &body, vec![builder.finish(stamp)])
}

/// Two batches for two partitions in one frame.
fn bundle(correlation: u64, sequence: u32) -> OutFrame {
    let batches = [produce(0, sequence), produce(0, sequence + 1)].map(|frame| frame.attachment.concat());
    let lengths = batches.iter().map(|batch| u32::try_from(batch.len()).unwrap_or(u32::MAX)).collect();
    let body = wire::ProduceMany {
        acks: 1,
        topics: vec![1, 1],
        partitions: vec![1, 1],
        lengths,
        correlations: vec![correlation, correlation + 1],
    };
    wire::encode_with(CorrelationId(0), &body, vec![Bytes::from(batches.concat())])
}

fn seeds() -> Vec<Vec<u8>> {
    let start = wire::Start { kind: 0, value: 0 };
    let settings = Some(wire::Settings::from(TopicSettings::default()));
    let name = || "inputs".to_owned();
    let frames = [
        produce(10, 0),
        produce(11, 1),
        produce(12, 1),
        bundle(30, 2),
        wire::encode(
            CorrelationId(13),
            &wire::Subscribe { subscription: 5, topic: 1, partition: 1, start, credit: 4096 },
        ),
        wire::encode(CorrelationId(0), &wire::Credit { subscription: 5, bytes: 1 << 20 }),
        wire::encode(CorrelationId(14), &wire::FindOffset { topic: 1, partition: 0, start, isolation: 1 }),
        wire::encode(CorrelationId(15), &wire::DescribeTopic { name: name(), from: 0, most: 10 }),
        wire::encode(CorrelationId(16), &wire::AlterTopic { name: name(), partitions: Some(5), settings }),
        wire::encode(CorrelationId(17), &wire::TruncatePartition { topic: 1, partition: 1, before: 1 }),
        wire::encode(CorrelationId(18), &wire::RequestProducerId { producer: 0, epoch: 0 }),
        wire::encode(CorrelationId(19), &wire::Metadata { names: vec![name()] }),
        wire::encode(CorrelationId(0), &wire::Unsubscribe { subscription: 5 }),
        wire::encode(CorrelationId(20), &wire::Ping { payload: 1 }),
        wire::encode(CorrelationId(21), &create("states")),
        wire::encode(CorrelationId(22), &wire::DeleteTopic { name: name() }),
        produce(23, 4),
    ];
    let frames = frames.map(|frame| frame.into_pieces().flatten().collect::<Vec<u8>>());
    let greeting = wire::encode(CorrelationId(1), &hello()).into_pieces().flatten().collect::<Vec<u8>>();
    let mut inputs = vec![[vec![1], greeting, frames[11].clone()].concat(), [vec![254], frames.concat()].concat()];
    inputs
        .extend(frames[..16].iter().map(|frame| [vec![0], frame.clone()].concat()).filter(|input| is_answered(input)));
    inputs
}

/// Whether a request is answered when it comes alone.
fn is_answered(input: &[u8]) -> bool {
    body(input)
}

/// Puts right the checksums of the batches that frames carry.
fn repair(input: &mut [u8]) {
    let mut at = 1;
    while let Some(head) = input.get(at..).and_then(|rest| rest.first_chunk::<FRAME_HEAD_BYTES>()) {
        let Ok(head) = FrameHead::parse(head) else { return };
        let body = at + FRAME_HEAD_BYTES;
        let end = input.len().min(body + head.length as usize);
        let attachment = end.min(body + head.body_length as usize);
        super::record_batch::repair(&mut input[attachment..end]);
        at = end;
    }
}
