//! Members against the real group machine: who has what, what was committed, and what breaks on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_client_core::{CommitError, CommitOffset, FenceReason, GroupStart, MembershipError};
use corelane_group::Settings;
use corelane_model::{Generation, Offset, StartAt};
use proptest::prelude::*;

use crate::members::{App, Members, PARTITIONS, SESSION};

#[test]
fn members_share_partitions_and_commit_what_they_do() {
    let mut members = Members::new(false);
    let (a, b) = (members.join(None), members.join(None));
    members.produce(400);
    members.settle();
    assert_eq!((members.held(a).len(), members.held(b).len()), (2, 2));
    assert!(members.held(a).is_disjoint(&members.held(b)));
    members.check_all_done();
    assert!(members.apps[a].failures.is_empty());
}

#[test]
fn what_moves_is_handed_over_and_read_on_from_the_commit() {
    let mut members = Members::new(true);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    assert_eq!(members.held(a).len(), 4);
    let b = members.join(None);
    members.settle();
    assert_eq!((members.held(a).len(), members.held(b).len()), (2, 2));
    assert_eq!(members.apps[b].blobs.len(), 2, "what was left arrives");
    for turn in members.apps[b].turns.values() {
        assert_eq!(turn.next, 10, "it begins where the other ended");
    }
    members.produce(40);
    members.settle();
    members.check_all_done();
    assert_eq!(members.apps[a].lost, 0);
}

#[test]
fn a_standby_is_as_far_as_the_owner_when_it_takes_over() {
    let mut members = Members::with(true, Settings { standbys: 1, ..Settings::default() });
    members.follow = Some(StartAt::Earliest);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    let b = members.join(None);
    members.settle();
    let stands_by = |app: &App| app.standbys.iter().map(|one| one.partition.index.0).collect::<BTreeSet<_>>();
    assert_eq!(stands_by(&members.apps[b]), members.held(a));
    assert_eq!(stands_by(&members.apps[a]), members.held(b), "who gave a partition up follows it");
    members.produce(40);
    members.settle();
    let warm = members.apps[b].warm.clone();
    assert_eq!(warm.len(), 2);
    assert!(warm.values().all(|offsets| offsets.iter().copied().eq(0..20)), "from the first on: {warm:?}");
    members.check_all_done();

    // The owner dies: what is followed is taken over where the group is, and nothing comes twice.
    members.apps[b].begun.clear();
    members.world.core.abandon_group(members.apps[a].key.take().unwrap());
    for _ in 0..3 {
        members.settle();
    }
    assert_eq!(members.held(b).len(), 4);
    for (_, start, followed) in &members.apps[b].begun {
        assert_eq!((*start, *followed), (GroupStart::Committed(Offset(20)), Some(Offset(20))));
    }
    assert_eq!((members.apps[b].begun.len(), members.apps[b].standbys.len()), (2, 0));
    members.produce(40);
    members.settle();
    members.check_all_done();
}

#[test]
fn a_standby_that_is_behind_reads_what_its_state_misses() {
    let mut members = Members::with(true, Settings { standbys: 1, ..Settings::default() });
    members.follow = Some(StartAt::Earliest);
    let (a, b) = (members.join(None), members.join(None));
    members.settle();
    members.produce(40);
    // The application of the standby is through with a few records of each partition when the owner goes.
    for _ in 0..30 {
        members.world.round();
        while members.world.up(0) || members.world.down(0) {}
        members.world.broker.sync();
        members.world.notices();
        members.work(a);
        members.world.advance(Duration::from_millis(10));
    }
    for index in members.held(a) {
        let partition = *members.apps[a].turns.keys().find(|partition| partition.index.0 == index).unwrap();
        members.world.core.followed(members.apps[b].key.unwrap(), partition, Offset(3));
        members.apps[b].inbox.clear();
    }
    let had = members.held(a);
    members.apps[b].begun.clear();
    members.world.core.leave_group(members.world.now, members.apps[a].key.unwrap(), false);
    members.settle();
    assert_eq!(members.held(b).len(), 4);
    for (partition, start, followed) in &members.apps[b].begun {
        assert!(had.contains(&partition.index.0));
        assert_eq!((*start, *followed), (GroupStart::Committed(Offset(10)), Some(Offset(3))));
        assert_eq!(members.apps[b].turns[partition].first, Some(3), "it is read from where the state is");
    }
    assert_eq!(members.apps[b].begun.len(), 2);
}

