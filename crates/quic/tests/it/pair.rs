//! The harness: our endpoint, a quinn-proto client, a clock that is a number and a wire that delays and loses.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use corelane_model::limits::QUIC_MTU_BYTES_MAX;
use corelane_model::{ConnectionKey, MonotonicNanos, ShardId};
use corelane_quic::{Datagram, Endpoint, EndpointConfig, QuicEvent, SendStream};
use corelane_wire::{Frame, FrameDecoder, OutFrame};
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Event, StreamEvent, StreamId, VarInt,
};

/// Time that a packet is under way.
const WIRE_DELAY: u64 = 50_000;

type Packet = (SocketAddr, Vec<u8>);

pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) handle: ConnectionHandle,
    pub(crate) control: Option<StreamId>,
    pub(crate) address: SocketAddr,
    pub(crate) is_connected: bool,
    pub(crate) lost: Option<String>,
    pub(crate) frames: Vec<(StreamId, Frame)>,
    /// Whether what the broker sends is read.
    pub(crate) is_reading: bool,
    decoders: BTreeMap<StreamId, FrameDecoder>,
}

pub(crate) struct Pair {
    pub(crate) now: u64,
    pub(crate) server: Endpoint,
    pub(crate) events: Vec<QuicEvent>,
    pub(crate) clients: Vec<Client>,
    /// Of so many packets one is lost; 0 loses none.
    pub(crate) loss: u64,
    /// Bytes of the largest datagram that the path carries; larger ones are lost.
    pub(crate) path_bytes: usize,
    /// Bytes of the largest datagram that the broker's clients were sent and that arrived.
    pub(crate) largest_to_client: usize,
    /// Bytes of the largest transmit of the broker.
    pub(crate) largest_transmit: usize,
    pub(crate) largest_server_batch: usize,
    origin: Instant,
    endpoint: quinn_proto::Endpoint,
    config: ClientConfig,
    to_server: BTreeMap<(u64, u64), Packet>,
    to_client: BTreeMap<(u64, u64), Packet>,
    serial: u64,
    dice: u64,
}

pub(crate) fn server_address() -> SocketAddr {
    "[::1]:7420".parse().unwrap()
}

