//! Compression of the values of a batch. Keys, headers and numbers stay readable for the broker.

use crate::BatchError;

/// How the values of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One lz4 block.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// Level 1: a producer is in a hurry, and game payloads are small.
const ZSTD_LEVEL: i32 = 1;

impl Compression {
    pub(crate) const fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) const fn to_bits(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// Puts the compressed `values` into `out`, replacing what was there. False when that made them no smaller.
    pub(crate) fn compress(self, values: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let room = match self {
            Self::None => return false,
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(values.len()),
            Self::Zstd => zstd::zstd_safe::compress_bound(values.len()),
        };
        out.resize(room, 0);
        let written = match self {
            Self::None => None,
            Self::Lz4 => lz4_flex::block::compress_into(values, out).ok(),
            Self::Zstd => zstd::bulk::compress_to_buffer(values, out.as_mut_slice(), ZSTD_LEVEL).ok(),
        };
        let Some(written) = written.filter(|&written| written < values.len()) else {
            return false;
        };
        out.truncate(written);
        true
    }

    /// The values, exactly `len` bytes, which the caller has checked against its limit.
    pub(crate) fn decompress(self, compressed: &[u8], len: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = vec![0; len];
        let written = match self {
            Self::None => None,
            Self::Lz4 => lz4_flex::block::decompress_into(compressed, &mut out).ok(),
            Self::Zstd => zstd::bulk::decompress_to_buffer(compressed, out.as_mut_slice()).ok(),
        };
        if written == Some(len) { Ok(out) } else { Err(BatchError::Decompress { compression: self, len }) }
    }
}
