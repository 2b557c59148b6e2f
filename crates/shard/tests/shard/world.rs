//! Shards, their files in memory, and clients that are connections: everything at once and in a fixed order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use corelane_model::{ConnectionKey, CorrelationId, ErrorCode, MonotonicNanos, Now, ShardId, WallMillis};
use corelane_shard::{
    AdminAnswer, AdminId, AdminQuery, Effect, Event, MeshMessage, OutStream, Shard, ShardConfig, ShardStatus,
};
use corelane_storage::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome};
use corelane_wire::{
    Body, Frame, FrameDecoder, FrameKind, Hello, OutFrame, Push, PushMany, Welcome, decode, encode, encode_with,
};

/// Files of one shard. Writes are there at once; what was written since the last sync is not told apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<FileName, Vec<u8>>,
}

impl Disk {
    fn run(&mut self, effect: FileEffect) -> FileDone {
        let FileEffect { id, file, op, .. } = effect;
        let result = match op {
            FileOp::CreateZeroed { length } => {
                self.files.insert(file, vec![0; usize::try_from(length).expect("test files are small")]);
                Ok(FileOutcome::Done)
            }
            FileOp::CreateEmpty => {
                self.files.entry(file).or_default();
                Ok(FileOutcome::Done)
            }
            FileOp::Write { position, pieces } => {
                let bytes = pieces.concat();
                let at = usize::try_from(position).expect("test files are small");
                let held = self.files.entry(file).or_default();
                held.resize(held.len().max(at + bytes.len()), 0);
                held[at..at + bytes.len()].copy_from_slice(&bytes);
                Ok(FileOutcome::Written(bytes.len() as u64))
            }
            FileOp::Sync => Ok(FileOutcome::Done),
            FileOp::Read { position, length } => match self.files.get(&file) {
                Some(held) => {
                    let start = usize::try_from(position).expect("test files are small").min(held.len());
                    let end = (start + length as usize).min(held.len());
                    Ok(FileOutcome::Read(Bytes::copy_from_slice(&held[start..end])))
                }
                None => Err(FileError::NotFound),
            },
            FileOp::Delete => {
                self.files.remove(&file);
                Ok(FileOutcome::Done)
            }
            FileOp::Length => Ok(FileOutcome::Length(self.files.get(&file).map(|held| held.len() as u64))),
        };
        FileDone { id, result }
    }
}

impl Disk {
    /// Changes a byte in the middle of each segment that has bytes.
    pub(crate) fn damage_segments(&mut self) {
        let segments = self.files.iter_mut().filter(|(name, _)| matches!(name, FileName::Segment { .. }));
        for (_, bytes) in segments {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 1;
            }
        }
    }

    /// Changes a bit of each place of a segment that holds these bytes. How many places there were.
    pub(crate) fn damage_where(&mut self, held: &[u8]) -> usize {
        let segments = self.files.iter_mut().filter(|(name, _)| matches!(name, FileName::Segment { .. }));
        let damage = |bytes: &mut Vec<u8>| {
            let places: Vec<usize> =
                bytes.windows(held.len()).enumerate().filter(|(_, found)| *found == held).map(|(at, _)| at).collect();
            places.iter().for_each(|&at| bytes[at] ^= 1);
            places.len()
        };
        segments.map(|(_, bytes)| damage(bytes)).sum()
    }

    /// Writes other bytes of the same length into record batches of segments, as if the records had always been these. How
    /// many places there were.
    pub(crate) fn rewrite_segments(&mut self, from: &[u8], to: &[u8]) -> usize {
        let segments = self.files.iter_mut().filter(|(name, _)| matches!(name, FileName::Segment { .. }));
        segments.map(|(_, bytes)| rewrite_segment(bytes, from, to)).sum()
    }

    /// The segments of all disks, on each of so many new ones: every shard finds those of its partitions.
    pub(crate) fn merge_segments(disks: Vec<Self>, count: usize) -> Vec<Self> {
        let files = disks
            .into_iter()
            .flat_map(|disk| disk.files)
            .filter(|(name, _)| matches!(name, FileName::Segment { .. }))
            .collect();
        vec![Self { files }; count]
    }
}

