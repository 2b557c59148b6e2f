//! Random histories of consumer groups: members that come, go, die, lag behind and restart, shards that lose power,
//! messages between them that are late.
//!
//! What must hold: a partition has one owner in a generation, offsets that were answered are there, no commit of a turn
//! that is over is taken, and when the faults have ended every partition has an owner again that knows of it.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{ErrorCode, Incarnation};
use corelane_shard::ShardConfig;
use corelane_wire::{
    CommitOffsets, DescribeGroup, DescribeGroupAnswer, FetchOffsets, FetchOffsetsAnswer, GroupDone, GroupHeartbeat,
    JoinGroupAnswer, PartitionRange,
};
use proptest::prelude::*;

use crate::members::{Member, Partition, join_of};
use crate::records::batch;
use crate::world::{Client, World, config};

const SHARDS: usize = 3;
const PARTITIONS: u32 = 5;
const RECORDS: u64 = 8;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Join {
        static_id: Option<u8>,
    },
    /// Hears, reports in full and gives up by that.
    Report {
        who: usize,
    },
    /// Sends a report that is not answered at once.
    LateReport {
        who: usize,
    },
    Commit {
        who: usize,
        to: u64,
    },
    /// A member that was put out, or lost something, commits as it did before.
    StaleCommit {
        who: usize,
        to: u64,
    },
    Leave {
        who: usize,
        is_restarting: bool,
    },
    /// It is never heard again.
    Die {
        who: usize,
    },
    Reconnect {
        who: usize,
        shard: usize,
    },
    Pass {
        seconds: u64,
    },
    CutOff {
        shard: usize,
    },
    Reach,
    HoldSyncs,
    LetSyncsGo,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_usize;
    prop_oneof![
        4 => prop::option::of(0..3_u8).prop_map(|static_id| Step::Join { static_id }),
        8 => who.clone().prop_map(|who| Step::Report { who }),
        3 => who.clone().prop_map(|who| Step::LateReport { who }),
        6 => (who.clone(), 0..=RECORDS).prop_map(|(who, to)| Step::Commit { who, to }),
        2 => (who.clone(), 0..=RECORDS).prop_map(|(who, to)| Step::StaleCommit { who, to }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, is_restarting)| Step::Leave { who, is_restarting }),
        1 => who.clone().prop_map(|who| Step::Die { who }),
        1 => (who, 0..SHARDS).prop_map(|(who, shard)| Step::Reconnect { who, shard }),
        3 => (1..8_u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..SHARDS).prop_map(|shard| Step::CutOff { shard }),
        2 => Just(Step::Reach),
        1 => Just(Step::HoldSyncs),
        2 => Just(Step::LetSyncsGo),
        1 => Just(Step::Crash),
    ]
}

/// Everybody who took part, and what is known for sure.
struct History {
    world: World,
    topic: u64,
    members: Vec<Member>,
    /// Requests that are not answered: who asked, and what it would commit.
    commits: Vec<(Client, u64, Partition, u64)>,
    /// Offsets that may be the committed one: the last that was answered, and those that were asked for since.
    may_be: BTreeMap<Partition, Vec<u64>>,
    /// Partitions of which a commit was answered.
    answered: BTreeSet<Partition>,
    /// Who was told to own a partition in which turn of it.
    turns: BTreeMap<(Partition, u64), (u64, u64)>,
    lives: u64,
    incarnation: u64,
    statics: BTreeMap<(u64, u64), Option<u8>>,
}

