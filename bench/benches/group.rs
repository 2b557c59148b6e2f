//! One consumer group of a thousand members over a thousand partitions: one more joins, and leaves again.
//!
//! `cargo bench --package corelane-group` measures; under `cargo test` each body runs once, so that none can rot. For
//! instruction counts of each: `valgrind --tool=callgrind` on the built bench without arguments, with
//! `--toggle-collect=group::World::join_and_leave --dump-after=group::World::join_and_leave`.

use std::hint::black_box;
use std::time::Duration;

use corelane_group::{
    AppendPosition, Effect, Group, GroupName, Join, Leave, Report, RequestTicket, Settings, Strategy, Subscription,
    TopicShape,
};
use corelane_model::{Generation, MemberId, MonotonicNanos, Now, PartitionId, TopicId, TopicName, WallMillis};

#[path = "measure.rs"]
mod measure;

const PARTITIONS: u32 = 1000;
/// Members beside the one that comes and goes.
const OTHERS: u128 = 999;

struct World {
    group: Group,
    now: Now,
    ticket: u64,
    next: u128,
}

impl World {
    fn new(strategy: Strategy) -> Self {
        let now = Now { monotonic: MonotonicNanos(1_000), wall: WallMillis(1_000) };
        let settings = Settings { strategy, ..Settings::default() };
        let group = Group::new(now, GroupName::parse("crowd").expect("it is sound"), settings).expect("it is sound");
        let mut world = Self { group, now, ticket: 0, next: 0 };
        for _ in 0..OTHERS {
            world.join();
        }
        world.settle();
        world
    }

    fn join(&mut self) -> MemberId {
        self.next += 1;
        // Ids are not in the order of joining.
        let member = MemberId(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let topics = [TopicName::parse("moves").expect("it is sound")].into();
        let shape = TopicShape { topic: TopicId(1), partitions: PARTITIONS };
        let join = Join::new(member, Subscription { topics, pattern: None }, vec![shape]);
        self.ticket += 1;
        self.group.join(self.now, RequestTicket(self.ticket), join).expect("it is sound");
        member
    }

    fn leave(&mut self, member: MemberId) {
        self.ticket += 1;
        self.group.leave(self.now, RequestTicket(self.ticket), member, Leave::ForGood).expect("it is a member");
    }

    /// Ends rounds, whose records are durable at once, until nobody has anything to say: members follow at once, too.
    fn settle(&mut self) {
        loop {
            self.group.finish_round(self.now);
            let appended: AppendPosition = self.group.appended();
            self.group.on_durable(appended);
            let mut told = Vec::new();
            while let Some(effect) = self.group.poll_effect() {
                match effect {
                    Effect::Assign { member, assignment } => told.push((member, assignment)),
                    effect => drop(black_box(effect)),
                }
            }
            self.now.monotonic = self.now.monotonic.after(Duration::from_micros(50));
            if told.is_empty() && !self.group.is_unfinished() {
                return;
            }
            for (member, assignment) in told {
                let holds: Vec<PartitionId> = assignment.owned.iter().map(|owned| owned.partition).collect();
                let seen: Generation = assignment.generation;
                let report = Report { seen, holds: Some(&holds), processing_micros: None };
                self.group.heartbeat(self.now, member, report).expect("it is a member");
            }
        }
    }

    #[inline(never)]
    fn join_and_leave(&mut self) {
        let member = self.join();
        self.settle();
        self.leave(member);
        self.settle();
    }
}

fn main() {
    for (name, strategy) in [
        ("sticky", Strategy::CooperativeSticky),
        ("weighted", Strategy::Weighted),
        ("least-response-time", Strategy::LeastResponseTime),
        ("range", Strategy::Range),
    ] {
        let mut world = World::new(strategy);
        measure::run(name, || world.join_and_leave());
    }
}
