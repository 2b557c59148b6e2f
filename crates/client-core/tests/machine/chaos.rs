//! Whatever breaks and when: nothing twice, nothing out of order, one last word each, and no false one.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_client_core::{ProducerSettings, Sent};
use corelane_model::{Acks, ErrorCode, TopicClass};
use proptest::prelude::*;

use crate::world::{Fate, World};

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { partition: u32 },
    Round,
    Up(usize),
    Down(usize),
    Sync,
    Notices,
    Cut(usize),
    Crash,
    Refuse(ErrorCode),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let code = prop_oneof![
        Just(ErrorCode::Busy),
        Just(ErrorCode::Recovering),
        Just(ErrorCode::CorruptBatch),
        Just(ErrorCode::StorageFull),
        Just(ErrorCode::UnknownTopic),
    ];
    prop_oneof![
        8 => (0..3_u32).prop_map(|partition| Step::Send { partition }),
        6 => Just(Step::Round),
        10 => any::<usize>().prop_map(Step::Up),
        10 => any::<usize>().prop_map(Step::Down),
        2 => Just(Step::Sync),
        3 => Just(Step::Notices),
        1 => any::<usize>().prop_map(Step::Cut),
        1 => Just(Step::Crash),
        1 => code.prop_map(Step::Refuse),
        2 => (0..40_u64).prop_map(Step::Advance),
    ]
}

/// With `own_streams` below 2, partitions of one shard share streams and leave in bundles.
fn run(steps: &[Step], acks: Acks, class: TopicClass, own_streams: u32) {
    let mut world = World::with(2, |settings| settings.own_streams = own_streams);
    world.broker.create("t", 3, class);
    let producer = world.open("t", ProducerSettings { acks, ..ProducerSettings::default() });
    let mut sent: BTreeMap<u64, Sent> = BTreeMap::new();
    // What a memory topic held when the broker crashed: readers may have seen it.
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); 3];
    for &step in steps {
        match step {
            Step::Send { partition } => {
                let (value, ticket) = world.send(producer, partition);
                sent.insert(value, ticket);
            }
            Step::Round => world.round(),
            Step::Up(pick) => drop(world.up(pick)),
            Step::Down(pick) => drop(world.down(pick)),
            Step::Sync => world.broker.sync(),
            Step::Notices => world.notices(),
            Step::Cut(pick) => world.cut(pick),
            Step::Crash => {
                if class == TopicClass::Memory {
                    (0..3).for_each(|partition| seen[partition].extend(world.log_values("t", partition)));
                }
                world.crash();
            }
            Step::Refuse(code) => world.broker.refusals.push(code),
            Step::Advance(millis) => world.advance(Duration::from_millis(millis)),
        }
    }
    world.broker.refusals.clear();
    world.settle_all();
    check(&mut world, &sent, &seen, acks, class);
}

fn check(world: &mut World, sent: &BTreeMap<u64, Sent>, seen: &[Vec<u64>], acks: Acks, class: TopicClass) {
    let stats = world.core.stats();
    assert_eq!((stats.buffer_bytes, stats.buffer_records), (0, 0), "the buffer is empty at the end");
    let mut places: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    for partition in 0..3_u32 {
        let index = partition as usize;
        let mut history = seen[index].clone();
        history.extend(world.log_values("t", index));
        assert!(history.is_sorted(), "partition {partition} is out of order or has something twice: {history:?}");
        assert!(history.windows(2).all(|pair| pair[0] != pair[1]), "partition {partition}: {history:?}");
        for batch in &world.broker.log("t", index).batches {
            places.extend((batch.base..).zip(&batch.values).map(|(offset, &value)| (value, (partition, offset))));
        }
    }
    for (value, ticket) in sent {
        let fate = world.fates.get(&ticket.batch).unwrap_or_else(|| panic!("record {value} has no last word"));
        let place = places.get(value);
        match fate {
            Fate::Delivered { placement, .. } => {
                let told = (ticket.partition.0, placement.base_offset.0 + u64::from(ticket.index));
                let survives = acks == Acks::Stored && class == TopicClass::Durable;
                assert!(place == Some(&told) || !survives, "record {value} was told at {told:?}, lies at {place:?}");
            }
            Fate::Failed(error) if error.may_be_stored() => {}
            Fate::Failed(error) => assert_eq!(place, None, "record {value} failed with {error} and is there"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn stored_records_are_there_once_and_in_order(steps in prop::collection::vec(step(), 0..250), own in 0..3_u32) {
        run(&steps, Acks::Stored, TopicClass::Durable, own);
    }

    #[test]
    fn received_records_are_never_there_twice(steps in prop::collection::vec(step(), 0..250), own in 0..3_u32) {
        run(&steps, Acks::Received, TopicClass::Durable, own);
    }

    #[test]
    fn memory_topics_never_show_a_record_twice(steps in prop::collection::vec(step(), 0..250), own in 0..3_u32) {
        run(&steps, Acks::Stored, TopicClass::Memory, own);
    }
}