impl History {
    fn new() -> Self {
        let mut world = World::new(SHARDS);
        let client = world.connect(0);
        let topic = world.create(client, "inputs", PARTITIONS);
        for partition in 0..PARTITIONS {
            for record in 0..RECORDS {
                world.produce(client, topic, partition, record, batch(&["x"]));
            }
        }
        world.run();
        Self {
            world,
            topic,
            members: Vec::new(),
            commits: Vec::new(),
            may_be: BTreeMap::new(),
            answered: BTreeSet::new(),
            turns: BTreeMap::new(),
            lives: 0,
            incarnation: 1,
            statics: BTreeMap::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Join { static_id } => self.join(static_id),
            Step::Report { who } => self.report(who, true),
            Step::LateReport { who } => self.report(who, false),
            Step::Commit { who, to } => self.commit(who, to, false),
            Step::StaleCommit { who, to } => self.commit(who, to, true),
            Step::Leave { who, is_restarting } => {
                if let Some(member) = self.pick(who) {
                    let member = self.members.remove(member);
                    self.world.send(member.client, &member.leave_of(is_restarting));
                }
            }
            Step::Die { who } => {
                if let Some(member) = self.pick(who) {
                    let member = self.members.remove(member);
                    self.world.disconnect(member.client);
                }
            }
            Step::Reconnect { who, shard } => {
                if let Some(member) = self.pick(who) {
                    self.world.disconnect(self.members[member].client);
                    self.members[member].client = self.world.connect(shard);
                }
            }
            Step::Pass { seconds } => self.world.pass(seconds * SECOND),
            Step::CutOff { shard } => drop(self.world.cut_off.insert(shard)),
            Step::Reach => self.world.cut_off.clear(),
            Step::HoldSyncs => self.world.are_syncs_held = true,
            Step::LetSyncsGo => self.world.let_files_go(),
            Step::Crash => self.crash(),
        }
        self.world.run();
        self.look();
    }

    fn pick(&self, who: usize) -> Option<usize> {
        if self.members.is_empty() { None } else { Some(who % self.members.len()) }
    }

    fn join(&mut self, static_id: Option<u8>) {
        self.lives += 1;
        let mut join = join_of("lobby", self.lives, &["inputs"]);
        join.static_id = static_id.map(|id| format!("static-{id}"));
        join.session_timeout_ms = 10_000;
        join.rebalance_timeout_ms = 15_000;
        let client = self.world.connect(usize::try_from(self.lives).expect("few lives") % SHARDS);
        let asked = self.world.send(client, &join);
        self.statics.insert(join.member, static_id);
        let member = Member::new(client, &join);
        self.world.run();
        // Unanswered for now: such a member is one that never hears of it, and its session ends by itself.
        if let Some(Ok(JoinGroupAnswer { .. })) = self.world.answer(client, asked) {
            self.members.push(member);
        }
    }

    fn report(&mut self, who: usize, is_prompt: bool) {
        let Some(who) = self.pick(who) else { return };
        let member = &mut self.members[who];
        let holds = Some(PartitionRange::of(member.owned.keys().copied()));
        let (group, id, seen) = (member.group.clone(), member.id, member.generation);
        let body = GroupHeartbeat { group, member: id, seen, holds, processing_micros: None };
        let asked = self.world.send(member.client, &body);
        if is_prompt {
            self.world.run();
            if let Some(Err((code, text))) = self.world.answer::<GroupDone>(member.client, asked) {
                self.on_refused(who, code, &text);
            }
        }
    }

    /// A member that is no member drops everything and is gone.
    fn on_refused(&mut self, who: usize, code: ErrorCode, text: &str) {
        match code {
            ErrorCode::SessionExpired
            | ErrorCode::RebalanceTimedOut
            | ErrorCode::StaticIdTaken
            | ErrorCode::MemberFenced
            | ErrorCode::UnknownMember => drop(self.members.remove(who)),
            ErrorCode::StaleGeneration | ErrorCode::Recovering | ErrorCode::NotPartitionOwner => {}
            code => panic!("{code:?}: {text}"),
        }
    }

    fn commit(&mut self, who: usize, to: u64, is_stale: bool) {
        let Some(who) = self.pick(who) else { return };
        let member = &self.members[who];
        let first = member.owned.first_key_value().map(|(&partition, &(since, _))| (partition, since));
        let Some((partition, since)) = first else { return };
        let mut body: CommitOffsets = member.commit_of(&[(partition, to)]);
        if is_stale {
            body.generation = since - 1;
        }
        let client = member.client;
        let asked = self.world.send(client, &body);
        if is_stale {
            self.world.run();
            let answer = self.world.answer::<GroupDone>(client, asked);
            assert!(!matches!(answer, Some(Ok(_))), "a commit of generation {} for a turn since {since}", since - 1);
        } else {
            self.may_be.entry(partition).or_default().push(to);
            self.commits.push((client, asked, partition, to));
        }
    }

