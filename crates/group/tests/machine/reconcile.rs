//! What moves, what stays, and who is told when.

use std::time::Duration;

use bytes::Bytes;
use corelane_group::{FenceReason, GroupError, Leave, MemberState, Report, Settings, StaticId, Strategy};
use corelane_model::limits::{GROUP_HANDOVER_BYTES_MAX, GROUP_SHIFT_INTERVAL, GROUP_STEP_MAX};
use corelane_model::{ErrorCode, Generation, TopicId};

use crate::world::{REBALANCE, SESSION, World, partition, resolve};

#[test]
fn a_new_member_gets_only_what_the_old_one_gave_up() {
    let mut world = World::new(Settings::default(), &[4]);
    let old = world.member(&[0], None);
    assert_eq!(world.works(old).len(), 4);
    let new = world.client(&[0], None);
    world.join(new).unwrap();
    world.end_round();
    world.deliver_all(new);
    assert_eq!(world.works(new), [], "nothing is free yet");
    world.deliver_all(old);
    assert_eq!(world.works(old).len(), 2, "it keeps what it keeps");
    let state = |world: &World, at: usize| {
        let id = world.clients[at].id;
        world.group.describe(world.now).members.into_iter().find(|member| member.member == id).unwrap().state
    };
    assert_eq!((state(&world, old), state(&world, new)), (MemberState::GivingUp, MemberState::Awaiting));
    world.settle_round();
    assert_eq!(world.loads(), [2, 2]);
    assert_eq!((state(&world, old), state(&world, new)), (MemberState::Stable, MemberState::Stable));
}

#[test]
fn nobody_is_told_before_it_is_durable() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.client(&[0], None);
    world.join(first).unwrap();
    world.finish();
    assert!(world.clients[first].inbox.is_empty() && world.answered.is_empty());
    world.sync(world.log.len() - 1);
    assert!(world.clients[first].inbox.is_empty() && world.answered.is_empty(), "one record is missing");
    world.sync(usize::MAX);
    assert!(!world.clients[first].inbox.is_empty() && !world.answered.is_empty());
}

