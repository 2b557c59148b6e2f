//! A server without a broker behind it: bare QUIC echo, ingest and egress by the shards' own loop.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use corelane_model::limits::{
    BATCH_BYTES_MAX, FRAME_BYTES_MAX, PUSH_BYTES, SESSION_DATA_STREAMS_MAX, SESSION_SEND_BYTES_MAX,
};
use corelane_model::{
    ConnectionKey, CorrelationId, ErrorCode, LeaderEpoch, MonotonicNanos, Now, Offset, ShardId, TopicClass,
    TopicSettings,
};
use corelane_record::{BATCH_HEAD_BYTES, BatchBuilder, Compression, ProducerStamp, SealedBatch, Stamp};
use corelane_shard::{Effect, Event, OutStream};
use corelane_wire::{
    Body, Credit, FindOffset, FindOffsetAnswer, Frame, FrameKind, Hello, Metadata, MetadataAnswer,
    PROTOCOL_VERSION_MAX, Ping, Pong, ProduceAnswer, ProduceAnswers, ProduceMany, ProducerIdAnswer, Push, Refusal,
    Settings, Subscribe, SubscribeAnswer, TopicMetadata, Unsubscribe, Welcome, decode, encode, encode_with,
};

use crate::cluster::{Handle, StartError, World, start_machines};
use crate::machine::Machine;
use crate::socket::ShardSocket;
use crate::spin::Spin;

/// Name of the one topic that the floor knows.
const TOPIC_NAME: &str = "floor";
/// Its id.
const TOPIC: u64 = 1;
/// Bytes of one connection's pushes that are queued before those that went are counted: enough to fill any packet train.
const ROUND_BYTES: u64 = 1 << 20;
/// Memory for connections: a floor has nothing else to hold.
const CONNECTION_BYTES: u64 = 1 << 30;
/// Offset that no subscription reaches: the source never ends.
const ENDLESS: u64 = u64::MAX >> 1;

const _: () = assert!(ROUND_BYTES < SESSION_SEND_BYTES_MAX);

/// What the server needs.
#[derive(Debug)]
pub struct FloorServerConfig {
    /// A directory that can be written to; only glommio's probe file is put there.
    pub directory: PathBuf,
    /// The core of each shard.
    pub cpus: Vec<usize>,
    /// One socket for each shard.
    pub sockets: Vec<ShardSocket>,
    /// Certificate, key and application protocol.
    pub tls: Arc<rustls::ServerConfig>,
    /// Whether and how the shards spin.
    pub spin: Spin,
    /// Partitions that the topic `floor` pretends to have.
    pub partitions: u32,
    /// Records of each pushed batch.
    pub batch_records: usize,
    /// Bytes of each pushed record's value.
    pub value_bytes: usize,
}

/// Starts a server that speaks as much of the protocol as an SDK needs to connect, and does nothing with records:
///
/// * echo: `Ping` on the control stream is answered by `Pong`;
/// * ingest: batches are counted and dropped, and answered by one `ProduceAnswers` a round and connection;
/// * egress: `Subscribe` to a partition of the memory topic `floor` pushes batches made beforehand, newly stamped, as long
///   as there is credit.
///
/// # Errors
/// As [`crate::Cluster::start`].
pub fn serve(config: FloorServerConfig) -> Result<Handle, StartError> {
    let FloorServerConfig { directory, cpus, sockets, tls, spin, partitions, batch_records, value_bytes } = config;
    let world = World {
        data_dir: directory,
        cpus,
        tls,
        spin,
        reset_key: [0; 32],
        seed: [7; 32],
        connection_bytes: CONNECTION_BYTES,
    };
    let count = sockets.len();
    let template = template(batch_records, value_bytes);
    let makers = sockets
        .iter()
        .map(|socket| {
            let (shard, template) = (socket.shard, template.clone());
            move || FloorMachine::new(shard, count, partitions, template)
        })
        .collect();
    start_machines(&world, sockets, makers)
}

