//! One connection: its streams in both directions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use corelane_model::limits::{
    CONNECTION_QUEUE_BYTES_MAX, CONNECTION_ROUND_BYTES, SESSION_DATA_STREAMS_MAX, SESSION_SEND_BYTES_MAX,
};
use corelane_model::{ConnectionKey, ErrorCode};
use corelane_wire::{FrameDecoder, FrameError, OutFrame};
use quinn_proto::{Connection, Dir, Event, ReadError, StreamEvent, StreamId, VarInt};

use crate::outlet::Outlet;
use crate::share::Share;
use crate::{QuicEvent, QuicStats, SendStream};

/// Answers leave before pushes when both wait for the same packet.
const CONTROL_PRIORITY: i32 = 1;
/// From so many times what makes pushes pause on nothing more is read from a peer that does not take it: it would only ask
/// for more answers. Pushes stop long before, so that a slow reader's own batches still get through.
const UNHEARD_FACTOR: u64 = 2;
const _: () = assert!(UNHEARD_FACTOR * SESSION_SEND_BYTES_MAX < CONNECTION_QUEUE_BYTES_MAX as u64);

/// What the endpoint must know about a connection's end.
#[derive(Debug)]
enum Phase {
    /// The handshake is under way.
    Handshake,
    /// Frames flow.
    Open,
    /// Closed by us once what was sent before is acknowledged, at the latest at `deadline`.
    Closing { code: VarInt, reason: Bytes, deadline: Instant, is_finished: bool },
    /// No frame comes or goes any more; quinn-proto still answers late packets.
    Gone,
}

/// A connection and its streams.
pub(crate) struct Link {
    pub(crate) key: ConnectionKey,
    pub(crate) connection: Connection,
    /// The heap entry that counts.
    pub(crate) entered: Option<Instant>,
    pub(crate) is_dirty: bool,
    pub(crate) is_sending: bool,
    pub(crate) is_loopback: bool,
    phase: Phase,
    inlets: BTreeMap<StreamId, FrameDecoder>,
    unread: VecDeque<StreamId>,
    outlets: BTreeMap<SendStream, Outlet>,
    owners: BTreeMap<StreamId, SendStream>,
    /// Bytes of frames that wait to be sent.
    queued: usize,
    /// Bytes of frames that are not whole yet.
    partial: usize,
    /// What of both [`QuicStats::held_bytes`] counts.
    counted: u64,
    share: Share,
    has_windows: bool,
    is_congested: bool,
}

impl Link {
    pub(crate) fn new(key: ConnectionKey, connection: Connection, share: Share) -> Self {
        let remote = connection.remote_address().ip().to_canonical();
        let is_loopback = remote.is_loopback() || connection.local_ip().map(|ip| ip.to_canonical()) == Some(remote);
        Self {
            key,
            connection,
            entered: None,
            is_dirty: false,
            is_sending: false,
            is_loopback,
            phase: Phase::Handshake,
            inlets: BTreeMap::new(),
            unread: VecDeque::new(),
            outlets: BTreeMap::new(),
            owners: BTreeMap::new(),
            queued: 0,
            partial: 0,
            counted: 0,
            share,
            has_windows: false,
            is_congested: false,
        }
    }

    pub(crate) fn is_handshake(&self) -> bool {
        matches!(self.phase, Phase::Handshake)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn is_unheard(&self, stats: &QuicStats) -> bool {
        UNHEARD_FACTOR * self.share.queue_max(stats.held_bytes) <= self.queued as u64
    }

    /// Whether bytes lie ready that the last round had no room for and that may be read now.
    pub(crate) fn has_unread(&self, stats: &QuicStats) -> bool {
        !self.unread.is_empty() && !self.is_unheard(stats)
    }

    /// What it costs of the memory that all connections share.
    pub(crate) fn held(&self) -> u64 {
        self.counted
    }

    /// Brings the count of all connections up to date.
    fn count(&mut self, stats: &mut QuicStats) {
        let held = (self.queued + self.partial) as u64;
        stats.held_bytes = stats.held_bytes - self.counted + held;
        self.counted = held;
    }

    /// When it wants to be looked at.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let quic = self.connection.poll_timeout();
        let closing = match &self.phase {
            Phase::Closing { deadline, .. } => Some(*deadline),
            Phase::Handshake | Phase::Open | Phase::Gone => None,
        };
        match (quic, closing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes what quinn-proto has to say and reads streams, at most [`CONNECTION_ROUND_BYTES`].
    pub(crate) fn drive(&mut self, now: Instant, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        let mut room = CONNECTION_ROUND_BYTES;
        for _ in 0..self.unread.len() {
            let Some(stream) = self.unread.pop_front() else { break };
            self.read(stream, &mut room, events, stats);
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.on_connected(events, stats),
                Event::ConnectionLost { .. } => self.end(events, stats),
                Event::Stream(event) => self.on_stream(now, &event, &mut room, events, stats),
                Event::DatagramReceived => while self.connection.datagrams().recv().is_some() {},
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            }
        }
        self.count(stats);
    }

    /// Queues a frame and says so when much waits. When the peer has let far too much pile up, closes the connection.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        stream: SendStream,
        frame: OutFrame,
        events: &mut VecDeque<QuicEvent>,
        stats: &mut QuicStats,
    ) {
        if !self.is_open() {
            return;
        }
        if let SendStream::Push(slot) = stream {
            assert!(u32::from(slot) < SESSION_DATA_STREAMS_MAX, "push stream {slot} is beyond the limit");
        }
        self.open_windows(stats);
        self.queued += self.outlets.entry(stream).or_default().push(frame.into_pieces());
        self.count(stats);
        stats.frames_sent_total += 1;
        if !self.is_congested && self.share.queue_max(stats.held_bytes) < self.queued as u64 {
            self.is_congested = true;
            events.push_back(QuicEvent::Congested { connection: self.key });
        }
        if CONNECTION_QUEUE_BYTES_MAX < self.queued {
            self.overflow(now, "the client took too little of what was sent to it", stats);
        }
    }

