//! Connections between clients and shards. What travels are frames, not packets: TLS draws randomness that we do not
//! control, and QUIC has a harness of its own.
//!
//! Frames of one stream arrive in order, those of different streams in any. A connection that is cut takes down what is
//! under way, and each end hears of it in its own time. Whatever passes is looked at by the checker of answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use corelane_model::{ConnectionKey, MonotonicNanos, Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameDecoder, FrameKind, OutFrame};

use crate::{Oracle, Random, Violation};

/// A connection, unique in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// Which way a frame goes, and on which of the connection's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    ClientControl,
    ClientProduce(u8),
    ShardControl,
    ShardPush(u8),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    /// The client's key for it.
    pub(crate) client_key: ConnectionKey,
    pub(crate) shard: ShardId,
    /// The shard's key for it; `None` until the handshake is over there.
    pub(crate) shard_key: Option<ConnectionKey>,
    /// The client knows that it stands.
    pub(crate) is_established: bool,
    /// Nothing more enters it.
    is_cut: bool,
    /// When the latest frame of each stream arrives.
    latest: BTreeMap<Lane, MonotonicNanos>,
    /// Until when nothing arrives of what enters, towards the client and towards the shard.
    held_up: [MonotonicNanos; 2],
    /// Requests of the client that are not answered.
    open: BTreeSet<u64>,
    /// Subscriptions that are not answered: the partition, and the durable end that was told when the request left.
    subscribing: BTreeMap<u64, (PartitionId, Offset)>,
    /// Durable ends that were told on it.
    ends: BTreeMap<PartitionId, Offset>,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    delay_max: Duration,
    links: BTreeMap<LinkId, Link>,
    by_client: BTreeMap<(usize, ConnectionKey), LinkId>,
    by_shard: BTreeMap<(ShardId, ConnectionKey), LinkId>,
    next_link: u64,
    next_shard_key: u64,
}

impl Network {
    pub(crate) const fn new(random: Random, delay_max: Duration) -> Self {
        Self {
            random,
            delay_max,
            links: BTreeMap::new(),
            by_client: BTreeMap::new(),
            by_shard: BTreeMap::new(),
            next_link: 1,
            next_shard_key: 1,
        }
    }

