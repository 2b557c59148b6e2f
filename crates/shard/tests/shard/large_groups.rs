//! Groups with more partitions than an assignment moves in one round.

use corelane_model::limits::GROUP_STEP_MAX;

use crate::members::{Member, join_of, settle};
use crate::world::World;

#[test]
fn many_partitions_move_in_steps_and_are_told_of_once() {
    let many = u32::try_from(GROUP_STEP_MAX).expect("a few") * 6;
    let mut world = World::new(2);
    let client = world.connect(0);
    let topic = world.create(client, "inputs", many);
    let mut first = Member::join(&mut world, client, &join_of("lobby", 1, &["inputs"])).expect("it may join");
    assert_eq!(first.partitions(), (0..many).map(|index| (topic, index)).collect::<Vec<_>>());
    assert_eq!(first.generation, 6, "each step is a generation");
    let other = world.connect(1);
    let mut second = Member::join(&mut world, other, &join_of("lobby", 2, &["inputs"])).expect("it may join");
    first.hear(&mut world);
    let half = many as usize / 2;
    assert_eq!((first.owned.len(), first.revoking.len(), second.owned.len()), (half, half, 0));
    settle(&mut world, &mut [&mut first, &mut second]);
    assert_eq!((first.owned.len(), second.owned.len()), (half, half));
    assert!(first.owned.keys().all(|partition| !second.owned.contains_key(partition)));
}
