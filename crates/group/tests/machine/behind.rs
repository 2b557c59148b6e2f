//! Messages that were lost or are old.

use corelane_group::{GroupError, Leave, Report, Settings};
use corelane_model::{Generation, PartitionId};

use crate::world::{World, partition};

fn report(world: &mut World, at: usize, seen: Generation, holds: Option<&[PartitionId]>) {
    let report = Report { seen, holds, processing_micros: None };
    world.group.heartbeat(world.now, world.clients[at].id, report).expect("it is sound");
    world.end_round();
}

#[test]
fn a_lost_revocation_is_told_again_by_the_next_heartbeat() {
    let mut world = World::new(Settings::default(), &[2]);
    let old = world.member(&[0], None);
    let new = world.client(&[0], None);
    world.join(new).unwrap();
    world.end_round();
    world.clients[old].inbox.clear();
    let seen = world.clients[old].seen;
    report(&mut world, old, seen, None);
    world.deliver_all(old);
    assert_eq!(world.works(old).len(), 1);
}

#[test]
fn a_lost_grant_within_one_generation_is_told_again_by_the_next_full_report() {
    let mut world = World::new(Settings::default(), &[2]);
    let old = world.member(&[0], None);
    let new = world.client(&[0], None);
    world.join(new).unwrap();
    world.end_round();
    world.deliver_all(new);
    world.deliver_all(old);
    world.report(old);
    world.end_round();
    world.clients[new].inbox.clear();
    let seen = world.clients[new].seen;
    assert_eq!(seen, world.group.generation(), "the grant came in the generation that it has seen");
    report(&mut world, new, seen, None);
    assert!(world.clients[new].inbox.is_empty(), "nothing tells the group");
    report(&mut world, new, seen, Some(&[]));
    world.deliver_all(new);
    assert_eq!(world.works(new).len(), 1);
}

#[test]
fn who_works_on_what_it_does_not_have_is_told_what_it_has() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    world.clients[member].works.insert(partition(9, 9), Generation(1));
    let (seen, holds) = (world.clients[member].seen, world.works(member));
    report(&mut world, member, seen, Some(&holds));
    world.deliver_all(member);
    assert_eq!(world.works(member), [partition(0, 0), partition(0, 1)]);
}

#[test]
fn after_a_restart_of_the_coordinator_everybody_is_told_once() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    world.crash(0);
    let seen = world.clients[member].seen;
    report(&mut world, member, seen, None);
    assert_eq!(world.clients[member].inbox.len(), 1);
    report(&mut world, member, seen, None);
    assert_eq!(world.clients[member].inbox.len(), 1);
}

#[test]
fn what_was_lost_and_given_back_is_another_turn() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.member(&[0], None);
    let second = world.client(&[0], None);
    world.join(second).unwrap();
    world.end_round();
    world.deliver_all(first);
    let moving = (0..2).map(|index| partition(0, index)).find(|p| !world.works(first).contains(p)).unwrap();
    // The second goes again before the first has given up, so the first is next after itself.
    world.leave(second, Leave::ForGood);
    world.end_round();
    world.deliver_all(first);
    let told = world.clients[first].seen;
    world.commit(first, moving, told).expect("it has not given up yet");
    world.report(first);
    world.end_round();
    let error = world.commit(first, moving, told).unwrap_err();
    assert!(
        matches!(error, GroupError::StaleGeneration { said, since, .. } if said == told && told < since),
        "{error}"
    );
    world.settle_round();
    assert_eq!(world.works(first).len(), 2);
    world.commit(first, moving, world.clients[first].seen).unwrap();
}