#[test]
fn a_death_costs_one_session_time_out_and_others_notice_nothing() {
    let mut world = World::new(Settings::default(), &[6]);
    for _ in 0..3 {
        world.member(&[0], None);
    }
    world.settle_round();
    let (kept, others) = (world.works(0), world.works(1));
    world.kill(2);
    let mut silent = Duration::ZERO;
    while world.is_member(2) {
        world.advance(Duration::from_millis(100));
        silent += Duration::from_millis(100);
        world.report(0);
        world.report(1);
    }
    assert!(silent <= SESSION + Duration::from_millis(100), "{silent:?}");
    world.settle_round();
    assert_eq!(world.loads()[..2], [3, 3]);
    assert!(kept.iter().all(|partition| world.works(0).contains(partition)));
    assert!(others.iter().all(|partition| world.works(1).contains(partition)));
    let error = world.commit(2, partition(0, 0), world.clients[2].seen).unwrap_err();
    assert!(matches!(error, GroupError::Fenced { reason: FenceReason::SessionExpired, .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::SessionExpired);
}

#[test]
fn who_does_not_give_up_is_put_out_after_its_rebalance_time_out() {
    let mut world = World::new(Settings::default(), &[2]);
    let stubborn = world.member(&[0], None);
    let new = world.client(&[0], None);
    world.join(new).unwrap();
    let started = world.now.monotonic;
    loop {
        world.advance(Duration::from_millis(500));
        world.sync(usize::MAX);
        if !world.is_member(stubborn) {
            break;
        }
        // It lives and works on, but never lets go.
        let (seen, holds) = (world.clients[stubborn].seen, world.works(stubborn));
        let report = Report { seen, holds: Some(&holds), processing_micros: None };
        world.group.heartbeat(world.now, world.clients[stubborn].id, report).unwrap();
        world.deliver_all(new);
        world.report(new);
    }
    let waited = world.now.monotonic.since(started);
    assert!(REBALANCE <= waited && waited <= REBALANCE + Duration::from_secs(1), "{waited:?}");
    world.settle_round();
    assert_eq!(world.clients[stubborn].fenced, Some(FenceReason::RebalanceTimeout));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut world = World::new(Settings::default(), &[6]);
    let first = world.member(&[0], Some("a"));
    let second = world.member(&[0], Some("b"));
    world.settle_round();
    let (had, generation, others) = (world.works(first), world.group.generation(), world.works(second));
    world.leave(first, Leave::Restarting);
    world.settle_round();
    world.advance(SESSION / 2);
    let back = world.member(&[0], Some("a"));
    assert_eq!(world.works(back), had);
    assert_eq!(world.works(second), others);
    assert_eq!(world.group.generation(), generation, "nothing was assigned anew");
    assert_eq!(world.clients[first].fenced, None, "who has left is not told that it is out");
}

#[test]
fn a_static_member_that_stays_away_loses_its_partitions() {
    let mut world = World::new(Settings::default(), &[4]);
    let first = world.member(&[0], Some("a"));
    world.leave(first, Leave::Restarting);
    let second = world.member(&[0], Some("b"));
    assert_eq!(world.works(second), [], "they wait for it");
    for _ in 0..25 {
        world.advance(Duration::from_millis(500));
        world.report(second);
    }
    world.settle_round();
    assert_eq!(world.works(second).len(), 4);
}

#[test]
fn the_newer_of_two_with_one_static_id_fences_the_older() {
    let mut world = World::new(Settings::default(), &[4]);
    let older = world.member(&[0], Some("a"));
    let id = world.clients[older].id;
    let seen = world.clients[older].seen;
    let newer = world.client(&[0], Some("a"));
    world.join(newer).unwrap();
    let error = world.commit(older, partition(0, 0), seen).unwrap_err();
    assert!(matches!(error, GroupError::Fenced { reason: FenceReason::StaticIdTaken, .. }));
    assert!(error.to_string().contains("a newer member joined with its static id"), "{error}");
    let again = world.join_of(older);
    let ticket = world.ticket();
    assert!(matches!(world.group.join(world.now, ticket, again), Err(GroupError::Fenced { .. })), "no ping-pong");
    world.settle_round();
    assert_eq!(world.works(newer).len(), 4);
    assert!(!world.clients[older].is_alive && id != world.clients[newer].id);
}

#[test]
fn the_older_of_two_with_one_static_id_stays_out_after_a_restart() {
    let mut world = World::new(Settings::default(), &[4]);
    let older = world.member(&[0], Some("a"));
    let (id, again) = (world.clients[older].id, world.join_of(older));
    let newer = world.client(&[0], Some("a"));
    world.join(newer).unwrap();
    world.settle_round();
    world.crash(0);
    let error = world.group.heartbeat(world.now, id, Report::default()).unwrap_err();
    assert!(matches!(error, GroupError::Fenced { reason: FenceReason::StaticIdTaken, .. }), "{error}");
    let ticket = world.ticket();
    let error = world.group.join(world.now, ticket, again).unwrap_err();
    assert!(matches!(error, GroupError::Fenced { reason: FenceReason::StaticIdTaken, .. }), "{error}");
    assert!(world.is_member(newer));
}

#[test]
fn a_late_join_of_a_process_that_has_left_does_not_put_its_successor_out() {
    for is_restarted in [false, true] {
        let mut world = World::new(Settings::default(), &[4]);
        let before = world.member(&[0], Some("a"));
        let late = world.join_of(before);
        world.leave(before, Leave::Restarting);
        world.settle_round();
        let successor = world.member(&[0], Some("a"));
        if is_restarted {
            world.crash(0);
        }
        let (now, ticket) = (world.now, world.ticket());
        let error = world.group.join(now, ticket, late).unwrap_err();
        assert!(matches!(error, GroupError::Fenced { reason: FenceReason::StaticIdTaken, .. }), "{error}");
        world.report(successor);
        world.settle_round();
        assert!(world.is_member(successor) && world.clients[successor].fenced.is_none());
        assert_eq!(world.works(successor).len(), 4);
        assert_eq!(world.clients[before].fenced, None, "who has left is told nothing");
    }
}

#[test]
fn an_operator_removes_a_static_member_that_will_not_come_back() {
    let mut world = World::new(Settings::default(), &[4]);
    let gone = world.member(&[0], Some("a"));
    let other = world.member(&[0], Some("b"));
    world.leave(gone, Leave::Restarting);
    let ticket = world.ticket();
    world.group.remove_static(world.now, ticket, &StaticId::parse("a").unwrap()).unwrap();
    world.settle_round();
    assert_eq!(world.works(other).len(), 4);
    let error = world.group.remove_static(world.now, ticket, &StaticId::parse("a").unwrap()).unwrap_err();
    assert!(matches!(error, GroupError::UnknownStaticId { .. }));
}

#[test]
fn new_partitions_and_new_topics_of_a_pattern_are_picked_up() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.client(&[], None);
    world.clients[first].subscription.pattern = Some("t.*".to_owned());
    world.join(first).unwrap();
    world.settle_round();
    assert_eq!(world.works(first).len(), 2);
    world.catalog.insert(TopicId(0), 3);
    world.catalog.insert(TopicId(7), 2);
    let catalog = world.catalog.clone();
    world.group.on_catalog(|subscription| resolve(&catalog, subscription));
    world.settle_round();
    let all: Vec<_> = [(0, 0), (0, 1), (0, 2), (7, 0), (7, 1)].map(|(topic, index)| partition(topic, index)).into();
    assert_eq!(world.works(first), all);
    world.catalog.remove(&TopicId(0));
    world.group.forget_topic(TopicId(0));
    world.settle_round();
    assert_eq!(world.works(first), all[3..]);
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_and_harms_nobody() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.member(&[0], None);
    let second = world.client(&[], None);
    world.clients[second].subscription.pattern = Some("chat-.*".to_owned());
    let error = world.join(second).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the subscription to /chat-.*/ matches no topic; there has to be one when a member joins"
    );
    assert_eq!(error.code(), ErrorCode::NothingSubscribed);
    world.kill(second);
    let mut other = world.join_of(first);
    other.strategy = Some(Strategy::Range);
    let ticket = world.ticket();
    assert!(matches!(world.group.join(world.now, ticket, other), Err(GroupError::StrategyMismatch { .. })));
    world.settle_round();
    assert_eq!(world.works(first).len(), 2);
}

