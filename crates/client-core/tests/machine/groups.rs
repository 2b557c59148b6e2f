//! Members against the real group machine: who has what, what was committed, and what breaks on the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    CommitError, CommitOffset, Effect, FenceReason, GroupKey, GroupNews, GroupSettings, GroupStart, MembershipError,
    ProducerKey, ProducerSettings, StandbyPartition, SubscriptionKey,
};
use corelane_group::Settings;
use corelane_model::{Generation, GroupName, Offset, PartitionId, ResetPolicy, StartAt, StaticId, TopicClass};
use corelane_record::{RecordBatch, split_batch};
use proptest::prelude::*;

use crate::coordinator::Coordinator;
use crate::world::{World, topic};

const SESSION: Duration = Duration::from_millis(1_500);
const PARTITIONS: u32 = 4;

/// What an application knows of one partition.
#[derive(Debug)]
struct Turn {
    turn: Generation,
    subscription: Option<SubscriptionKey>,
    next: u64,
    /// The first record that came.
    first: Option<u64>,
}

/// An application that is a member.
#[derive(Debug, Default)]
struct App {
    key: Option<GroupKey>,
    turns: BTreeMap<PartitionId, Turn>,
    revoking: Vec<PartitionId>,
    inbox: VecDeque<Effect>,
    blobs: Vec<Bytes>,
    commits_settled: u64,
    failures: Vec<CommitError>,
    lost: usize,
    standbys: Vec<StandbyPartition>,
    /// Offsets that came while it followed, by partition; they stay when it takes over.
    warm: BTreeMap<PartitionId, Vec<u64>>,
    /// What was said of each partition when it was assigned: where the group begins, and how far it was followed.
    begun: Vec<(PartitionId, GroupStart, Option<Offset>)>,
    end: Option<Option<MembershipError>>,
}

struct Members {
    world: World,
    producer: ProducerKey,
    apps: Vec<App>,
    /// Offsets that some member has done, for each partition.
    done: BTreeMap<u32, BTreeSet<u64>>,
    is_auto: bool,
    follow: Option<StartAt>,
}

impl Members {
    fn new(is_auto: bool) -> Self {
        Self::with(is_auto, Settings::default())
    }

    fn with(is_auto: bool, settings: Settings) -> Self {
        let mut world = World::new(2);
        world.broker.create("t", PARTITIONS as usize, TopicClass::Durable);
        world.broker.create("__groups", 64, TopicClass::Durable);
        let id = world.broker.topics["t"].id;
        let topics = BTreeMap::from([("t".to_owned(), (id, PARTITIONS))]);
        world.broker.coordinator = Some(Coordinator::new(world.now, "g", settings, topics));
        let producer = world.open("t", ProducerSettings::default());
        Self { world, producer, apps: Vec::new(), done: BTreeMap::new(), is_auto, follow: None }
    }

    fn join(&mut self, static_id: Option<&str>) -> usize {
        let settings = GroupSettings {
            topics: vec![topic("t")],
            session_timeout: SESSION,
            reset: ResetPolicy::Earliest,
            static_id: static_id.map(|id| StaticId::parse(id).unwrap()),
            follow: self.follow,
            auto_commit: self.is_auto.then_some(Duration::from_millis(20)),
            ..GroupSettings::new(GroupName::parse("g").unwrap())
        };
        let key = self.world.core.join_group(self.world.now, settings);
        self.apps.push(App { key: Some(key), ..App::default() });
        self.apps.len() - 1
    }

    /// Hands what was told to who it is for.
    fn sort_out(&mut self) {
        for effect in std::mem::take(&mut self.world.told) {
            let subscription = match &effect {
                Effect::Group { group, .. } => {
                    let Some(app) = self.apps.iter_mut().find(|app| app.key == Some(*group)) else { continue };
                    app.take(effect);
                    continue;
                }
                Effect::Deliver { subscription, .. } => *subscription,
                _ => continue,
            };
            let has = |app: &&mut App| {
                let owned = app.turns.values().map(|turn| turn.subscription);
                owned.chain(app.standbys.iter().map(|one| one.subscription)).any(|found| found == Some(subscription))
            };
            if let Some(app) = self.apps.iter_mut().find(has) {
                app.inbox.push_back(effect);
            }
        }
    }

