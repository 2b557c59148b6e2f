//! Segments: extents one after another, each a head and whole record batches.

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;
use corelane_model::{Incarnation, Offset, PartitionId, PartitionIndex, TopicId, WallMillis};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, RecordBatch, split_batch};
use corelane_storage::{EXTENT_HEAD_BYTES, EXTENT_MAGIC, ExtentHead, payload_crc};

use super::Target;

pub(super) const TARGET: Target =
    Target { name: "segment", about: "a segment's extents, their batches and records", body, seeds, repair };

fn body(input: &[u8]) -> bool {
    let mut rest = Bytes::copy_from_slice(input);
    let mut records = 0;
    while let Ok(head) = ExtentHead::parse(&rest) {
        assert!(head.base < head.end, "an extent holds something");
        assert!(0 < head.disk_bytes(), "an extent takes room");
        if let Ok(payload) = head.payload(&rest) {
            records += read(payload);
        }
        let size = usize::try_from(head.disk_bytes()).expect("an extent's size is bounded");
        if rest.len() < size {
            break;
        }
        rest = rest.split_off(size);
    }
    0 < records
}

fn read(mut payload: Bytes) -> usize {
    let mut records = 0;
    while let Ok(Some(batch)) = split_batch(&mut payload) {
        if let Ok(batch) = RecordBatch::parse(batch) {
            records += batch.iter().filter(|record| record.offset < batch.head().end_offset()).count();
        }
    }
    records
}

fn seeds() -> Vec<Vec<u8>> {
    let two = [extent(0, 0, 3), extent(BLOCK_BYTES, 3, 40)].concat();
    vec![extent(0, 0, 1), two]
}

/// An extent at this place with so many batches of one record each.
fn extent(position: u64, base: u64, batches: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for offset in base..base + batches {
        let mut builder = BatchBuilder::new(Compression::None);
        let pushed = builder.push(WallMillis(1_700_000_000_000), Some(b"key"), Some(b"a value of a record"), &[]);
        assert!(pushed.is_ok(), "a small record fits");
        let mut batch = builder.finish(ProducerStamp::default()).to_vec();
        let mut head = BatchHead::parse(&batch).expect("a built batch has a head");
        head.base_offset = Offset(offset);
        head.write(&mut batch);
        payload.extend_from_slice(&batch);
    }
    let head = ExtentHead {
        partition: PartitionId::new(TopicId(3), PartitionIndex(1)),
        incarnation: Incarnation(2),
        position,
        base: Offset(base),
        end: Offset(base + batches),
        first_append: WallMillis(1_700_000_000_000),
        last_append: WallMillis(1_700_000_000_001),
        payload_bytes: u32::try_from(payload.len()).expect("seeds are small"),
        payload_crc: payload_crc(&payload),
    };
    let mut bytes = head.encode().to_vec();
    bytes.extend_from_slice(&payload);
    bytes.resize(usize::try_from(head.disk_bytes()).expect("seeds are small"), 0);
    bytes
}

/// Puts right the checksums of every extent that begins on a block, and of the batches in it.
fn repair(input: &mut [u8]) {
    let block = usize::try_from(BLOCK_BYTES).expect("a block fits");
    for at in (0..input.len()).step_by(block) {
        let extent = &mut input[at..];
        if extent.len() < EXTENT_HEAD_BYTES || extent[..4] != EXTENT_MAGIC {
            continue;
        }
        let length = u32::from_le_bytes([extent[20], extent[21], extent[22], extent[23]]) as usize;
        let end = extent.len().min(EXTENT_HEAD_BYTES.saturating_add(length));
        super::record_batch::repair(&mut extent[EXTENT_HEAD_BYTES..end]);
        let crc = payload_crc(&extent[EXTENT_HEAD_BYTES..end]);
        extent[80..88].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&extent[..92]);
        extent[92..96].copy_from_slice(&crc.to_le_bytes());
    }
}
