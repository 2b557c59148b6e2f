//! Promises that are broken on purpose.

use std::time::Duration;

use corelane_model::{CorrelationId, Now, TopicClass};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};
use corelane_wire::{
    LeasesAnswer, QueueAck, QueueDeliver, QueueNack, QueueRedriven, RedriveQueue, encode, encode_with,
};

use super::*;
use crate::network::carry;
use crate::payload;

const P: PartitionId = PartitionId::new(TopicId(1), PartitionIndex(0));
const MS: u64 = 1_000_000;

struct World {
    oracle: Oracle,
    now: Now,
}

fn world(order_per_key: bool) -> World {
    let mut oracle = Oracle::default();
    oracle.open_partition(P, TopicClass::Durable, false);
    (0..9).for_each(|number| oracle.on_sent(P, RecordId { client: 0, number }, None));
    let settings = QueueSettings { order_per_key, visibility: Duration::from_secs(1), ..QueueSettings::default() };
    oracle.queues.open(QueueName { group: "sharers".to_owned(), topic: P.topic }, settings);
    let mut world = World { oracle, now: Now::default() };
    world.join(7);
    world.join(8);
    world
}

fn lease(offset: u64, attempt: u32) -> LeaseRange {
    LeaseRange { partition: 0, first: offset, count: 1, attempt }
}

impl World {
    fn join(&mut self, member: u64) {
        let join = wire::JoinQueue {
            group: "sharers".to_owned(),
            topic: "topic".to_owned(),
            member: (member, 0),
            weight: 1,
            session_timeout_ms: 60_000,
            settings: wire::QueueChange::default(),
            start: corelane_model::StartAt::Earliest.into(),
            credit_records: 9,
            credit_bytes: 9,
        };
        self.oracle.queues.on_arrived(self.now.monotonic, 0, &carry(encode(CorrelationId(0), &join)));
    }

    fn wait(&mut self, millis: u64) {
        self.now.monotonic.0 += millis * MS;
    }

    /// The record of this offset goes to a member.
    fn give(&mut self, member: u64, offset: u32, attempt: u32) -> Result<(), Violation> {
        let mut builder = BatchBuilder::new(Compression::None);
        let value = payload::encode(RecordId { client: 0, number: offset }, 20);
        builder.push(WallMillis(5), Some(b"key"), Some(&value), &[]).unwrap();
        let body = QueueDeliver {
            group: "sharers".to_owned(),
            topic: 1,
            member: (member, 0),
            lease_ms: 1_000,
            left_ms: 1_000,
            credit_bytes: 1,
            leases: vec![lease(offset.into(), attempt)],
        };
        let frame = encode_with(CorrelationId(0), &body, vec![builder.finish(ProducerStamp::default())]);
        self.oracle.on_queue_left(self.now, 0, &carry(frame))
    }

    /// A member acknowledges; the answer refuses nothing.
    fn acknowledge(&mut self, member: u64, offset: u64, attempt: u32) -> Result<(), Violation> {
        let body = QueueAck {
            group: "sharers".to_owned(),
            topic: 1,
            member: (member, 0),
            leases: vec![lease(offset, attempt)],
            processing_micros: None,
            credit_records: 1,
            credit_bytes: 1,
        };
        self.oracle.queues.on_arrived(self.now.monotonic, 0, &carry(encode(CorrelationId(5), &body)));
        let answer = carry(encode(CorrelationId(5), &LeasesAnswer { refused: Vec::new() }));
        self.oracle.on_queue_left(self.now, 0, &answer)
    }

    /// A member fails a record, which rests for so many milliseconds.
    fn fail(&mut self, member: u64, offset: u64, attempt: u32, delay_ms: u64) -> Result<(), Violation> {
        let body = QueueNack {
            group: "sharers".to_owned(),
            topic: 1,
            member: (member, 0),
            leases: vec![lease(offset, attempt)],
            delay_ms: Some(delay_ms),
            is_dead: false,
            reason: String::new(),
            credit_records: 1,
            credit_bytes: 1,
        };
        self.oracle.queues.on_arrived(self.now.monotonic, 0, &carry(encode(CorrelationId(5), &body)));
        let answer = carry(encode(CorrelationId(5), &LeasesAnswer { refused: Vec::new() }));
        self.oracle.on_queue_left(self.now, 0, &answer)
    }
}

fn is_broken(result: &Result<(), Violation>, why: &str) -> bool {
    matches!(result, Err(Violation::Queue { what, .. }) if what.contains(why))
}

#[test]
fn a_record_goes_to_another_only_when_its_time_is_over() {
    let mut world = world(false);
    world.give(7, 0, 1).unwrap();
    world.wait(900);
    assert!(is_broken(&world.give(8, 0, 2), "while member"));
    world.wait(100);
    world.give(8, 0, 2).unwrap();
}

#[test]
fn a_record_that_failed_goes_to_another_after_its_rest() {
    let mut world = world(false);
    world.give(7, 0, 1).unwrap();
    world.fail(7, 0, 1, 300).unwrap();
    world.wait(299);
    assert!(is_broken(&world.give(8, 0, 2), "before its rest is over"));
    world.wait(1);
    assert!(is_broken(&world.give(8, 0, 1), "1 failures were answered"));
    world.give(8, 0, 2).unwrap();
}

