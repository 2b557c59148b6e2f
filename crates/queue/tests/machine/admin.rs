//! Settings, deletion, the way back for dead letters.

use std::time::Duration;

use corelane_model::limits::QUEUE_REDRIVE_RECORDS;
use corelane_model::{
    Dispatch, ErrorCode, Offset, PartitionIndex, QueueSettings, QueueSettingsError, QueueWish, TopicId, TopicName,
};
use corelane_queue::{Answer, Effect, Join, QueueError, RedriveAt, Redriven, Restore};

use crate::world::{World, name, settings};

#[test]
fn a_member_may_insist_on_settings_that_hold() {
    let mut world = World::new(settings(), 1);
    let (at, ticket) = (world.client(), world.ticket());
    let mut join = Join::new(world.clients[at].id);
    join.wish = QueueWish { dispatch: Some(Dispatch::RoundRobin), ..QueueWish::default() };
    world.queue.join(world.now, ticket, join.clone()).unwrap();
    world.finish();
    assert!(world.answers.is_empty(), "where the queue begins is not on disk");
    world.sync(usize::MAX);
    assert_eq!(world.answers[&ticket], Answer::Joined { is_new: true });
    let again = world.ticket();
    world.queue.join(world.now, again, join.clone()).unwrap();
    world.finish();
    assert_eq!(world.answers[&again], Answer::Joined { is_new: false });
    join.wish.visibility = Some(Duration::from_secs(7));
    let error = world.queue.join(world.now, ticket, join.clone()).unwrap_err();
    assert!(error.to_string().contains("visibility time-out 1s, not 7s"), "{error}");
    join.wish = QueueWish { delivery_limit: Some(5000), ..QueueWish::default() };
    let error = world.queue.join(world.now, ticket, join).unwrap_err();
    assert!(matches!(error, QueueError::Settings(QueueSettingsError::OutOfBounds { value: 5000, .. })), "{error}");
    assert_eq!(world.queue.members_len(), 1);
}

#[test]
fn settings_change_while_members_go_on_but_for_the_order() {
    let mut world = World::new(settings(), 1);
    let at = world.member(1);
    let ticket = world.ticket();
    let wish = QueueWish { visibility: Some(Duration::from_secs(9)), ..QueueWish::default() };
    world.queue.alter(ticket, &wish).unwrap();
    world.finish();
    world.sync(usize::MAX);
    assert_eq!(world.answers[&ticket], Answer::Done);
    assert_eq!(world.restored().settings().visibility, Duration::from_secs(9));
    let wish = QueueWish { order_per_key: Some(true), ..QueueWish::default() };
    assert_eq!(world.queue.alter(ticket, &wish), Err(QueueError::OrderIsFixed));
    let has = world.queue.describe_members(world.now).next().unwrap();
    assert_eq!((has.member, has.credit_records), (world.clients[at].id, 1));
}

#[test]
fn a_deleted_queue_leaves_nothing() {
    let mut world = World::new(settings(), 2);
    let at = world.member(5);
    world.produce(0, None, None);
    world.finish();
    world.feed_all();
    world.finish();
    let ticket = world.ticket();
    assert_eq!(world.queue.delete(world.now, ticket, false), Err(QueueError::NotEmpty { members: 1 }));
    world.queue.delete(world.now, ticket, true).unwrap();
    world.finish();
    assert!(!world.removed, "not before it is durable");
    world.sync(usize::MAX);
    assert!(world.removed && world.answers.contains_key(&ticket));
    assert!(world.fenced.contains(&world.clients[at].id));
    assert_eq!(world.join_with(at, 1, 1), Err(QueueError::Deleted));
    let mut restore = Restore::new(name());
    for (key, value) in &world.log {
        restore.apply(key, value.as_deref()).unwrap();
    }
    assert!(restore.is_nothing());
}

const BEGIN: RedriveAt = RedriveAt { partition: PartitionIndex(0), end: None };

const fn redriven(records: u64) -> Redriven {
    Redriven { records, next: None, stopped: String::new() }
}

#[test]
fn no_step_of_a_redrive_is_asked_for_more_than_the_limit() {
    for (asked, expected) in [(0, QUEUE_REDRIVE_RECORDS), (7, 7), (u64::MAX, QUEUE_REDRIVE_RECORDS)] {
        let mut world = World::new(settings(), 1);
        let ticket = world.ticket();
        world.queue.redrive(ticket, asked, BEGIN).unwrap();
        let most = std::iter::from_fn(|| world.queue.poll_effect()).find_map(|effect| match effect {
            Effect::Redrive { most, .. } => Some(most),
            _ => None,
        });
        assert_eq!(most, Some(expected));
    }
}

#[test]
fn dead_letters_go_back_from_where_the_last_time_ended() {
    let mut world = World::new(settings(), 1);
    let redrive = |world: &mut World| {
        let ticket = world.ticket();
        world.queue.redrive(ticket, 100, BEGIN).unwrap();
        let found = std::iter::from_fn(|| world.queue.poll_effect()).find(|e| matches!(e, Effect::Redrive { .. }));
        let Some(Effect::Redrive { topic, from, of, most, at, .. }) = found else { panic!("{found:?}") };
        assert_eq!((topic.as_str(), most), (world.queue.settings().dead_letter.as_ref().unwrap().as_str(), 100));
        assert_eq!(at, BEGIN);
        (ticket, of, from)
    };
    let (ticket, _, from) = redrive(&mut world);
    assert_eq!(from, []);
    let refused = world.queue.redrive(ticket, 1, BEGIN).unwrap_err();
    assert_eq!((&refused, refused.code()), (&QueueError::RedriveRunning, ErrorCode::RedriveRunning));
    world.queue.on_redriven(TopicId(9), PartitionIndex(3), Offset(40));
    let step = redriven(12);
    world.queue.on_redrive_done(step.clone());
    world.finish();
    world.sync(usize::MAX);
    assert_eq!(world.answers[&ticket], Answer::Redriven(step));
    world.crash(0);
    let (_, of, from) = redrive(&mut world);
    assert_eq!((of, from), (TopicId(9), vec![(PartitionIndex(3), Offset(40))]));
    // The topic was deleted and made again meanwhile: what is remembered of the old one says nothing of it.
    world.queue.on_redriven(TopicId(10), PartitionIndex(0), Offset(5));
    world.queue.on_redrive_done(redriven(5));
    let (_, of, from) = redrive(&mut world);
    assert_eq!((of, from), (TopicId(10), vec![(PartitionIndex(0), Offset(5))]));
    world.queue.on_redrive_done(redriven(0));
    let ticket = world.ticket();
    let wish = QueueWish { dead_letter: Some(TopicName::parse("other").unwrap()), ..QueueWish::default() };
    world.queue.alter(ticket, &wish).unwrap();
    world.finish();
    assert_eq!(redrive(&mut world).2, [], "another topic begins at its beginning");
}

#[test]
fn order_needs_no_dead_letters_and_bounds_are_named() {
    let error = QueueSettings { visibility: Duration::ZERO, ..settings() }.check().unwrap_err();
    assert_eq!(error.to_string(), "visibility time-out in milliseconds of 0 is out of bounds: 50 to 43200000");
}
