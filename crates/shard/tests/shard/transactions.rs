//! Transactions over partitions, groups and shards.

use std::collections::BTreeMap;

use corelane_model::{ErrorCode, Incarnation, ProducerEpoch, ProducerId, Sequence, StartAt, WallMillis};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};
use corelane_shard::ShardConfig;
use corelane_wire::{
    EndTransaction, EndTransactionAnswer, FetchOffsets, FetchOffsetsAnswer, FrameKind, InitialiseTransactions,
    InitialiseTransactionsAnswer, OffsetCommit, Passed, Push, StageOffsets, StageOffsetsAnswer, SubscribeAnswer,
    SubscribeCommitted, decode,
};

use crate::members::{Member, join_of, settle};
use crate::records::{batch, memory_topic};
use crate::world::{Client, World, config};

pub(crate) type Refused = (ErrorCode, String);

pub(crate) const COMMIT: u8 = 1;
pub(crate) const ABORT: u8 = 2;

/// A client with a transactional id.
pub(crate) struct Pipe {
    pub(crate) client: Client,
    id: String,
    producer: u64,
    pub(crate) epoch: u16,
    pub(crate) home: u16,
    sequences: BTreeMap<(u64, u32), u32>,
    last: u64,
}

impl Pipe {
    pub(crate) fn new(world: &mut World, client: Client, id: &str) -> Result<Self, Refused> {
        let body = InitialiseTransactions { id: id.to_owned(), timeout_ms: 10_000 };
        let InitialiseTransactionsAnswer { producer, epoch, home } = world.ask(client, &body)?;
        Ok(Self { client, id: id.to_owned(), producer, epoch, home, sequences: BTreeMap::new(), last: 0 })
    }

    /// Sends a batch; its correlation id.
    pub(crate) fn send(&mut self, world: &mut World, partition: (u64, u32), value: &str) -> u64 {
        self.send_all(world, partition, &[value])
    }

    /// Sends several records as one batch; its correlation id.
    pub(crate) fn send_all(&mut self, world: &mut World, (topic, partition): (u64, u32), values: &[&str]) -> u64 {
        let mut builder = BatchBuilder::new(Compression::None);
        for value in values {
            builder.push(WallMillis(1), None, Some(value.as_bytes()), &[]).expect("a small record fits");
        }
        let sequence = self.sequences.entry((topic, partition)).or_default();
        let stamp = ProducerStamp {
            producer_id: ProducerId(self.producer),
            producer_epoch: ProducerEpoch(self.epoch),
            base_sequence: Sequence(*sequence),
        };
        *sequence += u32::try_from(values.len()).expect("few");
        self.last += 1;
        let batch = builder.finish_transactional(stamp, self.home);
        world.produce(self.client, topic, partition, self.last, batch);
        self.last
    }

    /// Sends a batch, runs, and hears what became of it.
    pub(crate) fn write(&mut self, world: &mut World, partition: (u64, u32), value: &str) -> Result<u64, ErrorCode> {
        let sent = self.send(world, partition, value);
        world.run();
        let outcomes = world.outcomes(self.client);
        outcomes.into_iter().find(|(correlation, _)| *correlation == sent).expect("it was answered").1
    }

    pub(crate) fn end_of(&self, decision: u8) -> EndTransaction {
        EndTransaction { id: self.id.clone(), producer: self.producer, epoch: self.epoch, decision }
    }

    pub(crate) fn end(&mut self, world: &mut World, decision: u8) -> Result<(), Refused> {
        let answer: EndTransactionAnswer = world.ask(self.client, &self.end_of(decision))?;
        self.take_next(&answer);
        Ok(())
    }

    fn take_next(&mut self, answer: &EndTransactionAnswer) {
        assert_eq!((answer.producer, answer.epoch), (self.producer, self.epoch + 1));
        self.epoch = answer.epoch;
        self.sequences.clear();
    }

    pub(crate) fn stage_of(&self, member: &Member, offset: ((u64, u32), u64)) -> StageOffsets {
        let ((topic, partition), offset) = offset;
        let offset = OffsetCommit { topic, partition, offset, leader_epoch: 0, metadata: String::new() };
        StageOffsets {
            id: self.id.clone(),
            producer: self.producer,
            epoch: self.epoch,
            group: member.group.clone(),
            member: member.id,
            generation: member.generation,
            offsets: vec![offset],
        }
    }

    pub(crate) fn stage(&self, world: &mut World, member: &Member, offset: ((u64, u32), u64)) -> Result<u32, Refused> {
        let body = self.stage_of(member, offset);
        world.ask::<_, StageOffsetsAnswer>(self.client, &body).map(|answer| answer.offsets)
    }
}

