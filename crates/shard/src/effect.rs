//! What a shard wants done.

use corelane_model::{ConnectionKey, ErrorCode, ShardId};
use corelane_storage::FileEffect;
use corelane_wire::OutFrame;

use crate::{AdminAnswer, AdminId, MeshMessage};

/// The stream that a frame leaves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutStream {
    /// The control stream's sending half: answers and notices, in order.
    Control,
    /// One of the connection's push streams, `0..SESSION_DATA_STREAMS_MAX`; it is opened at its first frame.
    Push(u8),
}

/// One thing to do, in the order of [`crate::Shard::poll_effect`].
#[derive(Debug)]
pub enum Effect {
    /// Send a frame. Frames of one stream leave in order.
    Send {
        /// The connection; if it is gone by now the frame is dropped.
        connection: ConnectionKey,
        /// The stream.
        stream: OutStream,
        /// The frame.
        frame: OutFrame,
    },
    /// Close a connection, after what was sent on it before.
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// The application's close code.
        code: ErrorCode,
        /// For the peer's log.
        reason: String,
    },
    /// Do something to a file.
    File(FileEffect),
    /// Send something to a neighbour shard.
    Mesh {
        /// The neighbour.
        to: ShardId,
        /// What to send.
        message: MeshMessage,
    },
    /// The answer to an [`crate::Event::Admin`].
    Admin {
        /// The question's id.
        id: AdminId,
        /// The answer.
        answer: AdminAnswer,
    },
    /// Recovery is over and the catalog is known: connections may come.
    Ready,
    /// The shard cannot start: its journal or the catalog cannot be read, and the text says why. Nothing was written;
    /// no other effect follows.
    Failed {
        /// What was found and what would be right.
        text: String,
    },
    /// After [`crate::Event::Drain`], or when a start for [`crate::Boot::Export`] is through: everything acknowledged is
    /// on disk, nothing is in flight.
    Drained,
}