    /// Closes the connection at once and lets go of what it holds.
    pub(crate) fn overflow(&mut self, now: Instant, reason: &'static str, stats: &mut QuicStats) {
        stats.overflowed_total += 1;
        self.fail(now, ErrorCode::LimitReached, reason);
        self.outlets.clear();
        self.owners.clear();
        self.queued = 0;
        self.partial = 0;
        self.count(stats);
    }

    /// Until a frame is sent to the peer it is a stranger and has the smallest windows: a broker's first word is its
    /// answer to a hello that it accepts.
    fn open_windows(&mut self, stats: &QuicStats) {
        if !std::mem::replace(&mut self.has_windows, true) {
            self.connection.set_receive_window(VarInt::from_u32(self.share.receive_window(stats.connections)));
            self.connection.set_send_window(self.share.send_window(stats.connections));
        }
    }

    /// Closes the connection once what was sent before has arrived.
    pub(crate) fn close(&mut self, deadline: Instant, code: ErrorCode, reason: String) {
        if self.is_open() {
            let code = VarInt::from_u32(u32::from(code.to_wire()));
            self.phase = Phase::Closing { code, reason: Bytes::from(reason), deadline, is_finished: false };
            self.stop_reading();
        }
    }

    fn stop_reading(&mut self) {
        self.inlets.clear();
        self.unread.clear();
        self.partial = 0;
    }

    /// Gives waiting frames to their streams, and closes the connection when that was asked for and its time has come.
    pub(crate) fn write(&mut self, now: Instant, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        for (name, outlet) in &mut self.outlets {
            if outlet.is_empty() {
                continue;
            }
            if outlet.stream.is_none() && matches!(name, SendStream::Push(_)) {
                outlet.stream = self.connection.streams().open(Dir::Uni);
                if let Some(stream) = outlet.stream {
                    self.owners.insert(stream, *name);
                }
            }
            self.queued -= outlet.write(&mut self.connection);
        }
        self.count(stats);
        if self.is_congested && (self.queued as u64) < self.share.queue_max(stats.held_bytes) / 2 {
            self.is_congested = false;
            if self.is_open() {
                events.push_back(QuicEvent::Relieved { connection: self.key });
            }
        }
        self.advance_close(now, events, stats);
    }

