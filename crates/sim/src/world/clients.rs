//! The clients' side: what their machines want done and what their applications learn.

use corelane_client_core::{Answer, ConnectFailure, Effect, Event, OperationKey, OutStream, RequestError};
use corelane_model::{ErrorCode, MonotonicNanos};
use corelane_wire::{Frame, FrameKind};

use super::{Happening, Phase, World};
use crate::client::{Todo, Wish};
use crate::describe::describe;
use crate::network::{Lane, LinkId, carry};

impl World {
    /// Does what a client's application wants.
    pub(super) fn work(&mut self, client: usize, todo: Todo) {
        let now = self.now();
        let wishes = self.clients[client].act(now, &mut self.oracle, todo);
        self.wish(client, wishes);
        self.client_round(client);
    }

    pub(super) fn wish(&mut self, client: usize, wishes: Vec<Wish>) {
        for (delay, todo) in wishes {
            self.queue.after(delay, Happening::Work { client, todo });
        }
    }

    fn client_event(&mut self, client: usize, event: Event) {
        let now = self.now();
        self.clients[client].core.handle(now, event);
        self.client_round(client);
    }

    fn client_round(&mut self, client: usize) {
        let now = self.now();
        self.clients[client].core.finish_round(now);
        while let Some(effect) = self.clients[client].core.poll_effect() {
            self.client_effect(client, effect);
        }
        let state = &mut self.clients[client];
        if let Some(moment) = state.core.next_deadline() {
            let moment = moment.max(now.monotonic.after(std::time::Duration::from_micros(1)));
            if state.deadline.is_none_or(|planned| moment < planned || planned <= now.monotonic) {
                state.deadline = Some(moment);
                self.queue.at(moment, Happening::ClientDeadline { client, moment });
            }
        }
    }

    pub(super) fn client_deadline(&mut self, client: usize, moment: MonotonicNanos) {
        if self.clients[client].deadline == Some(moment) {
            self.clients[client].deadline = None;
            self.client_event(client, Event::Deadline);
        }
    }

    /// A handshake is over, as the client sees it.
    pub(super) fn established(&mut self, link: LinkId) {
        let Some(state) = self.network.link(link) else { return };
        let (client, connection) = (state.client, state.client_key);
        if self.network.of_client(client, connection) == Some(link) {
            self.network.establish(link);
            self.client_event(client, Event::Connected { connection });
        }
    }

    pub(super) fn frame_to_client(&mut self, link: LinkId, frame: Frame) {
        let Some(state) = self.network.link(link) else { return };
        let (client, connection) = (state.client, state.client_key);
        if self.network.of_client(client, connection) == Some(link) {
            self.client_event(client, Event::Frame { connection, frame });
        }
    }

    pub(super) fn lost_at_client(&mut self, link: LinkId, code: Option<ErrorCode>, reason: String) {
        let Some(state) = self.network.link(link) else { return };
        let (client, connection, is_established) = (state.client, state.client_key, state.is_established);
        if self.network.of_client(client, connection) != Some(link) {
            return;
        }
        self.network.forget_at_client(link);
        let event = if is_established {
            Event::Disconnected { connection, code, reason }
        } else {
            Event::ConnectFailed { connection, failure: ConnectFailure::Unreachable(reason) }
        };
        self.client_event(client, event);
    }

    fn client_effect(&mut self, client: usize, effect: Effect) {
        match effect {
            Effect::Connect { connection, shard } => {
                let link = self.network.connect(client, connection, shard);
                self.log(format_args!("c{client} connects to s{shard} on link {}", link.0));
                let delay = self.network.delay();
                self.queue.after(delay, Happening::Accept { link });
            }
            Effect::Send { connection, stream, frame } => {
                if let Some(link) = self.network.of_client(client, connection) {
                    let lane = match stream {
                        OutStream::Control => Lane::ClientControl,
                        OutStream::Produce(slot) => Lane::ClientProduce(slot),
                    };
                    self.send_to_shard(link, lane, carry(frame));
                }
            }
            Effect::Close { connection, reason, .. } => {
                if let Some(link) = self.network.of_client(client, connection) {
                    self.network.forget_at_client(link);
                    self.cut(link, None, &reason);
                }
            }
            Effect::Ready { shard } => self.log(format_args!("c{client} is ready at s{shard}")),
            Effect::Unreachable { shard, failure } => {
                self.log(format_args!("c{client} cannot reach s{shard}: {failure}"));
            }
            told => {
                let told = self.tell_pipeline(client, told).and_then(|told| self.tell_party(client, told));
                if let Some(told) = told.and_then(|told| self.tell_queue(client, told)) {
                    self.tell(client, told);
                }
            }
        }
    }

