//! What every message carries so that its reader can judge it: who sent it, its number, when it was due, a checksum.

use corelane_model::MonotonicNanos;

/// Bytes of a stamp; a shorter message is lengthened to this.
pub const STAMP_BYTES: usize = 16;
/// Bytes of the key that names the stream.
pub const KEY_BYTES: usize = 4;

/// A stream of numbered messages: one key of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIndex(pub u32);

impl StreamIndex {
    /// The record key of the stream's messages.
    #[must_use]
    pub const fn to_key(self) -> [u8; KEY_BYTES] {
        self.0.to_be_bytes()
    }

    /// The stream that a record key names, if it is one of ours.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(key.try_into().ok()?)))
    }
}

/// The stamp at the front of a message, little-endian: checksum, sequence, due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the message in its stream, dense from 0.
    pub sequence: u32,
    /// When the message was due, in nanoseconds since the run's origin.
    pub due: MonotonicNanos,
}

/// Why a message is not what its sender wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Shorter than a stamp.
    #[error("message of {len} bytes is shorter than a stamp")]
    Short {
        /// Its length.
        len: usize,
    },
    /// The bytes do not add up.
    #[error("checksum of the message is {found:#010x}, not {expected:#010x}")]
    Checksum {
        /// What it says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
}

/// Fills `message` with a stamp and with content that depends on stream, sequence and position.
///
/// `size` is what the workload asks for; the message is at least [`STAMP_BYTES`] long.
pub fn write_message(message: &mut Vec<u8>, stream: StreamIndex, stamp: Stamp, size: usize) {
    message.clear();
    message.resize(size.max(STAMP_BYTES), 0);
    message[4..8].copy_from_slice(&stamp.sequence.to_le_bytes());
    message[8..16].copy_from_slice(&stamp.due.0.to_le_bytes());
    let mut word = (u64::from(stream.0) << 32 | u64::from(stamp.sequence)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in message[STAMP_BYTES..].chunks_mut(8) {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let bytes = word.to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    let checksum = checksum_of(stream, message);
    message[0..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads and checks a message that came back.
///
/// # Errors
/// It is too short, or its checksum does not hold.
pub fn read_message(stream: StreamIndex, message: &[u8]) -> Result<Stamp, Corrupt> {
    let Some((front, _)) = message.split_first_chunk::<STAMP_BYTES>() else {
        return Err(Corrupt::Short { len: message.len() });
    };
    let found = u32::from_le_bytes([front[0], front[1], front[2], front[3]]);
    let expected = checksum_of(stream, message);
    if found != expected {
        return Err(Corrupt::Checksum { found, expected });
    }
    let sequence = u32::from_le_bytes([front[4], front[5], front[6], front[7]]);
    let mut due = [0; 8];
    due.copy_from_slice(&front[8..16]);
    Ok(Stamp { sequence, due: MonotonicNanos(u64::from_le_bytes(due)) })
}

fn checksum_of(stream: StreamIndex, message: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&stream.to_key()), &message[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_round_trips_and_every_flipped_bit_is_seen() {
        let mut message = Vec::new();
        let stamp = Stamp { sequence: 7, due: MonotonicNanos(123_456_789) };
        write_message(&mut message, StreamIndex(3), stamp, 64);
        assert_eq!(message.len(), 64);
        assert_eq!(read_message(StreamIndex(3), &message), Ok(stamp));
        assert!(read_message(StreamIndex(4), &message).is_err());
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert!(read_message(StreamIndex(3), &message).is_err(), "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_small_message_is_lengthened() {
        let mut message = Vec::new();
        write_message(&mut message, StreamIndex(0), Stamp { sequence: 0, due: MonotonicNanos(0) }, 2);
        assert_eq!(message.len(), STAMP_BYTES);
        assert_eq!(read_message(StreamIndex(0), &message[..8]), Err(Corrupt::Short { len: 8 }));
    }
}
