//! QUIC: one socket, a connection for each shard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corelane_client_core::ConnectFailure;
use corelane_model::limits::{QUIC_MTU_BYTES, QUIC_MTU_BYTES_MAX};
use corelane_model::{ErrorCode, ShardId};
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionError, ConnectionId, Endpoint, EndpointConfig, MtuDiscoveryConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::trust::Tls;
use crate::{Address, ConnectError};

/// Bytes that one stream may have under way towards us: several of the largest frames.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes that a connection may have under way towards us. Subscriptions are bounded by their credit, so this only has to
/// be out of their way.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes that a connection keeps for retransmission.
const SEND_WINDOW_BYTES: u64 = 32 << 20;
/// Bytes that may leave before the path is known: enough for a tick's burst of many partitions.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;
/// A broker that says nothing for so long is gone. One that was killed and started again says so at once, by a stateless
/// reset.
const IDLE: Duration = Duration::from_secs(10);
/// Keeps an idle connection, and finds out that the broker was restarted.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Packets that the broker may take without acknowledging them: its answers carry acknowledgements anyway, and a stream of
/// batches does not need one for every other packet.
const ACK_ELICITING_THRESHOLD: u32 = 9;
/// The longest that the broker may hold an acknowledgement back.
const ACK_DELAY_MAX: Duration = Duration::from_millis(10);
/// Room in the socket for what arrives while the task does something else.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The way to one broker.
#[derive(Debug)]
pub(crate) struct Transport {
    address: Address,
    endpoint: Endpoint,
    remotes: Vec<SocketAddr>,
    /// Which of the host's addresses is tried next.
    next_remote: AtomicUsize,
}

impl Transport {
    /// Resolves the host and opens the socket; connects to nothing yet.
    pub(crate) async fn open(address: Address) -> Result<Self, ConnectError> {
        // Find out now, not at each attempt, that there is no fingerprint or no such file.
        Tls::for_address(&address)?;
        let unknown = |reason: String| ConnectError::UnknownHost { host: address.host.clone(), reason };
        let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
        let mut remotes: Vec<SocketAddr> = found.map_err(|error| unknown(error.to_string()))?.collect();
        // A broker listens on IPv4 unless it is told otherwise, and a UDP port without listener does not say so.
        remotes.sort_by_key(SocketAddr::is_ipv6);
        let Some(first) = remotes.first() else { return Err(unknown("the resolver found nothing".to_owned())) };
        let is_ipv4 = first.is_ipv4();
        remotes.retain(|remote| remote.is_ipv4() == is_ipv4);
        let any: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        if remotes.iter().all(|&remote| is_closed(remote)) {
            return Err(ConnectError::NothingListens { address: address.to_string() });
        }
        let endpoint = open_endpoint(SocketAddr::new(any, 0))?;
        Ok(Self { address, endpoint, remotes, next_remote: AtomicUsize::new(0) })
    }

    /// Makes a connection that is steered to `shard`.
    pub(crate) async fn connect(&self, shard: ShardId) -> Result<quinn::Connection, ConnectFailure> {
        let tls = Tls::for_address(&self.address).map_err(|error| ConnectFailure::Untrusted(error.to_string()))?;
        let remote = self.remotes[self.next_remote.load(Ordering::Relaxed) % self.remotes.len()];
        let mut config = ClientConfig::new(Arc::clone(&tls.config) as Arc<dyn quinn::crypto::ClientConfig>);
        config.transport_config(Arc::new(transport_config(remote.ip().is_loopback())));
        config.initial_dst_cid_provider(Arc::new(move || steered_id(shard)));
        let connecting = self
            .endpoint
            .connect_with(config, remote, &self.address.host)
            .map_err(|error| ConnectFailure::Unreachable(error.to_string()))?;
        connecting.await.map_err(|error| {
            self.next_remote.fetch_add(1, Ordering::Relaxed);
            self.failure(&error, Some(&tls))
        })
    }