    /// A client begins to connect.
    pub(crate) fn connect(&mut self, client: usize, client_key: ConnectionKey, shard: ShardId) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let state = Link {
            client,
            client_key,
            shard,
            shard_key: None,
            is_established: false,
            is_cut: false,
            latest: BTreeMap::new(),
            held_up: [MonotonicNanos(0); 2],
            open: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            ends: BTreeMap::new(),
        };
        self.links.insert(link, state);
        self.by_client.insert((client, client_key), link);
        link
    }

    /// The handshake is over at the shard; its key for the connection.
    pub(crate) fn accept(&mut self, link: LinkId) -> Option<ConnectionKey> {
        let state = self.links.get_mut(&link).filter(|state| !state.is_cut)?;
        let key = ConnectionKey(self.next_shard_key);
        self.next_shard_key += 1;
        state.shard_key = Some(key);
        self.by_shard.insert((state.shard, key), link);
        Some(key)
    }

    /// The client knows that the connection stands.
    pub(crate) fn establish(&mut self, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.is_established = true;
        }
    }

    pub(crate) fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link)
    }

    pub(crate) fn of_client(&self, client: usize, key: ConnectionKey) -> Option<LinkId> {
        self.by_client.get(&(client, key)).copied()
    }

    pub(crate) fn of_shard(&self, shard: ShardId, key: ConnectionKey) -> Option<LinkId> {
        self.by_shard.get(&(shard, key)).copied()
    }

    /// Every connection that something can enter.
    pub(crate) fn live(&self) -> Vec<LinkId> {
        self.links.iter().filter(|(_, state)| !state.is_cut).map(|(link, _)| *link).collect()
    }

    /// A delay for something that is not a frame.
    pub(crate) fn delay(&mut self) -> Duration {
        let most = u64::try_from(self.delay_max.as_micros()).expect("a delay is short");
        Duration::from_micros(self.random.skewed(5..most + 6))
    }

    /// When a frame that enters now arrives; `None` when the connection takes nothing more.
    pub(crate) fn enter(&mut self, now: MonotonicNanos, link: LinkId, lane: Lane) -> Option<MonotonicNanos> {
        let delay = self.delay();
        let state = self.links.get_mut(&link).filter(|state| !state.is_cut)?;
        let latest = state.latest.entry(lane).or_insert(now);
        let held_up = state.held_up[usize::from(lane.is_from_client())];
        *latest = (*latest).max(now.max(held_up).after(delay));
        Some(*latest)
    }

    /// What enters a connection from now on does not arrive before a moment, towards the client or towards the shard.
    pub(crate) fn hold_up(&mut self, link: LinkId, [to_client, to_shard]: [MonotonicNanos; 2]) {
        if let Some(state) = self.links.get_mut(&link) {
            let [client, shard] = state.held_up;
            state.held_up = [client.max(to_client), shard.max(to_shard)];
        }
    }

    /// Nothing more enters. Says when the last frame towards the client, or towards the shard, arrives.
    pub(crate) fn cut(&mut self, link: LinkId) -> Option<[MonotonicNanos; 2]> {
        let state = self.links.get_mut(&link).filter(|state| !state.is_cut)?;
        state.is_cut = true;
        let last = |lanes: &[bool]| {
            let arrivals = state.latest.iter().filter(|(lane, _)| lanes[usize::from(lane.is_from_client())]);
            arrivals.map(|(_, moment)| *moment).max().unwrap_or_default()
        };
        Some([last(&[true, false]), last(&[false, true])])
    }

    /// The client forgets the connection.
    pub(crate) fn forget_at_client(&mut self, link: LinkId) {
        if let Some(state) = self.links.get(&link) {
            self.by_client.remove(&(state.client, state.client_key));
        }
        self.drop_if_forgotten(link);
    }

    /// The shard forgets the connection.
    pub(crate) fn forget_at_shard(&mut self, link: LinkId) {
        if let Some(state) = self.links.get(&link)
            && let Some(key) = state.shard_key
        {
            self.by_shard.remove(&(state.shard, key));
        }
        self.drop_if_forgotten(link);
    }

    /// All shards are gone: their keys name nothing any more.
    pub(crate) fn forget_shards(&mut self) {
        self.by_shard.clear();
    }

    fn drop_if_forgotten(&mut self, link: LinkId) {
        let Some(state) = self.links.get(&link) else { return };
        let at_client = self.by_client.contains_key(&(state.client, state.client_key));
        let at_shard = state.shard_key.is_some_and(|key| self.by_shard.contains_key(&(state.shard, key)));
        if !at_client && !at_shard && state.is_cut {
            self.links.remove(&link);
        }
    }

    /// A request enters a connection.
    pub(crate) fn check_request(&mut self, oracle: &Oracle, link: LinkId, frame: &Frame) {
        let Some(state) = self.links.get_mut(&link) else { return };
        if frame.head.kind == FrameKind::Subscribe {
            let body = wire::decode::<wire::Subscribe>(frame).expect("the client's frames are well formed");
            let partition = PartitionId::new(TopicId(body.topic), PartitionIndex(body.partition));
            state.subscribing.insert(frame.head.correlation.0, (partition, oracle.durable_end(partition)));
        }
        let correlations = match frame.head.kind {
            FrameKind::ProduceMany => {
                wire::decode::<wire::ProduceMany>(frame).expect("the client's frames are well formed").correlations
            }
            kind if is_request(kind) => vec![frame.head.correlation.0],
            _ => Vec::new(),
        };
        for correlation in correlations {
            let is_new = state.open.insert(correlation);
            assert!(is_new, "the client uses correlation {correlation} twice on one connection");
        }
    }

    /// A frame of the broker enters a connection: each request is answered once, and no durable end moves back.
    pub(crate) fn check_answer(&mut self, oracle: &mut Oracle, link: LinkId, frame: &Frame) -> Result<(), Violation> {
        let Some(state) = self.links.get_mut(&link) else { return Ok(()) };
        let connection = link.0;
        match frame.head.kind {
            FrameKind::ProduceAnswers => {
                let body = wire::decode::<wire::ProduceAnswers>(frame).expect("the broker's frames are well formed");
                for answer in &body.answers {
                    let correlation = answer.correlation;
                    if !state.open.remove(&correlation) {
                        return Err(Violation::AnsweredTwice { connection, correlation });
                    }
                }
            }
            FrameKind::DurableEnds => {
                let body = wire::decode::<wire::DurableEnds>(frame).expect("the broker's frames are well formed");
                for end in &body.ends {
                    let partition = PartitionId::new(TopicId(end.topic), PartitionIndex(end.partition));
                    let before = state.ends.entry(partition).or_default();
                    oracle.on_durable_end(partition, *before, Offset(end.end))?;
                    *before = Offset(end.end);
                }
            }
            kind if is_answer(kind) => {
                let correlation = frame.head.correlation.0;
                if !state.open.remove(&correlation) {
                    return Err(Violation::AnsweredTwice { connection, correlation });
                }
                if let Some((partition, told)) = state.subscribing.remove(&correlation)
                    && kind == FrameKind::SubscribeAnswer
                {
                    let body =
                        wire::decode::<wire::SubscribeAnswer>(frame).expect("the broker's frames are well formed");
                    oracle.on_end_found(partition, told, Offset(body.high_watermark))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Requests that are not answered on connections that are open.
    pub(crate) fn unanswered(&self) -> usize {
        self.links.values().filter(|state| !state.is_cut).map(|state| state.open.len()).sum()
    }
}

impl Lane {
    const fn is_from_client(self) -> bool {
        matches!(self, Self::ClientControl | Self::ClientProduce(_))
    }
}

/// A frame as the other end gets it.
pub(crate) fn carry(frame: OutFrame) -> Frame {
    let pieces = frame.into_pieces().collect::<Vec<_>>();
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from(pieces.concat()));
    let frame = decoder.poll_frame().expect("a machine sends frames").expect("whole frames");
    assert!(!decoder.is_inside_frame(), "a machine sends one frame at a time");
    frame
}

const fn is_request(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Hello
            | FrameKind::Ping
            | FrameKind::Metadata
            | FrameKind::CreateTopic
            | FrameKind::AlterTopic
            | FrameKind::DeleteTopic
            | FrameKind::TruncatePartition
            | FrameKind::DescribeTopic
            | FrameKind::RequestProducerId
            | FrameKind::FindOffset
            | FrameKind::Produce
            | FrameKind::Subscribe
            | FrameKind::SubscribeCommitted
            | FrameKind::InitialiseTransactions
            | FrameKind::EndTransaction
            | FrameKind::StageOffsets
            | FrameKind::JoinGroup
            | FrameKind::GroupHeartbeat
            | FrameKind::GiveUp
            | FrameKind::LeaveGroup
            | FrameKind::CommitOffsets
            | FrameKind::FetchOffsets
            | FrameKind::ResetOffsets
            | FrameKind::DrainGroup
            | FrameKind::ResumeGroup
            | FrameKind::DeleteGroup
            | FrameKind::JoinQueue
            | FrameKind::QueueAck
            | FrameKind::QueueNack
            | FrameKind::QueueExtend
            | FrameKind::LeaveQueue
            | FrameKind::DescribeQueue
            | FrameKind::AlterQueue
            | FrameKind::RedriveQueue
    )
}

const fn is_answer(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Welcome
            | FrameKind::Pong
            | FrameKind::MetadataAnswer
            | FrameKind::CreateTopicAnswer
            | FrameKind::AlterTopicAnswer
            | FrameKind::TopicDone
            | FrameKind::DescribeTopicAnswer
            | FrameKind::ProducerIdAnswer
            | FrameKind::FindOffsetAnswer
            | FrameKind::SubscribeAnswer
            | FrameKind::InitialiseTransactionsAnswer
            | FrameKind::EndTransactionAnswer
            | FrameKind::StageOffsetsAnswer
            | FrameKind::JoinGroupAnswer
            | FrameKind::GroupDone
            | FrameKind::ListGroupsAnswer
            | FrameKind::DescribeGroupAnswer
            | FrameKind::FetchOffsetsAnswer
            | FrameKind::JoinQueueAnswer
            | FrameKind::LeasesAnswer
            | FrameKind::QueueDone
            | FrameKind::QueueRedriven
            | FrameKind::ListQueuesAnswer
            | FrameKind::DescribeQueueAnswer
            | FrameKind::Refusal
    )
}

/// Keeps messages between two shards in their order.
#[derive(Debug, Default)]
pub(crate) struct MeshOrder {
    latest: BTreeMap<(ShardId, ShardId), MonotonicNanos>,
}

impl MeshOrder {
    /// When a message that should arrive at `moment` does arrive.
    pub(crate) fn enter(&mut self, moment: MonotonicNanos, from: ShardId, to: ShardId) -> MonotonicNanos {
        let latest = self.latest.entry((from, to)).or_insert(moment);
        *latest = (*latest).max(moment);
        *latest
    }
}