fn tls() -> (Arc<rustls::ServerConfig>, ClientConfig) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![corelane_wire::ALPN.to_vec()];
    let client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    (Arc::new(server), client)
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(16, |_| {})
    }

    pub(crate) fn with(connections_max: usize, tune: impl FnOnce(&mut quinn_proto::TransportConfig)) -> Self {
        Self::sharing(1 << 30, connections_max, tune)
    }

    pub(crate) fn sharing(
        memory_bytes: u64,
        connections_max: usize,
        tune: impl FnOnce(&mut quinn_proto::TransportConfig),
    ) -> Self {
        let (tls, mut client) = tls();
        #[expect(clippy::disallowed_methods, reason = "the origin only names the clock's zero")]
        let origin = Instant::now();
        let config = EndpointConfig {
            shard: ShardId(3),
            tls,
            reset_key: [5; 32],
            seed: [6; 32],
            origin,
            segments_max: 44,
            may_fragment: false,
            connections_max,
            memory_bytes,
        };
        let mut transport = corelane_quic::transport_config();
        transport.max_concurrent_uni_streams(VarInt::from_u32(64));
        tune(&mut transport);
        client.transport_config(Arc::new(transport));
        let mut endpoint = quinn_proto::EndpointConfig::default();
        endpoint.rng_seed(Some([9; 32])).max_udp_payload_size(QUIC_MTU_BYTES_MAX).unwrap();
        Self {
            now: 1_000_000,
            server: Endpoint::new(&config).unwrap(),
            events: Vec::new(),
            clients: Vec::new(),
            loss: 0,
            path_bytes: usize::MAX,
            largest_to_client: 0,
            largest_transmit: 0,
            largest_server_batch: 0,
            origin,
            endpoint: quinn_proto::Endpoint::new(Arc::new(endpoint), None, false, None),
            config: client,
            to_server: BTreeMap::new(),
            to_client: BTreeMap::new(),
            serial: 0,
            dice: 1,
        }
    }

    pub(crate) fn at(&self) -> Instant {
        self.origin + Duration::from_nanos(self.now)
    }

    pub(crate) fn nanos(&self) -> MonotonicNanos {
        MonotonicNanos(self.now)
    }

    pub(crate) fn connect(&mut self) -> usize {
        let (handle, connection) =
            self.endpoint.connect(self.at(), self.config.clone(), server_address(), "localhost").unwrap();
        let port = 1000 + u16::try_from(self.clients.len()).unwrap();
        self.clients.push(Client {
            connection,
            handle,
            control: None,
            address: SocketAddr::new("::1".parse().unwrap(), port),
            is_connected: false,
            lost: None,
            frames: Vec::new(),
            is_reading: true,
            decoders: BTreeMap::new(),
        });
        self.clients.len() - 1
    }

    /// A client whose handshake is done, with its control stream open, and its key at the broker.
    pub(crate) fn connected(&mut self) -> (usize, ConnectionKey) {
        let client = self.connect();
        self.run_until(|pair| pair.clients[client].is_connected && !pair.events.is_empty());
        let Some(QuicEvent::Connected { connection }) = self.events.pop() else { panic!("no connection") };
        let control = self.clients[client].connection.streams().open(Dir::Bi).unwrap();
        self.clients[client].control = Some(control);
        (client, connection)
    }

    pub(crate) fn write(&mut self, client: usize, stream: StreamId, frame: OutFrame) {
        for piece in frame.into_pieces() {
            self.write_bytes(client, stream, &piece);
        }
    }

    pub(crate) fn write_bytes(&mut self, client: usize, stream: StreamId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.clients[client].connection.send_stream(stream).write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(quinn_proto::WriteError::Blocked) if self.clients[client].lost.is_some() => return,
                Err(quinn_proto::WriteError::Blocked) => self.step(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn send(&mut self, connection: ConnectionKey, stream: SendStream, frame: OutFrame) {
        let now = self.nanos();
        self.server.send(now, connection, stream, frame);
    }

    /// Delivers raw bytes to the broker as if they came from the network.
    pub(crate) fn inject(&mut self, bytes: &[u8]) {
        let now = self.nanos();
        let remote = SocketAddr::new("::1".parse().unwrap(), 999);
        self.server.handle_datagram(now, Datagram { remote, local_ip: None, ecn: None, bytes: BytesMut::from(bytes) });
    }

    pub(crate) fn run_until(&mut self, mut is_done: impl FnMut(&Self) -> bool) {
        for _ in 0..200_000 {
            if is_done(self) {
                return;
            }
            self.step();
        }
        panic!("nothing more happens at {} ns", self.now);
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + u64::try_from(duration.as_nanos()).unwrap();
        while self.now < end {
            self.step();
        }
    }

    /// Lets both sides act, then moves the clock to the next thing that happens, at most 100 ms on.
    pub(crate) fn step(&mut self) {
        self.drive_server();
        self.drive_clients();
        let mut next = self.now + 100_000_000;
        let arrivals = [self.to_server.first_key_value(), self.to_client.first_key_value()];
        for ((at, _), _) in arrivals.into_iter().flatten() {
            next = next.min(*at);
        }
        if let Some(at) = self.server.next_timeout() {
            next = next.min(at.0);
        }
        for client in &mut self.clients {
            if let Some(at) = client.connection.poll_timeout() {
                let at = at.saturating_duration_since(self.origin).as_nanos();
                next = next.min(u64::try_from(at).unwrap());
            }
        }
        if !self.server.has_work() {
            self.now = next.max(self.now + 1);
        }
    }

    fn drive_server(&mut self) {
        let now = self.nanos();
        while let Some(entry) = self.to_server.first_entry() {
            if self.now < entry.key().0 {
                break;
            }
            let (remote, bytes) = entry.remove();
            let bytes = BytesMut::from(&bytes[..]);
            self.server.handle_datagram(now, Datagram { remote, local_ip: None, ecn: None, bytes });
        }
        self.server.handle_timeout(now);
        self.server.read_streams(now);
        let mut bytes = 0;
        while let Some(event) = self.server.poll_event() {
            if let QuicEvent::Frame { frame, .. } = &event {
                bytes += frame.body.len() + frame.attachment.len();
            }
            self.events.push(event);
        }
        self.largest_server_batch = self.largest_server_batch.max(bytes);
        let mut buffer = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(now, &mut buffer) {
            self.largest_transmit = self.largest_transmit.max(transmit.size);
            for packet in buffer[..transmit.size].chunks(transmit.segment_size.unwrap_or(transmit.size)) {
                self.put(false, transmit.destination, packet);
            }
            buffer.clear();
        }
    }

    fn drive_clients(&mut self) {
        let at = self.at();
        while let Some(entry) = self.to_client.first_entry() {
            if self.now < entry.key().0 {
                break;
            }
            let (_, bytes) = entry.remove();
            let mut response = Vec::new();
            let bytes = BytesMut::from(&bytes[..]);
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) =
                self.endpoint.handle(at, server_address(), None, None, bytes, &mut response)
                && let Some(client) = self.clients.iter_mut().find(|client| client.handle == handle)
            {
                client.connection.handle_event(event);
            }
        }
        let mut packets: VecDeque<(SocketAddr, Vec<u8>)> = VecDeque::new();
        for client in &mut self.clients {
            client.connection.handle_timeout(at);
            client.drive();
            let mut buffer = Vec::new();
            while let Some(transmit) = client.connection.poll_transmit(at, 1, &mut buffer) {
                packets.push_back((client.address, buffer[..transmit.size].to_vec()));
                buffer.clear();
            }
            while let Some(event) = client.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(client.handle, event) {
                    client.connection.handle_event(event);
                }
            }
        }
        for (from, packet) in packets {
            self.put(true, from, &packet);
        }
    }

    fn put(&mut self, is_to_server: bool, address: SocketAddr, packet: &[u8]) {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let is_lost = self.loss != 0 && (self.dice >> 33).is_multiple_of(self.loss);
        if is_lost || self.path_bytes < packet.len() {
            return;
        }
        if !is_to_server {
            self.largest_to_client = self.largest_to_client.max(packet.len());
        }
        self.serial += 1;
        let wire = if is_to_server { &mut self.to_server } else { &mut self.to_client };
        wire.insert((self.now + WIRE_DELAY, self.serial), (address, packet.to_vec()));
    }
}

impl Client {
    fn drive(&mut self) {
        let mut readable = Vec::new();
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason.to_string()),
                Event::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(stream) = self.connection.streams().accept(dir) {
                        readable.push(stream);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                _ => {}
            }
        }
        for stream in readable {
            self.decoders.entry(stream).or_default();
        }
        if !self.is_reading {
            return;
        }
        for (&stream, decoder) in &mut self.decoders {
            let mut half = self.connection.recv_stream(stream);
            let Ok(mut chunks) = half.read(true) else { continue };
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                decoder.push(Bytes::copy_from_slice(&chunk.bytes));
                while let Some(frame) = decoder.poll_frame().unwrap() {
                    self.frames.push((stream, frame));
                }
            }
            let _ = chunks.finalize();
        }
    }
}
