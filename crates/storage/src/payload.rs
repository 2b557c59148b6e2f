//! The bytes that storage puts into journal items (docs/formats/storage-items.md).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use corelane_commitlog::{LogState, SegmentName, Settled};
use corelane_model::{Offset, WallMillis};

/// Version of a partition's record. Version 1, which is read too, named files to delete by their base alone.
const RECORD_VERSION: u8 = 2;
/// Bytes of a file to delete.
const DOOMED_BYTES: usize = 12;
const FLAG_MEMORY: u8 = 1;
const FLAG_REMOVED: u8 = 2;
/// Bytes of a record before its list of files.
const RECORD_HEAD_BYTES: usize = 16;
/// Bytes of a note of settling.
const SETTLED_BYTES: usize = 40;
/// Bytes of a catalog item before its content.
const CATALOG_HEAD_BYTES: usize = 8;
/// Bytes of a part of a catalog snapshot before its content.
const SNAPSHOT_HEAD_BYTES: usize = 16;

/// What a checkpoint says of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionRecord {
    /// For a memory partition: offsets below this one may have been handed out.
    pub(crate) lease: Option<Offset>,
    /// Its topic was deleted and files of it are left.
    pub(crate) is_removed: bool,
    /// Segments whose files are to be deleted.
    pub(crate) doomed: Vec<SegmentName>,
    /// Its log.
    pub(crate) log: LogState,
}

impl PartitionRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(RECORD_HEAD_BYTES + DOOMED_BYTES * self.doomed.len() + 64);
        let memory = if self.lease.is_some() { FLAG_MEMORY } else { 0 };
        let removed = if self.is_removed { FLAG_REMOVED } else { 0 };
        out.put_u8(RECORD_VERSION);
        out.put_u8(memory | removed);
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(self.doomed.len()).expect("a partition has few segments"));
        out.put_u64_le(self.lease.unwrap_or_default().0);
        for name in &self.doomed {
            out.put_u64_le(name.base.0);
            out.put_u32_le(name.rewrite);
        }
        self.log.encode(&mut out);
        out.into()
    }

    /// Reads what [`PartitionRecord::encode`] wrote; `Err` says what is wrong with the bytes.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < RECORD_HEAD_BYTES {
            return Err(format!("a partition's state of {} bytes", bytes.len()));
        }
        let (version, flags, reserved) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u16_le());
        if version == 0 || RECORD_VERSION < version || flags & !(FLAG_MEMORY | FLAG_REMOVED) != 0 {
            return Err(format!(
                "a partition's state of version {version} with flags {flags:#04x}; this program reads versions 1 \
                 to {RECORD_VERSION}"
            ));
        }
        if reserved != 0 {
            return Err(format!("a partition's state with {reserved:#06x} where nothing may be"));
        }
        let doomed = bytes.get_u32_le() as usize;
        let lease = Offset(bytes.get_u64_le());
        let doomed_bytes = if version == 1 { 8 } else { DOOMED_BYTES };
        if bytes.len() / doomed_bytes < doomed {
            return Err(format!("a partition's state with {doomed} files to delete in {} bytes", bytes.len()));
        }
        let doomed = (0..doomed)
            .map(|_| {
                let base = Offset(bytes.get_u64_le());
                SegmentName { base, rewrite: if version == 1 { 0 } else { bytes.get_u32_le() } }
            })
            .collect();
        let log = LogState::decode(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            lease: (flags & FLAG_MEMORY != 0).then_some(lease),
            is_removed: flags & FLAG_REMOVED != 0,
            doomed,
            log,
        })
    }
}

/// The changes of the segment list in a note of settling; the item itself says partition and end.
pub(crate) fn encode_settled(settled: &Settled) -> Bytes {
    let mut out = BytesMut::with_capacity(SETTLED_BYTES);
    out.put_u64_le(settled.segment.0);
    out.put_u64_le(settled.segment_bytes);
    out.put_u64_le(settled.base.0);
    out.put_i64_le(settled.first_timestamp.0);
    out.put_i64_le(settled.max_timestamp.0);
    out.freeze()
}