#[test]
fn a_member_that_leaves_commits_what_it_owes() {
    let mut members = Members::new(true);
    let (a, b) = (members.join(None), members.join(None));
    members.produce(80);
    members.settle();
    let key = members.apps[a].key.unwrap();
    members.world.core.leave_group(members.world.now, key, false);
    members.settle();
    assert_eq!(members.apps[a].end, Some(None));
    assert_eq!(members.held(b).len(), 4);
    members.check_all_done();
}

#[test]
fn the_partitions_of_a_dead_member_go_to_others() {
    let mut members = Members::new(false);
    let (a, b) = (members.join(None), members.join(None));
    members.settle();
    let key = members.apps[a].key.take().unwrap();
    members.world.core.abandon_group(key);
    members.apps[a].turns.clear();
    members.produce(80);
    members.settle();
    assert_eq!(members.held(b).len(), 4);
    members.check_all_done();
}

#[test]
fn a_static_member_restarts_unnoticed() {
    let mut members = Members::new(true);
    let (a, b) = (members.join(Some("a")), members.join(None));
    members.settle();
    let (held, others) = (members.held(a), members.held(b));
    let key = members.apps[a].key.unwrap();
    members.world.core.leave_group(members.world.now, key, true);
    members.world.exchange();
    let again = members.join(Some("a"));
    members.settle();
    assert_eq!(members.held(again), held);
    assert_eq!(members.held(b), others);
    assert_eq!(members.apps[b].lost, 0);
}

#[test]
fn the_older_of_two_static_members_is_put_out_for_good() {
    let mut members = Members::new(true);
    let a = members.join(Some("a"));
    members.settle();
    let again = members.join(Some("a"));
    members.settle();
    assert_eq!(members.apps[a].end, Some(Some(MembershipError::Fenced(FenceReason::StaticIdTaken))));
    assert_eq!(members.held(again).len(), 4);
}

#[test]
fn a_member_that_was_put_out_comes_back_as_another() {
    let mut members = Members::new(false);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    members.world.advance_silently(SESSION * 2);
    members.settle();
    assert_eq!(members.apps[a].lost, 4, "what it had was another's meanwhile");
    assert_eq!(members.held(a).len(), 4);
    members.produce(40);
    members.settle();
    members.check_all_done();
}

#[test]
fn many_commits_leave_in_few_frames() {
    let mut members = Members::new(false);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    let before = members.commits();
    let key = members.apps[a].key.unwrap();
    let (&partition, turn) = members.apps[a].turns.iter().next().unwrap();
    let turn = turn.turn;
    let mut last = None;
    for offset in 0..1000 {
        let commit = CommitOffset { partition, turn, offset: Offset(offset), metadata: String::new() };
        last = members.world.core.commit(key, vec![commit]);
        members.world.round();
    }
    members.settle();
    assert!(members.commits() - before <= 2, "{}", members.commits() - before);
    assert_eq!(members.committed(partition.index.0), 999);
    assert_eq!(members.apps[a].commits_settled, last.unwrap().0 + 1);
}

#[test]
fn a_commit_of_an_earlier_turn_is_refused_here() {
    let mut members = Members::new(false);
    let a = members.join(None);
    members.settle();
    let key = members.apps[a].key.unwrap();
    let (&partition, turn) = members.apps[a].turns.iter().next().unwrap();
    let stale = Generation(turn.turn.0.wrapping_sub(1));
    let commit = CommitOffset { partition, turn: stale, offset: Offset(7), metadata: String::new() };
    members.world.core.commit(key, vec![commit]);
    members.settle();
    assert_eq!(members.apps[a].failures, [CommitError::Lost { partition }]);
    assert_eq!(members.committed(partition.index.0), 0);
}

