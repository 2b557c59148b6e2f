//! When faults come, when they end, and what is checked then.

use std::time::Duration;

use corelane_model::{Isolation, MonotonicNanos, ShardId};

use super::{Fault, Happening, LIVENESS, LOAD_MAX, Phase, SUPERVISION, Way, World};
use crate::broker::SHARDS;
use crate::client::{Client, Todo};
use crate::describe::file_name;
use crate::network::LinkId;
use crate::{HoldUps, Random, ReadSpan};

/// How late offsets are that are staged late, in microseconds: longer than visitors of their group stay.
const LATE_STAGING_MICROS: u64 = 1_200_000;

impl World {
    /// Puts the faults of the first minute into the queue; those that come after the load is over are not carried out.
    pub(super) fn schedule_faults(&mut self) {
        let mut random = self.random.fork();
        let span = |random: &mut Random, range| Duration::from_micros(random.skewed(range));
        let every = u64::try_from(self.scenario.fault_every_max.as_micros()).expect("seconds");
        let mut at = Duration::ZERO;
        while at < LOAD_MAX {
            at += span(&mut random, 2_000..every);
            let shard = ShardId(u8::try_from(random.within(0..u64::from(SHARDS))).expect("few shards"));
            let lasts = span(&mut random, 1_000..every * 2);
            let [begin, end] = match random.within(0..5) {
                0 if self.scenario.is_filling => {
                    [Fault::Full { shard, is_full: true }, Fault::Full { shard, is_full: false }]
                }
                1 if self.scenario.is_slowing => {
                    [Fault::Slow { shard, is_slow: true }, Fault::Slow { shard, is_slow: false }]
                }
                2 if self.scenario.is_jumping => {
                    let by_ms = i64::try_from(random.skewed(0..3_600_000)).expect("an hour at most");
                    let by_ms = if random.is_one_in(2) { -by_ms } else { by_ms };
                    [Fault::Jump { by_ms }, Fault::None]
                }
                3 if 0 < self.scenario.network.cut_rarity => [Fault::Cut, Fault::None],
                4 => [Fault::Congest, Fault::None],
                _ => continue,
            };
            self.queue.after(at, Happening::Fault(begin));
            self.queue.after(at + lasts, Happening::Fault(end));
        }
    }

    /// Puts late frames into the queue, drawn apart from all else: what a seed does without them stays what it was.
    pub(super) fn schedule_hold_ups(&mut self) {
        let Some(HoldUps { every_max, lasts_max, seed, .. }) = self.scenario.network.hold_ups else { return };
        let mut random = Random::new(seed);
        let span = |random: &mut Random, most: Duration| {
            let micros = u64::try_from(most.as_micros()).expect("seconds");
            Duration::from_micros(random.within(1_000..micros))
        };
        let mut at = Duration::ZERO;
        while at < LOAD_MAX {
            at += span(&mut random, every_max);
            let fault = Fault::HoldUp {
                nth: random.bits(),
                way: *random.pick(&[Way::ToShard, Way::ToShard, Way::ToClient, Way::Both]),
                lasts: span(&mut random, lasts_max),
                is_cut: random.is_one_in(3),
            };
            self.queue.after(at, Happening::Fault(fault));
        }
    }

    /// Frames of a connection are late. One that is cut meanwhile is lost to the client before its last frames arrive.
    fn hold_up(&mut self, nth: u64, way: Way, lasts: Duration, is_cut: bool) {
        let live = self.network.live();
        if live.is_empty() {
            return;
        }
        let link = live[usize::try_from(nth % live.len() as u64).expect("few connections")];
        let until = self.now().monotonic.after(lasts);
        let never = MonotonicNanos(0);
        let moments = match way {
            Way::ToClient => [until, never],
            Way::ToShard => [never, until],
            Way::Both => [until, until],
        };
        self.log(format_args!("link {} is held up", link.0));
        self.network.hold_up(link, moments);
        if is_cut {
            self.queue.after(lasts / 2, Happening::Fault(Fault::CutLink { link }));
        }
    }

