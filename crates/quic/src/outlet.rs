//! One sending stream and what waits for it.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn_proto::{Connection, StreamId, WriteError};

/// Pieces given to a stream in one call.
const PIECES_MAX: usize = 64;

/// Frames on their way into one stream, as pieces that share memory with the caches they come from.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    pub(crate) stream: Option<StreamId>,
    pieces: VecDeque<Bytes>,
    bytes: usize,
    is_blocked: bool,
    is_stopped: bool,
}

impl Outlet {
    /// Queues a frame's pieces; returns how many bytes they are.
    pub(crate) fn push(&mut self, pieces: impl Iterator<Item = Bytes>) -> usize {
        if self.is_stopped {
            return 0;
        }
        let before = self.bytes;
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
        self.bytes - before
    }

    /// Whether everything queued was given to the stream.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The peer made room.
    pub(crate) fn unblock(&mut self) {
        self.is_blocked = false;
    }

    /// The peer wants nothing more: drops what waits. Returns how many bytes that was.
    pub(crate) fn stop(&mut self) -> usize {
        self.is_stopped = true;
        self.pieces.clear();
        std::mem::take(&mut self.bytes)
    }

    /// Gives the stream what its flow control allows; returns how many bytes left the queue.
    pub(crate) fn write(&mut self, connection: &mut Connection) -> usize {
        let Some(stream) = self.stream else { return 0 };
        let before = self.bytes;
        while !self.is_blocked && !self.pieces.is_empty() {
            let pieces = self.pieces.make_contiguous();
            let count = pieces.len().min(PIECES_MAX);
            match connection.send_stream(stream).write_chunks(&mut pieces[..count]) {
                Ok(written) => {
                    self.bytes -= written.bytes;
                    self.pieces.drain(..written.chunks);
                }
                Err(WriteError::Blocked) => self.is_blocked = true,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    self.stop();
                }
            }
        }
        before - self.bytes
    }
}
