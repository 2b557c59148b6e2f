//! Bodies: one rkyv archive each, always checked.

use bytes::Bytes;
use corelane_model::CorrelationId;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Deserialize, Serialize};

use crate::{FRAME_HEAD_BYTES, Frame, FrameHead, FrameKind, OutFrame};

/// A struct that is the body of a frame, in one version.
pub trait Body:
    Sized
    + Archive<Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<Self, HighDeserializer<Error>>>
    + for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Error>>
{
    /// The kind of frame that it is the body of.
    const KIND: FrameKind;
    /// Its version.
    const VERSION: u16;
}

/// Why a frame's body is not what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Another kind was expected here.
    #[error("a frame of kind {found:?} came where {expected:?} was expected")]
    Kind {
        /// What came.
        found: FrameKind,
        /// What the reader asked for.
        expected: FrameKind,
    },
    /// A version that this build does not speak.
    #[error("version {found} of frame kind {kind:?} is not spoken here, version {expected} is")]
    Version {
        /// The frame's kind.
        kind: FrameKind,
        /// What came.
        found: u16,
        /// What this build speaks.
        expected: u16,
    },
    /// The archive does not hold together.
    #[error("body of a {kind:?} frame is malformed")]
    Malformed {
        /// The frame's kind.
        kind: FrameKind,
    },
}

/// A frame without an attachment.
pub fn encode<B: Body>(correlation: CorrelationId, body: &B) -> OutFrame {
    encode_with(correlation, body, Vec::new())
}

/// As [`encode`]; memory for about `expected` bytes beside the body's own fields is taken at once, so that a long list does
/// not move while it grows.
pub fn encode_long<B: Body>(correlation: CorrelationId, body: &B, expected: usize) -> OutFrame {
    encode_into(correlation, body, expected, Vec::new())
}

/// A frame with an attachment, whose bytes are shared and not copied.
///
/// Panics if the frame is over [`corelane_model::limits::FRAME_BYTES_MAX`]: whoever builds frames keeps the limits.
pub fn encode_with<B: Body>(correlation: CorrelationId, body: &B, attachment: Vec<Bytes>) -> OutFrame {
    encode_into(correlation, body, 64, attachment)
}

fn encode_into<B: Body>(correlation: CorrelationId, body: &B, expected: usize, attachment: Vec<Bytes>) -> OutFrame {
    let mut front = Vec::with_capacity(FRAME_HEAD_BYTES + size_of::<B::Archived>() + expected);
    front.resize(FRAME_HEAD_BYTES, 0);
    // Archives hold relative pointers only, so that it does not matter where in the buffer the body begins.
    let mut front = rkyv::api::high::to_bytes_in::<_, Error>(body, front).expect("a body of ours serialises to memory");
    let body_length = u32::try_from(front.len() - FRAME_HEAD_BYTES).expect("a body is below 4 GiB");
    let attached = attachment.iter().map(Bytes::len).sum::<usize>();
    let length = body_length + u32::try_from(attached).expect("an attachment is below 4 GiB");
    assert!(length <= corelane_model::limits::FRAME_BYTES_MAX, "frame of {length} bytes is over the limit");
    let head = FrameHead { length, body_length, kind: B::KIND, version: B::VERSION, correlation };
    front[..FRAME_HEAD_BYTES].copy_from_slice(&head.to_bytes());
    OutFrame { front: Bytes::from(front), attachment }
}

/// A frame's body in place, checked.
///
/// # Errors
/// It is of another kind or version, or does not hold together.
pub fn access<B: Body>(frame: &Frame) -> Result<&B::Archived, BodyError> {
    let FrameHead { kind, version, .. } = frame.head;
    if kind != B::KIND {
        return Err(BodyError::Kind { found: kind, expected: B::KIND });
    }
    if version != B::VERSION {
        return Err(BodyError::Version { kind, found: version, expected: B::VERSION });
    }
    rkyv::access::<B::Archived, Error>(&frame.body).map_err(|_| BodyError::Malformed { kind })
}

/// A frame's body as an owned value, checked.
///
/// # Errors
/// As [`access`].
pub fn decode<B: Body>(frame: &Frame) -> Result<B, BodyError> {
    rkyv::deserialize::<B, Error>(access::<B>(frame)?).map_err(|_| BodyError::Malformed { kind: B::KIND })
}

macro_rules! body {
    ($($(#[$doc:meta])* $name:ident ($kind:ident, $version:literal) { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
            #[rkyv(derive(Debug))]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl $crate::Body for $name {
                const KIND: $crate::FrameKind = $crate::FrameKind::$kind;
                const VERSION: u16 = $version;
            }
        )*
    };
}
pub(crate) use body;
