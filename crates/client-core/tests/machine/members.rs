//! Applications that are members of a group, against the real group machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    CommitError, CommitOffset, Effect, GroupKey, GroupNews, GroupSettings, GroupStart, MembershipError, ProducerKey,
    ProducerSettings, StandbyPartition, SubscriptionKey,
};
use corelane_group::Settings;
use corelane_model::{Generation, GroupName, Offset, PartitionId, ResetPolicy, StartAt, StaticId, TopicClass};
use corelane_record::{RecordBatch, split_batch};

use crate::coordinator::Coordinator;
use crate::world::{World, topic};

pub(crate) const SESSION: Duration = Duration::from_millis(1_500);
pub(crate) const PARTITIONS: u32 = 4;

/// What an application knows of one partition.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) turn: Generation,
    pub(crate) subscription: Option<SubscriptionKey>,
    pub(crate) next: u64,
    /// The first record that came.
    pub(crate) first: Option<u64>,
}

/// An application that is a member.
#[derive(Debug, Default)]
pub(crate) struct App {
    pub(crate) key: Option<GroupKey>,
    pub(crate) turns: BTreeMap<PartitionId, Turn>,
    pub(crate) revoking: Vec<PartitionId>,
    pub(crate) inbox: VecDeque<Effect>,
    pub(crate) blobs: Vec<Bytes>,
    pub(crate) commits_settled: u64,
    pub(crate) failures: Vec<CommitError>,
    pub(crate) lost: usize,
    pub(crate) standbys: Vec<StandbyPartition>,
    /// Offsets that came while it followed, by partition; they stay when it takes over.
    pub(crate) warm: BTreeMap<PartitionId, Vec<u64>>,
    /// What was said of each partition when it was assigned: where the group begins, and how far it was followed.
    pub(crate) begun: Vec<(PartitionId, GroupStart, Option<Offset>)>,
    pub(crate) end: Option<Option<MembershipError>>,
}

pub(crate) struct Members {
    pub(crate) world: World,
    pub(crate) producer: ProducerKey,
    pub(crate) apps: Vec<App>,
    /// Offsets that some member has done, for each partition.
    pub(crate) done: BTreeMap<u32, BTreeSet<u64>>,
    pub(crate) is_auto: bool,
    pub(crate) follow: Option<StartAt>,
    /// What is left for the next owner.
    pub(crate) blob: Option<&'static [u8]>,
    pub(crate) session: Duration,
    pub(crate) auto_commit: Duration,
    pub(crate) reset: ResetPolicy,
}

impl Members {
    pub(crate) fn new(is_auto: bool) -> Self {
        Self::with(is_auto, Settings::default())
    }

    pub(crate) fn with(is_auto: bool, settings: Settings) -> Self {
        let mut world = World::new(2);
        world.broker.create("t", PARTITIONS as usize, TopicClass::Durable);
        world.broker.create("__groups", 64, TopicClass::Durable);
        let id = world.broker.topics["t"].id;
        let topics = BTreeMap::from([("t".to_owned(), (id, PARTITIONS))]);
        world.broker.coordinator = Some(Coordinator::new(world.now, "g", settings, topics));
        let producer = world.open("t", ProducerSettings::default());
        Self {
            world,
            producer,
            apps: Vec::new(),
            done: BTreeMap::new(),
            is_auto,
            follow: None,
            blob: Some(b"state"),
            session: SESSION,
            auto_commit: Duration::from_millis(20),
            reset: ResetPolicy::Earliest,
        }
    }

    pub(crate) fn join(&mut self, static_id: Option<&str>) -> usize {
        let settings = GroupSettings {
            topics: vec![topic("t")],
            session_timeout: self.session,
            reset: self.reset,
            static_id: static_id.map(|id| StaticId::parse(id).unwrap()),
            follow: self.follow,
            auto_commit: self.is_auto.then_some(self.auto_commit),
            ..GroupSettings::new(GroupName::parse("g").unwrap())
        };
        let key = self.world.core.join_group(self.world.now, settings);
        self.apps.push(App { key: Some(key), ..App::default() });
        self.apps.len() - 1
    }

    /// Hands what was told to who it is for.
    pub(crate) fn sort_out(&mut self) {
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
    pub(crate) fn work(&mut self, at: usize) {
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
            self.world.core.give_up(key, partition, self.blob.map(Bytes::from_static));
        }
        self.world.round();
    }

    pub(crate) fn settle(&mut self) {
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

    pub(crate) fn held(&self, at: usize) -> BTreeSet<u32> {
        self.apps[at].turns.keys().map(|partition| partition.index.0).collect()
    }

    pub(crate) fn committed(&self, index: u32) -> u64 {
        let coordinator = self.world.broker.coordinator.as_ref().unwrap();
        let found = coordinator.group.offsets().find(|(partition, _)| partition.index.0 == index);
        found.map_or(0, |(_, committed)| committed.offset.0)
    }

    pub(crate) fn commits(&self) -> u64 {
        self.world.broker.coordinator.as_ref().unwrap().commits
    }

    pub(crate) fn produce(&mut self, records: u32) {
        for value in 0..records {
            self.world.send(self.producer, value % PARTITIONS);
        }
    }

    /// Everything that was stored was done by somebody, and committed.
    pub(crate) fn check_all_done(&mut self) {
        for index in 0..PARTITIONS {
            let end = self.world.broker.log("t", index as usize).end();
            let done = self.done.entry(index).or_default();
            assert_eq!(done.len() as u64, end, "partition {index}: {done:?}");
            assert_eq!(self.committed(index), end, "partition {index}");
        }
    }
}

pub(crate) fn offsets_of(mut bytes: Bytes, from: Offset) -> Vec<u64> {
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