    /// What the machine should know about the end of a connection.
    pub(crate) fn failure(&self, error: &ConnectionError, tls: Option<&Tls>) -> ConnectFailure {
        match error {
            ConnectionError::TransportError(transport) if (0x100..0x200).contains(&u64::from(transport.code)) => {
                let detail = transport.reason.clone();
                ConnectFailure::Untrusted(tls.map_or_else(|| detail.clone(), |tls| tls.explain(&self.address, &detail)))
            }
            ConnectionError::ApplicationClosed(close) => match close_code(close) {
                Some(code) => {
                    ConnectFailure::Refused { code, text: String::from_utf8_lossy(&close.reason).into_owned() }
                }
                None => ConnectFailure::Unreachable(error.to_string()),
            },
            _ => ConnectFailure::Unreachable(error.to_string()),
        }
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until what was said last on closed connections has left.
    pub(crate) async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// The broker's close code, unless it is none of the protocol's.
pub(crate) fn close_code(close: &quinn::ApplicationClose) -> Option<ErrorCode> {
    let number = u16::try_from(close.error_code.into_inner()).ok().filter(|&number| number != 0)?;
    Some(ErrorCode::from_wire(number))
}

/// Whether this machine says that nothing listens at an address of its own. Elsewhere, and when in doubt, no: UDP tells
/// nothing, and QUIC waits for an answer that does not come.
fn is_closed(remote: SocketAddr) -> bool {
    if !remote.ip().is_loopback() {
        return false;
    }
    let probe = || {
        let local: IpAddr = if remote.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(local, 0))?;
        socket.connect(remote)?;
        socket.set_nonblocking(true)?;
        // A broker drops a byte that is no QUIC. Without one the refusal is there before the call returns.
        socket.send(&[0])?;
        socket.recv(&mut [0])
    };
    probe().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn open_endpoint(local: SocketAddr) -> Result<Endpoint, std::io::Error> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(local), socket2::Type::DGRAM, None)?;
    // The system's limit may be lower; then it gives what it allows.
    let _limited_by_the_system = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _limited_by_the_system = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&local.into())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(QUIC_MTU_BYTES_MAX).expect("the size is a valid one");
    Endpoint::new(config, None, socket.into(), Arc::new(TokioRuntime))
}

/// A first destination connection id whose byte 0 names the shard; the others are random.
fn steered_id(shard: ShardId) -> ConnectionId {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).expect("the system gives random bytes");
    id[0] = shard.0;
    ConnectionId::new(&id)
}

/// The transport settings of each connection; measurements of bare QUIC use the same.
fn transport_config(is_loopback: bool) -> TransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut ack = AckFrequencyConfig::default();
    ack.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_THRESHOLD)).max_ack_delay(Some(ACK_DELAY_MAX));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(QUIC_MTU_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(discovery))
        .max_idle_timeout(Some(IDLE.try_into().expect("the idle time fits into a variable-length integer")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(corelane_model::limits::SESSION_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .ack_frequency_config(Some(ack))
        .congestion_controller_factory(Arc::new(congestion));
    if is_loopback {
        config.initial_rtt(Duration::from_millis(10)).initial_mtu(QUIC_MTU_BYTES);
    } else {
        config.initial_rtt(Duration::from_millis(100));
    }
    config
}

/// A bare QUIC connection, steered to `shard`, as clients make them: for measuring what is possible without a broker behind
/// it. Keep the returned endpoint for as long as the connection is used.
///
/// # Errors
/// As [`crate::connect`], without the broker's part.
pub async fn connect_bare(address: &str, shard: ShardId) -> Result<(quinn::Connection, BareEndpoint), ConnectError> {
    let transport = Transport::open(Address::parse(address)?).await?;
    let connection = transport.connect(shard).await.map_err(ConnectError::Refused)?;
    Ok((connection, BareEndpoint { _transport: transport }))
}

/// Keeps the socket of [`connect_bare`].
#[derive(Debug)]
pub struct BareEndpoint {
    _transport: Transport,
}
