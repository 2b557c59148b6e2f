//! The frame: head, body, attachment.

use bytes::Bytes;
use corelane_model::{CorrelationId, limits::FRAME_BYTES_MAX};

use crate::FrameKind;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 24;

/// The fixed head of a frame, little-endian:
///
/// ```text
/// 0        4         8      10        12         16             24
/// | length | body    | kind | version | reserved | correlation  |
/// ```
///
/// `length` counts the bytes after the head (body and attachment), `body` those of the body alone; `reserved` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes after the head; at most [`FRAME_BYTES_MAX`].
    pub length: u32,
    /// Bytes of the body; at most `length`.
    pub body_length: u32,
    /// What the frame is.
    pub kind: FrameKind,
    /// Version of the body's struct.
    pub version: u16,
    /// Ties an answer to its request; 0 where there is none.
    pub correlation: CorrelationId,
}

/// Why bytes are no frame. The connection is of no more use after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Over the limit.
    #[error("frame of {length} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// What the head says.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// The body would be larger than the frame.
    #[error("frame body of {body_length} bytes does not fit into its frame of {length} bytes")]
    BodyTooLarge {
        /// What the head says of the body.
        body_length: u32,
        /// What the head says of the frame.
        length: u32,
    },
    /// A kind of another version.
    #[error("frame kind {kind} is unknown")]
    UnknownKind {
        /// The number.
        kind: u16,
    },
    /// Reserved bytes are in use.
    #[error("reserved bytes of the frame head are {found:#x}, not 0")]
    Reserved {
        /// What they hold.
        found: u32,
    },
}

impl FrameHead {
    /// The head as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEAD_BYTES] {
        let mut out = [0; FRAME_HEAD_BYTES];
        out[0..4].copy_from_slice(&self.length.to_le_bytes());
        out[4..8].copy_from_slice(&self.body_length.to_le_bytes());
        out[8..10].copy_from_slice(&self.kind.to_wire().to_le_bytes());
        out[10..12].copy_from_slice(&self.version.to_le_bytes());
        out[16..24].copy_from_slice(&self.correlation.0.to_le_bytes());
        out
    }

    /// Reads a head from the wire.
    ///
    /// # Errors
    /// The first rule that it breaks; no length is believed before it was held against its limit.
    pub fn parse(bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let length = u32_at(0);
        let body_length = u32_at(4);
        let reserved = u32_at(12);
        if FRAME_BYTES_MAX < length {
            return Err(FrameError::TooLarge { length, limit: FRAME_BYTES_MAX });
        }
        if length < body_length {
            return Err(FrameError::BodyTooLarge { body_length, length });
        }
        let kind = FrameKind::from_wire(u16_at(8)).ok_or_else(|| FrameError::UnknownKind { kind: u16_at(8) })?;
        if reserved != 0 {
            return Err(FrameError::Reserved { found: reserved });
        }
        let mut correlation = [0; 8];
        correlation.copy_from_slice(&bytes[16..24]);
        Ok(Self {
            length,
            body_length,
            kind,
            version: u16_at(10),
            correlation: CorrelationId(u64::from_le_bytes(correlation)),
        })
    }
}

/// A frame that arrived whole; its lengths agree with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The head.
    pub head: FrameHead,
    /// One rkyv archive, not yet checked.
    pub body: Bytes,
    /// Record batches, not yet checked; often empty.
    pub attachment: Bytes,
}

/// A frame to send: one run of bytes for head and body, then the attachment in as many pieces as it lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutFrame {
    /// Head and body.
    pub front: Bytes,
    /// Record batches, unchanged; their bytes are shared, not copied.
    pub attachment: Vec<Bytes>,
}

impl OutFrame {
    /// Bytes of the frame, head included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.front.len() + self.attachment.iter().map(Bytes::len).sum::<usize>()
    }

    /// A frame has a head, so it is never empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// As whoever gets it sees it, but for its attachment, which is left out. Panics if it was not made by
    /// [`crate::encode_with`].
    #[must_use]
    pub fn without_attachment(&self) -> Frame {
        let head = self.front.first_chunk().and_then(|head| FrameHead::parse(head).ok());
        let head = head.expect("a frame of ours begins with a head");
        Frame { head, body: self.front.slice(FRAME_HEAD_BYTES..), attachment: Bytes::new() }
    }

    /// The pieces in the order of sending.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.front).chain(self.attachment)
    }
}