#[test]
fn what_is_done_is_not_handed_out_again_after_a_crash_either() {
    let mut world = world(false);
    world.give(7, 0, 1).unwrap();
    world.give(7, 1, 1).unwrap();
    world.acknowledge(7, 0, 1).unwrap();
    world.oracle.queues.on_broker_gone(world.now.monotonic, WallMillis(0));
    world.join(8);
    world.give(8, 1, 1).unwrap();
    let broken = world.give(8, 0, 1);
    assert!(is_broken(&broken, "its acknowledgement was answered"), "{broken:?}");
}

#[test]
fn of_a_key_one_record_is_on_its_way_and_the_earlier_first() {
    let mut world = world(true);
    world.give(7, 1, 1).unwrap();
    assert!(is_broken(&world.give(8, 2, 1), "has offset 1 of its key"));
    assert!(is_broken(&world.give(8, 0, 1), "after offset 1 of its key"));
    world.acknowledge(7, 1, 1).unwrap();
    world.give(8, 2, 1).unwrap();
}

#[test]
fn what_nobody_has_done_is_left() {
    let mut world = world(false);
    for number in 0..2 {
        world.oracle.on_stored(P, Offset(number.into()), RecordId { client: 0, number }).unwrap();
    }
    world.give(7, 0, 1).unwrap();
    world.acknowledge(7, 0, 1).unwrap();
    let name = QueueName { group: "sharers".to_owned(), topic: P.topic };
    let left: Vec<_> = world.oracle.undone_of_queue(&name).map(|(_, offset, _)| offset).collect();
    assert_eq!(left, [Offset(1)]);
}

impl World {
    /// An operator alters the visibility time-out.
    fn alter(&mut self, visibility_ms: u64) {
        self.change(wire::QueueChange { visibility_ms: Some(visibility_ms), ..wire::QueueChange::default() });
    }

    /// An operator alters something.
    fn change(&mut self, settings: wire::QueueChange) {
        let body = wire::AlterQueue { group: "sharers".to_owned(), topic: "topic".to_owned(), settings };
        self.oracle.queues.on_arrived(self.now.monotonic, 1, &carry(encode(CorrelationId(9), &body)));
        self.wait(1);
        self.oracle
            .on_queue_left(self.now, 1, &carry(encode(CorrelationId(9), &wire::QueueDone { reserved: 0 })))
            .unwrap();
    }

    /// A record stands in the topic.
    fn place(&mut self, offset: u64, number: u32) -> Result<(), Violation> {
        self.oracle.on_found(P, Offset(offset), RecordId { client: 0, number })
    }
}

#[test]
fn what_is_altered_holds_for_the_next_lease() {
    let mut world = world(false);
    world.wait(1_000);
    world.alter(500);
    world.give(7, 0, 1).expect("it may have been given before");
    world.wait(100);
    assert!(is_broken(&world.give(7, 1, 1), "none of the queue's times"));
}

#[test]
fn a_limit_that_is_lowered_holds_for_what_fails_and_not_for_what_comes_back() {
    let mut world = world(false);
    world.change(wire::QueueChange { delivery_limit: Some(0), ..wire::QueueChange::default() });
    world.give(7, 0, 1).unwrap();
    world.wait(1_000);
    world.give(8, 0, 2).unwrap();
    world.wait(100);
    world.change(wire::QueueChange { delivery_limit: Some(1), ..wire::QueueChange::default() });
    world.wait(1_000);
    world.give(7, 0, 2).expect("its delivery was not counted");
    world.wait(1_000);
    assert!(is_broken(&world.give(8, 0, 3), "beyond the limit"));
}

#[test]
fn dead_letters_that_were_put_back_are_counted() {
    let mut world = world(false);
    let ask = RedriveQueue { group: "sharers".to_owned(), topic: "topic".to_owned(), most: 0, partition: 0, end: None };
    world.oracle.queues.on_arrived(world.now.monotonic, 1, &carry(encode(CorrelationId(9), &ask)));
    assert_eq!(world.oracle.queues.redriven_count(), 0);
    let told = QueueRedriven { records: 3, partition: 1, end: None, is_over: true, stopped: String::new() };
    world.oracle.on_queue_left(world.now, 1, &carry(encode(CorrelationId(9), &told))).unwrap();
    assert_eq!(world.oracle.queues.redriven_count(), 3);
    assert!(is_broken(&world.oracle.check_redriven(), "3 were said to be put back, 0 are"));
}

#[test]
fn a_record_is_back_only_if_somebody_puts_it_back() {
    let mut world = world(false);
    world.place(0, 0).unwrap();
    assert!(matches!(world.place(5, 0), Err(Violation::Duplicate { .. })));
    world.oracle.allow_copies(P.topic);
    world.place(5, 0).unwrap();
    assert!(is_broken(&world.oracle.check_redriven(), "was 0 times a dead letter"));
}

#[test]
fn a_dead_letter_that_was_put_back_is_back() {
    let mut world = world(false);
    world.place(0, 0).unwrap();
    world.oracle.allow_copies(P.topic);
    let name = QueueName { group: "sharers".to_owned(), topic: P.topic };
    let letter = (PartitionId::new(TopicId(2), PartitionIndex(0)), Offset(0));
    world.oracle.queues.views.get_mut(&name).expect("it was opened").letters.insert(letter, ((0, 0), true));
    world.oracle.check_redriven().expect("nobody has put it back");
    world.oracle.queues.on_redriven_whole(&name, &LetterSet::from([letter]));
    assert!(is_broken(&world.oracle.check_redriven(), "is back 0 times"));
    world.place(5, 0).unwrap();
    world.oracle.check_redriven().expect("it is back");
    world.place(6, 0).unwrap();
    assert!(is_broken(&world.oracle.check_redriven(), "is back 2 times"));
}
