//! How an endpoint speaks QUIC.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corelane_model::ShardId;
use corelane_model::limits::{
    CONNECTION_IDLE, CONNECTION_SEND_WINDOW_BYTES, CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES_MIN,
    QUIC_MTU_BYTES, QUIC_MTU_BYTES_MAX, SESSION_STREAMS_MAX, STREAM_WINDOW_BYTES,
};
use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{AckFrequencyConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use ring::hmac;

use crate::ConfigError;
use crate::connection_id::ShardIds;

/// Bytes in flight before the first acknowledgement. A tick's pushes to one client are to leave at once; RFC 6928's
/// 14,720 would hold a quarter of them back for a round trip.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// Assumed round trip until the first is measured: it decides when a lost first packet is sent again.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A peer that speaks the extension acknowledges after so many packets, or after [`ACK_DELAY_MAX`].
const ACK_ELICITING_THRESHOLD: u32 = 9;
/// The longest that a peer may hold an acknowledgement back.
const ACK_DELAY_MAX: Duration = Duration::from_millis(10);
/// Bytes of received QUIC datagrams that wait; nothing reads them today, so that they only cost their decryption.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Stateless resets are answers to packets of connections that a former process had; each is smaller than the packet
/// that it answers, so this bounds work, not amplification.
const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// What an endpoint needs to know.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Byte 0 of every connection id that the endpoint issues.
    pub shard: ShardId,
    /// Certificate, key and application protocol.
    pub tls: Arc<rustls::ServerConfig>,
    /// Signs stateless resets. When it stays the same over restarts, clients of the former process are told at once that
    /// their connections are gone.
    pub reset_key: [u8; 32],
    /// Seeds everything random but TLS keys.
    pub seed: [u8; 32],
    /// The moment that [`corelane_model::MonotonicNanos`] counts from.
    pub origin: Instant,
    /// Packets that one [`quinn_proto::Transmit`] may hold (segmentation offload). Of larger packets it holds fewer, so that it stays
    /// below 65,536 bytes.
    pub segments_max: usize,
    /// Whether the socket lets packets be fragmented on their way: then connections do not look for larger ones.
    pub may_fragment: bool,
    /// Connections at once, handshakes included.
    pub connections_max: usize,
    /// Bytes for all connections: what waits to be sent, frames that are not whole yet, and windows. With less than
    /// [`corelane_model::limits::CONNECTION_WINDOW_BYTES_MIN`] twice for each, fewer connections are taken.
    pub memory_bytes: u64,
}

impl EndpointConfig {
    pub(crate) fn endpoint(&self) -> Arc<quinn_proto::EndpointConfig> {
        let (shard, seed) = (self.shard, self.seed);
        let mut config = quinn_proto::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.reset_key)));
        config
            .cid_generator(move || Box::new(ShardIds::new(shard, &seed)))
            .min_reset_interval(RESET_INTERVAL)
            .max_udp_payload_size(QUIC_MTU_BYTES_MAX)
            .expect("the size is a valid one")
            .rng_seed(Some(seed));
        Arc::new(config)
    }

    pub(crate) fn server(&self) -> Result<Arc<quinn_proto::ServerConfig>, ConfigError> {
        let crypto =
            QuicServerConfig::try_from(Arc::clone(&self.tls)).map_err(|_| ConfigError::NoInitialCipherSuite)?;
        let mut server = quinn_proto::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = transport_config();
        transport
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES_MIN))
            .send_window(u64::from(CONNECTION_WINDOW_BYTES_MIN));
        server
            .transport_config(Arc::new(transport))
            .migration(true)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(8 << 20);
        Ok(Arc::new(server))
    }
}

/// The transport settings of every endpoint of ours that serves; measurements of bare QUIC use the same.
#[must_use]
pub fn transport_config() -> TransportConfig {
    let mut ack = AckFrequencyConfig::default();
    ack.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_THRESHOLD)).max_ack_delay(Some(ACK_DELAY_MAX));
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(QUIC_MTU_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .initial_mtu(QUIC_MTU_BYTES)
        .mtu_discovery_config(Some(discovery))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(CONNECTION_IDLE.try_into().expect("the idle time fits into a variable-length integer")))
        .keep_alive_interval(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(SESSION_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES))
        .ack_frequency_config(Some(ack))
        .congestion_controller_factory(Arc::new(congestion));
    config
}