/// A batch of `records` records of `value_bytes` bytes, or of as many as fit into one.
fn template(records: usize, value_bytes: usize) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![0x5a; value_bytes];
    let timestamp = corelane_model::WallMillis(0);
    for _ in 0..records.max(1) {
        if builder.push(timestamp, None, Some(&value), &[]).is_err() {
            break;
        }
    }
    assert!(!builder.is_empty(), "a value of {value_bytes} bytes does not fit into a batch");
    SealedBatch::parse(builder.finish(ProducerStamp::default())).expect("a batch of ours is whole")
}

struct Subscription {
    slot: u8,
    next: u64,
    credit: u64,
}

#[derive(Default)]
struct Peer {
    answers: Vec<ProduceAnswer>,
    subscriptions: BTreeMap<u64, Subscription>,
    is_congested: bool,
}

/// The machine that stands in for a shard.
struct FloorMachine {
    shard: ShardId,
    shards: usize,
    partitions: u32,
    template: SealedBatch,
    payload: Bytes,
    peers: BTreeMap<ConnectionKey, Peer>,
    effects: VecDeque<Effect>,
    /// Whether a subscription could push more than this round did.
    has_more: bool,
    offset: u64,
    now: Now,
}

impl FloorMachine {
    fn new(shard: ShardId, shards: usize, partitions: u32, template: SealedBatch) -> Self {
        let payload = template.bytes().slice(BATCH_HEAD_BYTES..);
        Self {
            shard,
            shards,
            partitions,
            template,
            payload,
            peers: BTreeMap::new(),
            effects: VecDeque::from([Effect::Ready]),
            has_more: false,
            offset: 0,
            now: Now::default(),
        }
    }