    /// Offsets are staged on a connection: perhaps they and what comes behind them are late.
    pub(super) fn plan_late_staging(&mut self, link: LinkId) {
        let Some(HoldUps { staging_rarity, .. }) = self.scenario.network.hold_ups else { return };
        if self.phase == Phase::Load && self.late.is_one_in(staging_rarity) {
            let until =
                self.now().monotonic.after(Duration::from_micros(self.late.within(10_000..LATE_STAGING_MICROS)));
            self.log(format_args!("link {} is held up", link.0));
            self.network.hold_up(link, [MonotonicNanos(0), until]);
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.phase != Phase::Load {
            return;
        }
        self.log(format_args!("fault {fault:?}"));
        match fault {
            Fault::Full { shard, is_full } => self.broker.disks[usize::from(shard.0)].set_full(is_full),
            Fault::Slow { shard, is_slow } => self.broker.disks[usize::from(shard.0)].set_slow(is_slow),
            Fault::Jump { by_ms } => self.queue.jump_wall(by_ms),
            Fault::None => {}
            Fault::Congest => {
                let live = self.network.live();
                if !live.is_empty() {
                    let link = live[self.random.index(live.len())];
                    self.congest(link, true);
                    let lasts = Duration::from_micros(self.random.skewed(100..2_000_000));
                    self.queue.after(lasts, Happening::Relieve { link });
                }
            }
            Fault::HoldUp { nth, way, lasts, is_cut } => self.hold_up(nth, way, lasts, is_cut),
            Fault::CutLink { link } => self.cut(link, None, "the network broke"),
            Fault::Cut => {
                let live = self.network.live();
                if !live.is_empty() {
                    let link = live[self.random.index(live.len())];
                    self.cut(link, None, "the network broke");
                }
            }
        }
    }

    /// Decides after how many effects this process loses power.
    pub(super) fn plan_crash(&mut self) {
        let is_planned = self.phase == Phase::Load && 0 < self.crashes_left && 0 < self.scenario.crash_every;
        self.until_crash = is_planned.then(|| self.random.skewed(1..self.scenario.crash_every * 4));
    }

    /// A journal file is begun, perhaps over an older one: power may be lost before much of the old is overwritten.
    pub(super) fn plan_crash_at_file(&mut self) {
        let is_possible = self.phase == Phase::Load && 0 < self.crashes_left && 0 < self.scenario.crash_every;
        if is_possible && self.random.is_one_in(self.scenario.crash_at_file_rarity) {
            self.until_crash = Some(self.random.within(2..60));
        }
    }

    pub(super) fn is_crash_due(&mut self) -> bool {
        let Some(left) = &mut self.until_crash else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Decides when this process is drained.
    pub(super) fn plan_restart(&mut self) {
        let every = u64::try_from(self.scenario.restart_every.as_micros()).expect("seconds");
        if self.phase == Phase::Load && 0 < every {
            let delay = Duration::from_micros(self.random.within(every / 2..every * 2));
            self.queue.after(delay, Happening::Drain { generation: self.broker.generation });
        }
    }

    /// The process starts again after a while.
    pub(super) fn plan_start(&mut self) {
        let delay = Duration::from_micros(self.random.skewed(500..400_000));
        self.queue.after(delay, Happening::Start { generation: self.broker.generation });
    }

    /// Power is gone: shards, connections and what was not safe on disk.
    pub(super) fn crash(&mut self, reason: &str) {
        self.lose_process(reason);
        let now = self.now();
        self.broker.crash(now);
        self.plan_start();
    }

    /// The process is killed: shards and connections are gone, the disk stays as it is seen.
    fn kill(&mut self, reason: &str) {
        self.lose_process(reason);
        let now = self.now();
        self.broker.kill(now);
        self.plan_start();
    }

    fn lose_process(&mut self, reason: &str) {
        self.log(format_args!("CRASH: {reason}"));
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.until_crash = None;
        self.cut_all("the broker is gone");
    }

    /// Whoever runs the broker ends it because its storage failed: by a signal, or the machine goes with it. Which of the two
    /// is not drawn: what a seed does otherwise stays what it was.
    pub(super) fn end_process(&mut self) {
        if self.broker.incarnation().0.is_multiple_of(2) {
            self.kill("the supervisor ends the process");
        } else {
            self.crash("the supervisor ends the machine");
        }
    }

    /// A shard's storage takes no writes any more: whoever runs a broker starts it again.
    pub(super) fn storage_failed(&mut self, shard: ShardId) {
        self.log(format_args!("s{shard} says that its storage failed"));
        let delay = Duration::from_micros(self.random.skewed(1_000..2_000_000));
        self.queue.after(delay, Happening::Crash { generation: self.broker.generation });
    }

    /// Looks whether the run may go on to its next phase.
    pub(super) fn supervise(&mut self) {
        self.queue.after(SUPERVISION, Happening::Supervise);
        if self.broker.is_running() && self.broker.seats.iter().all(|seat| seat.open_questions == 0) {
            self.broker.ask();
            (0..SHARDS).for_each(|shard| self.want_round(ShardId(shard), Duration::from_micros(1)));
        }
        let now = self.now().monotonic;
        match self.phase {
            Phase::Load => {
                let is_late = LOAD_MAX <= Duration::from_nanos(now.0);
                if is_late || self.clients.iter().all(Client::has_sent_all) {
                    self.end_faults();
                }
            }
            Phase::Rest { since } => {
                if let Some(what) = self.restless() {
                    if LIVENESS < now.since(since) {
                        let violation = self.not_live(what);
                        self.check(Err(violation));
                    }
                } else {
                    self.begin_audit();
                }
            }
            Phase::Audit { since } => self.audit(since),
            Phase::Over => {}
        }
    }

    fn end_faults(&mut self) {
        self.log(format_args!("faults end"));
        self.phase = Phase::Rest { since: self.now().monotonic };
        self.until_crash = None;
        self.scenario.network = crate::NetworkFaults::default();
        self.broker.disks.iter_mut().for_each(crate::Disk::heal);
        (0..self.clients.len()).for_each(|client| self.clients[client].stop_sending());
    }

    /// What has not ended yet.
    fn restless(&self) -> Option<String> {
        if !self.broker.is_ready() {
            return Some("the broker is not ready".to_owned());
        }
        if self.broker.is_draining {
            return Some("the broker drains".to_owned());
        }
        let client = self.clients.iter().find_map(|client| client.restless(self.now(), &self.oracle));
        let client = client.or_else(|| self.clients.iter().find_map(|client| client.restless_party(&self.oracle)));
        let incarnation = self.broker.incarnation();
        let queue = |client: &Client| client.restless_queue(&self.oracle, incarnation);
        let client = client.or_else(|| self.clients.iter().find_map(queue));
        let client = client.or_else(|| self.restless_pipeline());
        let unanswered = self.network.unanswered();
        client.or_else(|| (0 < unanswered).then(|| format!("{unanswered} requests are not answered")))
    }

    /// Everything is at rest: the broker is started once more, and somebody reads everything.
    fn begin_audit(&mut self) {
        self.check_pipeline();
        self.log(format_args!("all is at rest"));
        self.phase = Phase::Audit { since: self.now().monotonic };
        let generation = self.broker.generation;
        if self.random.is_one_in(2) && !self.scenario.is_rotting {
            self.drain(generation);
        } else {
            self.broker.disks.iter_mut().for_each(|disk| disk.set_crash_faults(self.scenario.disk));
            self.crash("once more, for the audit");
            self.rot();
        }
        if self.scenario.is_rotting {
            // What rots in the home of a group is lost to it.
            self.clients.iter_mut().for_each(Client::retire);
            self.clients.iter_mut().for_each(Client::retire_pipeline);
        }
        for client in 0..self.clients.len() {
            self.clients[client].read_letters_again(&mut self.oracle);
        }
        self.send_auditor(Isolation::Uncommitted);
        if self.scenario.has_transactions() {
            self.send_auditor(Isolation::Committed);
        }
    }

    fn send_auditor(&mut self, isolation: Isolation) {
        let seed = self.random.bits();
        let number = self.clients.len();
        let auditor = Client::auditor(u32::try_from(number).expect("few clients"), seed, &self.scenario, isolation);
        self.clients.push(auditor);
        self.queue.after(Duration::from_micros(10), Happening::Work { client: number, todo: Todo::Begin });
    }

    /// Bits flip in what was settled: that must be reported to whoever reads it, and the rest must be readable.
    fn rot(&mut self) {
        let count = if self.scenario.is_rotting { self.random.within(1..6) } else { 0 };
        for _ in 0..count {
            let disk = self.random.index(self.broker.disks.len());
            if let Some((name, at)) = self.broker.disks[disk].rot() {
                self.log(format_args!("fault: a bit of {} flips at {at}", file_name(name)));
            }
        }
    }

    fn audit(&mut self, since: MonotonicNanos) {
        if let Some(what) = self.restless() {
            if LIVENESS < self.now().monotonic.since(since) {
                let violation = self.not_live(what);
                self.check(Err(violation));
            }
            return;
        }
        let now = self.now();
        let span = ReadSpan { until: now.wall, took: now.monotonic.since(since) };
        let mut result = Ok(());
        for (auditor, isolation) in self.clients.iter().filter_map(|client| Some((client, client.audits()?))) {
            for (&partition, reading) in auditor.readings() {
                let (shown, damaged) = (&reading.shown, &reading.damaged);
                result = result.and_then(|()| match isolation {
                    Isolation::Uncommitted => self.oracle.on_read_whole(partition, shown, damaged, span),
                    Isolation::Committed => self.oracle.on_committed_read_whole(partition, shown, damaged, span),
                });
            }
        }
        if !self.scenario.is_rotting {
            result = result.and_then(|()| self.oracle.check_redriven());
        }
        self.check(result);
        self.check_pipeline();
        self.log(format_args!("the audit is over"));
        self.phase = Phase::Over;
    }
}
