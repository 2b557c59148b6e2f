//! The bytes of format version 1, which never change.

use std::fmt::Write as _;

use bytes::Bytes;
use corelane_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Transaction, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, RecordBatch, Rewriter, SealedBatch, Stamp, stamp};
use expect_test::expect;

/// One record with a value and nothing else, as a producer sends it.
fn minimal() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(1_700_000_000_000), None, Some(b"hello"), &[]).expect("it fits");
    builder.finish(ProducerStamp::default())
}

/// Every column, nulls beside empties, headers with duplicates, and the stamp of a partition's owner.
fn full() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"4711")), ("trace", None), ("empty", Some(b""))];
    builder.push(WallMillis(1_700_000_000_000), Some(b"player-1"), Some(b"left"), headers).expect("it fits");
    builder.push(WallMillis(1_700_000_000_016), None, None, &[]).expect("it fits");
    builder.push(WallMillis(1_700_000_000_008), Some(b""), Some(b""), &[("last", None)]).expect("it fits");
    let producer =
        ProducerStamp { producer_id: ProducerId(77), producer_epoch: ProducerEpoch(2), base_sequence: Sequence(41) };
    let mut bytes = builder.finish(producer).to_vec();
    let append_timestamp = WallMillis(1_700_000_000_123);
    stamp(&mut bytes, Stamp { base_offset: Offset(1000), append_timestamp, leader_epoch: LeaderEpoch(3) });
    bytes.into()
}

/// One record with a value, of a transaction.
fn transactional() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(1_700_000_000_000), None, Some(b"hello"), &[]).expect("it fits");
    let producer =
        ProducerStamp { producer_id: ProducerId(77), producer_epoch: ProducerEpoch(2), base_sequence: Sequence(0) };
    builder.finish_transactional(producer, 5)
}

/// What compaction left of [`full`]: the first and the last record.
fn holes() -> Bytes {
    let mut out = Vec::new();
    Rewriter::default().rewrite(full(), &[true, false, true], &mut out).expect("it is a batch");
    out.pop().expect("two records are one batch")
}

/// What compresses well. The bytes are the compressor's and may differ between its versions; they must open.
fn compressed(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for index in 0..20 {
        let key = format!("player-{}", index % 4);
        let value = format!("x=17 y=4{index} state=running team=blue");
        let at = WallMillis(1_700_000_000_000 + index);
        builder.push(at, Some(key.as_bytes()), Some(value.as_bytes()), &[]).expect("it fits");
    }
    builder.finish(ProducerStamp::default())
}

