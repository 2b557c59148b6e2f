//! Random operations on a log, its journal and its segments, against a plain list of what was appended.

#[path = "model/rig.rs"]
mod rig;

use proptest::collection::vec;
use proptest::prelude::*;
use rig::{Op, Rig};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..4u64, 1..4u32, 0..200usize).prop_map(|(producer, records, size)| Op::Append { producer, records, size }),
        2 => (1..4u64, 0..8usize).prop_map(|(producer, back)| Op::Resend { producer, back }),
        1 => (1..4u64).prop_map(|producer| Op::Skip { producer }),
        1 => (1..4u64).prop_map(|producer| Op::NewEpoch { producer }),
        6 => (0..4usize).prop_map(|behind| Op::Sync { behind }),
        4 => (1..1000u32).prop_map(|bytes_max| Op::Plan { bytes_max }),
        4 => Just(Op::WriteNote),
        1 => Just(Op::FailSettle),
        2 => Just(Op::Checkpoint),
        2 => (0..5usize).prop_map(|before| Op::Recycle { before }),
        1 => (0..100u64).prop_map(|percent| Op::Truncate { percent }),
        2 => (-50..400i64).prop_map(|millis| Op::Wait { millis }),
        1 => (0..4usize).prop_map(|survive| Op::Crash { survive, damage: None }),
        1 => (0..4usize, 0..20usize).prop_map(|(survive, damage)| Op::Crash { survive, damage: Some(damage) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_keeps_what_was_appended(
        ops in vec(op(), 1..120),
        retention_ms in proptest::option::of(100..2000u64),
        retention_bytes in proptest::option::of(500..5000u64),
    ) {
        let mut rig = Rig::new(retention_ms, retention_bytes);
        for op in &ops {
            rig.apply(op);
            rig.check();
        }
    }
}
