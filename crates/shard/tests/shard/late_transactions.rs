//! What comes too late for its transaction, or finds that its partition is gone.

use corelane_wire::{DescribeTopic, DescribeTopicAnswer};

use crate::members::{Member, join_of, settle};
use crate::records::batch;
use crate::transactions::{ABORT, COMMIT, Pipe};
use crate::world::{Client, World};

/// The shard that a partition is on.
fn owner(world: &mut World, client: Client, topic: &str, partition: u32) -> usize {
    let ask = DescribeTopic { name: topic.to_owned(), from: partition, most: 1 };
    let answer: DescribeTopicAnswer = world.ask(client, &ask).expect("the topic is there");
    answer.partitions[0].shard.into()
}

/// A client with a transactional id whose coordinator is on that shard.
fn pipe_on(world: &mut World, client: Client, shard: usize) -> Pipe {
    for number in 0..64 {
        let pipe = Pipe::new(world, client, &format!("pipe-{number}")).expect("it is initialised");
        if owner(world, client, "__transactions", pipe.home.into()) == shard {
            return pipe;
        }
    }
    panic!("no id of 64 has its home on shard {shard}");
}

/// A member of a group whose home is on shard 0.
fn member_here(world: &mut World, client: Client, topic: &str) -> Member {
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
