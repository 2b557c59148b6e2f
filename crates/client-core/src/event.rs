//! What happens to a client.

use corelane_model::{ConnectionKey, ErrorCode};
use corelane_wire::{Frame, FrameError};

use crate::ConnectFailure;

/// Something that happened; handed to [`crate::ClientCore::handle`] with the moment. Events of a connection that the
/// machine no longer knows are ignored, so that they may come late.
#[derive(Debug)]
pub enum Event {
    /// The connection asked for by [`crate::Effect::Connect`] finished its handshake.
    Connected {
        /// The key from the effect.
        connection: ConnectionKey,
    },
    /// The connection could not be made.
    ConnectFailed {
        /// The key from the effect.
        connection: ConnectionKey,
        /// Why.
        failure: ConnectFailure,
    },
    /// A whole frame arrived.
    Frame {
        /// On which connection.
        connection: ConnectionKey,
        /// The frame, lengths checked, contents not.
        frame: Frame,
    },
    /// A stream of the connection carried bytes that are no frame.
    Garbage {
        /// The connection.
        connection: ConnectionKey,
        /// What was wrong.
        error: FrameError,
    },
    /// The connection is gone.
    Disconnected {
        /// The connection.
        connection: ConnectionKey,
        /// The application's close code, when the broker closed it.
        code: Option<ErrorCode>,
        /// What is known about why.
        reason: String,
    },
    /// [`crate::ClientCore::next_deadline`] has passed.
    Deadline,
}