/// Reads what [`encode_settled`] wrote.
pub(crate) fn decode_settled(end: Offset, mut bytes: &[u8]) -> Result<Settled, String> {
    if bytes.len() != SETTLED_BYTES {
        return Err(format!("a note of settling of {} bytes; this program reads {SETTLED_BYTES}", bytes.len()));
    }
    Ok(Settled {
        segment: Offset(bytes.get_u64_le()),
        segment_bytes: bytes.get_u64_le(),
        base: Offset(bytes.get_u64_le()),
        end,
        first_timestamp: WallMillis(bytes.get_i64_le()),
        max_timestamp: WallMillis(bytes.get_i64_le()),
    })
}

/// A catalog change with its number, by which replay puts changes in order.
pub(crate) fn encode_change(number: u64, change: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(CATALOG_HEAD_BYTES + change.len());
    out.put_u64_le(number);
    out.put_slice(change);
    out.freeze()
}

/// Reads what [`encode_change`] wrote.
pub(crate) fn decode_change(mut bytes: Bytes) -> Result<(u64, Bytes), String> {
    if bytes.len() < CATALOG_HEAD_BYTES {
        return Err(format!("a catalog change of {} bytes", bytes.len()));
    }
    Ok((bytes.get_u64_le(), bytes))
}

/// One part of a catalog snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotPart {
    /// The snapshot has all changes up to this number.
    pub(crate) until: u64,
    /// Which part this is.
    pub(crate) part: u32,
    /// How many there are.
    pub(crate) parts: u32,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

impl SnapshotPart {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(SNAPSHOT_HEAD_BYTES + self.bytes.len());
        out.put_u64_le(self.until);
        out.put_u32_le(self.part);
        out.put_u32_le(self.parts);
        out.put_slice(&self.bytes);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, String> {
        if bytes.len() < SNAPSHOT_HEAD_BYTES {
            return Err(format!("a part of a catalog snapshot of {} bytes", bytes.len()));
        }
        let (until, part, parts) = (bytes.get_u64_le(), bytes.get_u32_le(), bytes.get_u32_le());
        if parts <= part {
            return Err(format!("part {part} of {parts} of a catalog snapshot"));
        }
        Ok(Self { until, part, parts, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(lease: Option<u32>, is_removed: bool, doomed in prop::collection::vec(any::<(u64, u32)>(), 0..5), at: u32) {
            let record = PartitionRecord {
                lease: lease.map(|lease| Offset(lease.into())),
                is_removed,
                doomed: doomed.into_iter().map(|(base, rewrite)| SegmentName { base: Offset(base), rewrite }).collect(),
                log: LogState::starting_at(Offset(at.into())),
            };
            prop_assert_eq!(PartitionRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..80), is_versioned: bool) {
            let mut bytes = bytes;
            if let (true, [version, flags, ..]) = (is_versioned, &mut bytes[..]) {
                (*version, *flags) = (RECORD_VERSION, *flags & 3);
            }
            drop(PartitionRecord::decode(&bytes));
            drop(decode_settled(Offset(1), &bytes));
            drop(decode_change(Bytes::from(bytes.clone())));
            drop(SnapshotPart::decode(Bytes::from(bytes)));
        }
    }

    #[test]
    fn reserved_bytes_hold_nothing() {
        let record = PartitionRecord { log: LogState::starting_at(Offset(1)), ..PartitionRecord::default() };
        for at in 2..4 {
            let mut bytes = record.encode().to_vec();
            bytes[at] = 1;
            assert!(PartitionRecord::decode(&bytes).unwrap_err().contains("where nothing may be"), "byte {at}");
        }
    }

    #[test]
    fn notes_round_trip() {
        let settled = Settled {
            segment: Offset(1),
            segment_bytes: 8192,
            base: Offset(5),
            end: Offset(9),
            first_timestamp: WallMillis(-3),
            max_timestamp: WallMillis(12),
        };
        assert_eq!(decode_settled(settled.end, &encode_settled(&settled)), Ok(settled));
        assert_eq!(decode_change(encode_change(7, b"change")), Ok((7, Bytes::from_static(b"change"))));
        let part = SnapshotPart { until: 3, part: 1, parts: 2, bytes: Bytes::from_static(b"half") };
        assert_eq!(SnapshotPart::decode(part.encode()), Ok(part));
    }
}
