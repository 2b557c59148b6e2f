//! Frames of transactions.

use corelane_model::StartAt;
use corelane_wire::{
    EndTransaction, EndTransactionAnswer, FrameKind, InitialiseTransactions, InitialiseTransactionsAnswer,
    OffsetCommit, Passed, StageOffsets, StageOffsetsAnswer, SubscribeCommitted,
};

use crate::{PARTITION, TOPIC, check};

const PRODUCER: u64 = 0x4142_4344_4546_4748;
const EPOCH: u16 = 0x5152;

pub(crate) fn transactions(seen: &mut Vec<FrameKind>) {
    let id = "settle-matches".to_owned();
    check(seen, &InitialiseTransactions { id: id.clone(), timeout_ms: 60_000 }, b"");
    check(seen, &InitialiseTransactionsAnswer { producer: PRODUCER, epoch: EPOCH, home: 63 }, b"");
    let offset =
        OffsetCommit { topic: TOPIC, partition: PARTITION, offset: 17, leader_epoch: 0, metadata: "half-time".into() };
    let stage = StageOffsets {
        id: id.clone(),
        producer: PRODUCER,
        epoch: EPOCH,
        group: "match-makers".into(),
        member: (0x2122_2324_2526_2728, 0x3132_3334_3536_3738),
        generation: 9,
        offsets: vec![offset],
    };
    check(seen, &stage, b"");
    check(seen, &StageOffsetsAnswer { offsets: 1 }, b"");
    check(seen, &EndTransaction { id, producer: PRODUCER, epoch: EPOCH, decision: 1 }, b"");
    check(seen, &EndTransactionAnswer { producer: PRODUCER, epoch: EPOCH + 1 }, b"");
    let start = StartAt::Earliest.into();
    let subscribe = SubscribeCommitted { subscription: 5, topic: TOPIC, partition: PARTITION, start, credit: 1 << 20 };
    check(seen, &subscribe, b"");
    check(seen, &Passed { subscription: 5, next: 170, high_watermark: 180 }, b"");
}