/// docs/formats/segment.md, docs/formats/record-batch.md.
fn rewrite_segment(segment: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let u32_at =
        |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (mut places, mut at) = (0, 0);
    while at < segment.len() && segment[at..].starts_with(b"CLXT") {
        let (head, rest) = segment[at..].split_at_mut(96);
        let payload = &mut rest[..u32_at(head, 20)];
        let mut batch = 0;
        while batch < payload.len() {
            let end = batch + 80 + u32_at(payload, batch + 8);
            let (batch_head, columns) = payload[batch..end].split_at_mut(80);
            while let Some(place) = columns.windows(from.len()).position(|bytes| bytes == from) {
                columns[place..place + to.len()].copy_from_slice(to);
                places += 1;
            }
            batch_head[64..68].copy_from_slice(&crc32c::crc32c(columns).to_le_bytes());
            let crc = crc32c::crc32c(&batch_head[..76]);
            batch_head[76..80].copy_from_slice(&crc.to_le_bytes());
            batch = end;
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, payload);
        head[80..88].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&head[..92]);
        head[92..96].copy_from_slice(&crc.to_le_bytes());
        at = (at + 96 + payload.len()).next_multiple_of(4096);
    }
    places
}

/// What a client of the tests has been sent.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) control: VecDeque<Frame>,
    /// A bundle as the pushes that it is made of.
    pub(crate) pushes: VecDeque<(u8, Frame)>,
    /// How many pushes the bundles among them were made of.
    pub(crate) bundles: Vec<usize>,
    pub(crate) closed: Option<(ErrorCode, String)>,
}

/// A connection to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) shard: usize,
    pub(crate) key: ConnectionKey,
}

/// Shards that run in turns.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) now: Now,
    pub(crate) ready: BTreeSet<usize>,
    pub(crate) drained: BTreeSet<usize>,
    pub(crate) failed: BTreeMap<usize, String>,
    pub(crate) inboxes: BTreeMap<Client, Inbox>,
    /// Nothing comes back from files.
    pub(crate) are_files_held: bool,
    /// Syncs fail.
    pub(crate) are_syncs_failing: bool,
    /// Syncs wait until they are let go.
    pub(crate) are_syncs_held: bool,
    /// Messages to these shards wait until they are let go.
    pub(crate) cut_off: BTreeSet<usize>,
    pub(crate) mesh_messages: u64,
    held: Vec<(usize, FileEffect)>,
    events: Vec<VecDeque<Event>>,
    mesh: Vec<VecDeque<(ShardId, MeshMessage)>>,
    status: BTreeMap<AdminId, AdminAnswer>,
    last_connection: u64,
    last_correlation: u64,
}

/// A configuration with little memory and a small journal.
pub(crate) fn config(shard: usize, shards: usize) -> ShardConfig {
    let shard = ShardId(u8::try_from(shard).expect("few shards"));
    let mut config = ShardConfig::first_start(shard, u16::try_from(shards).expect("few shards"), 42);
    config.memory_bytes = 64 << 20;
    config.journal_files = 4;
    config
}

impl World {
    /// Shards with new data directories, recovered.
    pub(crate) fn new(shards: usize) -> Self {
        let configs = (0..shards).map(|shard| config(shard, shards)).collect();
        let mut world = Self::start(configs, vec![Disk::default(); shards]);
        world.run();
        assert_eq!(world.ready.len(), shards, "{:?}", world.failed);
        world
    }

    /// Shards on these disks, before their first round.
    pub(crate) fn start(configs: Vec<ShardConfig>, disks: Vec<Disk>) -> Self {
        let count = configs.len();
        Self {
            shards: configs.into_iter().map(Shard::new).collect(),
            disks,
            now: Now { monotonic: MonotonicNanos(1_000_000), wall: WallMillis(1_700_000_000_000) },
            ready: BTreeSet::new(),
            drained: BTreeSet::new(),
            failed: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            are_files_held: false,
            are_syncs_failing: false,
            are_syncs_held: false,
            cut_off: BTreeSet::new(),
            mesh_messages: 0,
            held: Vec::new(),
            events: (0..count).map(|_| VecDeque::new()).collect(),
            mesh: (0..count).map(|_| VecDeque::new()).collect(),
            status: BTreeMap::new(),
            last_connection: 0,
            last_correlation: 100,
        }
    }

