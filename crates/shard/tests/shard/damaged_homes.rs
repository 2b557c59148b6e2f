//! Homes with records that a disk has damaged: what is lost is counted, and what is not is there.

use corelane_model::ErrorCode;
use corelane_shard::ShardStatus;

use crate::broken_queues::moved;
use crate::members::{Member, join_of};
use crate::transactions::{COMMIT, Pipe};
use crate::world::World;

fn damages(world: &mut World) -> u64 {
    let ShardStatus { counters, .. } = world.status(0);
    counters.home_damages
}

#[test]
fn a_damaged_record_of_a_transactional_id_is_counted_and_costs_that_id_alone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let topic = world.create(client, "scores", 1);
    let [mut orders, mut stock] = ["orders", "stock"].map(|id| {
        let mut pipe = Pipe::new(&mut world, client, id).unwrap();
        pipe.write(&mut world, (topic, 0), id).unwrap();
        pipe.end(&mut world, COMMIT).unwrap();
        pipe
    });
    assert_ne!(orders.home, stock.home, "each has a home of its own");
    assert_eq!((damages(&mut world), world.status(0).transaction_totals.ids), (0, 2));

    let mut places = 0;
    let mut world = moved(world, |disk| {
        // The id stands in the keys of its home's log, and once in the topic.
        places = disk.damage_where(b"orders");
    });
    assert!(2 <= places, "{places} places");
    assert_eq!((damages(&mut world), world.status(0).transaction_totals.ids), (1, 1));
    (orders.client, stock.client) = (world.connect(0), world.connect(0));
    stock.write(&mut world, (topic, 0), "more").expect("it is the id that was");
    stock.end(&mut world, COMMIT).unwrap();
    assert_eq!(orders.write(&mut world, (topic, 0), "more").unwrap_err(), ErrorCode::ProducerFenced);
    let client = world.connect(0);
    let mut orders = Pipe::new(&mut world, client, "orders").expect("it can be made anew");
    orders.write(&mut world, (topic, 0), "more").expect("it is a new one");
}

#[test]
fn a_damaged_record_of_a_group_is_counted_and_costs_that_home_alone() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.create(client, "inputs", 1);
    for (group, id) in [("scores", 1), ("ranks", 2)] {
        Member::join(&mut world, client, &join_of(group, id, &["inputs"])).expect("it is taken");
    }
    assert_eq!(damages(&mut world), 0);
    let mut world = moved(world, |disk| assert!(0 < disk.damage_where(b"scores")));
    let client = world.connect(0);
    let mut ranks = Member::join(&mut world, client, &join_of("ranks", 2, &["inputs"])).expect("it is taken");
    ranks.heartbeat(&mut world).expect("it is a member");
    assert_eq!(damages(&mut world), 1);
}
