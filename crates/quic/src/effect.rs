//! What goes in and what comes out.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use corelane_model::ConnectionKey;
use corelane_wire::{Frame, FrameError};

/// One datagram as it arrived.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address it was sent to, where the socket tells.
    pub local_ip: Option<IpAddr>,
    /// Congestion marks of its IP head.
    pub ecn: Option<quinn_proto::EcnCodepoint>,
    /// The UDP payload; it is decrypted in place.
    pub bytes: BytesMut,
}

/// The stream that a frame leaves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SendStream {
    /// The sending half of the client's first bidirectional stream.
    Control,
    /// One of the connection's push streams; it is opened at its first frame.
    Push(u8),
}

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuicEvent {
    /// Its handshake is done.
    Connected {
        /// The connection.
        connection: ConnectionKey,
    },
    /// A whole frame arrived.
    Frame {
        /// The connection.
        connection: ConnectionKey,
        /// The frame, lengths checked, contents not.
        frame: Frame,
    },
    /// A stream carried bytes that are no frame. It was stopped; nothing more comes from it.
    Garbage {
        /// The connection.
        connection: ConnectionKey,
        /// What was wrong.
        error: FrameError,
    },
    /// More than [`corelane_model::limits::SESSION_SEND_BYTES_MAX`] of frames wait for the peer.
    Congested {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Less than half of that waits again.
    Relieved {
        /// The connection.
        connection: ConnectionKey,
    },
    /// The connection is gone; nothing more comes from it and nothing reaches it. Comes once for every
    /// [`QuicEvent::Connected`].
    Disconnected {
        /// The connection.
        connection: ConnectionKey,
    },
}
