//! Record batches as the broker takes them in and as a consumer reads them.

use bytes::Bytes;
use corelane_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, WallMillis};
use corelane_record::{
    BATCH_HEAD_BYTES, BatchBuilder, BatchHead, Compression, ProducerStamp, RecordBatch, SealedBatch, Stamp, split_batch,
};

use super::Target;

pub(super) const TARGET: Target = Target {
    name: "record_batch",
    about: "a run of record batches: split, sealed, stamped, every record and header read",
    body,
    seeds,
    repair,
};

fn body(input: &[u8]) -> bool {
    let mut run = Bytes::copy_from_slice(input);
    let mut count = 0_u32;
    while let Ok(Some(batch)) = split_batch(&mut run) {
        let sealed = SealedBatch::parse(batch.clone());
        let read = RecordBatch::parse(batch);
        if let Ok(read) = &read {
            read_all(read);
            count += 1;
        }
        if let Ok(sealed) = sealed {
            // What the broker lets in and stamps, a consumer must be able to read, but for what only decompression shows.
            let is_plain = sealed.head().compression() == Compression::None;
            assert!(!is_plain || read.is_ok(), "sealed but not readable: {read:?}");
            stamped(&sealed);
        }
    }
    0 < count && run.is_empty()
}

fn read_all(batch: &RecordBatch) {
    let mut records = 0;
    for record in batch.iter() {
        assert!(record.offset < batch.head().end_offset(), "record beyond its batch");
        let key = record.key.map_or(0, <[u8]>::len);
        let value = record.value.map_or(0, <[u8]>::len);
        let headers = record.headers().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        std::hint::black_box(key + value + headers);
        records += 1;
    }
    assert_eq!(records, batch.len(), "iteration and count differ");
}

fn stamped(sealed: &SealedBatch) {
    let stamp =
        Stamp { base_offset: Offset(1 << 40), append_timestamp: WallMillis(1 << 41), leader_epoch: LeaderEpoch(7) };
    let head = BatchHead::parse(&sealed.stamped_head(stamp)).expect("a stamped head is a head");
    assert_eq!(head.base_offset, stamp.base_offset, "the stamp is in the head");
    assert_eq!(head.payload_crc, sealed.head().payload_crc, "the stamp leaves the payload alone");
}

fn seeds() -> Vec<Vec<u8>> {
    let mut inputs = [Compression::None, Compression::Lz4, Compression::Zstd].map(batches).to_vec();
    inputs.push(inputs.concat());
    inputs
}

/// A batch with everything in it, and one with a bare record.
fn batches(compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    let producer =
        ProducerStamp { producer_id: ProducerId(9), producer_epoch: ProducerEpoch(1), base_sequence: Sequence(4) };
    let value = [b"state of the match ".repeat(20), b"and more".to_vec()].concat();
    let pushes = [
        builder.push(WallMillis(1_700_000_000_000), Some(b"player-1"), Some(&value), &[("kind", Some(b"input"))]),
        builder.push(WallMillis(1_700_000_000_016), None, Some(b""), &[("a", None), ("a", Some(b""))]),
        builder.push(WallMillis(1_700_000_000_001), Some(b""), None, &[]),
    ];
    assert!(pushes.iter().all(Result::is_ok), "small records fit");
    let mut bytes = builder.finish(producer).to_vec();
    assert!(builder.push(WallMillis(5), None, Some(b"x"), &[]).is_ok(), "a small record fits");
    bytes.extend_from_slice(&builder.finish(ProducerStamp::default()));
    bytes
}

/// Walks the heads as far as their lengths make sense and puts both checksums right.
pub(super) fn repair(input: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = input.get(at..at + BATCH_HEAD_BYTES) {
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let payload = at + BATCH_HEAD_BYTES;
        let end = input.len().min(payload.saturating_add(length));
        let crc = crc32c::crc32c(&input[payload..end]);
        input[at + 64..at + 68].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&input[at..at + 76]);
        input[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}