impl World {
    /// The end that the reader is told.
    pub(crate) fn subscribe_committed(
        &mut self,
        client: Client,
        subscription: u64,
        (topic, partition): (u64, u32),
    ) -> u64 {
        let start = StartAt::Earliest.into();
        let body = SubscribeCommitted { subscription, topic, partition, start, credit: 1 << 20 };
        let answer: SubscribeAnswer = self.ask(client, &body).expect("the partition is there");
        answer.high_watermark
    }

    pub(crate) fn values(&mut self, client: Client, subscription: u64) -> Vec<String> {
        self.pushed(client, subscription).into_iter().map(|(_, value)| value).collect()
    }
}

pub(crate) fn restart(world: World, incarnation: u64) -> World {
    let shards = world.shards.len();
    let configs = (0..shards)
        .map(|shard| ShardConfig { incarnation: Incarnation(incarnation), was_clean: false, ..config(shard, shards) })
        .collect();
    let mut world = World::start(configs, world.into_disks());
    world.run();
    assert_eq!(world.ready.len(), shards, "{:?}", world.failed);
    world
}

#[test]
fn what_is_committed_is_seen_everywhere_and_what_is_aborted_nowhere() {
    let mut world = World::new(3);
    let client = world.connect(0);
    let topic = world.create(client, "output", 4);
    for partition in 0..4 {
        world.subscribe_committed(client, 10 + u64::from(partition), (topic, partition));
    }
    world.subscribe(client, 20, topic, 0, StartAt::Earliest, 1 << 20).unwrap();
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").unwrap();
    for partition in 0..4 {
        assert_eq!(pipe.write(&mut world, (topic, partition), "first"), Ok(0));
    }
    assert_eq!(world.values(client, 20), ["first"], "who wants everything sees it at once");
    world.produce(client, topic, 1, 900, batch(&["beside"]));
    world.run();
    for subscription in 10..14 {
        assert!(world.values(client, subscription).is_empty(), "nothing is decided");
    }
    pipe.end(&mut world, COMMIT).unwrap();
    for partition in 0..4 {
        let expected: &[&str] = if partition == 1 { &["first", "beside"] } else { &["first"] };
        assert_eq!(world.values(client, 10 + partition), expected);
    }

    pipe.write(&mut world, (topic, 1), "never").unwrap();
    pipe.write(&mut world, (topic, 2), "never").unwrap();
    world.produce(client, topic, 1, 901, batch(&["behind"]));
    world.run();
    assert!(world.values(client, 11).is_empty(), "it lies behind what is not decided");
    pipe.end(&mut world, ABORT).unwrap();
    assert_eq!(world.values(client, 11), ["behind"]);
    assert!(world.values(client, 12).is_empty());
    let passed = world.inbox(client).pushes.iter().filter_map(|(_, frame)| decode::<Passed>(frame).ok());
    let passed: Vec<_> = passed.map(|passed| (passed.subscription, passed.next)).collect();
    assert!(passed.contains(&(12, 2)), "a reader hears that it is at the end: {passed:?}");
    assert!(world.ended(client).is_empty());

    // Whoever comes later sees the same, from memory and after a restart.
    world.subscribe_committed(client, 30, (topic, 1));
    world.run();
    assert_eq!(world.values(client, 30), ["first", "beside", "behind"]);
    let mut world = restart(world, 2);
    let client = world.connect(1);
    world.subscribe_committed(client, 30, (topic, 1));
    world.run();
    assert_eq!(world.values(client, 30), ["first", "beside", "behind"]);
}

#[test]
fn a_reader_of_committed_records_is_told_of_an_end_that_it_can_reach() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 1);
    world.produce(client, topic, 0, 900, batch(&["before"]));
    world.run();
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").unwrap();
    pipe.write(&mut world, (topic, 0), "open").unwrap();
    assert_eq!(world.subscribe_committed(client, 1, (topic, 0)), 1, "one of two is decided");
    world.run();
    let pushes = world.inbox(client).pushes.iter().filter_map(|(_, frame)| decode::<Push>(frame).ok());
    let ends: Vec<_> = pushes.map(|push| (push.subscription, push.high_watermark)).collect();
    assert_eq!(ends, [(1, 1)]);
    assert_eq!(world.values(client, 1), ["before"]);
}

