//! Where a queue begins in each partition.

use corelane_model::{MemberId, Now, Offset, PartitionIndex, QueueSettings, StartAt};
use corelane_queue::{Effect, Join, Queue, RequestTicket};

use crate::world::name;

#[test]
fn the_beginning_of_one_partition_is_asked_for_again() {
    let mut queue = Queue::new(name(), QueueSettings::default(), 3, StartAt::Latest, 1).unwrap();
    let asked = |queue: &mut Queue| {
        let effects = std::iter::from_fn(|| queue.poll_effect());
        effects.filter(|effect| matches!(effect, Effect::FindStart { .. })).count()
    };
    assert_eq!(asked(&mut queue), 3);
    queue.find_start_again(PartitionIndex(0));
    assert_eq!(asked(&mut queue), 1, "the others are still being asked for");
    queue.on_start(PartitionIndex(0), Offset(5));
    queue.find_start_again(PartitionIndex(0));
    assert_eq!(asked(&mut queue), 0, "it is known");
    (1..3).for_each(|index| queue.on_start(PartitionIndex(index), Offset(0)));
    let ticket = RequestTicket(1);
    let now = Now::default();
    queue.join(now, ticket, Join::new(MemberId(1))).unwrap();
    queue.finish_round(now);
    queue.on_durable(queue.appended());
    let mut effects = std::iter::from_fn(|| queue.poll_effect());
    assert!(effects.any(|effect| matches!(effect, Effect::Answer { .. })), "nobody waits for beginnings any more");
}
