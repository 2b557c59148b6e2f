//! The loop of one shard.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::mpsc::Sender;
use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, Now, ShardId};
use corelane_quic::{Endpoint, QuicEvent, SendStream};
use corelane_shard::{AdminAnswer, AdminId, Effect, Event, OutStream};

use crate::board::Board;
use crate::clock::Clock;
use crate::files::{Files, PATIENCE};
use crate::machine::Machine;
use crate::mesh::{Inbound, Inbox, Outboxes};
use crate::park::Parking;
use crate::spin::Spinner;
use crate::stats::ReactorStats;
use crate::udp::Port;

/// Posts taken from the inbox in one round.
const INBOX_MAX: usize = 256;
/// Transmits of one round; each is up to 64 KiB.
const TRANSMITS_MAX: usize = 64;
/// A socket or an inbox without room is tried again after this time: nothing says when there is room.
const RETRY: Duration = Duration::from_micros(50);
/// A deadline that is nearer than this is waited for awake: a timer would come later than that.
const NEAR: Duration = Duration::from_micros(30);
/// A shard that parks looks so often for a pair of a write and its sync that takes longer than it should: nothing wakes it.
const PAIR_LOOK_EVERY: Duration = Duration::from_micros(100);
/// A shard that has been busy for longer than this is not in a burst but under load: nothing waits for what else comes.
const BURST_MAX: Duration = Duration::from_millis(2);
/// While files are worked on, glommio looks at its rings at least so often.
const PASS_EVERY: Duration = Duration::from_micros(250);
/// Rounds after the order to stop, for the last packets.
const LAST_ROUNDS: u32 = 1000;

/// What one shard's loop is made of.
pub(crate) struct Round<M> {
    pub(crate) shard: ShardId,
    pub(crate) clock: Clock,
    pub(crate) machine: M,
    pub(crate) quic: Endpoint,
    pub(crate) port: Port,
    pub(crate) files: Files,
    pub(crate) parking: Parking,
    pub(crate) inbox: Inbox,
    pub(crate) outboxes: Outboxes,
    pub(crate) spinner: Spinner,
    pub(crate) board: std::sync::Arc<Board>,
    pub(crate) questions: BTreeMap<AdminId, Sender<(ShardId, AdminAnswer)>>,
    pub(crate) is_ready: bool,
    pub(crate) is_stopping: bool,
    /// Since when there was something to do in each round; `None` while the shard looks or sleeps.
    pub(crate) busy_since: Option<MonotonicNanos>,
    pub(crate) stats: ReactorStats,
}

impl<M: Machine> Round<M> {
    /// Goes round until it is told to stop.
    pub(crate) async fn run(mut self) {
        let mut last_busy = self.clock.monotonic();
        let mut last_pass = last_busy;
        let mut last_rounds = LAST_ROUNDS;
        let mut is_first = true;
        loop {
            let now = self.clock.now();
            let is_busy = self.once(now, is_first);
            is_first = false;
            if self.files.is_unsubmitted() {
                // The disk works while the packets of this round leave.
                self.parking.pass().await;
            }
            self.transmit(now);
            if self.is_stopping {
                last_rounds -= 1;
                if last_rounds == 0 || !self.quic.has_work() {
                    break;
                }
            }
            let after = self.clock.monotonic();
            if is_busy {
                let gap = now.monotonic.since(last_busy);
                self.spinner.on_gap(gap);
                last_busy = after;
                self.stats.rounds_total += 1;
                let micros = u64::try_from(after.since(now.monotonic).as_micros()).unwrap_or(u64::MAX);
                self.stats.round_us_max = self.stats.round_us_max.max(micros);
            }
            let owes_pass = self.files.take_unsubmitted()
                || (0 < self.files.under_way_by_glommio() && PASS_EVERY < after.since(last_pass));
            if owes_pass {
                last_pass = after;
                self.give_way(after).await;
            } else if is_busy || self.has_work() || self.is_stopping {
                glommio::executor().yield_task_queue_now().await;
            } else {
                self.spinner.check(after, self.files.completed());
                let limit = self.next_wake().map(|at| at.since(after));
                if after.since(last_busy) < self.window() || limit.is_some_and(|limit| limit < NEAR) {
                    self.stats.idle_looks_total += 1;
                    if self.files.is_pair_under_way() {
                        // The kernel's worker that syncs the file may need this core.
                        rustix::thread::sched_yield();
                    }
                    glommio::executor().yield_task_queue_now().await;
                } else if !self.rest() {
                    self.sleep(limit).await;
                }
            }
        }
        self.inbox.bell.silence();
        self.files.close().await;
    }