#[test]
fn a_transaction_goes_on_after_a_crash_and_its_end_can_be_asked_for_again() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 2);
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").unwrap();
    for partition in 0..2 {
        pipe.write(&mut world, (topic, partition), "kept").unwrap();
    }
    let mut world = restart(world, 2);
    pipe.client = world.connect(0);
    for partition in 0..2 {
        world.subscribe_committed(pipe.client, u64::from(partition), (topic, partition));
    }
    world.run();
    assert!(world.values(pipe.client, 0).is_empty());
    pipe.write(&mut world, (topic, 0), "more").unwrap();
    let before = pipe.end_of(COMMIT);
    pipe.end(&mut world, COMMIT).unwrap();
    assert_eq!(world.values(pipe.client, 0), ["kept", "more"]);
    assert_eq!(world.values(pipe.client, 1), ["kept"]);

    // The answer was lost with the broker: asked again, it is the same.
    let mut world = restart(world, 3);
    pipe.client = world.connect(1);
    let again: EndTransactionAnswer = world.ask(pipe.client, &before).unwrap();
    assert_eq!((again.producer, again.epoch), (pipe.producer, pipe.epoch));
    let otherwise = EndTransaction { decision: ABORT, ..before };
    let (code, text) = world.ask::<_, EndTransactionAnswer>(pipe.client, &otherwise).unwrap_err();
    assert_eq!(code, ErrorCode::TransactionEnded, "{text}");
    pipe.write(&mut world, (topic, 1), "next").unwrap();
    pipe.end(&mut world, COMMIT).unwrap();
}

#[test]
fn a_decision_that_was_durable_reaches_everybody_after_a_crash() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 2);
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").unwrap();
    for partition in 0..2 {
        pipe.write(&mut world, (topic, partition), "kept").unwrap();
    }
    // The coordinator's word goes out and reaches no other shard.
    let home = usize::from(pipe.home) % 2;
    world.cut_off.extend([0, 1]);
    world.cut_off.remove(&home);
    let sent = world.send(client, &pipe.end_of(COMMIT));
    world.run();
    assert!(world.answer::<EndTransactionAnswer>(client, sent).is_none(), "not everybody has it");
    let mut world = restart(world, 2);
    let client = world.connect(0);
    for partition in 0..2 {
        world.subscribe_committed(client, u64::from(partition), (topic, partition));
    }
    world.run();
    let seen = [world.values(client, 0), world.values(client, 1)];
    assert!(seen == [["kept"], ["kept"]] || seen == [[""; 0], [""; 0]], "{seen:?}");
    pipe.client = client;
    pipe.end(&mut world, COMMIT).unwrap();
    let more = [world.values(client, 0), world.values(client, 1)];
    assert_eq!(seen.concat().len() + more.concat().len(), 2);
}

#[test]
fn whoever_initialises_an_id_shuts_out_whoever_had_it() {
    let mut world = World::new(2);
    let (first, second) = (world.connect_as(0, (1, 1)), world.connect_as(1, (2, 2)));
    let topic = world.create(first, "output", 2);
    let mut old = Pipe::new(&mut world, first, "settle-matches").unwrap();
    old.write(&mut world, (topic, 0), "never").unwrap();
    let mut new = Pipe::new(&mut world, second, "settle-matches").unwrap();
    assert_ne!(old.producer, new.producer);
    assert_eq!(old.write(&mut world, (topic, 1), "late"), Err(ErrorCode::ProducerFenced));
    assert_eq!(old.write(&mut world, (topic, 0), "late"), Err(ErrorCode::ProducerFenced));
    let (code, text) = old.end(&mut world, COMMIT).unwrap_err();
    assert!(matches!(code, ErrorCode::ProducerFenced | ErrorCode::TransactionEnded), "{text}");
    new.write(&mut world, (topic, 1), "seen").unwrap();
    new.end(&mut world, COMMIT).unwrap();
    for partition in 0..2 {
        world.subscribe_committed(second, u64::from(partition), (topic, partition));
    }
    world.run();
    assert!(world.values(second, 0).is_empty());
    assert_eq!(world.values(second, 1), ["seen"]);
    // A producer's transactions are its client's alone.
    let stolen = EndTransaction { decision: ABORT, ..new.end_of(ABORT) };
    let (code, text) = world.ask::<_, EndTransactionAnswer>(first, &stolen).unwrap_err();
    assert_eq!(code, ErrorCode::ProducerFenced, "{text}");
}

#[test]
fn what_takes_too_long_is_aborted() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 1);
    let mut pipe = Pipe::new(&mut world, client, "settle-matches").unwrap();
    pipe.write(&mut world, (topic, 0), "never").unwrap();
    world.produce(client, topic, 0, 900, batch(&["behind"]));
    world.subscribe_committed(client, 1, (topic, 0));
    world.pass(9_000_000_000);
    assert!(world.values(client, 1).is_empty());
    world.pass(2_000_000_000);
    assert_eq!(world.values(client, 1), ["behind"]);
    assert_eq!(pipe.write(&mut world, (topic, 0), "late"), Err(ErrorCode::TransactionEnded));
    let (code, text) = pipe.end(&mut world, COMMIT).unwrap_err();
    assert_eq!(code, ErrorCode::TransactionEnded, "{text}");
}

