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

impl World {
    /// An operator's request, by its correlation, and its answer if there is one.
    fn operate<B: wire::Body>(&mut self, correlation: u64, request: &B, is_done: bool) -> Result<(), Violation> {
        self.oracle.groups.on_arrived(self.now, 1, &carry(encode(CorrelationId(correlation), request)));
        self.wait(1);
        if !is_done {
            let code = corelane_model::ErrorCode::GroupInUse.to_wire();
            let refusal = wire::Refusal { code, text: String::new() };
            return self.oracle.on_group_left(self.now, 1, &carry(encode(CorrelationId(correlation), &refusal)));
        }
        let done = wire::GroupDone { generation: 9 };
        self.oracle.on_group_left(self.now, 1, &carry(encode(CorrelationId(correlation), &done)))
    }

    fn put(&mut self, offset: u64, is_done: bool) -> Result<(), Violation> {
        let reset = wire::OffsetReset { topic: 1, partition: 0, offset: Some(offset), metadata: String::new() };
        let body = wire::ResetOffsets { group: "group".to_owned(), may_create: false, resets: vec![reset] };
        self.operate(2, &body, is_done)
    }

    /// Everybody gives up, and an operator puts the offset of the partition back to 1.
    fn drain_and_put(&mut self) {
        self.wait(100);
        self.oracle.groups.on_stopped("group", P, (7, 0));
        self.operate(1, &wire::DrainGroup { group: "group".to_owned() }, true).expect("nobody has anything");
        self.put(1, true).expect("nobody has it");
    }

    fn commit(&mut self, member: u64, generation: u64, offset: u64) -> Result<(), Violation> {
        let offset = wire::OffsetCommit { topic: 1, partition: 0, offset, leader_epoch: 0, metadata: String::new() };
        let group = "group".to_owned();
        let body = wire::CommitOffsets { group, member: (member, 0), generation, offsets: vec![offset] };
        self.oracle.groups.on_arrived(self.now, 0, &carry(encode(CorrelationId(3), &body)));
        self.wait(1);
        let done = wire::GroupDone { generation };
        self.oracle.on_group_left(self.now, 0, &carry(encode(CorrelationId(3), &done)))
    }

    fn begin(&mut self, member: u64, turn: u64, start: u64) -> Result<(), Violation> {
        self.tell(member, &[turn], None).expect("nobody else has it");
        self.oracle.on_turn("group", P, (member, 0), (Generation(turn), GroupStart::Committed(Offset(start))))
    }
}

fn is_broken(result: &Result<(), Violation>, why: &str) -> bool {
    matches!(result, Err(Violation::Group { what, .. }) if what.contains(why))
}

#[test]
fn offsets_are_put_elsewhere_only_where_nobody_works() {
    let mut world = world();
    world.wait(100);
    assert_eq!(world.put(1, false), Ok(()));
    assert!(is_broken(&world.put(1, true), "works on"));
}

#[test]
fn a_drained_group_is_not_in_use() {
    let mut world = world();
    world.drain_and_put();
    assert!(is_broken(&world.put(2, false), "it is drained"));
}

#[test]
fn whoever_is_next_begins_where_an_operator_put_it() {
    let mut world = world();
    world.oracle.groups.on_shown("group", P, Offset(9));
    world.commit(7, 3, 9).expect("it is the owner");
    world.drain_and_put();
    assert_eq!(world.begin(8, 4, 1), Ok(()));
    world.commit(8, 4, 5).expect("it is the owner");

    let mut world = self::world();
    world.oracle.groups.on_shown("group", P, Offset(9));
    world.commit(7, 3, 9).expect("it is the owner");
    world.drain_and_put();
    assert!(is_broken(&world.begin(8, 4, 9), "an operator had put it"));
}

#[test]
fn a_late_commit_does_not_undo_it() {
    let mut world = world();
    world.drain_and_put();
    assert!(is_broken(&world.commit(7, 3, 9), "is nobody's"));
}