    /// One round; says whether anything happened.
    fn once(&mut self, now: Now, is_first: bool) -> bool {
        let mut count = self.take_input(now);
        let is_due = |at: MonotonicNanos| at <= now.monotonic;
        if self.machine.next_deadline().is_some_and(is_due) {
            self.machine.handle(now, Event::Deadline);
            count += 1;
        }
        let is_busy = 0 < count || is_first;
        if is_busy {
            let busy_since = *self.busy_since.get_or_insert(now.monotonic);
            // The edge of a tick is a burst that is over soon: it goes to disk as a whole, with one sync. Under lasting load
            // there is always more, and what is here must not wait for it.
            if self.is_ready && now.monotonic.since(busy_since) < BURST_MAX && self.port.has_input() {
                self.machine.expect_more();
            }
            self.machine.finish_round(now);
            while let Some(effect) = self.machine.poll_effect() {
                self.act(now, effect);
            }
            self.outboxes.flush();
        } else {
            self.busy_since = None;
            if self.outboxes.is_stuck() {
                self.outboxes.flush();
            }
        }
        is_busy
    }

    /// The machine may use the time before the shard sleeps. Says whether that led to anything.
    fn rest(&mut self) -> bool {
        let now = self.clock.now();
        self.machine.rest(now);
        let mut is_busy = false;
        while let Some(effect) = self.machine.poll_effect() {
            self.act(now, effect);
            is_busy = true;
        }
        is_busy
    }

    fn take_input(&mut self, now: Now) -> usize {
        let mut count = 0;
        if self.is_ready {
            let quic = &mut self.quic;
            count += self.port.receive(|datagram| quic.handle_datagram(now.monotonic, datagram));
            if self.quic.next_timeout().is_some_and(|at| at <= now.monotonic) {
                self.quic.handle_timeout(now.monotonic);
            }
            self.quic.read_streams(now.monotonic);
            while let Some(event) = self.quic.poll_event() {
                self.machine.handle(now, shard_event(event));
                count += 1;
            }
        }
        while let Some(done) = self.files.take_done() {
            self.machine.handle(now, Event::File(done));
            count += 1;
        }
        for _ in 0..INBOX_MAX {
            let Some(inbound) = self.inbox.take() else { break };
            self.take_inbound(now, inbound);
            count += 1;
        }
        count
    }

    fn take_inbound(&mut self, now: Now, inbound: Inbound) {
        match inbound {
            Inbound::Mesh { from, messages } => {
                for message in messages {
                    self.machine.handle(now, Event::Mesh { from, message });
                }
            }
            Inbound::Admin { id, query, reply } => {
                self.questions.insert(id, reply);
                self.machine.handle(now, Event::Admin { id, query });
            }
            Inbound::Stats { reply } => {
                // Who asked may have given up waiting.
                let _ = reply.send((self.shard, self.count()));
            }
            Inbound::Drain => self.machine.handle(now, Event::Drain),
            Inbound::Stop => {
                self.is_stopping = true;
                self.quic.close_all(now.monotonic, ErrorCode::ShuttingDown, "the broker is shutting down");
            }
        }
    }

