//! The broker's side: rounds, disks, the mesh.

use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, ShardId};
use corelane_shard::{Effect, Event, MeshMessage, OutStream};
use corelane_storage::{FileEffect, FileName, FileOp, IoId};
use corelane_wire::Frame;

use super::{Happening, World};
use crate::Violation;
use crate::broker::Health;
use crate::describe::{describe, digest, file_name};
use crate::network::{Lane, LinkId, carry};

/// A shard gathers events for at most this long before a round.
const ROUND_GATHERS_MICROS: u64 = 200;
/// A shard that asks for so many rounds in a row for nothing keeps a core busy.
const IDLE_ROUNDS_MAX: u64 = 1_000;

impl World {
    /// The process starts, unless something else happened to it in between.
    pub(super) fn start(&mut self, generation: u64) {
        if generation != self.broker.generation || self.broker.is_running() {
            return;
        }
        self.broker.start(&self.scenario);
        let incarnation = self.broker.incarnation();
        self.oracle.on_broker_start(incarnation);
        self.log(format_args!("broker starts, incarnation {incarnation}"));
        self.plan_crash();
        self.plan_restart();
        for shard in 0..self.broker.seats.len() {
            self.want_round(ShardId(u8::try_from(shard).expect("few shards")), Duration::ZERO);
        }
    }

    /// The process is told to shut down.
    pub(super) fn drain(&mut self, generation: u64) {
        if generation != self.broker.generation || !self.broker.is_ready() {
            return;
        }
        self.log(format_args!("broker is told to drain"));
        self.broker.is_draining = true;
        for shard in 0..self.broker.seats.len() {
            self.give(ShardId(u8::try_from(shard).expect("few shards")), Event::Drain);
        }
    }

    /// Hands a shard an event for its next round.
    pub(super) fn give(&mut self, shard: ShardId, event: Event) {
        self.broker.seats[usize::from(shard.0)].inbox.push(event);
        let delay = Duration::from_micros(self.random.skewed(1..ROUND_GATHERS_MICROS));
        self.want_round(shard, delay);
    }

    pub(super) fn want_round(&mut self, shard: ShardId, delay: Duration) {
        let generation = self.broker.generation;
        let seat = &mut self.broker.seats[usize::from(shard.0)];
        if !seat.is_round_due {
            seat.is_round_due = true;
            self.queue.after(delay, Happening::Round { shard, generation });
        }
    }

    /// One round: every event that is ready, then all effects.
    pub(super) fn round(&mut self, shard: ShardId, generation: u64) {
        if generation != self.broker.generation {
            return;
        }
        let now = self.now();
        let seat = &mut self.broker.seats[usize::from(shard.0)];
        seat.is_round_due = false;
        let mut is_idle = seat.inbox.is_empty();
        let is_calm = seat.inbox.len() <= 1;
        for event in std::mem::take(&mut seat.inbox) {
            seat.shard.handle(now, event);
        }
        if self.random.is_one_in(4) {
            seat.shard.expect_more();
        }
        seat.shard.finish_round(now);
        if is_calm {
            seat.shard.rest(now);
        }
        while let Some(effect) = self.broker.seats[usize::from(shard.0)].shard.poll_effect() {
            if self.is_crash_due() {
                self.crash("power is lost");
                return;
            }
            is_idle = false;
            self.carry_out(shard, effect);
            if generation != self.broker.generation || self.violation.is_some() {
                return;
            }
        }
        let seat = &mut self.broker.seats[usize::from(shard.0)];
        seat.idle_rounds = if is_idle { seat.idle_rounds + 1 } else { 0 };
        if IDLE_ROUNDS_MAX < seat.idle_rounds {
            return self.check(Err(Violation::Spinning { shard, rounds: IDLE_ROUNDS_MAX }));
        }
        self.plan_deadline(shard);
    }

    fn plan_deadline(&mut self, shard: ShardId) {
        let (generation, now) = (self.broker.generation, self.now().monotonic);
        let seat = &mut self.broker.seats[usize::from(shard.0)];
        let Some(moment) = seat.shard.next_deadline() else { return };
        if moment <= now {
            seat.deadline = None;
            self.want_round(shard, Duration::from_micros(1));
        } else if seat.deadline.is_none_or(|planned| moment < planned || planned <= now) {
            seat.deadline = Some(moment);
            self.queue.at(moment, Happening::ShardDeadline { shard, generation, moment });
        }
    }

