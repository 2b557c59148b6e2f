//! Members that speak through a shard that has yet to hear of the topic for groups.

use corelane_wire::{
    GroupDone, GroupHeartbeat, JoinGroupAnswer, JoinQueue, JoinQueueAnswer, LeaseRange, LeasesAnswer, QueueAck,
    QueueCredit, QueueFenced,
};

use crate::members::{Member, join_of};
use crate::queues::{filled, join_of_queue};
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

#[test]
fn a_member_of_a_queue_that_speaks_through_a_shard_that_is_behind_is_not_put_out() {
    let mut world = World::new(2);
    let client = world.connect(0);
    filled(&mut world, client, "mail", 1, 3);
    let late = world.connect(1);
    world.cut_off.insert(1);
    let mut found = None;
    for number in 0..16 {
        let join = JoinQueue { group: format!("workers-{number}"), ..join_of_queue(number, "mail", 1) };
        let asked = world.send(client, &join);
        world.run();
        if let Some(answer) = world.answer::<JoinQueueAnswer>(client, asked) {
            found = Some((join.group, join.member, answer.expect("it is taken").topic));
            break;
        }
    }
    let (group, member, topic) = found.expect("a queue whose home is at shard 0");
    let alive = QueueCredit { group: group.clone(), topic, member, records: 0, bytes: 0 };
    let leases = vec![LeaseRange { partition: 0, first: 0, count: 1, attempt: 1 }];
    let (processing_micros, credit_records, credit_bytes) = (None, 0, 0);
    let ack = QueueAck { group, topic, member, leases, processing_micros, credit_records, credit_bytes };
    world.send(late, &alive);
    let asked = world.send(late, &ack);
    world.run();
    assert_eq!(world.take::<QueueFenced>(late), []);
    assert!(world.answer::<LeasesAnswer>(late, asked).is_none(), "it waits for the topic");
    world.cut_off.clear();
    world.run();
    let answer = world.answer::<LeasesAnswer>(late, asked).expect("it is answered").expect("the member is there");
    assert_eq!(answer.refused, [], "it had the record");
    assert_eq!(world.take::<QueueFenced>(late), []);
}

#[test]
fn a_sign_of_life_that_waited_in_vain_for_the_topic_is_not_answered() {
    let mut world = World::new(2);
    let late = world.connect(1);
    world.cut_off.insert(0);
    world.send(late, &QueueCredit { group: "workers".into(), topic: 9, member: (7, 1), records: 0, bytes: 0 });
    world.pass(6_000_000_000);
    assert!(world.inbox(late).control.is_empty(), "{:?}", world.inbox(late).control);
}