    /// The connection is lost or closed: says so once.
    pub(crate) fn end(&mut self, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Handshake => stats.handshakes -= 1,
            Phase::Open | Phase::Closing { .. } => {
                stats.connections -= 1;
                events.push_back(QuicEvent::Disconnected { connection: self.key });
            }
            Phase::Gone => {}
        }
        self.stop_reading();
        self.outlets.clear();
        self.owners.clear();
        self.queued = 0;
        self.count(stats);
    }

    fn on_connected(&mut self, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        if self.is_handshake() {
            self.phase = Phase::Open;
            stats.handshakes -= 1;
            stats.connections += 1;
            stats.accepted_total += 1;
            events.push_back(QuicEvent::Connected { connection: self.key });
        }
    }

    fn on_stream(
        &mut self,
        now: Instant,
        event: &StreamEvent,
        room: &mut usize,
        events: &mut VecDeque<QuicEvent>,
        stats: &mut QuicStats,
    ) {
        match *event {
            StreamEvent::Opened { dir } => {
                while let Some(stream) = self.connection.streams().accept(dir) {
                    self.on_opened(stream, dir);
                    self.read(stream, room, events, stats);
                }
            }
            StreamEvent::Readable { id } => self.read(id, room, events, stats),
            StreamEvent::Writable { id } => {
                if let Some(outlet) = self.owners.get(&id).and_then(|name| self.outlets.get_mut(name)) {
                    outlet.unblock();
                }
            }
            StreamEvent::Stopped { id, .. } => self.on_stopped(now, id),
            StreamEvent::Finished { .. } | StreamEvent::Available { .. } => {}
        }
    }

    fn on_opened(&mut self, stream: StreamId, dir: Dir) {
        if !matches!(self.phase, Phase::Handshake | Phase::Open) {
            return;
        }
        self.inlets.insert(stream, FrameDecoder::default());
        if dir == Dir::Bi {
            // Frames may have been queued before the client opened its control stream.
            let outlet = self.outlets.entry(SendStream::Control).or_default();
            if outlet.stream.is_none() {
                outlet.stream = Some(stream);
                self.owners.insert(stream, SendStream::Control);
                // The stream was opened this moment, so that it cannot be closed yet.
                let _ = self.connection.send_stream(stream).set_priority(CONTROL_PRIORITY);
            }
        }
    }

    fn on_stopped(&mut self, now: Instant, stream: StreamId) {
        let Some(name) = self.owners.get(&stream).copied() else { return };
        if let Some(outlet) = self.outlets.get_mut(&name) {
            self.queued -= outlet.stop();
        }
        // quinn-proto wants the stream reset in answer; the code says that nobody listened.
        let _ = self.connection.send_stream(stream).reset(VarInt::from_u32(0));
        if name == SendStream::Control {
            self.fail(now, ErrorCode::UnexpectedFrame, "the client stopped its control stream");
        }
    }

    /// Closes at once, without waiting for what was sent.
    fn fail(&mut self, now: Instant, code: ErrorCode, reason: &'static str) {
        if self.is_open() {
            let code = VarInt::from_u32(u32::from(code.to_wire()));
            let reason = Bytes::from_static(reason.as_bytes());
            self.phase = Phase::Closing { code, reason, deadline: now, is_finished: true };
            self.stop_reading();
        }
    }

    fn advance_close(&mut self, now: Instant, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        let Phase::Closing { code, reason, deadline, is_finished } = &mut self.phase else { return };
        let is_flushed = self.outlets.values().all(Outlet::is_empty);
        if is_flushed && !*is_finished {
            for stream in self.outlets.values().filter_map(|outlet| outlet.stream) {
                // A stream that the peer stopped cannot be finished and has nothing to deliver.
                let _ = self.connection.send_stream(stream).finish();
            }
            *is_finished = true;
        }
        let is_delivered = is_flushed && *is_finished && self.connection.streams().send_streams() == 0;
        if is_delivered || *deadline <= now {
            self.connection.close(now, *code, reason.clone());
            self.end(events, stats);
        }
    }

    /// Reads one stream until it is dry or the round is full.
    fn read(&mut self, stream: StreamId, room: &mut usize, events: &mut VecDeque<QuicEvent>, stats: &mut QuicStats) {
        let is_unheard = self.is_unheard(stats);
        let Some(decoder) = self.inlets.get_mut(&stream) else { return };
        if is_unheard {
            if !self.unread.contains(&stream) {
                self.unread.push_back(stream);
            }
            return;
        }
        self.partial -= decoder.held_bytes();
        let mut half = self.connection.recv_stream(stream);
        let Ok(mut chunks) = half.read(true) else {
            self.inlets.remove(&stream);
            return;
        };
        let mut is_over = false;
        let mut broken: Option<FrameError> = None;
        loop {
            if *room == 0 {
                if !self.unread.contains(&stream) {
                    self.unread.push_back(stream);
                }
                break;
            }
            match chunks.next(*room) {
                Ok(Some(chunk)) => {
                    *room -= chunk.bytes.len();
                    decoder.push(chunk.bytes);
                    if let Err(error) = take_frames(self.key, decoder, events, stats) {
                        broken = Some(error);
                        break;
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    is_over = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        // What must be sent in consequence leaves with this round's packets anyway.
        let _ = chunks.finalize();
        if let Some(error) = broken {
            stats.garbage_streams_total += 1;
            // Fails only when the stream is over by itself.
            let _ = half.stop(VarInt::from_u32(u32::from(ErrorCode::Malformed.to_wire())));
            events.push_back(QuicEvent::Garbage { connection: self.key, error });
        }
        if is_over || broken.is_some() {
            self.inlets.remove(&stream);
        } else {
            self.partial += decoder.held_bytes();
        }
    }
}

fn take_frames(
    connection: ConnectionKey,
    decoder: &mut FrameDecoder,
    events: &mut VecDeque<QuicEvent>,
    stats: &mut QuicStats,
) -> Result<(), FrameError> {
    while let Some(frame) = decoder.poll_frame()? {
        stats.frames_received_total += 1;
        events.push_back(QuicEvent::Frame { connection, frame });
    }
    Ok(())
}