    /// Rounds until nothing happens any more, without letting time pass beyond a nanosecond a round.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            let mut was_any = false;
            for shard in 0..self.shards.len() {
                was_any |= self.round(shard);
            }
            if !was_any {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// Lets time pass, then runs. Deadlines on the way are met one by one.
    pub(crate) fn pass(&mut self, nanos: u64) {
        let end = MonotonicNanos(self.now.monotonic.0 + nanos);
        self.run();
        while let Some(next) = self.shards.iter().filter_map(Shard::next_deadline).min().filter(|&next| next <= end) {
            self.now.monotonic = self.now.monotonic.max(next);
            self.run();
        }
        self.now.monotonic = self.now.monotonic.max(end);
        self.run();
    }

    pub(crate) fn let_files_go(&mut self) {
        self.are_syncs_held = false;
        self.are_files_held = false;
        for (shard, effect) in std::mem::take(&mut self.held) {
            let done = self.disks[shard].run(effect);
            self.events[shard].push_back(Event::File(done));
        }
    }

    /// The shards are gone; their disks stay.
    pub(crate) fn into_disks(self) -> Vec<Disk> {
        self.disks
    }

    fn round(&mut self, shard: usize) -> bool {
        self.now.monotonic.0 += 1;
        if !self.cut_off.contains(&shard) {
            while let Some((from, message)) = self.mesh[shard].pop_front() {
                self.events[shard].push_back(Event::Mesh { from, message });
            }
        }
        let is_due = self.shards[shard].next_deadline().is_some_and(|deadline| deadline <= self.now.monotonic);
        if self.events[shard].is_empty() && !is_due {
            return false;
        }
        while let Some(event) = self.events[shard].pop_front() {
            self.shards[shard].handle(self.now, event);
        }
        self.shards[shard].finish_round(self.now);
        while let Some(effect) = self.shards[shard].poll_effect() {
            self.perform(shard, effect);
        }
        true
    }

    fn perform(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Send { connection, stream, frame } => {
                let Some(inbox) = self.inboxes.get_mut(&Client { shard, key: connection }) else { return };
                let frame = frame_of(frame);
                match stream {
                    OutStream::Control => inbox.control.push_back(frame),
                    OutStream::Push(slot) if frame.head.kind == FrameKind::PushMany => {
                        let parts = parts_of(&frame);
                        inbox.bundles.push(parts.len());
                        inbox.pushes.extend(parts.into_iter().map(|part| (slot, part)));
                    }
                    OutStream::Push(slot) => inbox.pushes.push_back((slot, frame)),
                }
            }
            Effect::Close { connection, code, reason } => {
                let inbox = self.inboxes.get_mut(&Client { shard, key: connection }).expect("it was connected");
                inbox.closed = Some((code, reason));
            }
            Effect::File(effect) if self.are_syncs_failing && effect.op == FileOp::Sync => {
                let done = FileDone { id: effect.id, result: Err(FileError::Os { errno: 5 }) };
                self.events[shard].push_back(Event::File(done));
            }
            Effect::File(effect) if self.are_files_held || (self.are_syncs_held && effect.op == FileOp::Sync) => {
                self.held.push((shard, effect));
            }
            Effect::File(effect) => {
                let done = self.disks[shard].run(effect);
                self.events[shard].push_back(Event::File(done));
            }
            Effect::Mesh { to, message } => {
                self.mesh_messages += 1;
                let from = ShardId(u8::try_from(shard).expect("few shards"));
                self.mesh[usize::from(to.0)].push_back((from, message));
            }
            Effect::Admin { id, answer } => drop(self.status.insert(id, answer)),
            Effect::Ready => assert!(self.ready.insert(shard), "ready twice"),
            Effect::Failed { text } => drop(self.failed.insert(shard, text)),
            Effect::Drained => assert!(self.drained.insert(shard), "drained twice"),
        }
    }

    pub(crate) fn event(&mut self, shard: usize, event: Event) {
        self.events[shard].push_back(event);
    }

    /// A connection that has not said hello.
    pub(crate) fn connect_silently(&mut self, shard: usize) -> Client {
        self.last_connection += 1;
        let client = Client { shard, key: ConnectionKey(self.last_connection) };
        self.inboxes.insert(client, Inbox::default());
        self.event(shard, Event::Connected { connection: client.key });
        client
    }

    /// A connection that was welcomed.
    pub(crate) fn connect(&mut self, shard: usize) -> Client {
        self.connect_as(shard, (1, 2))
    }

