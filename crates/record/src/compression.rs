//! Compression of the values of a batch. Keys, headers and numbers stay readable for the broker.

use std::fmt;

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

/// What a compressor of zstd takes, about.
const ZSTD_BYTES: usize = 512 << 10;

/// Compresses the values of one batch after another with the same memory.
#[derive(Default)]
pub(crate) struct Compressor {
    /// Made with the first batch that needs it: it takes some hundred KiB.
    zstd: Option<zstd::bulk::Compressor<'static>>,
    out: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("has_zstd", &self.zstd.is_some()).finish_non_exhaustive()
    }
}

impl Compressor {
    pub(crate) const fn new() -> Self {
        Self { zstd: None, out: Vec::new() }
    }

    /// Bytes that it holds on to, about.
    pub(crate) const fn memory_bytes(&self) -> usize {
        self.out.capacity() + if self.zstd.is_some() { ZSTD_BYTES } else { 0 }
    }

    /// The compressed values; `None` when that made them no smaller.
    pub(crate) fn compress(&mut self, compression: Compression, values: &[u8]) -> Option<&[u8]> {
        let written = match compression {
            Compression::None => None,
            Compression::Lz4 => {
                self.out.resize(lz4_flex::block::get_maximum_output_size(values.len()), 0);
                lz4_flex::block::compress_into(values, &mut self.out).ok()
            }
            Compression::Zstd => {
                self.out.resize(zstd::zstd_safe::compress_bound(values.len()), 0);
                if self.zstd.is_none() {
                    self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                }
                let zstd = self.zstd.as_mut()?;
                zstd.compress_to_buffer(values, self.out.as_mut_slice()).ok()
            }
        };
        let written = written.filter(|&written| written < values.len())?;
        Some(&self.out[..written])
    }
}
