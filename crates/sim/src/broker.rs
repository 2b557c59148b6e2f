//! The broker's process: two shards, their disks, and what an operating system and a supervisor do around them.

use corelane_model::{Incarnation, MonotonicNanos, Now, ShardId};
use corelane_shard::{AdminAnswer, AdminId, AdminQuery, Event, Shard, ShardConfig};

use crate::{Disk, Random, Scenario};

/// Shards of the simulated broker.
pub(crate) const SHARDS: u8 = 2;

/// One shard and what waits for its next round.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) shard: Shard,
    /// Events that are ready; the next round takes them all.
    pub(crate) inbox: Vec<Event>,
    /// A round is in the queue.
    pub(crate) is_round_due: bool,
    /// The deadline that is in the queue.
    pub(crate) deadline: Option<MonotonicNanos>,
    /// Rounds in a row to which nothing came and from which nothing followed.
    pub(crate) idle_rounds: u64,
    pub(crate) is_ready: bool,
    pub(crate) is_drained: bool,
    /// Questions of the supervisor that are not answered.
    pub(crate) open_questions: u64,
}

/// The process and the machine under it.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Empty while the process is not running.
    pub(crate) seats: Vec<Seat>,
    pub(crate) disks: Vec<Disk>,
    /// How many entries each shard's journal held at the start, at most.
    entries_max: Vec<u64>,
    /// Counts starts and ends of the process: what belongs to an earlier one is not delivered.
    pub(crate) generation: u64,
    pub(crate) is_draining: bool,
    /// A file effect of this process failed.
    pub(crate) has_failed_io: bool,
    incarnation: Incarnation,
    was_clean: bool,
    data_id: u128,
    next_question: u64,
}

impl Broker {
    /// A broker that was never started.
    pub(crate) fn new(random: &mut Random, scenario: &Scenario) -> Self {
        let disks = (0..SHARDS).map(|_| Disk::new(random.fork(), scenario.disk)).collect();
        let data_id = u128::from(random.bits()) << 64 | u128::from(random.bits());
        Self {
            seats: Vec::new(),
            disks,
            entries_max: Vec::new(),
            generation: 0,
            is_draining: false,
            has_failed_io: false,
            incarnation: Incarnation(0),
            was_clean: true,
            data_id,
            next_question: 0,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        !self.seats.is_empty()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_running() && self.seats.iter().all(|seat| seat.is_ready)
    }

    pub(crate) const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Starts the process; every shard wants its first round.
    pub(crate) fn start(&mut self, scenario: &Scenario) {
        assert!(!self.is_running(), "the process runs already");
        self.generation += 1;
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        self.is_draining = false;
        self.has_failed_io = false;
        self.entries_max = self.disks.iter().map(Disk::journal_entries).collect();
        for shard in (0..SHARDS).map(ShardId) {
            let config = ShardConfig {
                incarnation: self.incarnation,
                was_clean: self.was_clean,
                memory_bytes: scenario.memory_bytes,
                journal_files: scenario.journal_files,
                journal_file_bytes: scenario.journal_file_bytes,
                ..ShardConfig::first_start(shard, u16::from(SHARDS), self.data_id)
            };
            self.seats.push(Seat {
                shard: Shard::new(config),
                inbox: Vec::new(),
                is_round_due: false,
                deadline: None,
                idle_rounds: 0,
                is_ready: false,
                is_drained: false,
                open_questions: 0,
            });
        }
        self.was_clean = false;
    }

    /// Power is gone for the whole machine.
    pub(crate) fn crash(&mut self, now: Now) {
        self.end();
        self.disks.iter_mut().for_each(|disk| disk.crash(now.monotonic));
    }

    /// The process is gone, the machine goes on.
    pub(crate) fn kill(&mut self, now: Now) {
        self.end();
        self.disks.iter_mut().for_each(|disk| disk.kill(now.monotonic));
    }

    /// The process ended by itself after every shard had drained.
    pub(crate) fn stop(&mut self) {
        assert!(self.seats.iter().all(|seat| seat.is_drained), "a shard has not drained");
        self.disks.iter_mut().for_each(Disk::stop);
        self.end();
        self.was_clean = true;
    }

    fn end(&mut self) {
        self.seats.clear();
        self.generation += 1;
    }

    /// A question for every shard, as its supervisor asks.
    pub(crate) fn ask(&mut self) {
        for seat in &mut self.seats {
            self.next_question += 1;
            seat.open_questions += 1;
            seat.inbox.push(Event::Admin { id: AdminId(self.next_question), query: AdminQuery::Status });
        }
    }

    /// What the supervisor makes of an answer.
    pub(crate) fn judge(&mut self, shard: ShardId, answer: &AdminAnswer) -> Health {
        let seat = &mut self.seats[usize::from(shard.0)];
        assert!(0 < seat.open_questions, "shard {shard} answers what nobody asked");
        seat.open_questions -= 1;
        let AdminAnswer::Status(status) = answer else { panic!("shard {shard} answers another question") };
        if let Some(recovery) = &status.recovery
            && let Some((partition, first, end)) = recovery.corrupt.first()
        {
            return Health::Corrupt(format!("recovery calls {partition} offsets {first} to {end} damaged"));
        }
        if let Some(recovery) = &status.recovery
            && 0 < recovery.damages
        {
            let damages = recovery.damages;
            return Health::Corrupt(format!("recovery calls {damages} stretches of the journal damaged"));
        }
        let entries_max = self.entries_max[usize::from(shard.0)];
        if let Some(recovery) = &status.recovery
            && entries_max < recovery.entries
        {
            let entries = recovery.entries;
            return Health::Corrupt(format!("recovery replayed {entries} entries of the {entries_max} that there are"));
        }
        if status.storage_failure.is_some() { Health::Failed } else { Health::Fine }
    }
}

/// What a supervisor learns of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nothing to do.
    Fine,
    /// Its storage takes no writes until the process is started again.
    Failed,
    /// It reports damage that this disk never does.
    Corrupt(String),
}
