//! What a member says of itself while it works: how long a record takes it, and now and then all that it holds.

use std::time::Duration;

use corelane_model::PartitionId;

use crate::members::Members;

/// One member that is never without something to commit.
fn busy_member() -> (Members, usize) {
    let mut members = Members::new(true);
    members.session = Duration::from_secs(10);
    members.auto_commit = Duration::from_secs(1);
    let a = members.join(None);
    members.settle();
    (members, a)
}

/// Ten times as long as one settling, so that some heartbeats are due.
fn work_on(members: &mut Members, a: usize) {
    for _ in 0..10 {
        members.produce(40);
        let key = members.apps[a].key.unwrap();
        members.world.core.measure(key, 700);
        members.settle();
    }
}

#[test]
fn who_commits_all_the_time_says_how_long_a_record_takes() {
    let (mut members, a) = busy_member();
    work_on(&mut members, a);
    let coordinator = members.world.broker.coordinator.as_ref().unwrap();
    assert!(10 <= coordinator.commits, "it commits more often than heartbeats leave: {}", coordinator.commits);
    let described = coordinator.group.describe(members.world.now);
    assert_eq!(described.members[0].processing_micros, Some(700));
}

#[test]
fn who_commits_all_the_time_says_in_full_what_it_holds() {
    let (mut members, a) = busy_member();
    let before = members.world.broker.coordinator.as_ref().unwrap().full_reports;
    work_on(&mut members, a);
    let coordinator = members.world.broker.coordinator.as_ref().unwrap();
    assert!(before < coordinator.full_reports, "of {} commits", coordinator.commits);
    let held: Vec<PartitionId> = members.apps[a].turns.keys().copied().collect();
    assert_eq!(held.len(), 4);
}