    fn answer<B: Body>(&mut self, connection: ConnectionKey, correlation: CorrelationId, body: &B) {
        let frame = encode(correlation, body);
        self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame });
    }

    fn on_frame(&mut self, connection: ConnectionKey, frame: &Frame) {
        let correlation = frame.head.correlation;
        match frame.head.kind {
            FrameKind::Ping => {
                if let Ok(Ping { payload }) = decode(frame) {
                    self.answer(connection, correlation, &Pong { payload });
                }
            }
            FrameKind::Produce => self.on_produce(connection, correlation.0),
            FrameKind::ProduceMany => {
                if let Ok(ProduceMany { correlations, .. }) = decode(frame) {
                    correlations.into_iter().for_each(|correlation| self.on_produce(connection, correlation));
                }
            }
            FrameKind::Hello => {
                if decode::<Hello>(frame).is_ok() {
                    self.answer(connection, correlation, &self.welcome());
                }
            }
            FrameKind::Metadata => {
                if decode::<Metadata>(frame).is_ok() {
                    self.answer(connection, correlation, &self.metadata());
                }
            }
            FrameKind::RequestProducerId => {
                let answer = ProducerIdAnswer { producer: 1 + u64::from(self.shard.0), epoch: 1 };
                self.answer(connection, correlation, &answer);
            }
            FrameKind::FindOffset => {
                if decode::<FindOffset>(frame).is_ok() {
                    let answer = FindOffsetAnswer { offset: 0, log_start: 0, high_watermark: ENDLESS };
                    self.answer(connection, correlation, &answer);
                }
            }
            FrameKind::Subscribe => self.on_subscribe(connection, frame),
            FrameKind::Credit => self.on_credit(connection, frame),
            FrameKind::Unsubscribe => {
                if let (Ok(Unsubscribe { subscription }), Some(peer)) = (decode(frame), self.peers.get_mut(&connection))
                {
                    peer.subscriptions.remove(&subscription);
                }
            }
            _ => {
                let code = ErrorCode::UnexpectedFrame.to_wire();
                let text = "a floor has no such request".to_owned();
                self.answer(connection, correlation, &Refusal { code, text });
            }
        }
    }

    fn on_produce(&mut self, connection: ConnectionKey, correlation: u64) {
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        peer.answers.push(ProduceAnswer {
            correlation,
            base_offset: self.offset,
            timestamp_ms: self.now.wall.0,
            code: 0,
        });
        self.offset += 1;
    }

    fn on_subscribe(&mut self, connection: ConnectionKey, frame: &Frame) {
        let Ok(subscribe) = decode::<Subscribe>(frame) else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let slot = u8::try_from(peer.subscriptions.len() % (SESSION_DATA_STREAMS_MAX as usize)).unwrap_or(0);
        let subscription = Subscription { slot, next: 0, credit: subscribe.credit };
        peer.subscriptions.insert(subscribe.subscription, subscription);
        let answer = SubscribeAnswer { offset: 0, log_start: 0, high_watermark: ENDLESS };
        self.answer(connection, frame.head.correlation, &answer);
    }

    fn on_credit(&mut self, connection: ConnectionKey, frame: &Frame) {
        let Ok(Credit { subscription, bytes }) = decode(frame) else { return };
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        if let Some(subscription) = peer.subscriptions.get_mut(&subscription) {
            subscription.credit = subscription.credit.saturating_add(bytes);
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            version: PROTOCOL_VERSION_MAX,
            incarnation: 1,
            shards: u16::try_from(self.shards).expect("at most 256 shards"),
            shard: self.shard.0,
            catalog_version: 1,
            frame_bytes_max: FRAME_BYTES_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            wall_ms: self.now.wall.0,
        }
    }

    fn metadata(&self) -> MetadataAnswer {
        let settings = TopicSettings { class: TopicClass::Memory, ..TopicSettings::default() };
        let owner = |partition| u8::try_from(partition as usize % self.shards).expect("at most 256 shards");
        let topic = TopicMetadata {
            name: TOPIC_NAME.to_owned(),
            topic: TOPIC,
            settings: Settings::from(settings),
            shards: (0..self.partitions).map(owner).collect(),
        };
        let shards = u16::try_from(self.shards).expect("at most 256 shards");
        MetadataAnswer { catalog_version: 1, shards, topics: vec![topic], is_cut: false }
    }

    /// Pushes what credit allows, a bounded number of bytes for each connection and round.
    fn push(&mut self) {
        self.has_more = false;
        let batch_bytes = self.template.bytes().len() as u64;
        let records = u64::from(self.template.head().record_count);
        for (&connection, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.is_congested) {
            let mut room = ROUND_BYTES;
            for (&id, subscription) in &mut peer.subscriptions {
                while batch_bytes <= subscription.credit.min(room) {
                    let mut attachment = Vec::new();
                    let mut bytes = 0;
                    while batch_bytes <= subscription.credit && (bytes == 0 || bytes + batch_bytes <= PUSH_BYTES.into())
                    {
                        let stamp = Stamp {
                            base_offset: Offset(subscription.next),
                            append_timestamp: self.now.wall,
                            leader_epoch: LeaderEpoch(1),
                        };
                        attachment.push(Bytes::copy_from_slice(&self.template.stamped_head(stamp)));
                        attachment.push(self.payload.clone());
                        subscription.next += records;
                        subscription.credit -= batch_bytes;
                        bytes += batch_bytes;
                    }
                    room = room.saturating_sub(bytes);
                    let body = Push { subscription: id, high_watermark: ENDLESS };
                    let frame = encode_with(CorrelationId(0), &body, attachment);
                    let stream = OutStream::Push(subscription.slot);
                    self.effects.push_back(Effect::Send { connection, stream, frame });
                }
                self.has_more |= batch_bytes <= subscription.credit;
            }
        }
    }
}

impl Machine for FloorMachine {
    fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Connected { connection } => {
                self.peers.insert(connection, Peer::default());
            }
            Event::Frame { connection, frame } => self.on_frame(connection, &frame),
            Event::Congested { connection } | Event::Relieved { connection } => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.is_congested = matches!(event, Event::Congested { .. });
                }
            }
            Event::Disconnected { connection } => {
                self.peers.remove(&connection);
            }
            Event::Drain => self.effects.push_back(Effect::Drained),
            Event::Garbage { .. } | Event::File(_) | Event::Mesh { .. } | Event::Admin { .. } | Event::Deadline => {}
        }
    }

    fn finish_round(&mut self, _now: Now) {
        for (&connection, peer) in &mut self.peers {
            if !peer.answers.is_empty() {
                let body = ProduceAnswers { answers: std::mem::take(&mut peer.answers), texts: Vec::new() };
                let frame = encode(CorrelationId(0), &body);
                self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame });
            }
        }
        self.push();
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<MonotonicNanos> {
        self.has_more.then_some(MonotonicNanos(0))
    }
}
