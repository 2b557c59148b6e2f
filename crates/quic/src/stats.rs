//! What an endpoint counts.

/// Counters of one endpoint since it was made, and how many connections it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicStats {
    /// Connections whose handshake is done.
    pub connections: u64,
    /// Connections whose handshake is under way.
    pub handshakes: u64,
    /// Handshakes that were done.
    pub accepted_total: u64,
    /// Connection attempts that were refused because a limit was reached.
    pub refused_total: u64,
    /// Connection attempts that were asked to prove their address first.
    pub retried_total: u64,
    /// Datagrams that belonged to no connection.
    pub stray_datagrams_total: u64,
    /// Datagrams that arrived.
    pub datagrams_received_total: u64,
    /// Bytes of datagrams that arrived.
    pub bytes_received_total: u64,
    /// Bytes of datagrams handed out for sending.
    pub bytes_sent_total: u64,
    /// Frames that arrived whole.
    pub frames_received_total: u64,
    /// Frames taken for sending.
    pub frames_sent_total: u64,
    /// Streams that carried bytes that are no frame.
    pub garbage_streams_total: u64,
    /// Bytes that all connections hold: frames that wait to be sent, and frames that are not whole yet.
    pub held_bytes: u64,
    /// Connections closed because their peer took too little of what waited for it.
    pub overflowed_total: u64,
}