#[test]
fn offsets_are_committed_with_the_records_and_nobody_begins_before() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let input = world.create(client, "input", 1);
    let output = world.create(client, "output", 1);
    for record in 0..5 {
        world.produce(client, input, 0, record, batch(&["x"]));
    }
    world.run();
    let join = |id| join_of("pipeline", id, &["input"]);
    let mut first = Member::join(&mut world, client, &join(1)).unwrap();
    settle(&mut world, &mut [&mut first]);
    first.commit(&mut world, &[((input, 0), 1)]).unwrap();
    let mut pipe = Pipe::new(&mut world, client, "pipeline-1").unwrap();
    let committed = |world: &mut World| {
        let body = FetchOffsets { group: "pipeline".to_owned(), after: None, partitions: Vec::new() };
        let answer: FetchOffsetsAnswer = world.ask(client, &body).expect("the group is there");
        answer.offsets[0].offset
    };
    pipe.write(&mut world, (output, 0), "made of 1 and 2").unwrap();
    assert_eq!(pipe.stage(&mut world, &first, ((input, 0), 3)), Ok(1));
    assert_eq!(committed(&mut world), 1);
    pipe.end(&mut world, COMMIT).unwrap();
    assert_eq!(committed(&mut world), 3);

    // The next one is open when its member dies: whoever follows begins after the decision.
    pipe.stage(&mut world, &first, ((input, 0), 5)).unwrap();
    let (code, text) = first.commit(&mut world, &[((input, 0), 4)]).unwrap_err();
    assert_eq!(code, ErrorCode::Busy, "{text}");
    let mut second = Member::join(&mut world, client, &join(2)).unwrap();
    let leave = first.leave_of(false);
    let _: corelane_wire::GroupDone = world.ask(client, &leave).unwrap();
    settle(&mut world, &mut [&mut second]);
    assert!(second.owned.is_empty(), "{second:?}");
    let mut world = restart(world, 2);
    let client = world.connect(0);
    second.client = client;
    pipe.client = client;
    settle(&mut world, &mut [&mut second]);
    assert!(second.owned.is_empty(), "{second:?}");
    pipe.end(&mut world, ABORT).unwrap();
    second.hear(&mut world);
    assert_eq!(second.owned.get(&(input, 0)).map(|owned| owned.1), Some(Some(3)));
    let stranger = pipe.stage(&mut world, &first, ((input, 0), 4)).unwrap_err();
    assert_eq!(stranger.0, ErrorCode::UnknownMember, "{}", stranger.1);
}

#[test]
fn wrong_requests_are_answered_in_words() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "output", 1);
    let memory = world.create_with(client, "volatile", 1, memory_topic());
    let unknown = EndTransaction { id: "nobody".to_owned(), producer: 0, epoch: 0, decision: COMMIT };
    let (code, _) = world.ask::<_, EndTransactionAnswer>(client, &unknown).unwrap_err();
    assert_eq!(code, ErrorCode::UnknownTransaction);
    let empty = InitialiseTransactions { id: String::new(), timeout_ms: 0 };
    let (code, text) = world.ask::<_, InitialiseTransactionsAnswer>(client, &empty).unwrap_err();
    assert_eq!(
        (code, &text[..]),
        (ErrorCode::InvalidTransactionalId, "a transactional id needs at least one character")
    );
    let short = InitialiseTransactions { id: "short".to_owned(), timeout_ms: 1 };
    let (code, _) = world.ask::<_, InitialiseTransactionsAnswer>(client, &short).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidSetting);
    let mut pipe = Pipe::new(&mut world, client, "pipe").unwrap();
    let (code, text) = world.ask::<_, EndTransactionAnswer>(client, &pipe.end_of(3)).unwrap_err();
    assert_eq!(code, ErrorCode::InvalidSetting, "{text}");
    assert_eq!(pipe.write(&mut world, (memory, 0), "x"), Err(ErrorCode::TransactionMismatch));
    let home = std::mem::replace(&mut pipe.home, 64);
    assert_eq!(pipe.write(&mut world, (topic, 0), "x"), Err(ErrorCode::CorruptBatch));
    pipe.home = (home + 1) % 64;
    pipe.sequences.clear();
    assert_eq!(pipe.write(&mut world, (topic, 0), "x"), Err(ErrorCode::ProducerFenced), "not that home's");
    pipe.home = home;
    pipe.sequences.clear();
    assert_eq!(pipe.write(&mut world, (topic, 0), "x"), Ok(0));
    pipe.end(&mut world, COMMIT).unwrap();
    assert!(world.inbox(client).closed.is_none());
    assert!(world.inbox(client).pushes.iter().all(|(_, frame)| frame.head.kind != FrameKind::SubscriptionEnded));
}
