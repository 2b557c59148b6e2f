//! What comes too late for its transaction, or finds that its partition is gone.

use corelane_model::ErrorCode;
use corelane_wire::{DescribeTopic, DescribeTopicAnswer, StageOffsetsAnswer, TopicDone};

use crate::members::{Member, join_of, settle};
use crate::records::batch;
use crate::topics::named;
use crate::transactions::{ABORT, COMMIT, Pipe};
use crate::world::{Client, World};

/// The shard that a partition is on.
pub(crate) fn owner(world: &mut World, client: Client, topic: &str, partition: u32) -> usize {
    let ask = DescribeTopic { name: topic.to_owned(), from: partition, most: 1 };
    let answer: DescribeTopicAnswer = world.ask(client, &ask).expect("the topic is there");
    answer.partitions[0].shard.into()
}

/// The partition of a topic that a shard has.
pub(crate) fn partition_on(world: &mut World, client: Client, topic: &str, shard: usize) -> u32 {
    (0..8).find(|&partition| owner(world, client, topic, partition) == shard).expect("topics are spread")
}

/// A client with a transactional id whose coordinator is on that shard.
pub(crate) fn pipe_on(world: &mut World, client: Client, shard: usize) -> Pipe {
    for number in 0..64 {
        let pipe = Pipe::new(world, client, &format!("pipe-{number}")).expect("it is initialised");
        if owner(world, client, "__transactions", pipe.home.into()) == shard {
            return pipe;
        }
    }
    panic!("no id of 64 has its home on shard {shard}");
}

/// A member of a group whose home is on shard 0.
pub(crate) fn member_here(world: &mut World, client: Client, topic: &str) -> Member {
    for number in 0..64 {
        let name = format!("group-{number}");
        let mut member = Member::join(world, client, &join_of(&name, 1, &[topic])).expect("it joins");
        let home = corelane_model::GroupName::parse(&name).expect("it is sound").home();
        if owner(world, client, "__groups", home.0) == 0 {
            settle(world, &mut [&mut member]);
            return member;
        }
    }
    panic!("no group of 64 has its home on shard 0");
}

#[test]
fn an_end_is_answered_when_a_participant_beside_its_coordinator_has_it() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let input = world.create(client, "input", 1);
    world.produce(client, input, 0, 1, batch(&["x"]));
    let member = member_here(&mut world, client, "input");
    let mut pipe = pipe_on(&mut world, client, 0);
    for decision in [ABORT, COMMIT] {
        assert_eq!(pipe.stage(&mut world, &member, ((input, 0), 1)), Ok(1));
        // No time passes and nothing else happens.
        pipe.end(&mut world, decision).expect("it goes on");
    }
}

#[test]
fn offsets_that_waited_too_long_are_not_staged() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let input = world.create(client, "input", 2);
    for partition in 0..2 {
        world.produce(client, input, partition, u64::from(partition), batch(&["x"]));
    }
    world.run();
    let mut member = member_here(&mut world, client, "input");
    let mut pipe = pipe_on(&mut world, client, 0);
    let far = partition_on(&mut world, client, "input", 1);

    // The group joins the transaction and waits for the end of a log on the other shard.
    world.cut_off.insert(1);
    let staging = world.send(client, &pipe.stage_of(&member, ((input, far), 1)));
    world.run();
    assert!(world.answer::<StageOffsetsAnswer>(client, staging).is_none());
    pipe.end(&mut world, ABORT).expect("everybody that takes part has heard of it");
    world.cut_off.clear();
    world.run();
    let staged = world.answer::<StageOffsetsAnswer>(client, staging).expect("it was answered");
    assert_eq!(staged.map_err(|(code, _)| code), Err(ErrorCode::TransactionEnded));
    member.commit(&mut world, &[((input, far), 1)]).expect("nothing is staged");
    assert_eq!(pipe.stage(&mut world, &member, ((input, far), 1)), Ok(1));
    pipe.end(&mut world, COMMIT).expect("it goes on");
}

#[test]
fn a_batch_that_waits_for_its_coordinator_is_answered_when_its_topic_goes() {
    let mut world = World::new(2);
    let client = world.connect(0);
    let mut pipe = pipe_on(&mut world, client, 1);
    let large = "x".repeat(900_000);
    // More than may wait at once, so that what is not given back is missed.
    for round in 0..20 {
        let name = format!("output-{round}");
        let topic = world.create(client, &name, 2);
        let near = partition_on(&mut world, client, &name, 0);
        world.cut_off.insert(1);
        let sent = pipe.send(&mut world, (topic, near), &large);
        let deleting = world.send(client, &named(&name));
        world.run();
        assert_eq!(world.outcomes(client), [(sent, Err(ErrorCode::Deleted))], "round {round}");
        world.cut_off.clear();
        world.run();
        world.answer::<TopicDone>(client, deleting).expect("it was answered").expect("the topic was there");
    }
    pipe.end(&mut world, COMMIT).expect("what is gone has nothing to decide");
}