    /// A connection of the client with this session id.
    pub(crate) fn connect_as(&mut self, shard: usize, session: (u64, u64)) -> Client {
        let client = self.connect_silently(shard);
        let hello = Hello { version_min: 1, version_max: 1, session, client: "test".to_owned(), token: String::new() };
        let welcome: Welcome = self.ask(client, &hello).expect("hello is fine");
        assert_eq!(usize::from(welcome.shard), shard);
        client
    }

    pub(crate) fn disconnect(&mut self, client: Client) {
        self.inboxes.remove(&client);
        self.event(client.shard, Event::Disconnected { connection: client.key });
    }

    pub(crate) fn send_frame(&mut self, client: Client, frame: Frame) {
        self.event(client.shard, Event::Frame { connection: client.key, frame });
    }

    /// Sends a request; its correlation id.
    pub(crate) fn send<B: Body>(&mut self, client: Client, body: &B) -> u64 {
        self.last_correlation += 1;
        let correlation = self.last_correlation;
        self.send_frame(client, frame_of(encode(CorrelationId(correlation), body)));
        correlation
    }

    /// Sends a request, runs, and takes its answer out of the inbox.
    pub(crate) fn ask<B: Body, A: Body>(&mut self, client: Client, body: &B) -> Result<A, (ErrorCode, String)> {
        let correlation = self.send(client, body);
        self.run();
        self.answer(client, correlation).expect("the request was answered")
    }

    /// The answer to a request, if it has come.
    pub(crate) fn answer<A: Body>(
        &mut self,
        client: Client,
        correlation: u64,
    ) -> Option<Result<A, (ErrorCode, String)>> {
        let control = &mut self.inboxes.get_mut(&client).expect("a client of this world").control;
        let at = control.iter().position(|frame| frame.head.correlation.0 == correlation)?;
        let frame = control.remove(at).expect("it was just found");
        Some(match decode::<corelane_wire::Refusal>(&frame) {
            Ok(refusal) => Err((ErrorCode::from_wire(refusal.code), refusal.text)),
            Err(_) => Ok(decode(&frame).expect("the answer that belongs to the request")),
        })
    }

    pub(crate) fn inbox(&mut self, client: Client) -> &mut Inbox {
        self.inboxes.get_mut(&client).expect("a client of this world")
    }

    /// All frames of one kind, in order, taken out of the control stream.
    pub(crate) fn take<A: Body>(&mut self, client: Client) -> Vec<A> {
        let control = &mut self.inbox(client).control;
        let (found, rest) = std::mem::take(control).into_iter().partition::<Vec<_>, _>(|f| f.head.kind == A::KIND);
        *control = rest.into();
        found.iter().map(|frame| decode(frame).expect("a frame of its kind")).collect()
    }

    pub(crate) fn admin(&mut self, shard: usize, query: AdminQuery) -> AdminAnswer {
        self.event(shard, Event::Admin { id: AdminId(1), query });
        self.run();
        self.status.remove(&AdminId(1)).expect("admin questions are answered at once")
    }

    pub(crate) fn status(&mut self, shard: usize) -> ShardStatus {
        match self.admin(shard, AdminQuery::Status) {
            AdminAnswer::Status(status) => *status,
            AdminAnswer::Export(_) => panic!("status was asked for"),
        }
    }
}

/// The pushes of a bundle, each in a frame of its own.
fn parts_of(frame: &Frame) -> Vec<Frame> {
    let bundle: PushMany = decode(frame).expect("a frame of its kind");
    assert_eq!(
        [bundle.high_watermarks.len(), bundle.lengths.len()],
        [bundle.subscriptions.len(); 2],
        "columns of one length"
    );
    let mut rest = frame.attachment.clone();
    let parts = (0..bundle.lengths.len()).map(|at| {
        let body = Push { subscription: bundle.subscriptions[at], high_watermark: bundle.high_watermarks[at] };
        let batches = rest.split_to(bundle.lengths[at] as usize);
        frame_of(encode_with(CorrelationId(0), &body, vec![batches]))
    });
    let parts = parts.collect();
    assert!(rest.is_empty(), "the lengths add up to the attachment");
    parts
}

pub(crate) fn frame_of(out: OutFrame) -> Frame {
    let bytes: Vec<u8> = out.into_pieces().flat_map(|piece| piece.to_vec()).collect();
    let mut decoder = FrameDecoder::default();
    decoder.push(Bytes::from(bytes));
    decoder.poll_frame().expect("a frame of ours is well formed").expect("a frame of ours is whole")
}
