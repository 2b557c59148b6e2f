//! Members that speak through a shard that has yet to hear of the topic for groups.

use corelane_wire::{GroupDone, GroupHeartbeat, JoinGroupAnswer};

use crate::members::{Member, join_of};
use crate::world::World;

#[test]
fn a_member_that_speaks_through_a_shard_that_is_behind_is_not_put_out() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.create(client, "inputs", 1);
    let late = world.connect(1);
    // Shard 1 has yet to hear that there is a topic for groups.
    world.cut_off.insert(1);
    // The home of one of these is at shard 0.
    let mut found = None;
    for number in 0..16 {
        let join = join_of(&format!("lobby-{number}"), number, &["inputs"]);
        let asked = world.send(client, &join);
        world.run();
        if let Some(answer) = world.answer::<JoinGroupAnswer>(client, asked) {
            answer.expect("it is taken");
            found = Some(Member::new(client, &join));
            break;
        }
    }
    let mut member = found.expect("a group whose home is at shard 0");
    member.hear(&mut world);
    let heartbeat = GroupHeartbeat {
        group: member.group.clone(),
        member: member.id,
        seen: member.generation,
        holds: None,
        processing_micros: None,
    };
    let asked = world.send(late, &heartbeat);
    world.run();
    assert!(world.answer::<GroupDone>(late, asked).is_none(), "it waits for the topic");
    world.cut_off.clear();
    world.run();
    world.answer::<GroupDone>(late, asked).expect("it is answered").expect("the member is there");
    member.hear(&mut world);
    assert_eq!(member.fenced, None);
}
