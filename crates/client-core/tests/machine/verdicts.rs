//! Many members of a shared queue on one connection, and what they say of their records.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_client_core::{DeliveryKey, Effect, QueueMemberKey, QueueMemberSettings, QueueNews, Verdict, VerdictKey};
use corelane_model::limits::{QUEUE_VERDICTS_CONNECTION_MAX, QUEUE_VERDICTS_MIXED_UNDER_WAY};
use corelane_model::{GroupName, TopicClass};
use corelane_wire::LeaseRange;

use crate::world::{World, topic};

/// More than may have all that they want under way at once.
const MEMBERS: usize = 2 * QUEUE_VERDICTS_CONNECTION_MAX / QUEUE_VERDICTS_MIXED_UNDER_WAY + 6;
/// What each says: one thing and another in turn, so that nothing gathers.
const WORDS: u64 = 40;

fn joined() -> (World, Vec<QueueMemberKey>) {
    let mut world = World::new(1);
    world.broker.create("t", 1, TopicClass::Durable);
    world.broker.create("__groups", 64, TopicClass::Durable);
    let settings = QueueMemberSettings::new(GroupName::parse("work").unwrap(), topic("t"));
    let members = (0..MEMBERS).map(|_| world.core.join_queue(world.now, settings.clone())).collect();
    world.settle_all();
    let joined = world.told.iter().filter(|effect| matches!(told(effect), Some((_, QueueNews::Joined { .. })))).count();
    assert_eq!(joined, MEMBERS);
    world.told.clear();
    (world, members)
}

fn told(effect: &Effect) -> Option<(QueueMemberKey, &QueueNews)> {
    match effect {
        Effect::Queue { queue, news } => Some((*queue, news)),
        _ => None,
    }
}

fn say(world: &mut World, member: QueueMemberKey) -> VerdictKey {
    let nack = Verdict::Nack { delay: None, is_dead: false, reason: String::new() };
    let said = (0..WORDS).map(|word| {
        let verdict = if word % 2 == 0 { &Verdict::Ack } else { &nack };
        let lease = LeaseRange { partition: 0, first: word * 2, count: 1, attempt: 1 };
        world.core.say_of_leases(world.now, member, DeliveryKey(0), &[lease], verdict).expect("it is a member").key
    });
    said.last().expect("something is said")
}

/// Below which key everything of each member is settled. Nothing may have been refused.
fn settled(world: &World) -> BTreeMap<QueueMemberKey, VerdictKey> {
    let mut settled = BTreeMap::new();
    for (member, news) in world.told.iter().filter_map(told) {
        match news {
            QueueNews::Settled { below } => drop(settled.insert(member, *below)),
            other => panic!("{other:?}"),
        }
    }
    settled
}

#[test]
fn more_members_than_a_connection_has_room_for_wait_and_nobody_is_refused() {
    let (mut world, members) = joined();
    let last: Vec<_> = members.iter().map(|&member| say(&mut world, member)).collect();
    world.exchange();
    assert_eq!(world.broker.verdicts.len(), QUEUE_VERDICTS_CONNECTION_MAX, "as many as may");
    let mut answered = 0;
    let mut first_words = None;
    while !world.broker.verdicts.is_empty() {
        assert!(world.broker.verdicts.len() <= QUEUE_VERDICTS_CONNECTION_MAX, "and no more");
        world.answer_verdict();
        answered += 1;
        world.exchange();
        if first_words.is_none() && settled(&world).len() == MEMBERS {
            first_words = Some(answered);
        }
    }
    assert_eq!(world.broker.leases_named, MEMBERS as u64 * WORDS, "each was said once");
    let settled = settled(&world);
    for (member, last) in members.iter().zip(last) {
        assert!(last < settled[member], "{member:?}: {last:?} is not settled");
    }
    let first_words = first_words.expect("all were heard");
    assert!(first_words < answered / 2, "the last member was heard after {first_words} of {answered} answers");
}

#[test]
fn members_that_wait_for_room_say_everything_after_a_lost_connection() {
    let (mut world, members) = joined();
    for &member in &members {
        say(&mut world, member);
    }
    world.exchange();
    for _ in 0..100 {
        world.answer_verdict();
    }
    world.cut(0);
    world.broker.verdicts.clear();
    world.told.clear();
    for _ in 0..100 {
        world.advance(Duration::from_millis(20));
        world.exchange();
    }
    while world.answer_verdict() {
        assert!(world.broker.verdicts.len() < QUEUE_VERDICTS_CONNECTION_MAX);
        world.exchange();
    }
    let settled = settled_after(&world);
    assert_eq!(settled, MEMBERS, "members whose last word was settled");
}

/// Members of which everything is settled.
fn settled_after(world: &World) -> usize {
    let mut below = BTreeMap::new();
    for (member, news) in world.told.iter().filter_map(told) {
        if let QueueNews::Settled { below: key } = news {
            below.insert(member, key.0);
        }
    }
    below.values().filter(|&&key| key == WORDS + 1).count()
}