    pub(super) fn shard_deadline(&mut self, shard: ShardId, generation: u64, moment: MonotonicNanos) {
        if generation != self.broker.generation {
            return;
        }
        let seat = &mut self.broker.seats[usize::from(shard.0)];
        if seat.deadline == Some(moment) {
            seat.deadline = None;
            seat.inbox.push(Event::Deadline);
            self.want_round(shard, Duration::ZERO);
        }
    }

    fn carry_out(&mut self, shard: ShardId, effect: Effect) {
        match effect {
            Effect::Send { connection, stream, frame } => {
                if let Some(link) = self.network.of_shard(shard, connection) {
                    let frame = carry(frame);
                    let lane = match stream {
                        OutStream::Control => Lane::ShardControl,
                        OutStream::Push(slot) => Lane::ShardPush(slot),
                    };
                    self.send_to_client(link, lane, frame);
                }
            }
            Effect::Close { connection, code, reason } => {
                if let Some(link) = self.network.of_shard(shard, connection) {
                    self.log(format_args!("s{shard} closes link {}: {code:?} {reason}", link.0));
                    self.cut(link, Some(code), &reason);
                }
            }
            Effect::File(effect) => self.file(shard, effect),
            Effect::Mesh { to, message } => {
                let most = u64::try_from(self.scenario.mesh_delay_max.as_micros()).expect("a delay is short");
                let delay = Duration::from_micros(self.random.skewed(1..most + 2));
                let generation = self.broker.generation;
                self.log(format_args!("s{shard} mesh to s{to}"));
                let arrival = self.mesh_order.enter(self.queue.now().monotonic.after(delay), shard, to);
                self.queue.at(arrival, Happening::Mesh { generation, from: shard, to, message });
            }
            Effect::Admin { answer, .. } => match self.broker.judge(shard, &answer) {
                Health::Fine => {}
                Health::Failed => self.storage_failed(shard),
                Health::Corrupt(what) => self.check(Err(Violation::Damage { shard, what })),
            },
            Effect::Ready => {
                self.log(format_args!("s{shard} is ready"));
                self.broker.seats[usize::from(shard.0)].is_ready = true;
            }
            Effect::Drained => self.drained(shard),
            Effect::Failed { text } => {
                if self.broker.has_failed_io {
                    self.storage_failed(shard);
                } else {
                    let what = format!("it cannot start: {text}");
                    self.check(Err(Violation::Damage { shard, what }));
                }
            }
        }
    }

    fn drained(&mut self, shard: ShardId) {
        self.log(format_args!("s{shard} has drained"));
        self.broker.seats[usize::from(shard.0)].is_drained = true;
        if self.broker.seats.iter().all(|seat| seat.is_drained) {
            self.log(format_args!("broker ends by itself"));
            self.cut_all("the broker ended");
            self.broker.stop();
            self.plan_start();
        }
    }

    fn send_to_client(&mut self, link: LinkId, lane: Lane, frame: Frame) {
        let result = self.network.check_answer(&mut self.oracle, link, &frame);
        self.check(result);
        let now = self.now();
        let result = self.oracle.on_queue_left(now, link.0, &frame);
        self.check(result);
        let now = now.monotonic;
        let result = self.oracle.on_group_left(now, link.0, &frame);
        self.check(result);
        let arrival = self.network.enter(now, link, lane);
        self.log(format_args!("link {} {lane:?} {}", link.0, describe(&frame)));
        if let Some(arrival) = arrival {
            self.queue.at(arrival, Happening::ToClient { link, frame });
        }
    }

    fn file(&mut self, shard: ShardId, effect: FileEffect) {
        let (id, name) = (effect.id, file_name(effect.file));
        match &effect.op {
            FileOp::Write { position, pieces } => {
                let digest = digest(pieces.iter().map(|piece| &piece[..]));
                let length = pieces.iter().map(bytes::Bytes::len).sum::<usize>();
                self.log(format_args!("s{shard} io {} write {name} at {position} {length} bytes {digest:08x}", id.0));
            }
            op => self.log(format_args!("s{shard} io {} {op:?} {name}", id.0)),
        }
        let is_file_begun =
            matches!((&effect.op, effect.file), (FileOp::Write { position: 0, .. }, FileName::Journal { .. }));
        if is_file_begun {
            self.plan_crash_at_file();
        }
        let generation = self.broker.generation;
        let (io, delay) = self.broker.disks[usize::from(shard.0)].issue(effect);
        self.queue.after(delay, Happening::Disk { shard, generation, io });
    }