    /// Effects that tell the application something.
    fn tell(&mut self, client: usize, effect: Effect) {
        let state = &mut self.clients[client];
        let mut wishes = Vec::new();
        let mut result = Ok(());
        match effect {
            Effect::ProducerOpened { producer, .. } => state.on_producer_opened(producer),
            Effect::ProducerFailed { producer, error } => {
                wishes = state.on_producer_failed(producer);
                self.log(format_args!("c{client} producer failed: {error}"));
            }
            Effect::Received { batch, placement } => {
                self.log(format_args!("c{client} batch {} received at {}", batch.0, placement.base_offset));
            }
            Effect::Delivered { batch, placement, is_stored } => {
                result = state.on_delivered(&mut self.oracle, batch, placement, is_stored);
                let word = if is_stored { "stored" } else { "received" };
                self.log(format_args!("c{client} batch {} delivered, {word} at {}", batch.0, placement.base_offset));
            }
            Effect::Failed { batch, error, .. } => {
                result = state.on_failed(&mut self.oracle, batch, error.may_be_stored());
                self.log(format_args!("c{client} batch {} failed: {error}", batch.0));
            }
            Effect::Subscribed { subscription, next, log_start, high_watermark } => {
                result = state.on_subscribed(&self.oracle, subscription, next, [log_start, high_watermark]);
                let key = subscription.0;
                self.log(format_args!("c{client} subscription {key} at {next} in [{log_start}, {high_watermark})"));
            }
            Effect::Deliver { subscription, bytes, from, high_watermark } => {
                let incarnation = self.broker.incarnation();
                let length = bytes.len();
                let delivered =
                    state.on_deliver(&mut self.oracle, incarnation, subscription, bytes, from, high_watermark);
                match delivered {
                    Ok(wish) => wishes.extend(wish),
                    Err(violation) => result = Err(violation),
                }
                let key = subscription.0;
                self.log(format_args!("c{client} subscription {key} gets {length} bytes from {from}"));
            }
            Effect::Ended { subscription, error } => {
                let is_rotten = self.scenario.is_rotting && matches!(self.phase, Phase::Audit { .. });
                match state.on_ended(&mut self.oracle, is_rotten, subscription, &error) {
                    Ok(more) => wishes = more,
                    Err(violation) => result = Err(violation),
                }
                self.log(format_args!("c{client} subscription {} ended: {error}", subscription.0));
            }
            Effect::Passed { subscription, next, high_watermark } => {
                result = state.on_passed(&mut self.oracle, subscription, next, high_watermark);
                self.log(format_args!("c{client} subscription {} is past what was aborted, at {next}", subscription.0));
            }
            Effect::Missed { subscription, offsets } => {
                let key = subscription.0;
                self.log(format_args!("c{client} subscription {key} has missed {} to {}", offsets.start, offsets.end));
            }
            Effect::Done { operation, result } => return self.tell_answer(client, operation, *result),
            Effect::Connect { .. }
            | Effect::Send { .. }
            | Effect::Close { .. }
            | Effect::Ready { .. }
            | Effect::Unreachable { .. } => unreachable!("these are done, not told"),
            Effect::Group { .. } | Effect::Queue { .. } | Effect::Grown { .. } => {
                unreachable!("members are told elsewhere, and no client of the workload follows a topic")
            }
        }
        self.check(result);
        self.wish(client, wishes);
    }

    /// A request of the application was answered, or came to nothing.
    fn tell_answer(&mut self, client: usize, operation: OperationKey, answer: Result<Answer, RequestError>) {
        let now = self.now();
        let incarnation = self.broker.incarnation();
        let text = answer.as_ref().err().map(ToString::to_string);
        let state = &mut self.clients[client];
        let done = if state.is_of_queue(operation) {
            Ok(state.on_queue_answer(&mut self.oracle, incarnation, operation, answer))
        } else if state.is_of_transaction(operation) {
            state.on_transaction_done(now, &mut self.oracle, operation, answer)
        } else if state.is_of_pipeline(operation) {
            state.on_pipeline_done(now, &mut self.oracle, operation, answer)
        } else if state.is_of_operator(operation) {
            Ok(state.on_operator_answer(&mut self.oracle, operation, answer))
        } else {
            state.on_done(now, &mut self.oracle, operation, answer.ok())
        };
        self.log(format_args!("c{client} request {}: {}", operation.0, text.as_deref().unwrap_or("done")));
        match done {
            Ok(wishes) => self.wish(client, wishes),
            Err(violation) => self.check(Err(violation)),
        }
    }

    fn send_to_shard(&mut self, link: LinkId, lane: Lane, frame: Frame) {
        let now = self.now().monotonic;
        if frame.head.kind == FrameKind::StageOffsets {
            self.plan_late_staging(link);
        }
        let Some(arrival) = self.network.enter(now, link, lane) else { return };
        self.network.check_request(&self.oracle, link, &frame);
        self.log(format_args!("link {} {lane:?} {}", link.0, describe(&frame)));
        self.queue.at(arrival, Happening::ToShard { link, frame });
    }
}