    fn act(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Send { connection, stream, frame } => {
                let stream = match stream {
                    OutStream::Control => SendStream::Control,
                    OutStream::Push(slot) => SendStream::Push(slot),
                };
                self.quic.send(now.monotonic, connection, stream, frame);
            }
            Effect::Close { connection, code, reason } => self.quic.close(now.monotonic, connection, code, reason),
            Effect::File(effect) => {
                let may_look = self.spinner.may_look(0 < self.quic.loopback_connections());
                self.files.start(effect, may_look);
            }
            Effect::Mesh { to, message } => self.outboxes.push(to, message),
            Effect::Admin { id, mut answer } => {
                if let AdminAnswer::Status(status) = &mut answer {
                    status.reactor = self.count().status();
                }
                if let Some(reply) = self.questions.remove(&id) {
                    // Who asked may have given up waiting.
                    drop(reply.send((self.shard, answer)));
                }
            }
            Effect::Ready => {
                self.is_ready = true;
                self.board.ready(self.shard);
            }
            Effect::Drained => self.board.drained(self.shard),
            Effect::Failed { text } => {
                tracing::error!(shard = %self.shard, %text, "the shard cannot serve");
                self.board.fail(self.shard, text);
                self.is_stopping = true;
            }
        }
    }

    fn transmit(&mut self, now: Now) {
        if !self.port.resend() {
            return;
        }
        for _ in 0..TRANSMITS_MAX {
            let Some(transmit) = self.quic.poll_transmit(now.monotonic, &mut self.port.out) else { break };
            if !self.port.send(transmit) {
                break;
            }
        }
    }

    /// Whether the next round has something to do whatever happens.
    fn has_work(&self) -> bool {
        (self.is_ready && self.quic.has_work() && !self.port.is_blocked()) || self.files.has_done()
    }

    /// How long to look for more before parking. While someone waits for a file of glommio's there is no window: its
    /// completions are found by parking only, and the kernel's worker that syncs the file needs this core.
    fn window(&self) -> Duration {
        if self.files.is_pair_under_way() {
            return PATIENCE;
        }
        if 0 < self.files.under_way_now() {
            return Duration::ZERO;
        }
        self.spinner.window(0 < self.quic.loopback_connections())
    }

    fn next_wake(&self) -> Option<MonotonicNanos> {
        let quic = if self.is_ready { self.quic.next_timeout() } else { None };
        let retry = (self.port.is_blocked() || self.outboxes.is_stuck()).then(|| self.clock.monotonic().after(RETRY));
        let pair = self.files.is_pair_under_way().then(|| self.clock.monotonic().after(PAIR_LOOK_EVERY));
        [quic, retry, pair, self.machine.next_deadline()].into_iter().flatten().min()
    }

    /// Lets glommio at its rings: by sleeping when there is nothing to do but to wait for files, else in passing.
    async fn give_way(&mut self, now: MonotonicNanos) {
        let limit = self.next_wake().map(|at| at.since(now));
        let is_waiting = 0 < self.files.under_way_now() && !self.has_work() && !self.is_stopping;
        if !is_waiting || limit.is_some_and(|limit| limit < NEAR) || !self.sleep(limit).await {
            self.parking.pass().await;
        }
    }

    async fn sleep(&mut self, limit: Option<Duration>) -> bool {
        self.stats.parks_total += 1;
        let Self { parking, inbox, files, is_ready, .. } = self;
        let bell = std::sync::Arc::clone(&inbox.bell);
        parking.park(&bell, limit, *is_ready, || inbox.has_news() || files.has_done()).await
    }

    fn count(&self) -> ReactorStats {
        let (adopted, unused) = self.files.pairs();
        ReactorStats {
            paired_syncs_total: adopted + unused,
            paired_syncs_unused_total: unused,
            receives_total: self.port.receives,
            sends_total: self.port.sends,
            sends_blocked_total: self.port.sends_blocked,
            file_effects_total: self.files.completed(),
            file_effects: self.files.under_way() as u64,
            files_open: self.files.open_files() as u64,
            spin_window_us: u64::try_from(self.window().as_micros()).unwrap_or(u64::MAX),
            quic: *self.quic.stats(),
            ..self.stats
        }
    }
}

fn shard_event(event: QuicEvent) -> Event {
    match event {
        QuicEvent::Connected { connection } => Event::Connected { connection },
        QuicEvent::Frame { connection, frame } => Event::Frame { connection, frame },
        QuicEvent::Garbage { connection, error } => Event::Garbage { connection, error },
        QuicEvent::Congested { connection } => Event::Congested { connection },
        QuicEvent::Relieved { connection } => Event::Relieved { connection },
        QuicEvent::Disconnected { connection } => Event::Disconnected { connection },
    }
}

/// A future whose panic becomes its output.
pub(crate) async fn catch_panic(future: impl Future<Output = ()>) -> Result<(), String> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        let poll = std::panic::AssertUnwindSafe(|| future.as_mut().poll(context));
        match std::panic::catch_unwind(poll) {
            Ok(std::task::Poll::Ready(())) => std::task::Poll::Ready(Ok(())),
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                std::task::Poll::Ready(Err(text.unwrap_or_else(|| "a panic without a text".to_owned())))
            }
        }
    })
    .await
}
