//! Two owners of a partition, and when there may be two.

use corelane_model::{CorrelationId, TopicClass};
use corelane_wire::{GroupAssignment, JoinGroup, OwnedPartition, ResetPolicy, RevokedPartition, encode};

use super::*;
use crate::network::carry;

const P: PartitionId = partition(1, 0);
const MS: u64 = 1_000_000;
const REBALANCE_MS: u64 = 250;

struct World {
    oracle: Oracle,
    now: MonotonicNanos,
}

/// Members 7 and 8, long in the group; what 7 has from generation 3 on it is told only after 200 ms.
fn world() -> World {
    let mut oracle = Oracle::default();
    oracle.open_partition(P, TopicClass::Durable, false);
    let mut world = World { oracle, now: MonotonicNanos(0) };
    world.join(7);
    world.join(8);
    world.wait(1_000);
    world.tell(7, &[3], None).expect("nobody else has it");
    let turn = (Generation(3), GroupStart::Committed(Offset(0)));
    world.oracle.on_turn("group", P, (7, 0), turn).expect("it was told");
    world
}

impl World {
    fn join(&mut self, member: u64) {
        let join = JoinGroup {
            group: "group".to_owned(),
            member: (member, 0),
            static_id: None,
            topics: Vec::new(),
            pattern: None,
            strategy: None,
            capacity: 1,
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: u32::try_from(REBALANCE_MS).expect("it is small"),
            reset: ResetPolicy { kind: 0, value: 0 },
        };
        self.oracle.groups.on_arrived(self.now, 0, &carry(encode(CorrelationId(0), &join)));
    }

    fn wait(&mut self, millis: u64) {
        self.now.0 += millis * MS;
    }

    /// A member is told its turns of the partition, and in how many milliseconds it has to give it up.
    fn tell(&mut self, member: u64, turns: &[u64], within_ms: Option<u32>) -> Result<(), Violation> {
        let owned = |&since: &u64| OwnedPartition { topic: 1, partition: 0, since, committed: None };
        let revoked = |within_ms| RevokedPartition { topic: 1, partition: 0, since: 3, within_ms };
        let told = GroupAssignment {
            group: "group".to_owned(),
            member: (member, 0),
            generation: 9,
            is_last: true,
            topics: Vec::new(),
            owned: turns.iter().map(owned).collect(),
            revoking: within_ms.map(revoked).into_iter().collect(),
            standby: Vec::new(),
        };
        self.oracle.on_group_left(self.now, 0, &carry(encode(CorrelationId(0), &told)))
    }
}

#[test]
fn who_has_time_left_keeps_its_partition() {
    let mut world = world();
    world.tell(7, &[], Some(160)).expect("it may be asked for it");
    world.wait(100);
    assert!(matches!(world.tell(8, &[4], None), Err(Violation::Group { .. })));
}

#[test]
fn who_was_asked_late_is_overdue_when_it_was_told() {
    // The time counts from the decision: of 250 ms it was told the 160 that were left.
    let mut world = world();
    world.tell(7, &[], Some(160)).expect("it may be asked for it");
    world.wait(165);
    assert_eq!(world.tell(8, &[4], None), Ok(()));
}

#[test]
fn who_was_asked_for_nothing_is_not_overdue() {
    let mut world = world();
    world.tell(7, &[], Some(160)).expect("it may be asked for it");
    world.tell(7, &[3], None).expect("it keeps it after all");
    world.wait(165);
    assert!(matches!(world.tell(8, &[4], None), Err(Violation::Group { .. })));
}