#[test]
fn offsets_of_an_earlier_turn_are_not_staged_in_the_next() {
    let mut members = Members::new(false);
    let a = members.join(None);
    members.settle();
    let key = members.apps[a].key.unwrap();
    let commit = |partition, turn| CommitOffset { partition, turn, offset: Offset(7), metadata: String::new() };
    let offsets = members.apps[a].turns.iter().map(|(&id, turn)| commit(id, turn.turn)).collect::<Vec<_>>();
    let ((high, _), generation) = members.world.core.fence_of_offsets(key, &offsets).expect("all of these turns last");
    // It gets everything again under another id, and a newer generation than that of its first turns.
    members.world.advance_silently(SESSION * 2);
    members.settle();
    assert_eq!(members.held(a).len(), PARTITIONS as usize);
    let (now, newer) = members.world.core.member_of_group(key).expect("it is a member again");
    assert!(now.0 != high && generation < newer, "{generation} to {newer}");
    let lost = CommitError::Lost { partition: offsets[0].partition };
    assert_eq!(members.world.core.fence_of_offsets(key, &offsets), Err(lost));
    assert!(members.world.core.fence_of_offsets(key, &[]).is_ok(), "there is nothing to fence");
    members.world.core.abandon_group(key);
    assert_eq!(members.world.core.fence_of_offsets(key, &[]), Err(CommitError::Ended));
}

#[test]
fn a_seek_reads_from_elsewhere_in_the_same_turn() {
    let mut members = Members::new(false);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    let key = members.apps[a].key.unwrap();
    let (partition, turn) = members.apps[a].turns.iter_mut().next().map(|(&p, turn)| (p, turn)).unwrap();
    let subscription = members.world.core.seek(key, partition, turn.turn, StartAt::Offset(Offset(3)));
    assert!(subscription.is_some());
    turn.subscription = subscription;
    turn.next = 3;
    members.done.remove(&partition.index.0);
    members.settle();
    assert_eq!(members.done[&partition.index.0], (3..10).collect());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join(bool),
    Leave(usize),
    Abandon(usize),
    Send(u32),
    Up(usize),
    Down(usize),
    Work(usize),
    Sync,
    Cut(usize),
    Crash,
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Abandon),
        6 => (0..PARTITIONS).prop_map(Step::Send),
        14 => any::<usize>().prop_map(Step::Up),
        14 => any::<usize>().prop_map(Step::Down),
        10 => any::<usize>().prop_map(Step::Work),
        5 => Just(Step::Sync),
        1 => any::<usize>().prop_map(Step::Cut),
        1 => Just(Step::Crash),
        4 => (0..600_u64).prop_map(Step::Advance),
    ]
}

fn run(steps: &[Step], is_auto: bool) {
    let mut members = Members::new(is_auto);
    let mut joined = 0;
    for &step in steps {
        let count = members.apps.len().max(1);
        match step {
            Step::Join(is_static) => {
                joined += 1;
                members.join(is_static.then(|| format!("s{}", joined % 3)).as_deref());
            }
            Step::Leave(_) | Step::Abandon(_) if members.apps.is_empty() => {}
            Step::Leave(at) => {
                if let Some(key) = members.apps[at % count].key {
                    members.world.core.leave_group(members.world.now, key, at % 2 == 0);
                }
            }
            Step::Abandon(at) => {
                let app = &mut members.apps[at % count];
                if let Some(key) = app.key.take() {
                    app.turns.clear();
                    members.world.core.abandon_group(key);
                }
            }
            Step::Send(partition) => drop(members.world.send(members.producer, partition)),
            Step::Up(pick) => drop(members.world.up(pick)),
            Step::Down(pick) => drop(members.world.down(pick)),
            Step::Work(at) if !members.apps.is_empty() => members.work(at % count),
            Step::Work(_) => {}
            Step::Sync => {
                members.world.broker.sync();
                members.world.notices();
            }
            Step::Cut(pick) => members.world.cut(pick),
            Step::Crash => members.world.crash(),
            Step::Advance(millis) => members.world.advance(Duration::from_millis(millis)),
        }
        members.world.round();
        members.sort_out();
    }
    // Faults stop; whoever is left finishes, and one member more sees to it that somebody is.
    members.join(None);
    members.settle();
    members.settle();
    let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
    for (at, app) in members.apps.iter().enumerate().filter(|(_, app)| app.key.is_some()) {
        for partition in app.turns.keys() {
            assert_eq!(owners.insert(partition.index.0, at), None, "{partition} has two owners");
        }
    }
    assert_eq!(owners.len(), PARTITIONS as usize, "every partition is somebody's");
    members.check_all_done();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_every_record_is_done_and_committed(
        steps in prop::collection::vec(step(), 0..300),
        is_auto in any::<bool>(),
    ) {
        run(&steps, is_auto);
    }
}