#[test]
fn what_the_old_owner_leaves_reaches_the_new_one_once_it_is_durable() {
    let mut world = World::new(Settings::default(), &[2]);
    let old = world.member(&[0], None);
    let new = world.client(&[0], None);
    world.join(new).unwrap();
    world.end_round();
    world.deliver_all(old);
    let (id, seen) = (world.clients[old].id, world.clients[old].seen);
    let moving = (0..2).map(|index| partition(0, index)).find(|p| !world.works(old).contains(p)).unwrap();
    let large = Bytes::from(vec![0; GROUP_HANDOVER_BYTES_MAX + 1]);
    let error = world.group.give_up(world.now, id, seen, moving, Some(large)).unwrap_err();
    assert!(matches!(error, GroupError::Limit { .. }), "{error}");
    let before = Generation(seen.0 - 1);
    let error = world.group.give_up(world.now, id, before, moving, None).unwrap_err();
    assert!(matches!(error, GroupError::NotRevoked { .. }), "it has not seen the revocation: {error}");
    let kept = world.works(old)[0];
    let error = world.group.give_up(world.now, id, seen, kept, None).unwrap_err();
    assert!(matches!(error, GroupError::NotRevoked { .. }), "{error}");
    world.group.give_up(world.now, id, seen, moving, Some(Bytes::from_static(b"warm"))).unwrap();
    world.finish();
    world.crash(usize::MAX);
    world.settle_round();
    assert_eq!(world.clients[new].handed.first(), Some(&(moving, b"warm".to_vec())), "it survived the crash");
    assert_eq!(world.works(new), [moving]);
    let records = world.group.records().count();
    world.settle_round();
    assert_eq!(world.group.records().count(), records, "and was dropped when the new owner had it");
    assert!(!world.compacted().keys().any(|key| key[1] == 5), "no blob is left");
}

