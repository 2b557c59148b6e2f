//! The first words on a connection, and the last.

use crate::body::body;

body! {
    /// The first frame of a connection.
    Hello (Hello, 1) {
        /// Oldest protocol version that the client speaks.
        version_min: u16,
        /// Newest protocol version that the client speaks.
        version_max: u16,
        /// Random 128 bits that join the client's connections, high half first.
        session: (u64, u64),
        /// What the client is, for logs: at most 64 bytes are kept.
        client: String,
        /// Bearer token; empty when there is none.
        token: String,
    }

    /// The broker's answer to hello.
    Welcome (Welcome, 1) {
        /// The protocol version that both will speak.
        version: u16,
        /// Which start of the broker this is: when it changed, what was not reported durable may be lost.
        incarnation: u64,
        /// How many shards there are.
        shards: u16,
        /// The shard at the other end of this connection.
        shard: u8,
        /// Version of the catalog as this shard knows it.
        catalog_version: u64,
        /// Bytes that a frame may have after its head.
        frame_bytes_max: u32,
        /// Bytes that a record batch may have.
        batch_bytes_max: u32,
        /// The broker's wall clock in milliseconds since the Unix epoch.
        wall_ms: i64,
    }

    /// The broker shuts down.
    Goaway (Goaway, 1) {
        /// Milliseconds until connections are closed.
        within_ms: u32,
    }

    /// A request was refused as a whole; the frame's correlation id says which.
    Refusal (Refusal, 1) {
        /// A [`corelane_model::ErrorCode`].
        code: u16,
        /// What was wrong and what would be right.
        text: String,
    }

    /// Asks for a sign of life.
    Ping (Ping, 1) {
        /// Comes back unchanged.
        payload: u64,
    }

    /// A sign of life.
    Pong (Pong, 1) {
        /// What the ping held.
        payload: u64,
    }
}
