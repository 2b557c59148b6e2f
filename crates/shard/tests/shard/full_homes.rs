//! Queues and groups whose home's log finds no room for a while.

use corelane_model::{ErrorCode, GroupName};
use corelane_wire::{
    CommitOffsets, DescribeGroup, DescribeGroupAnswer, FetchOffsets, FetchOffsetsAnswer, GroupDone, LeaseRange,
    LeasesAnswer, QueueCredit, QueueFenced,
};

use crate::members::{Member, join_of, settle};
use crate::queues::{MS, Worker, filled, join_of_queue};
use crate::world::{Client, World};

const RECORDS: u32 = 12_000;

/// The disk hangs, and the queue's record of its failures is written again and again until nothing more is taken.
fn full(world: &mut World, client: Client) -> (Worker, LeaseRange) {
    filled(world, client, "mail", 1, u64::from(RECORDS));
    let mut join = join_of_queue(1, "mail", RECORDS - 1);
    join.credit_bytes = 64 << 20;
    let mut worker = Worker::join(world, client, &join);
    while worker.has.len() < RECORDS as usize - 1 {
        worker.hear(world);
    }
    world.are_files_held = true;
    let mut leases = worker.leases().into_iter();
    // All but some fail at once, and each of these makes another record of all.
    let most = leases.by_ref().take(RECORDS as usize - 2_000);
    for some in most.collect::<Vec<_>>().chunks(5_000) {
        world.send(client, &worker.nack_of(some.to_vec(), false));
        world.run();
    }
    loop {
        let lease = leases.next().expect("the log has no room for so many");
        let asked = world.send(client, &worker.nack_of(vec![lease], false));
        world.run();
        if let Some(refused) = world.answer::<LeasesAnswer>(client, asked) {
            assert_eq!(refused.expect_err("there is no room").0, ErrorCode::Busy);
            return (worker, lease);
        }
    }
}

#[test]
fn credit_that_comes_while_a_homes_log_is_full_is_taken() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let (mut worker, _) = full(&mut world, client);
    let credit =
        QueueCredit { group: "workers".into(), topic: worker.topic, member: worker.member, records: 1, bytes: 1 << 20 };
    world.send(client, &credit);
    world.run();
    worker.has.clear();
    world.let_files_go();
    world.pass(100_000_000);
    worker.hear(&mut world);
    assert_eq!(worker.has.len(), 1, "the record that nobody had");
}

#[test]
fn who_is_refused_while_a_homes_log_is_full_is_not_silent() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.create(client, "inputs", 1);
    let home = |name: &str| GroupName::parse(name).expect("a good name").home();
    let beside = (0..).map(|number| format!("lobby-{number}")).find(|name| home(name) == home("workers"));
    let beside = join_of(&beside.expect("there are 64 homes"), 1, &["inputs"]);
    let mut member = Member::join(&mut world, client, &beside).expect("it is taken");
    let (worker, lease) = full(&mut world, client);
    for _ in 0..4 {
        world.pass(5_000 * MS);
        assert_eq!(member.commit(&mut world, &[]).unwrap_err().0, ErrorCode::Busy);
        let nack = worker.nack_of(vec![lease], false);
        assert_eq!(world.ask::<_, LeasesAnswer>(client, &nack).unwrap_err().0, ErrorCode::Busy);
    }
    world.let_files_go();
    world.pass(100 * MS);
    member.heartbeat(&mut world).expect("it is a member");
    let answer: LeasesAnswer = world.ask(client, &worker.nack_of(vec![lease], false)).expect("it is a member");
    assert_eq!(answer.refused, []);
    assert_eq!((member.fenced, world.take::<QueueFenced>(client)), (None, vec![]));
}

/// A commit for everything that a member has, with as much metadata as there may be.
fn large_commit(member: &Member) -> CommitOffsets {
    let offsets: Vec<_> = member.owned.keys().map(|&partition| (partition, 0)).collect();
    let mut commit = member.commit_of(&offsets);
    commit.offsets.iter_mut().for_each(|offset| offset.metadata = "m".repeat(4096));
    commit
}

/// Two members that share 64 partitions.
fn two_members(world: &mut World) -> (Member, Member) {
    let client = world.connect(0);
    world.create(client, "inputs", 64);
    let mut a = Member::join(world, client, &join_of("lobby", 1, &["inputs"])).expect("it is taken");
    let mut b = Member::join(world, client, &join_of("lobby", 2, &["inputs"])).expect("it is taken");
    settle(world, &mut [&mut a, &mut b]);
    assert_eq!((a.owned.len(), b.owned.len()), (32, 32));
    (a, b)
}

/// The disk hangs, and a member commits until nothing more is taken.
#[test]
fn members_that_speak_live_while_their_homes_log_is_full() {
    let mut world = World::new(1);
    let (mut a, b) = two_members(&mut world);
    let client = a.client;
    world.are_files_held = true;
    let commit = large_commit(&a);
    let refused = (0..1000).find_map(|_| {
        let asked = world.send(client, &commit);
        world.run();
        world.answer::<GroupDone>(client, asked)
    });
    assert_eq!(refused.expect("the log has room for so many").unwrap_err().0, ErrorCode::Busy);
    let describe = DescribeGroup {
        group: "lobby".into(),
        after_member: None,
        most_members: 100,
        after_partition: None,
        most_partitions: 100,
    };
    // Longer than a session: one says that it lives, the other wants to commit and cannot.
    for _ in 0..4 {
        world.pass(4_000_000_000);
        a.heartbeat(&mut world).expect("a heartbeat needs no room");
        let asked = world.send(client, &large_commit(&b));
        world.run();
        let answer = world.answer::<GroupDone>(client, asked).expect("it is refused at once");
        assert_eq!(answer.unwrap_err().0, ErrorCode::Busy);
        let described: DescribeGroupAnswer = world.ask(client, &describe).expect("a question needs no room");
        assert_eq!(described.members.len(), 2, "nobody is put out");
    }
    world.let_files_go();
    world.pass(100_000_000);
    for member in [a, b] {
        let answer: GroupDone = world.ask(client, &large_commit(&member)).expect("still a member");
        assert_eq!(answer.generation, member.generation);
    }
}

/// The disk hangs, and somebody asks again and again for offsets that are not durable.
#[test]
fn answers_that_wait_for_the_disk_are_bounded() {
    let mut world = World::new(1);
    let (a, b) = two_members(&mut world);
    let client = a.client;
    let fetch = FetchOffsets { group: "lobby".into(), after: None, partitions: Vec::new() };
    world.are_files_held = true;
    for member in [&a, &b] {
        world.send(client, &large_commit(member));
    }
    world.run();
    let asked: Vec<u64> = (0..20).map(|_| world.send(client, &fetch)).collect();
    world.run();
    let answers = asked.iter().filter_map(|&asked| world.answer::<FetchOffsetsAnswer>(client, asked));
    let codes: Vec<ErrorCode> = answers.map(|answer| answer.unwrap_err().0).collect();
    assert!(codes.iter().all(|&code| code == ErrorCode::Busy), "{codes:?}");
    assert!((10..20).contains(&codes.len()), "{} of 20 are refused", codes.len());
    world.let_files_go();
    world.run();
    let held = asked.iter().filter_map(|&asked| world.answer::<FetchOffsetsAnswer>(client, asked));
    assert_eq!(held.filter(|answer| answer.as_ref().unwrap().offsets.len() == 64).count(), 20 - codes.len());
    // There is room again.
    assert_eq!(world.ask::<_, FetchOffsetsAnswer>(client, &fetch).unwrap().offsets.len(), 64);
}