    /// An application works on one thing that has come.
    fn work(&mut self, at: usize) {
        self.sort_out();
        let app = &mut self.apps[at];
        let Some(key) = app.key else { return };
        if let Some(Effect::Deliver { subscription, bytes, from, .. }) = app.inbox.pop_front() {
            let len = bytes.len() as u64;
            if let Some(one) = app.standbys.iter().find(|one| one.subscription == Some(subscription)) {
                let partition = one.partition;
                let offsets = offsets_of(bytes, from);
                self.world.core.consumed(subscription, len);
                self.world.core.followed(key, partition, Offset(offsets.last().unwrap() + 1));
                app.warm.entry(partition).or_default().extend(offsets);
                return self.world.round();
            }
            let Some((&partition, turn)) =
                app.turns.iter_mut().find(|(_, turn)| turn.subscription == Some(subscription))
            else {
                return;
            };
            for offset in offsets_of(bytes, from) {
                assert!(turn.next <= offset, "{partition} went back");
                turn.next = offset + 1;
                turn.first.get_or_insert(offset);
                self.done.entry(partition.index.0).or_default().insert(offset);
            }
            let (turn, offset) = (turn.turn, Offset(turn.next));
            self.world.core.consumed(subscription, len);
            if self.is_auto {
                self.world.core.finished(self.world.now, key, partition, turn, offset);
            } else {
                let commit = CommitOffset { partition, turn, offset, metadata: String::new() };
                self.world.core.commit(key, vec![commit]);
            }
        } else if let Some(partition) = app.revoking.pop() {
            app.turns.remove(&partition);
            self.world.core.give_up(key, partition, Some(Bytes::from_static(b"state")));
        }
        self.world.round();
    }

    fn settle(&mut self) {
        for _ in 0..300 {
            self.world.round();
            while self.world.up(0) || self.world.down(0) {}
            self.world.broker.sync();
            self.world.notices();
            while self.world.up(0) || self.world.down(0) {}
            for at in 0..self.apps.len() {
                for _ in 0..8 {
                    self.work(at);
                }
            }
            self.world.advance(Duration::from_millis(10));
        }
    }

    fn held(&self, at: usize) -> BTreeSet<u32> {
        self.apps[at].turns.keys().map(|partition| partition.index.0).collect()
    }

    fn committed(&self, index: u32) -> u64 {
        let coordinator = self.world.broker.coordinator.as_ref().unwrap();
        let found = coordinator.group.offsets().find(|(partition, _)| partition.index.0 == index);
        found.map_or(0, |(_, committed)| committed.offset.0)
    }

    fn commits(&self) -> u64 {
        self.world.broker.coordinator.as_ref().unwrap().commits
    }

    fn produce(&mut self, records: u32) {
        for value in 0..records {
            self.world.send(self.producer, value % PARTITIONS);
        }
    }

    /// Everything that was stored was done by somebody, and committed.
    fn check_all_done(&mut self) {
        for index in 0..PARTITIONS {
            let end = self.world.broker.log("t", index as usize).end();
            let done = self.done.entry(index).or_default();
            assert_eq!(done.len() as u64, end, "partition {index}: {done:?}");
            assert_eq!(self.committed(index), end, "partition {index}");
        }
    }
}

fn offsets_of(mut bytes: Bytes, from: Offset) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some(batch) = split_batch(&mut bytes).unwrap() {
        let batch = RecordBatch::parse(batch).unwrap();
        offsets.extend(batch.iter_from(from).map(|record| record.offset.0));
    }
    offsets
}

impl App {
    fn take(&mut self, effect: Effect) {
        let Effect::Group { news, .. } = effect else { panic!("only news") };
        match news {
            GroupNews::Assigned(assigned) => {
                for one in assigned {
                    let next = match one.start {
                        GroupStart::Committed(offset) => offset.0,
                        GroupStart::Reset(_) | GroupStart::Nowhere => 0,
                    };
                    self.blobs.extend(one.blob);
                    self.begun.push((one.partition, one.start, one.followed));
                    let next = one.followed.map_or(next, |followed| next.min(followed.0));
                    let turn = Turn { turn: one.turn, subscription: one.subscription, next, first: None };
                    let before = self.turns.insert(one.partition, turn);
                    assert!(before.is_none(), "{} was assigned twice", one.partition);
                }
            }
            GroupNews::Revoking(partitions) => {
                for partition in &partitions {
                    self.turns.get_mut(partition).expect("only what it has is asked back").subscription = None;
                }
                self.revoking.extend(partitions);
            }
            GroupNews::Lost { partitions, .. } => {
                self.lost += partitions.len();
                for partition in partitions {
                    self.turns.remove(&partition).expect("only what it has is lost");
                    self.revoking.retain(|&revoking| revoking != partition);
                }
            }
            GroupNews::CommitsSettled { below } => {
                assert!(self.commits_settled < below.0, "it only grows");
                self.commits_settled = below.0;
            }
            GroupNews::CommitFailed { error, .. } => self.failures.push(error),
            GroupNews::Ended { error } => {
                self.turns.clear();
                self.revoking.clear();
                self.end = Some(error);
            }
            GroupNews::Standby(standbys) => self.standbys = standbys,
            GroupNews::Joined { .. } | GroupNews::HandOverRefused { .. } => {}
        }
    }
}

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
