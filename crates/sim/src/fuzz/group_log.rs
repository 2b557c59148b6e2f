//! Consumer groups from the log of their home.

use std::collections::BTreeMap;

use corelane_group::{Group, Join, RequestTicket, Restore, Subscription, TopicShape, group_of};
use corelane_model::{GroupName, MemberId, Now, TopicId, TopicName};

use super::home_log::{self, KeyedRecord, START};
use super::{Target, record_batch};

pub(super) const TARGET: Target = Target {
    name: "group_log",
    about: "the log of a home with consumer groups, and what they do after a start",
    body,
    seeds,
    repair: record_batch::repair,
};

/// Deadlines that a restored group is led through.
const DEADLINES_MAX: u32 = 12;

fn body(input: &[u8]) -> bool {
    let Some(records) = home_log::read(input) else { return false };
    let mut groups: BTreeMap<GroupName, Restore> = BTreeMap::new();
    for (key, value) in &records {
        let Ok(name) = group_of(key) else { return false };
        let restore = groups.entry(name.clone()).or_insert_with(|| Restore::new(name));
        if restore.apply(key, value.as_deref()).is_err() {
            return false;
        }
    }
    let found: Vec<Restore> = groups.into_values().filter(|restore| !restore.is_nothing()).collect();
    let is_accepted = !found.is_empty();
    found.into_iter().for_each(live);
    is_accepted
}

/// What the catalog says of any subscription.
fn resolve(_: &Subscription) -> Vec<TopicShape> {
    vec![TopicShape { topic: TopicId(7), partitions: 2 }]
}

/// A start, a newcomer, and the deadlines that follow; then the end of the group.
fn live(restore: Restore) {
    let mut group = restore.finish(START, resolve);
    let mut now = START;
    finish_round(&mut group, now);
    check_encoding(&group, now);
    let topics = [TopicName::parse("inputs").expect("it is sound")];
    let subscription = Subscription { topics: topics.into(), pattern: None };
    let join = Join::new(MemberId(1 << 100), subscription.clone(), resolve(&subscription));
    // A group that ends takes nobody in.
    let _refused = group.join(now, RequestTicket(1), join);
    finish_round(&mut group, now);
    for _ in 0..DEADLINES_MAX {
        let Some(deadline) = group.next_deadline() else { break };
        now.monotonic = now.monotonic.max(deadline);
        group.on_deadline(now);
        finish_round(&mut group, now);
    }
    std::hint::black_box(group.describe(now));
    group.forget_topic(TopicId(7));
    finish_round(&mut group, now);
    let _refused = group.drain(RequestTicket(2));
    finish_round(&mut group, now);
    let _refused = group.delete(now, RequestTicket(3));
    finish_round(&mut group, now);
}

fn finish_round(group: &mut Group, now: Now) {
    group.finish_round(now);
    group.on_durable(group.appended());
    while let Some(effect) = group.poll_effect() {
        std::hint::black_box(effect);
    }
}

/// What a snapshot of the group holds makes the same group.
fn check_encoding(group: &Group, now: Now) {
    let mut again = Restore::new(group.name().clone());
    for (key, value) in group.records() {
        assert_eq!(again.apply(&key, Some(&value)), Ok(()), "a group reads its own records");
    }
    assert!(again.finish(now, resolve).records().eq(group.records()), "a group survives its encoding");
}

fn records() -> Vec<KeyedRecord> {
    let fixtures: [&[u8]; 6] = [
        include_bytes!("../../../../tests/fixtures/1/group-meta.bin"),
        include_bytes!("../../../../tests/fixtures/1/group-member.bin"),
        include_bytes!("../../../../tests/fixtures/1/group-slot.bin"),
        include_bytes!("../../../../tests/fixtures/1/group-offset.bin"),
        include_bytes!("../../../../tests/fixtures/1/group-handover.bin"),
        include_bytes!("../../../../tests/fixtures/1/group-staged.bin"),
    ];
    fixtures.into_iter().flat_map(home_log::of_fixture).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut inputs = home_log::seeds_of(&records());
    // A hand-over alone is nothing.
    inputs.retain(|input| body(input));
    inputs
}
