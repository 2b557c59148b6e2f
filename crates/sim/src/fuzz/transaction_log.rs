//! Coordinators of transactions from the log of their home.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_model::{Decision, Now, PartitionId, PartitionIndex, ProducerId, TopicId, TransactionalId};
use corelane_transaction::{Coordinator, Effect, Participant, RequestTicket, Restore, id_of};

use super::home_log::{self, KeyedRecord, START};
use super::{Target, record_batch};

pub(super) const TARGET: Target = Target {
    name: "transaction_log",
    about: "the log of a home with transactional ids, and what their coordinators do after a start",
    body,
    seeds,
    repair: record_batch::repair,
};

/// Deadlines that a restored coordinator is led through.
const DEADLINES_MAX: u32 = 4;

fn body(input: &[u8]) -> bool {
    let Some(records) = home_log::read(input) else { return false };
    let mut ids: BTreeMap<TransactionalId, Restore> = BTreeMap::new();
    for (key, value) in &records {
        let Ok(id) = id_of(key) else { return false };
        let restore = ids.entry(id.clone()).or_insert_with(|| Restore::new(id));
        if restore.apply(key, value.as_deref()).is_err() {
            return false;
        }
    }
    let found: Vec<Restore> = ids.into_values().filter(|restore| !restore.is_nothing()).collect();
    let is_accepted = !found.is_empty();
    found.into_iter().for_each(live);
    is_accepted
}

/// A start; what was decided takes effect; a client goes on, another takes the id over; then time passes.
fn live(restore: Restore) {
    let mut coordinator = restore.finish(START);
    let mut now = START;
    check_encoding(&coordinator, now);
    finish_rounds(&mut coordinator, now);
    if let Some(current) = coordinator.current() {
        let participant = Participant::Partition(PartitionId::new(TopicId(7), PartitionIndex(1)));
        // The transaction may be over.
        let _refused = coordinator.join(now, RequestTicket(1), current, participant);
        finish_rounds(&mut coordinator, now);
        let _refused = coordinator.end(now, RequestTicket(2), current, Decision::Commit);
        finish_rounds(&mut coordinator, now);
    }
    let _refused = coordinator.initialise(now, RequestTicket(3), ProducerId(1 << 40), Duration::from_secs(10));
    finish_rounds(&mut coordinator, now);
    check_encoding(&coordinator, now);
    for _ in 0..DEADLINES_MAX {
        let Some(deadline) = coordinator.next_deadline() else { break };
        now.monotonic = now.monotonic.max(deadline);
        coordinator.on_deadline(now);
        finish_rounds(&mut coordinator, now);
    }
}

/// Until every participant has what was decided.
fn finish_rounds(coordinator: &mut Coordinator, now: Now) {
    let mut is_told = true;
    while is_told {
        is_told = false;
        coordinator.finish_round();
        coordinator.on_durable(coordinator.appended());
        while let Some(effect) = coordinator.poll_effect() {
            if let Effect::Apply { participant, transaction, .. } = effect {
                coordinator.on_applied(now, transaction, &participant);
                is_told = true;
            }
        }
    }
}

/// What a snapshot of the coordinator holds makes the same coordinator.
fn check_encoding(coordinator: &Coordinator, now: Now) {
    let Some((key, value)) = coordinator.record() else { return };
    let mut again = Restore::new(coordinator.id().clone());
    assert_eq!(again.apply(&key, Some(&value)), Ok(()), "a coordinator reads its own record");
    assert_eq!(again.finish(now).record(), Some((key, value)), "a coordinator survives its encoding");
}

fn records() -> Vec<KeyedRecord> {
    let key = include_bytes!("../../../../tests/fixtures/1/transaction-key.bin").to_vec();
    let value = include_bytes!("../../../../tests/fixtures/1/transaction-value.bin").to_vec();
    let addition_key = include_bytes!("../../../../tests/fixtures/1/transaction-addition-key.bin").to_vec();
    let addition_value = include_bytes!("../../../../tests/fixtures/1/transaction-addition-value.bin").to_vec();
    let mut records = vec![(key, Some(value)), (addition_key, Some(addition_value))];
    // One id in each of its phases beside it.
    let id = |name: &str| TransactionalId::parse(name).expect("it is sound");
    for (name, steps) in [("idle", 0), ("open", 1), ("ended", 2)] {
        let mut coordinator = Coordinator::new(START, id(name));
        let begun = coordinator.initialise(START, RequestTicket(1), ProducerId(77), Duration::from_secs(10));
        assert_eq!(begun, Ok(()), "nothing speaks against it");
        finish_rounds(&mut coordinator, START);
        let current = coordinator.current().expect("it was initialised");
        if 1 <= steps {
            let participant = Participant::Partition(PartitionId::new(TopicId(7), PartitionIndex(0)));
            let joined = coordinator.join(START, RequestTicket(2), current, participant);
            assert_eq!(joined, Ok(()), "nothing speaks against it");
        }
        if steps == 2 {
            let ended = coordinator.end(START, RequestTicket(3), current, Decision::Abort);
            assert_eq!(ended, Ok(()), "nothing speaks against it");
            finish_rounds(&mut coordinator, START);
        }
        records.extend(coordinator.record().map(|(key, value)| (key, Some(value))));
    }
    records
}

fn seeds() -> Vec<Vec<u8>> {
    let mut inputs = home_log::seeds_of(&records());
    // An addition alone is nothing.
    inputs.retain(|input| body(input));
    inputs
}
