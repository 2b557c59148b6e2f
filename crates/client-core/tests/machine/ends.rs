//! Subscriptions that the broker ends: nothing that was pushed before is lost, and the offsets come as numbers.

use corelane_client_core::{
    Effect, OutOfRange, ProducerSettings, SubscribeSettings, SubscriptionError, SubscriptionKey,
};
use corelane_model::{ErrorCode, Offset, PartitionIndex, StartAt, TopicClass};

use crate::world::{World, topic};

/// A subscription of four records whose two pushes are under way, as is the answer.
fn under_way(out_of_range: OutOfRange) -> (World, SubscriptionKey) {
    let mut world = World::new(2);
    world.broker.create("t", 1, TopicClass::Durable);
    let producer = world.open("t", ProducerSettings { batch_records: 2, ..ProducerSettings::default() });
    world.send_many(producer, 4);
    world.settle_all();
    world.told.clear();
    let settings = SubscribeSettings::new(topic("t"), PartitionIndex(0), StartAt::Earliest);
    let subscription = world.core.subscribe(SubscribeSettings { out_of_range: Some(out_of_range), ..settings });
    world.round();
    while world.up(0) {}
    world.notices();
    world.notices();
    (world, subscription)
}

/// Everything under way arrives: the answer first, or the push stream first.
fn arrive(world: &mut World, is_answer_first: bool) {
    if !is_answer_first {
        // The last queue is that of the pushes.
        for _ in 0..3 {
            assert!(world.down(1));
        }
        assert!(world.told.is_empty(), "nothing is given out before the answer: {:?}", world.told);
    }
    while world.down(0) {}
}

#[test]
fn records_pushed_before_the_end_come_before_it() {
    for is_answer_first in [true, false] {
        let (mut world, subscription) = under_way(OutOfRange::Fail);
        world.end(subscription, ErrorCode::CorruptLog, Some((4, 9)));
        arrive(&mut world, is_answer_first);
        let told = std::mem::take(&mut world.told);
        let [
            Effect::Subscribed { next: Offset(0), .. },
            Effect::Deliver { from: Offset(0), .. },
            Effect::Deliver { from: Offset(2), .. },
            Effect::Ended { subscription: ended, error },
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(*ended, subscription);
        assert_eq!(error.damaged(), Some(Offset(4)..Offset(9)));
    }
}

#[test]
fn a_log_that_moved_on_is_told_with_its_bounds() {
    for is_answer_first in [true, false] {
        let (mut world, subscription) = under_way(OutOfRange::Fail);
        world.end(subscription, ErrorCode::OffsetOutOfRange, Some((7, 9)));
        arrive(&mut world, is_answer_first);
        let Some(Effect::Ended { error, .. }) = world.told.last() else { panic!("{:?}", world.told) };
        let range = Some(Offset(7)..Offset(9));
        let expected = SubscriptionError::Refused { code: ErrorCode::OffsetOutOfRange, text: "why".into(), range };
        assert_eq!((error, error.damaged()), (&expected, None));
    }
}

#[test]
fn a_reader_that_falls_back_does_so_after_what_was_pushed() {
    for is_answer_first in [true, false] {
        let (mut world, subscription) = under_way(OutOfRange::Latest);
        world.end(subscription, ErrorCode::OffsetOutOfRange, Some((7, 9)));
        arrive(&mut world, is_answer_first);
        let delivered = world.told.iter().filter(|effect| matches!(effect, Effect::Deliver { .. })).count();
        assert_eq!(delivered, 2);
        assert!(!world.told.iter().any(|effect| matches!(effect, Effect::Ended { .. })), "{:?}", world.told);
        world.told.clear();
        world.settle_all();
        let is_again = |effect: &Effect| matches!(effect, Effect::Subscribed { next: Offset(4), .. });
        assert!(world.told.iter().any(is_again), "{:?}", world.told);
    }
}

#[test]
fn damage_of_no_record_is_not_believed() {
    let (mut world, subscription) = under_way(OutOfRange::Fail);
    world.end(subscription, ErrorCode::CorruptLog, Some((4, 4)));
    arrive(&mut world, true);
    let Some(Effect::Ended { error, .. }) = world.told.last() else { panic!("{:?}", world.told) };
    assert_eq!(error.damaged(), None, "reading on from there would end the same way for ever");
}