    pub(super) fn disk_done(&mut self, shard: ShardId, generation: u64, io: IoId) {
        if generation != self.broker.generation {
            return;
        }
        let now = self.now().monotonic;
        let Some((done, fault)) = self.broker.disks[usize::from(shard.0)].complete(now, io) else { return };
        self.broker.has_failed_io |= fault.is_some() || done.result.is_err();
        match (fault, &done.result) {
            (Some(fault), result) => self.log(format_args!("s{shard} io {} done, FAULT {fault:?}: {result:?}", io.0)),
            (None, Ok(_)) => self.log(format_args!("s{shard} io {} done", io.0)),
            (None, Err(error)) => self.log(format_args!("s{shard} io {} failed: {error}", io.0)),
        }
        self.give(shard, Event::File(done));
    }

    pub(super) fn mesh_arrives(&mut self, generation: u64, from: ShardId, to: ShardId, message: MeshMessage) {
        if generation == self.broker.generation {
            self.give(to, Event::Mesh { from, message });
        }
    }

    /// A client's first packet arrives.
    pub(super) fn accept(&mut self, link: LinkId) {
        let Some(shard) = self.network.link(link).map(|state| state.shard) else { return };
        let is_open = self.broker.is_running()
            && self.broker.seats[usize::from(shard.0)].is_ready
            && !self.random.is_one_in(self.scenario.network.refuse_rarity);
        if !is_open {
            self.cut(link, None, "connection refused");
            return;
        }
        let Some(connection) = self.network.accept(link) else { return };
        self.log(format_args!("link {} stands at s{shard} as {connection}", link.0));
        self.give(shard, Event::Connected { connection });
        let delay = self.network.delay();
        self.queue.after(delay, Happening::Established { link });
    }

    pub(super) fn frame_to_shard(&mut self, link: LinkId, frame: Frame) {
        let Some(state) = self.network.link(link) else { return };
        let (shard, Some(connection)) = (state.shard, state.shard_key) else { return };
        if self.network.of_shard(shard, connection).is_none() {
            return;
        }
        let now = self.queue.now().monotonic;
        self.oracle.groups.on_arrived(now, link.0, &frame);
        self.oracle.queues.on_arrived(now, link.0, &frame);
        self.give(shard, Event::Frame { connection, frame });
        if self.random.is_one_in(self.scenario.network.cut_rarity) {
            self.cut(link, None, "the network broke");
        }
    }

    /// Much waits to be sent on a connection, or little again.
    pub(super) fn congest(&mut self, link: LinkId, is_congested: bool) {
        let Some(state) = self.network.link(link) else { return };
        let (shard, Some(connection)) = (state.shard, state.shard_key) else { return };
        if self.network.of_shard(shard, connection).is_some() {
            let event = if is_congested { Event::Congested { connection } } else { Event::Relieved { connection } };
            self.give(shard, event);
        }
    }

    pub(super) fn lost_at_shard(&mut self, link: LinkId) {
        let Some(state) = self.network.link(link) else { return };
        let (shard, Some(connection)) = (state.shard, state.shard_key) else { return };
        if self.network.of_shard(shard, connection).is_some() {
            self.network.forget_at_shard(link);
            self.give(shard, Event::Disconnected { connection });
        }
    }

    /// Nothing more enters a connection; both ends hear of it after what was under way.
    pub(super) fn cut(&mut self, link: LinkId, code: Option<ErrorCode>, reason: &str) {
        let Some([last_to_client, last_to_shard]) = self.network.cut(link) else { return };
        self.log(format_args!("link {} is cut: {reason}", link.0));
        let [client_delay, shard_delay] = [self.network.delay(), self.network.delay()];
        let now = self.now().monotonic;
        let reason = reason.to_owned();
        let client_hears = last_to_client.max(now).after(client_delay);
        self.queue.at(client_hears, Happening::LostAtClient { link, code, reason });
        self.queue.at(last_to_shard.max(now).after(shard_delay), Happening::LostAtShard { link });
    }

    /// The process is gone and with it every connection.
    pub(super) fn cut_all(&mut self, reason: &str) {
        for link in self.network.live() {
            self.cut(link, None, reason);
            self.network.forget_at_shard(link);
        }
        self.network.forget_shards();
        self.oracle.groups.on_broker_gone();
        let now = self.queue.now();
        self.oracle.queues.on_broker_gone(now.monotonic, now.wall);
    }
}
