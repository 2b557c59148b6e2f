//! Building, checking and reading record batches of 100 records of 100 bytes, and of one record of 64 bytes.
//!
//! `cargo bench --package corelane-record` measures; under `cargo test` each body runs once, so that none can rot. For
//! instruction counts: `valgrind --tool=callgrind` on the built bench with `--bench NAME`.

use std::hint::black_box;

use bytes::Bytes;
use corelane_model::{ProducerEpoch, ProducerId, Sequence, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, SealedBatch, partition_for_key};

#[path = "measure.rs"]
mod measure;

const STAMP: ProducerStamp =
    ProducerStamp { producer_id: ProducerId(7), producer_epoch: ProducerEpoch(1), base_sequence: Sequence(0) };

fn build(builder: &mut BatchBuilder, records: usize, value: &[u8]) -> Bytes {
    for _ in 0..records {
        builder.push(WallMillis(1_000), Some(b"match-17"), Some(value), &[]).expect("the batch has room");
    }
    builder.finish(STAMP)
}

fn main() {
    let mut builder = BatchBuilder::new(Compression::None);
    let (small, large) = ([7; 64], [7; 100]);
    let one = build(&mut builder, 1, &small);
    let hundred = build(&mut builder, 100, &large);
    measure::run("build 1 x 64 B", || {
        black_box(build(&mut builder, 1, &small));
    });
    measure::run("build 100 x 100 B", || {
        black_box(build(&mut builder, 100, &large));
    });
    measure::run("check 1 x 64 B", || {
        black_box(SealedBatch::parse(one.clone()).expect("our own batch"));
    });
    measure::run("check 100 x 100 B", || {
        black_box(SealedBatch::parse(hundred.clone()).expect("our own batch"));
    });
    measure::run("read 100 x 100 B", || {
        let batch = RecordBatch::parse(hundred.clone()).expect("our own batch");
        black_box(batch.iter().map(|record| record.value.map_or(0, <[u8]>::len)).sum::<usize>());
    });
    measure::run("partition for key", || {
        black_box(partition_for_key(black_box(b"player-123456"), 64));
    });
}