#[test]
fn standbys_follow_and_take_over() {
    let mut world = World::new(Settings { standbys: 1, ..Settings::default() }, &[4]);
    for _ in 0..3 {
        world.member(&[0], None);
    }
    world.settle_round();
    let freed = world.works(0);
    let follows = |at: usize| world.clients[at].standby.clone();
    assert!((1..3).all(|at| follows(at).iter().all(|partition| !world.works(at).contains(partition))));
    assert!(freed.iter().all(|partition| follows(1).contains(partition) || follows(2).contains(partition)));
    let before = [1, 2].map(|at| (at, world.works(at), follows(at)));
    world.leave(0, Leave::ForGood);
    world.settle_round();
    for (at, had, followed) in before {
        let gained: Vec<_> = world.works(at).into_iter().filter(|partition| !had.contains(partition)).collect();
        let is_warm = gained.iter().all(|partition| followed.contains(partition));
        assert!(is_warm || !freed.iter().any(|partition| followed.contains(partition)), "{at} began cold: {gained:?}");
    }
}

#[test]
fn who_gave_a_partition_up_may_follow_it() {
    let mut world = World::new(Settings { standbys: 1, ..Settings::default() }, &[2]);
    world.member(&[0], None);
    world.settle_round();
    assert_eq!(world.clients[0].standby, []);
    world.member(&[0], None);
    world.settle_round();
    assert_eq!((world.clients[0].standby.clone(), world.clients[1].standby.clone()), (world.works(1), world.works(0)));
}

#[test]
fn load_moves_to_who_answers_faster_after_the_interval() {
    let mut world = World::new(Settings { strategy: Strategy::LeastResponseTime, ..Settings::default() }, &[12]);
    world.member(&[0], None);
    world.member(&[0], None);
    world.settle_round();
    assert_eq!(world.loads(), [7, 5], "one more would not lighten the first by a fifth");
    for _ in 0..20 {
        for (at, micros) in [(0, 100), (1, 500)] {
            let report = Report { seen: world.clients[at].seen, holds: None, processing_micros: Some(micros) };
            world.group.heartbeat(world.now, world.clients[at].id, report).unwrap();
        }
        world.advance(GROUP_SHIFT_INTERVAL / 10);
        world.settle_round();
    }
    assert_eq!(world.loads(), [10, 2]);
    assert!(world.group.stats().revoked_partitions <= 10, "it came to rest: {:?}", world.group.stats());
}

#[test]
fn a_thousand_members_and_one_more() {
    let mut world = World::new(Settings::default(), &[1000]);
    for _ in 0..1000 {
        let at = world.client(&[0], None);
        world.join(at).unwrap();
    }
    let mut rounds = 0;
    let appended = |world: &World| world.group.stats().appended_records;
    while rounds == 0 || world.group.is_unfinished() {
        let before = appended(&world);
        world.group.finish_round(world.now);
        let first = if rounds == 0 { 1000 } else { 0 };
        assert!(appended(&world) - before <= first + GROUP_STEP_MAX as u64 + 1, "a step has its bound");
        rounds += 1;
    }
    let before = appended(&world);
    let steps = 1000_u64.div_ceil(GROUP_STEP_MAX as u64);
    assert_eq!(before, steps + 2000, "the group in each step, its members and its partitions");
    let at = world.client(&[0], None);
    world.join(at).unwrap();
    world.group.finish_round(world.now);
    assert_eq!(world.group.stats().appended_records - before, 2, "the group and the member; nothing has to move");
}
