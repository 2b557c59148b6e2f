//! What happens to a shard.

use corelane_model::{ConnectionKey, ShardId};
use corelane_storage::FileDone;
use corelane_wire::{Frame, FrameError};

use crate::{AdminId, AdminQuery, MeshMessage};

/// Something that happened; handed to [`crate::Shard::handle`] with the moment.
#[derive(Debug)]
pub enum Event {
    /// A connection finished its handshake.
    Connected {
        /// The key under which its frames come.
        connection: ConnectionKey,
    },
    /// A whole frame arrived.
    Frame {
        /// On which connection.
        connection: ConnectionKey,
        /// The frame, lengths checked, contents not.
        frame: Frame,
    },
    /// A stream of the connection carried bytes that are no frame. Nothing more comes from it.
    Garbage {
        /// The connection.
        connection: ConnectionKey,
        /// What was wrong.
        error: FrameError,
    },
    /// More than [`corelane_model::limits::SESSION_SEND_BYTES_MAX`] wait to be sent on the connection: push nothing more
    /// to it until [`Event::Relieved`]. Answers still go.
    Congested {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Less than half of that waits again.
    Relieved {
        /// The connection.
        connection: ConnectionKey,
    },
    /// The connection is gone; nothing more comes from it and nothing reaches it.
    Disconnected {
        /// The connection.
        connection: ConnectionKey,
    },
    /// A file effect completed.
    File(FileDone),
    /// A neighbour shard sent something.
    Mesh {
        /// The neighbour.
        from: ShardId,
        /// What it sent.
        message: MeshMessage,
    },
    /// The admin listener asks something.
    Admin {
        /// Comes back with the answer.
        id: AdminId,
        /// The question.
        query: AdminQuery,
    },
    /// [`crate::Shard::next_deadline`] has passed.
    Deadline,
    /// Shut down: take nothing new, make everything durable, say [`crate::Effect::Drained`].
    Drain,
}
