//! One shared queue: reading, leasing and acknowledging 1,024 records, without order and with it, and with one record
//! that stays behind.
//!
//! `cargo bench --package corelane-queue` measures; under `cargo test` each body runs once, so that none can rot. For
//! instruction counts: `valgrind --tool=callgrind` on the built bench with `--bench NAME`; each body handles 1,024 records.

use std::hint::black_box;
use std::time::Duration;

use corelane_model::{
    GroupName, MemberId, MonotonicNanos, Now, Offset, PartitionIndex, QueueSettings, StartAt, TopicId, WallMillis,
};
use corelane_queue::{Effect, Join, LeaseRun, Queue, QueueName, ReadBatch, RecordMeta, RequestTicket};

#[path = "measure.rs"]
mod measure;

const RECORDS: u64 = 1024;
const MEMBERS: u128 = 8;

struct World {
    queue: Queue,
    now: Now,
    end: u64,
    ticket: u64,
    /// Where a range of leases of one member is acknowledged record by record.
    is_single: bool,
    leases: Vec<(MemberId, Vec<LeaseRun>)>,
}

impl World {
    fn new(order_per_key: bool, is_single: bool) -> Self {
        let name = QueueName { group: GroupName::parse("workers").expect("it is sound"), topic: TopicId(1) };
        let settings = QueueSettings { order_per_key, ..QueueSettings::default() };
        let queue = Queue::new(name, settings, 1, StartAt::Earliest, 1).expect("it is sound");
        let now = Now { monotonic: MonotonicNanos(1_000), wall: WallMillis(1_000) };
        let mut world = Self { queue, now, end: 0, ticket: 0, is_single, leases: Vec::new() };
        world.queue.on_start(PartitionIndex(0), Offset(0));
        for member in 1..=MEMBERS {
            let mut join = Join::new(MemberId(member));
            (join.credit_records, join.credit_bytes) = (4096, 1 << 20);
            world.queue.join(world.now, RequestTicket(0), join).expect("it is sound");
        }
        world.round();
        world
    }

    /// Reads so many records more.
    fn read(&mut self) {
        let (from, end) = (self.end, self.end + RECORDS);
        let batch = ReadBatch {
            partition: PartitionIndex(0),
            from: Offset(from),
            end: Offset(end),
            timestamp: self.now.wall,
            bytes: 100 * RECORDS,
            high_watermark: Offset(end),
        };
        let meta = |offset: u64| {
            let key = u32::try_from(offset % 50_000).ok();
            RecordMeta { offset: Offset(offset), bytes: 100, key, deliver_at: None }
        };
        assert!(self.queue.on_records(self.now, batch, (from..end).map(meta)));
        self.end = end;
    }

    /// Ends the round; what it appends is durable at once.
    fn round(&mut self) {
        self.queue.finish_round(self.now);
        self.queue.on_durable(self.queue.appended());
        while let Some(effect) = self.queue.poll_effect() {
            if let Effect::Deliver { member, leases, .. } = effect {
                self.leases.push((member, leases));
            } else {
                black_box(effect);
            }
        }
        self.now.monotonic = self.now.monotonic.after(Duration::from_micros(50));
    }

    fn acknowledge(&mut self) {
        let mut singles = Vec::new();
        for (member, runs) in std::mem::take(&mut self.leases) {
            let count: u32 = runs.iter().map(|run| run.count).sum();
            self.ticket += 1;
            let runs = if self.is_single {
                singles.clear();
                let one = |run: &LeaseRun| {
                    let run = *run;
                    (0..run.count).map(move |at| LeaseRun { first: run.first.advance(at.into()), count: 1, ..run })
                };
                singles.extend(runs.iter().flat_map(one));
                &singles
            } else {
                &runs
            };
            self.queue.acknowledge(self.now, RequestTicket(self.ticket), member, runs, None).expect("it is a member");
            self.queue.credit(self.now, member, count, u64::from(count) * 100).expect("it is a member");
        }
    }

    fn turn(&mut self) {
        self.read();
        self.round();
        self.acknowledge();
        self.round();
    }
}

fn main() {
    let mut plain = World::new(false, false);
    measure::run("1024 by ranges", || plain.turn());
    let mut singles = World::new(false, true);
    measure::run("1024 one by one", || singles.turn());
    let mut ordered = World::new(true, false);
    measure::run("1024 in order per key", || ordered.turn());
    let mut stuck = World::new(false, false);
    stuck.read();
    stuck.round();
    // The first record of the first member is never acknowledged; everything else goes on behind it for a window.
    let first = stuck.leases.first_mut().and_then(|(_, runs)| runs.first_mut()).expect("somebody got something");
    first.first = first.first.advance(1);
    first.count -= 1;
    stuck.acknowledge();
    let mut turns = 0;
    measure::run("1024 behind a stuck one", || {
        turns += 1;
        if turns % 60 == 0 {
            // Begins anew before the window is full.
            stuck = World::new(false, false);
            stuck.read();
            stuck.round();
            let first = stuck.leases.first_mut().and_then(|(_, runs)| runs.first_mut()).expect("there is one");
            first.first = first.first.advance(1);
            first.count -= 1;
            stuck.acknowledge();
        }
        stuck.turn();
    });
}
