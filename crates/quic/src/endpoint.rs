//! All connections of one shard.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corelane_model::limits::{CLOSE_TIMEOUT, SHARD_HANDSHAKES_MAX};
use corelane_model::{ConnectionKey, ErrorCode, MonotonicNanos};
use corelane_wire::OutFrame;
use quinn_proto::{ConnectionHandle, DatagramEvent, Incoming, ServerConfig, Transmit};

use crate::deadline::Deadlines;
use crate::link::Link;
use crate::share::Share;
use crate::{ConfigError, Datagram, EndpointConfig, QuicEvent, QuicStats, SendStream};

/// Answers to datagrams of no connection that wait to be sent; more of them are dropped, as the network may.
const RESPONSES_MAX: usize = 256;
/// Bytes that the system takes at once, all packets of a transmit together.
const TRANSMIT_BYTES_MAX: usize = (1 << 16) - 1;
/// What the connection is told that holds most when all together hold too much.
const OVER_SHARE: &str = "connections hold more memory than this shard has for them, and this one holds most: read faster, \
                          send smaller batches, or give the broker more memory";
/// Low bits of a connection's key say where it lies, the others make it unique.
const SLOT_BITS: u32 = 20;

/// A server's QUIC endpoint.
pub struct Endpoint {
    inner: quinn_proto::Endpoint,
    server: Arc<ServerConfig>,
    origin: Instant,
    segments_max: usize,
    connections_max: usize,
    share: Share,
    /// By [`ConnectionHandle`].
    links: Vec<Option<Box<Link>>>,
    /// Links that have something to say.
    dirty: VecDeque<usize>,
    /// Links that may have something to send, each once, in turn.
    sending: VecDeque<usize>,
    deadlines: Deadlines,
    events: VecDeque<QuicEvent>,
    responses: VecDeque<(Transmit, Vec<u8>)>,
    serial: u64,
    loopback: usize,
    stats: QuicStats,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint without connections.
    ///
    /// # Errors
    /// The TLS configuration cannot carry QUIC.
    pub fn new(config: &EndpointConfig) -> Result<Self, ConfigError> {
        let server = config.server()?;
        let share = Share::new(config.memory_bytes);
        let inner =
            quinn_proto::Endpoint::new(config.endpoint(), Some(Arc::clone(&server)), !config.may_fragment, None);
        Ok(Self {
            inner,
            server,
            origin: config.origin,
            segments_max: config.segments_max.max(1),
            connections_max: config.connections_max.min(1 << SLOT_BITS).min(share.connections_max()),
            share,
            links: Vec::new(),
            dirty: VecDeque::new(),
            sending: VecDeque::new(),
            deadlines: Deadlines::default(),
            events: VecDeque::new(),
            responses: VecDeque::new(),
            serial: 0,
            loopback: 0,
            stats: QuicStats::default(),
        })
    }