    /// Takes in everything that has come.
    fn look(&mut self) {
        for (client, asked, partition, to) in std::mem::take(&mut self.commits) {
            if !self.world.inboxes.contains_key(&client) {
                continue;
            }
            match self.world.answer::<GroupDone>(client, asked) {
                // Commits of one partition take effect in order, so everything before this one is overwritten. The answer of
                // an earlier one may come later, by way of another shard: then it is overwritten itself.
                Some(Ok(_)) => {
                    let may_be = self.may_be.entry(partition).or_default();
                    if let Some(at) = may_be.iter().position(|&offset| offset == to) {
                        may_be.drain(..at);
                    }
                    self.answered.insert(partition);
                }
                Some(Err(_)) => {}
                None => self.commits.push((client, asked, partition, to)),
            }
        }
        let mut gone = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            let before = member.generation;
            member.hear(&mut self.world);
            assert!(before <= member.generation, "generation {before} came after {}", member.generation);
            for (&partition, &(since, _)) in &member.owned {
                let owner = *self.turns.entry((partition, since)).or_insert(member.id);
                let is_static_return = |a, b| self.statics[&a].is_some() && self.statics[&a] == self.statics[&b];
                assert!(
                    owner == member.id || is_static_return(owner, member.id),
                    "{partition:?} was given to {owner:?} and {:?} in generation {since}",
                    member.id
                );
                self.turns.insert((partition, since), member.id);
            }
            if member.fenced.is_some() {
                gone.push(at);
            }
        }
        for at in gone.into_iter().rev() {
            self.members.remove(at);
        }
    }

    /// All shards lose power; what was synced is there again. Members know nothing of it and go on.
    fn crash(&mut self) {
        self.incarnation += 1;
        let now = self.world.now;
        let configs = (0..SHARDS).map(|shard| ShardConfig {
            incarnation: Incarnation(self.incarnation),
            was_clean: false,
            ..config(shard, SHARDS)
        });
        let old = std::mem::replace(&mut self.world, World::start(Vec::new(), Vec::new()));
        self.world = World::start(configs.collect(), old.into_disks());
        self.world.now = now;
        self.world.run();
        assert_eq!(self.world.ready.len(), SHARDS, "{:?}", self.world.failed);
        self.commits.clear();
        for at in 0..self.members.len() {
            self.members[at].client = self.world.connect(at % SHARDS);
        }
    }

    /// No more faults: everything comes to rest, and is as it must be.
    fn settle(&mut self) {
        self.world.cut_off.clear();
        self.world.let_files_go();
        self.world.run();
        self.look();
        self.join(None);
        for _ in 0..16 {
            for who in (0..self.members.len()).rev() {
                self.report(who, true);
            }
            self.world.pass(2 * SECOND);
            self.look();
        }
        let client = self.world.connect(1);
        let group = || "lobby".to_owned();
        let describe = DescribeGroup {
            group: group(),
            after_member: None,
            most_members: 100,
            after_partition: None,
            most_partitions: 100,
        };
        let described: DescribeGroupAnswer = self.world.ask(client, &describe).expect("there is a group");
        assert_eq!(described.summary.state, 1, "{described:?}");
        assert_eq!(described.members.len(), self.members.len(), "who is dead is gone, who lives is there");
        let mut owners = BTreeMap::new();
        for member in &self.members {
            for &partition in member.owned.keys() {
                assert!(owners.insert(partition, member.id).is_none(), "{partition:?} has two owners");
            }
        }
        assert_eq!(owners.len(), PARTITIONS as usize, "every partition is owned again");
        for partition in &described.partitions {
            assert_eq!(partition.owner, owners.get(&(partition.topic, partition.partition)).copied());
        }
        let fetch = FetchOffsets { group: group(), after: None, partitions: Vec::new() };
        let fetched: FetchOffsetsAnswer = self.world.ask(client, &fetch).expect("there is a group");
        for (partition, may_be) in &self.may_be {
            assert_eq!(partition.0, self.topic);
            let found = fetched.offsets.iter().find(|offset| (offset.topic, offset.partition) == *partition);
            match found {
                Some(found) => assert!(may_be.contains(&found.offset), "{partition:?} is at {found:?}, not {may_be:?}"),
                // Nothing may have been answered at all.
                None => assert!(!self.answered.contains(partition), "{partition:?} has lost {may_be:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn groups_survive_whatever_happens(steps in prop::collection::vec(step(), 10..120)) {
        let mut history = History::new();
        history.run(Step::Join { static_id: None });
        for step in steps {
            history.run(step);
        }
        history.settle();
    }
}
