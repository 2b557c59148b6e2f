//! What it costs that a member goes. Compared with itself: times of a moment on one machine, the best of several.

use std::time::{Duration, Instant};

use corelane_model::{MemberId, MonotonicNanos, Now, Offset, PartitionIndex, QueueSettings, StartAt, WallMillis};
use corelane_queue::{Join, Queue, ReadBatch, RecordMeta, RequestTicket};

use crate::world::name;

/// Members that have one record each, and go.
const GOING: u32 = 200;
const BIG: MemberId = MemberId(1);
const SESSION: Duration = Duration::from_secs(3);

fn at(since: Duration) -> Now {
    Now { monotonic: MonotonicNanos(1).after(since), wall: WallMillis(1_700_000_000_000) }
}

fn going() -> impl Iterator<Item = MemberId> {
    (2..2 + u128::from(GOING)).map(MemberId)
}

/// A queue in which one member has so many records and each of those that go has one.
fn queue_with(held: u32) -> Queue {
    let now = at(Duration::ZERO);
    let settings = QueueSettings { visibility: Duration::from_secs(3_600), ..QueueSettings::default() };
    let mut queue = Queue::new(name(), settings, 1, StartAt::Earliest, 1).expect("it is sound");
    queue.on_start(PartitionIndex(0), Offset(0));
    for (member, credit) in going().map(|member| (member, 1)).chain([(BIG, held)]) {
        let join =
            Join { session_timeout: SESSION, credit_records: credit, credit_bytes: 64 << 20, ..Join::new(member) };
        queue.join(now, RequestTicket(1), join).expect("it is sound");
    }
    queue.finish_round(now);
    let records = u64::from(held + GOING);
    for from in (0..records).step_by(1_000) {
        let end = (from + 1_000).min(records);
        let batch = ReadBatch {
            partition: PartitionIndex(0),
            from: Offset(from),
            end: Offset(end),
            timestamp: now.wall,
            bytes: 10 * (end - from),
            high_watermark: Offset(records),
        };
        let meta = |offset| RecordMeta { offset: Offset(offset), bytes: 10, key: None, deliver_at: None };
        queue.on_records(now, batch, (from..end).map(meta));
        queue.finish_round(now);
    }
    assert_eq!(queue.describe().leased, records, "everybody has what they are to have");
    queue
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn cost(held: u32, go: fn(&mut Queue)) -> Duration {
    let queue = queue_with(held);
    let one = |_| {
        let mut queue = queue.clone();
        let begin = Instant::now();
        go(&mut queue);
        let cost = begin.elapsed();
        assert_eq!(queue.members_len(), 1, "all but one are gone");
        cost
    };
    (0..7).map(one).min().expect("there are some")
}

fn check(go: fn(&mut Queue)) {
    let (few, many) = (cost(100, go), cost(50_000, go));
    assert!(many < few * 10, "{many:?} beside 50,000 leases of another, {few:?} beside 100");
}

#[test]
fn a_member_that_leaves_costs_what_it_has_not_what_others_have() {
    check(|queue| {
        for member in going() {
            queue.leave(at(Duration::ZERO), RequestTicket(2), member).expect("it is a member");
        }
    });
}

#[test]
fn members_whose_sessions_expire_cost_what_they_have_not_what_others_have() {
    check(|queue| {
        queue.credit(at(SESSION / 2), BIG, 0, 0).expect("it is a member");
        queue.on_deadline(at(SESSION));
    });
}