    /// Takes one datagram. Whatever it holds, the worst that comes of it is a connection that ends.
    pub fn handle_datagram(&mut self, now: MonotonicNanos, datagram: Datagram) {
        let now = self.instant(now);
        self.stats.datagrams_received_total += 1;
        self.stats.bytes_received_total += datagram.bytes.len() as u64;
        let Datagram { remote, local_ip, ecn, bytes } = datagram;
        let mut response = Vec::new();
        match self.inner.handle(now, remote, local_ip, ecn, bytes, &mut response) {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(slot), event)) => {
                if let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) {
                    link.connection.handle_event(event);
                    mark(&mut self.dirty, &mut link.is_dirty, slot);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.stats.stray_datagrams_total += 1;
                self.respond(transmit, response);
            }
            None => self.stats.stray_datagrams_total += 1,
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: MonotonicNanos) {
        let now = self.instant(now);
        while let Some((at, slot)) = self.deadlines.take_due(now) {
            let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut) else { continue };
            if link.entered != Some(at) {
                continue;
            }
            link.entered = None;
            if link.deadline().is_some_and(|due| due <= now) {
                link.connection.handle_timeout(now);
                mark(&mut self.dirty, &mut link.is_dirty, slot);
            } else {
                let wanted = link.deadline();
                self.deadlines.enter(slot, wanted, &mut link.entered);
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<MonotonicNanos> {
        let at = self.deadlines.next()?;
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        Some(MonotonicNanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Reads the streams of every connection that something happened to, a bounded number of bytes of each; what did not
    /// fit is read at the next call. Call it once a round, then [`Self::poll_event`] until it is empty.
    pub fn read_streams(&mut self, now: MonotonicNanos) {
        let now = self.instant(now);
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            let Some(link) = self.links[slot].as_mut() else { continue };
            link.is_dirty = false;
            link.drive(now, &mut self.events, &mut self.stats);
            if link.has_unread(&self.stats) {
                mark(&mut self.dirty, &mut link.is_dirty, slot);
            }
            mark(&mut self.sending, &mut link.is_sending, slot);
            self.pass_endpoint_events(slot);
        }
        self.hold_bound(now);
    }

    /// Closes connections, those first that hold most, until all together hold no more than their share.
    fn hold_bound(&mut self, now: Instant) {
        while self.share.is_over(self.stats.held_bytes) {
            let holds = |link: &Option<Box<Link>>| link.as_ref().map_or(0, |link| link.held());
            let Some((slot, _)) = self.links.iter().enumerate().max_by_key(|(_, link)| holds(link)) else { break };
            let Some(link) = self.links[slot].as_mut().filter(|link| 0 < link.held()) else { break };
            link.overflow(now, OVER_SHARE, &mut self.stats);
            mark(&mut self.sending, &mut link.is_sending, slot);
        }
    }

    /// Whether another round has something to do without any new datagram or timeout.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.sending.is_empty() || !self.responses.is_empty()
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<QuicEvent> {
        self.events.pop_front()
    }

    /// Queues a frame; frames of one stream leave in order. Without the connection the frame is dropped.
    pub fn send(&mut self, now: MonotonicNanos, connection: ConnectionKey, stream: SendStream, frame: OutFrame) {
        let now = self.instant(now);
        let Some((slot, link)) = find(&mut self.links, connection) else { return };
        link.send(now, stream, frame, &mut self.events, &mut self.stats);
        mark(&mut self.sending, &mut link.is_sending, slot);
    }

    /// Closes a connection after what was sent on it before has arrived, or after [`CLOSE_TIMEOUT`]. Nothing more is
    /// reported of it but [`QuicEvent::Disconnected`].
    pub fn close(&mut self, now: MonotonicNanos, connection: ConnectionKey, code: ErrorCode, reason: String) {
        let deadline = self.instant(now) + CLOSE_TIMEOUT;
        let Some((slot, link)) = find(&mut self.links, connection) else { return };
        link.close(deadline, code, reason);
        mark(&mut self.sending, &mut link.is_sending, slot);
    }

    /// Closes every connection at once; what was not sent yet is lost. For the end of the process.
    pub fn close_all(&mut self, now: MonotonicNanos, code: ErrorCode, reason: &str) {
        let now = self.instant(now);
        for (slot, link) in self.links.iter_mut().enumerate() {
            let Some(link) = link else { continue };
            link.close(now, code, reason.to_owned());
            mark(&mut self.sending, &mut link.is_sending, slot);
        }
    }

    /// The next datagrams to send, written to `buffer`, which must be empty. Connections take turns.
    pub fn poll_transmit(&mut self, now: MonotonicNanos, buffer: &mut Vec<u8>) -> Option<Transmit> {
        assert!(buffer.is_empty(), "the buffer holds {} bytes of another transmit", buffer.len());
        let now = self.instant(now);
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            *buffer = bytes;
            self.stats.bytes_sent_total += transmit.size as u64;
            return Some(transmit);
        }
        while let Some(slot) = self.sending.pop_front() {
            let Some(link) = self.links[slot].as_mut() else { continue };
            link.is_sending = false;
            link.write(now, &mut self.events, &mut self.stats);
            if link.has_unread(&self.stats) {
                mark(&mut self.dirty, &mut link.is_dirty, slot);
            }
            let segments_max = self.segments_max.min(TRANSMIT_BYTES_MAX / usize::from(link.connection.current_mtu()));
            if let Some(transmit) = link.connection.poll_transmit(now, segments_max, buffer) {
                mark(&mut self.sending, &mut link.is_sending, slot);
                self.stats.bytes_sent_total += transmit.size as u64;
                return Some(transmit);
            }
            self.settle(slot);
        }
        None
    }

    /// Connections whose peer is on this machine: it may need this core to get on.
    #[must_use]
    pub const fn loopback_connections(&self) -> usize {
        self.loopback
    }

    /// The endpoint's counters.
    #[must_use]
    pub const fn stats(&self) -> &QuicStats {
        &self.stats
    }

    fn instant(&self, now: MonotonicNanos) -> Instant {
        self.origin + Duration::from_nanos(now.0)
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let mut response = Vec::new();
        if self.connections_max <= self.inner.open_connections() {
            self.stats.refused_total += 1;
            let transmit = self.inner.refuse(incoming, &mut response);
            self.respond(transmit, response);
            return;
        }
        if SHARD_HANDSHAKES_MAX as u64 <= self.stats.handshakes && incoming.may_retry() {
            self.stats.retried_total += 1;
            if let Ok(transmit) = self.inner.retry(incoming, &mut response) {
                self.respond(transmit, response);
            }
            return;
        }
        match self.inner.accept(incoming, now, &mut response, Some(Arc::clone(&self.server))) {
            Ok((ConnectionHandle(slot), connection)) => {
                self.serial += 1;
                let key = ConnectionKey((self.serial << SLOT_BITS) | slot as u64);
                let mut link = Box::new(Link::new(key, connection, self.share));
                self.stats.handshakes += 1;
                self.loopback += usize::from(link.is_loopback);
                mark(&mut self.dirty, &mut link.is_dirty, slot);
                if self.links.len() <= slot {
                    self.links.resize_with(slot + 1, || None);
                }
                self.links[slot] = Some(link);
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
            }
        }
    }

    fn respond(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        if self.responses.len() < RESPONSES_MAX {
            self.responses.push_back((transmit, bytes));
        }
    }

    /// Nothing more to send: passes on what the connection has for the endpoint and enters its deadline.
    fn settle(&mut self, slot: usize) {
        self.pass_endpoint_events(slot);
        if let Some(link) = self.links[slot].as_mut() {
            let wanted = link.deadline();
            self.deadlines.enter(slot, wanted, &mut link.entered);
        }
    }

    fn pass_endpoint_events(&mut self, slot: usize) {
        let Some(link) = self.links[slot].as_mut() else { return };
        let mut is_drained = false;
        while let Some(event) = link.connection.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(event) = self.inner.handle_event(ConnectionHandle(slot), event) {
                link.connection.handle_event(event);
                mark(&mut self.sending, &mut link.is_sending, slot);
            }
        }
        if is_drained {
            link.end(&mut self.events, &mut self.stats);
            self.loopback -= usize::from(link.is_loopback);
            self.links[slot] = None;
        }
    }
}

fn mark(queue: &mut VecDeque<usize>, flag: &mut bool, slot: usize) {
    if !*flag {
        *flag = true;
        queue.push_back(slot);
    }
}

fn find(links: &mut [Option<Box<Link>>], key: ConnectionKey) -> Option<(usize, &mut Link)> {
    let slot = usize::try_from(key.0 & ((1 << SLOT_BITS) - 1)).ok()?;
    let link = links.get_mut(slot)?.as_mut()?;
    (link.key == key).then_some((slot, &mut **link))
}
