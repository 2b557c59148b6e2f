//! Shared queues from the log of their home.

use std::collections::BTreeMap;

use corelane_model::{MemberId, Now, Offset, PartitionIndex, StartAt, TopicId, WallMillis};
use corelane_queue::{
    Effect, Join, Queue, QueueName, ReadBatch, RecordMeta, RedriveAt, Redriven, RequestTicket, Restore, Verdict,
    is_queue_key, queue_of,
};

use super::home_log::{self, KeyedRecord, START};
use super::{Target, record_batch};

pub(super) const TARGET: Target = Target {
    name: "queue_log",
    about: "the log of a home with shared queues, and what they do after a start",
    body,
    seeds,
    repair: record_batch::repair,
};

/// Partitions of the topic, whatever the log says.
const PARTITIONS: u32 = 2;
/// Rounds that a restored queue is led through.
const ROUNDS: u32 = 8;
/// Records that the topic has behind what is done.
const RECORDS: u64 = 5;
/// No log is as long as that.
const LOG_END: u64 = 1 << 62;
const MEMBER: MemberId = MemberId(1 << 100);

fn body(input: &[u8]) -> bool {
    let Some(records) = home_log::read(input) else { return false };
    let mut queues: BTreeMap<QueueName, Option<Restore>> = BTreeMap::new();
    for (key, value) in records.iter().filter(|(key, _)| is_queue_key(key)) {
        let Ok(name) = queue_of(key) else { return false };
        let queue = queues.entry(name.clone()).or_insert_with(|| Some(Restore::new(name)));
        // A record that cannot be read breaks its queue and no other.
        if queue.as_mut().is_some_and(|restore| restore.apply(key, value.as_deref()).is_err()) {
            *queue = None;
        }
    }
    let found: Vec<Restore> = queues.into_values().flatten().filter(|restore| !restore.is_nothing()).collect();
    let is_accepted = !found.is_empty();
    found.into_iter().for_each(live);
    is_accepted
}

/// A start, a member that takes what it gets, and the deadlines that follow; then the end of the queue.
fn live(restore: Restore) {
    let mut queue = restore.finish(PARTITIONS, 1);
    queue.check();
    let mut now = START;
    check_encoding(&queue, now);
    (0..queue.partitions_len()).for_each(|index| queue.find_start_again(PartitionIndex(index)));
    let join = Join { credit_records: 100, credit_bytes: 1 << 20, ..Join::new(MEMBER) };
    // A queue that ends takes nobody in.
    let _refused = queue.join(now, RequestTicket(1), join);
    for number in 0..ROUNDS {
        queue.finish_round(now);
        queue.on_durable(queue.appended());
        while let Some(effect) = queue.poll_effect() {
            answer(&mut queue, now, effect);
        }
        queue.check();
        if let Some(deadline) = queue.next_deadline() {
            now.monotonic = now.monotonic.max(deadline);
            queue.on_deadline(now);
        }
        if number == ROUNDS / 2 {
            let _refused = queue.redrive(RequestTicket(3), 10, RedriveAt { partition: PartitionIndex(0), end: None });
        }
    }
    std::hint::black_box((queue.describe(), queue.describe_partitions(now).count()));
    let _refused = queue.delete(now, RequestTicket(2), true);
    queue.finish_round(now);
    queue.on_durable(queue.appended());
    queue.check();
}

fn answer(queue: &mut Queue, now: Now, effect: Effect) {
    match effect {
        Effect::FindStart { partition, start } => {
            let offset = if let StartAt::Offset(offset) = start { offset } else { Offset(0) };
            queue.on_start(partition, offset.min(Offset(LOG_END)));
        }
        Effect::Read { partition, from, .. } if from.0 < LOG_END => read(queue, now, partition, from),
        Effect::Read { partition, .. } => queue.on_read_ended(partition),
        Effect::Deliver { member, leases, .. } => {
            for (number, lease) in leases.into_iter().enumerate() {
                let ticket = RequestTicket(10);
                // The member may be gone by now.
                let _refused = if number % 2 == 0 {
                    queue.acknowledge(now, ticket, member, &[lease], None)
                } else {
                    queue.reject(now, ticket, member, &[lease], Verdict::Retry(None), "")
                };
            }
        }
        Effect::DeadLetter { partition, offset, .. } => queue.on_dead_letter_stored(now, partition, offset),
        Effect::Redrive { .. } => {
            queue.on_redriven(TopicId(9), PartitionIndex(1), Offset(3));
            queue.on_redrive_done(Redriven { records: 3, next: None, stopped: String::new() });
        }
        Effect::Append { .. }
        | Effect::Answer { .. }
        | Effect::Refuse { .. }
        | Effect::Fence { .. }
        | Effect::Remove => {}
    }
}

fn read(queue: &mut Queue, now: Now, partition: PartitionIndex, from: Offset) {
    let end = Offset(queue.done_end(partition).0 + RECORDS).max(from);
    let batch =
        ReadBatch { partition, from, end, timestamp: WallMillis(1_699_999_999_000), bytes: 500, high_watermark: end };
    let meta = |offset| RecordMeta { offset: Offset(offset), bytes: 100, key: None, deliver_at: None };
    queue.on_records(now, batch, (from.0..end.0).map(meta));
    queue.on_read_ended(partition);
}

/// What a snapshot of the queue holds makes the same queue.
fn check_encoding(queue: &Queue, now: Now) {
    let mut again = Restore::new(queue.name().clone());
    for (key, value) in queue.records(now) {
        assert_eq!(again.apply(&key, Some(&value)), Ok(()), "a queue reads its own records");
    }
    assert!(again.finish(PARTITIONS, 1).records(now).eq(queue.records(now)), "a queue survives its encoding");
}

fn records() -> Vec<KeyedRecord> {
    let fixtures: [&[u8]; 3] = [
        include_bytes!("../../../../tests/fixtures/1/queue-settings.bin"),
        include_bytes!("../../../../tests/fixtures/1/queue-partition.bin"),
        include_bytes!("../../../../tests/fixtures/1/queue-redrive.bin"),
    ];
    fixtures.into_iter().flat_map(home_log::of_fixture).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut inputs = home_log::seeds_of(&records());
    // How far dead letters were put back is nothing alone.
    inputs.retain(|input| body(input));
    inputs
}
