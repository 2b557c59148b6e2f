//! Members that have gone on to a newer connection while words of theirs are late on the one before.

use corelane_model::ErrorCode;
use corelane_wire::{FetchOffsets, FetchOffsetsAnswer, GroupDone};

use crate::members::{Member, join_of};
use crate::records::batch;
use crate::world::World;

#[test]
fn an_older_connection_takes_no_newer_commit_back() {
    let mut world = World::new(2);
    let before = world.connect(0);
    let topic = world.create(before, "inputs", 1);
    (0..5).for_each(|number| world.produce(before, topic, 0, number, batch(&["x"])));
    let mut member = Member::join(&mut world, before, &join_of("lobby", 1, &["inputs"])).expect("it joins");
    let late_commit = member.commit_of(&[((topic, 0), 2)]);
    let partition = (topic, 0);

    // The connection is lost to the client, which goes on with the next. What it had sent is still on its way.
    member.client = world.connect(0);
    member.report(&mut world).expect("it is a member");
    member.commit(&mut world, &[(partition, 4)]).expect("it owns the partition");
    let (code, text) = world.ask::<_, GroupDone>(before, &late_commit).expect_err("it is late");
    assert_eq!(code, ErrorCode::StaleGeneration, "{text}");
    assert!(text.contains("newer connection"), "{text}");

    let fetch = FetchOffsets { group: "lobby".to_owned(), after: None, partitions: Vec::new() };
    let fetched: FetchOffsetsAnswer = world.ask(member.client, &fetch).expect("the group is there");
    assert_eq!(fetched.offsets.iter().map(|of| of.offset).collect::<Vec<_>>(), [4]);
}