fn path(name: &str) -> String {
    format!("{}/../../tests/fixtures/1/record-batch-{name}.bin", env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> Bytes {
    std::fs::read(path(name)).expect("the fixture is part of the repository").into()
}

#[test]
#[ignore = "writes the fixtures of a new format version"]
fn write_fixtures() {
    let batches = [
        ("minimal", minimal()),
        ("full", full()),
        ("transactional", transactional()),
        ("holes", holes()),
        ("lz4", compressed(Compression::Lz4)),
        ("zstd", compressed(Compression::Zstd)),
    ];
    for (name, bytes) in batches {
        std::fs::write(path(name), bytes).expect("the folder is there");
    }
}

#[test]
fn bytes_are_those_of_the_fixtures() {
    assert_eq!(minimal(), fixture("minimal"));
    assert_eq!(full(), fixture("full"));
    assert_eq!(transactional(), fixture("transactional"));
    assert_eq!(holes(), fixture("holes"));
}

#[test]
fn a_batch_with_holes_opens_for_readers_only() {
    assert!(SealedBatch::parse(fixture("holes")).is_err());
    let batch = RecordBatch::parse(fixture("holes")).expect("sound");
    assert_eq!(batch.iter().map(|record| record.offset.0).collect::<Vec<_>>(), [1000, 1002]);
    assert_eq!((batch.head().offset_span, batch.head().record_count), (3, 2));
}

#[test]
fn the_fixtures_open() {
    for name in ["minimal", "full", "transactional", "lz4", "zstd"] {
        let sealed = SealedBatch::parse(fixture(name)).expect(name);
        let batch = RecordBatch::parse(fixture(name)).expect(name);
        assert_eq!(sealed.head(), batch.head());
    }
    let of_transaction = SealedBatch::parse(fixture("transactional")).expect("sound");
    let transaction = Transaction::new(ProducerId(77), ProducerEpoch(2));
    assert_eq!(of_transaction.head().transaction(), Some(transaction));
    let full = RecordBatch::parse(fixture("full")).expect("sound");
    assert_eq!(full.head().transaction(), None);
    let records: Vec<_> =
        full.iter().map(|record| (record.offset.0, record.timestamp.0, record.key, record.value)).collect();
    let first: (_, _, Option<&[u8]>, Option<&[u8]>) = (1000, 1_700_000_000_000, Some(b"player-1"), Some(b"left"));
    let second = (1001, 1_700_000_000_016, None, None);
    let third: (_, _, Option<&[u8]>, Option<&[u8]>) = (1002, 1_700_000_000_008, Some(b""), Some(b""));
    assert_eq!(records, [first, second, third]);
    let headers: Vec<_> = full.get(0).expect("three records").headers().collect();
    assert_eq!(headers, [("trace", Some(&b"4711"[..])), ("trace", None), ("empty", Some(&b""[..]))]);
    for (name, compression) in [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)] {
        let batch = RecordBatch::parse(fixture(name)).expect("sound");
        assert_eq!(batch.head().compression(), compression);
        let plain = RecordBatch::parse(compressed(Compression::None)).expect("sound");
        assert!(batch.iter().zip(&plain).all(|(a, b)| (a.key, a.value) == (b.key, b.value)));
        assert!(batch.bytes().len() + 300 < plain.bytes().len());
    }
}

/// Sixteen bytes a line, in hexadecimal and as text.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let hexadecimal = bytes.chunks(4).map(hex::encode).collect::<Vec<_>>().join(" ");
        let text: String =
            bytes.iter().map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' }).collect();
        writeln!(out, "{:04x}  {hexadecimal:<35}  {text}", line * 16).expect("memory takes every write");
    }
    out
}

#[test]
fn the_minimal_batch_is_drawn() {
    expect![[r#"
        0000  434c5242 01000000 29000000 01000000  CLRB....).......
        0010  01000000 00000000 00000000 00000000  ................
        0020  00000000 00000000 0068e5cf 8b010000  .........h......
        0030  00000000 00000000 00000000 00000000  ................
        0040  bcc78f94 00000000 00000000 18b82c8a  ..............,.
        0050  68656c6c 6f050000 00f7ffff ff050000  hello...........
        0060  00f4ffff ff010000 00f0ffff ff000000  ................
        0070  00e8ffff ff000000 00                 .........
    "#]]
    .assert_eq(&dump(&minimal()));
}

#[test]
fn the_full_batch_is_drawn() {
    expect![[r#"
        0000  434c5242 01007000 7b000000 03000000  CLRB..p.{.......
        0010  03000000 03000000 e8030000 00000000  ................
        0020  7b68e5cf 8b010000 1068e5cf 8b010000  {h.......h......
        0030  4d000000 00000000 02000000 29000000  M...........)...
        0040  ab11576f 00000000 00000000 d57079e0  ..Wo.........py.
        0050  6c656674 04000000 04000080 04000000  left............
        0060  08000000 08000080 08000000 19000000  ................
        0070  19000000 1f000000 10000000 00000000  ................
        0080  08000000 706c6179 65722d31 05747261  ....player-1.tra
        0090  63650534 37313105 74726163 65000565  ce.4711.trace..e
        00a0  6d707479 01046c61 737400a5 ffffff04  mpty..last......
        00b0  000000a1 ffffff0c 000000c9 ffffff08  ................
        00c0  000000c9 ffffff1f 000000             ...........
    "#]]
    .assert_eq(&dump(&full()));
}
