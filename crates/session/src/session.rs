//! The session itself.

use bytes::Bytes;
use corelane_model::limits::{
    BATCH_BYTES_MAX, FRAME_BYTES_MAX, HELLO_TIMEOUT, SESSION_BUDGET_BYTES, SESSION_REQUESTS_MAX,
    SESSION_SUBSCRIPTIONS_MAX, TOKEN_BYTES_MAX,
};
use corelane_model::{
    CorrelationId, ErrorCode, MonotonicNanos, Now, Offset, PartitionId, SessionId, ShardId, SubscriptionId, WallMillis,
};
use corelane_wire::{
    Body, Frame, FrameKind, Hello, OutFrame, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Ping, Pong, Welcome, decode,
    encode,
};

use crate::answers::{Answers, cut, refusal};
use crate::pushes::Pushes;
use crate::request::{NoRequest, check_shape, parse_request};
use crate::subscriptions::Subscriptions;
use crate::{
    Facts, GroupRequest, ProduceRequest, QueueRequest, Refused, Request, Route, SessionStats, Step, TokenDigest,
    TransactionRequest,
};

/// Bytes of a client's name that are kept.
const CLIENT_NAME_BYTES_MAX: usize = 64;
/// What a batch costs of the budget beside its bytes, so that small ones are bounded too.
const PRODUCE_BYTES: u64 = 256;

/// ```text
///             a good hello
///  Greeting ───────────────▶ Open
///      │                      │
///      │ a wrong one, none    │ a frame that has no place
///      │ in time              │ or does not hold together
///      ▼                      ▼
///   Closed ◀──────────────────┘
/// ```
#[derive(Debug)]
enum Phase {
    /// The first frame has not come.
    Greeting { deadline: MonotonicNanos },
    /// Requests are taken.
    Open { session: SessionId, client: Box<str> },
    /// Nothing is taken any more.
    Closed,
}

/// The server end of one connection.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    requests: usize,
    produce_bytes: u64,
    subscriptions: Subscriptions,
    answers: Answers,
    pushes: Pushes,
    stats: SessionStats,
}

impl Session {
    /// A connection that was just made and must say hello within [`HELLO_TIMEOUT`].
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            phase: Phase::Greeting { deadline: now.monotonic.after(HELLO_TIMEOUT) },
            requests: 0,
            produce_bytes: 0,
            subscriptions: Subscriptions::default(),
            answers: Answers::default(),
            pushes: Pushes::default(),
            stats: SessionStats::default(),
        }
    }

    /// Whether hello was said and answered.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// The client's 128 bits and its name, from its hello on.
    #[must_use]
    pub fn client(&self) -> Option<(SessionId, &str)> {
        match &self.phase {
            Phase::Open { session, client } => Some((*session, client)),
            Phase::Greeting { .. } | Phase::Closed => None,
        }
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> SessionStats {
        self.stats
    }

    /// When [`Self::on_deadline`] wants to be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<MonotonicNanos> {
        match self.phase {
            Phase::Greeting { deadline } => Some(deadline),
            Phase::Open { .. } | Phase::Closed => None,
        }
    }

    /// Ends a connection that did not say hello in time.
    pub fn on_deadline(&mut self, now: Now) -> Option<Refused> {
        let deadline = self.deadline()?;
        if now.monotonic < deadline {
            return None;
        }
        self.phase = Phase::Closed;
        let text = format!("no hello came within {} s", HELLO_TIMEOUT.as_secs());
        Some(Refused::new(ErrorCode::TimedOut, text))
    }

    /// Takes in one frame.
    pub fn handle(&mut self, facts: Facts<'_>, frame: Frame) -> Step {
        self.stats.frames += 1;
        match self.phase {
            Phase::Greeting { .. } => self.handle_hello(facts, &frame),
            Phase::Open { .. } => self.handle_open(frame),
            Phase::Closed => Step::Ignored,
        }
    }

    /// The frame that answers a request, which then no longer counts as waiting.
    pub fn answer<B: Body>(&mut self, correlation: CorrelationId, body: &B) -> OutFrame {
        self.finish_request();
        encode(correlation, body)
    }

    /// The frame that refuses a request, which then no longer counts as waiting.
    pub fn refuse(&mut self, correlation: CorrelationId, refused: &Refused) -> OutFrame {
        self.finish_request();
        self.stats.refusals += 1;
        refusal(correlation, refused.code, &refused.text)
    }

    /// Gathers the outcome of a produce frame whose batch has `batch_bytes`: the base offset and the append timestamp, or
    /// why not.
    pub fn answer_produce(
        &mut self,
        correlation: CorrelationId,
        batch_bytes: u64,
        outcome: Result<(Offset, WallMillis), &Refused>,
    ) {
        self.finish_produce(batch_bytes);
        match outcome {
            Ok((base_offset, timestamp)) => self.answers.accept(correlation, base_offset, timestamp),
            Err(refused) => {
                self.stats.refusals += 1;
                self.answers.refuse(correlation, refused);
            }
        }
    }

    /// As [`Self::answer_produce`] for a batch that was taken and whose durable end is to follow: the outcome may wait for it.
    pub fn answer_produce_early(
        &mut self,
        correlation: CorrelationId,
        batch_bytes: u64,
        (base_offset, timestamp): (Offset, WallMillis),
    ) {
        self.finish_produce(batch_bytes);
        self.answers.accept_early(correlation, base_offset, timestamp);
    }

    fn finish_produce(&mut self, batch_bytes: u64) {
        let charge = batch_bytes + PRODUCE_BYTES;
        assert!(charge <= self.produce_bytes, "{charge} bytes are answered, {} were taken", self.produce_bytes);
        self.produce_bytes -= charge;
    }

    /// Gathers a durable end.
    pub fn tell_durable(&mut self, partition: PartitionId, end: Offset) {
        self.answers.end(partition, end);
    }

    /// Whether [`Self::poll_frame`] has something.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether all that is gathered may wait for durable ends that are to follow.
    #[must_use]
    pub fn is_all_early(&self) -> bool {
        self.answers.is_all_early()
    }

    /// The next gathered frame of the round.
    pub fn poll_frame(&mut self) -> Option<OutFrame> {
        self.answers.poll_frame()
    }

    /// Gathers batches for the subscription with this id and serial; when it has ended they are dropped.
    pub fn push(&mut self, (subscription, serial): (SubscriptionId, u64), high_watermark: Offset, batches: Vec<Bytes>) {
        if let Some(route) = self.subscriptions.get(subscription).filter(|route| route.serial == serial) {
            self.pushes.add(route.slot, subscription, high_watermark, batches);
        }
    }

    /// Hands over the pushes that were gathered, in frames, each with the push stream that it takes. Whatever else is sent on a
    /// push stream goes behind them.
    pub fn take_pushes(&mut self, send: impl FnMut(u8, OutFrame)) {
        self.pushes.take_frames(send);
    }

    /// Takes a subscription's id and a push stream for it; its serial.
    pub fn open_subscription(&mut self, subscription: SubscriptionId, partition: PartitionId, owner: ShardId) -> u64 {
        self.subscriptions.insert(subscription, partition, owner)
    }

    /// The owner of a subscription's partition became known.
    pub fn move_subscription(&mut self, subscription: SubscriptionId, owner: ShardId) {
        self.subscriptions.move_to(subscription, owner);
    }

    /// Gives up a subscription's id, because the client or the broker ended it.
    pub fn close_subscription(&mut self, subscription: SubscriptionId) -> Option<Route> {
        self.subscriptions.remove(subscription)
    }

    /// Where a subscription leads.
    #[must_use]
    pub fn subscription(&self, subscription: SubscriptionId) -> Option<&Route> {
        self.subscriptions.get(subscription)
    }

    /// All subscriptions, by id.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, &Route)> {
        self.subscriptions.iter()
    }

    /// Requests and bytes of batches that are not answered yet.
    #[must_use]
    pub const fn waiting(&self) -> (usize, u64) {
        (self.requests, self.produce_bytes)
    }

    fn finish_request(&mut self) {
        assert!(self.requests != 0, "an answer without a request");
        self.requests -= 1;
    }

    fn close(&mut self, refused: Refused) -> Step {
        self.phase = Phase::Closed;
        Step::Close(refused)
    }

    fn handle_hello(&mut self, facts: Facts<'_>, frame: &Frame) -> Step {
        match self.greet(facts, frame) {
            Ok(welcome) => Step::Reply(welcome),
            Err(refused) => self.close(refused),
        }
    }

    fn greet(&mut self, facts: Facts<'_>, frame: &Frame) -> Result<OutFrame, Refused> {
        if frame.head.kind != FrameKind::Hello {
            let text = format!("the first frame must be a hello, not {:?}", frame.head.kind);
            return Err(Refused::new(ErrorCode::UnexpectedFrame, text));
        }
        if let Err(NoRequest::Close(refused) | NoRequest::Refuse(refused) | NoRequest::RefuseBatches(_, refused)) =
            check_shape(frame)
        {
            return Err(refused);
        }
        let hello: Hello = decode(frame)?;
        if hello.version_max < PROTOCOL_VERSION_MIN || PROTOCOL_VERSION_MAX < hello.version_min {
            let text = format!(
                "this broker speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, the client {} to {}",
                hello.version_min, hello.version_max
            );
            return Err(Refused::new(ErrorCode::UnsupportedVersion, text));
        }
        check_token(&hello.token, facts.tokens)?;
        let (high, low) = hello.session;
        self.phase = Phase::Open {
            session: SessionId(u128::from(high) << 64 | u128::from(low)),
            client: cut(&hello.client, CLIENT_NAME_BYTES_MAX).into(),
        };
        Ok(encode(
            frame.head.correlation,
            &Welcome {
                version: PROTOCOL_VERSION_MAX.min(hello.version_max),
                incarnation: facts.incarnation.0,
                shards: facts.shards,
                shard: facts.shard.0,
                catalog_version: facts.catalog_version.0,
                frame_bytes_max: FRAME_BYTES_MAX,
                batch_bytes_max: BATCH_BYTES_MAX,
                wall_ms: facts.wall.0,
            },
        ))
    }

    fn handle_open(&mut self, frame: Frame) -> Step {
        let (kind, correlation) = (frame.head.kind, frame.head.correlation);
        if kind == FrameKind::Ping {
            return match check_shape(&frame).and_then(|()| Ok(decode::<Ping>(&frame)?)) {
                Ok(ping) => Step::Reply(encode(correlation, &Pong { payload: ping.payload })),
                Err(NoRequest::Close(refused) | NoRequest::Refuse(refused) | NoRequest::RefuseBatches(_, refused)) => {
                    self.close(refused)
                }
            };
        }
        match parse_request(frame) {
            Ok(request) => self.admit(request),
            Err(NoRequest::Close(refused)) => self.close(refused),
            Err(NoRequest::RefuseBatches(batches, refused)) => {
                for (correlation, batch_bytes) in batches {
                    self.produce_bytes += batch_bytes + PRODUCE_BYTES;
                    self.answer_produce(correlation, batch_bytes, Err(&refused));
                }
                Step::Gathered
            }
            Err(NoRequest::Refuse(refused)) => self.refuse_at_once(correlation, &refused),
        }
    }

    /// Holds a request against the budgets and counts it as waiting.
    fn admit(&mut self, request: Request) -> Step {
        let request = match request {
            Request::Produce(produce) => {
                return match self.admit_produce(&produce) {
                    true => Step::Request(Request::Produce(produce)),
                    false => Step::Gathered,
                };
            }
            Request::ProduceMany(mut batches) => {
                batches.retain(|produce| self.admit_produce(produce));
                return Step::Request(Request::ProduceMany(batches));
            }
            other => other,
        };
        if let Request::Queue(QueueRequest { ask, .. }) = &request
            && !ask.is_answered()
        {
            return Step::Request(request);
        }
        let correlation = match &request {
            Request::Credit { .. } | Request::Unsubscribe { .. } => return Step::Request(request),
            Request::Produce(_) | Request::ProduceMany(_) => unreachable!("batches have a budget of their own"),
            Request::Metadata { correlation, .. }
            | Request::CreateTopic { correlation, .. }
            | Request::AlterTopic { correlation, .. }
            | Request::DeleteTopic { correlation, .. }
            | Request::Truncate { correlation, .. }
            | Request::DescribeTopic { correlation, .. }
            | Request::ProducerId { correlation, .. }
            | Request::FindOffset { correlation, .. }
            | Request::Subscribe { correlation, .. }
            | Request::Transaction(TransactionRequest { correlation, .. })
            | Request::Group(GroupRequest { correlation, .. })
            | Request::Queue(QueueRequest { correlation, .. })
            | Request::ListQueues { correlation, .. }
            | Request::ListGroups { correlation, .. } => *correlation,
        };
        if SESSION_REQUESTS_MAX <= self.requests {
            let text = format!("{SESSION_REQUESTS_MAX} requests of this connection wait already");
            return self.refuse_at_once(correlation, &Refused::new(ErrorCode::Busy, text));
        }
        if let Request::Subscribe { subscription, .. } = &request
            && let Some(refused) = self.refuse_subscription(*subscription)
        {
            return self.refuse_at_once(correlation, &refused);
        }
        self.requests += 1;
        Step::Request(request)
    }

    /// Counts a batch as under way; false when it is over the budget and refused.
    fn admit_produce(&mut self, produce: &ProduceRequest) -> bool {
        let batch_bytes = produce.batch.len() as u64;
        self.produce_bytes += batch_bytes + PRODUCE_BYTES;
        if self.produce_bytes <= SESSION_BUDGET_BYTES {
            return true;
        }
        let text = format!("this connection has {} bytes of batches under way already", self.produce_bytes);
        self.answer_produce(produce.correlation, batch_bytes, Err(&Refused::new(ErrorCode::Busy, text)));
        false
    }

    fn refuse_subscription(&self, subscription: SubscriptionId) -> Option<Refused> {
        if self.subscriptions.get(subscription).is_some() {
            let text = format!("subscription {subscription} is in use on this connection");
            return Some(Refused::new(ErrorCode::SubscriptionExists, text));
        }
        if SESSION_SUBSCRIPTIONS_MAX <= self.subscriptions.len() {
            let text = format!("this connection has {SESSION_SUBSCRIPTIONS_MAX} subscriptions already");
            return Some(Refused::new(ErrorCode::LimitReached, text));
        }
        None
    }

    fn refuse_at_once(&mut self, correlation: CorrelationId, refused: &Refused) -> Step {
        self.stats.refusals += 1;
        Step::Reply(refusal(correlation, refused.code, &refused.text))
    }
}

fn check_token(token: &str, allowed: &[TokenDigest]) -> Result<(), Refused> {
    if allowed.is_empty() {
        return Ok(());
    }
    let fault = if token.is_empty() {
        "this broker wants a token and hello carries none"
    } else if TOKEN_BYTES_MAX < token.len() || !TokenDigest::of(token).is_one_of(allowed) {
        "the token is not one that this broker knows"
    } else {
        return Ok(());
    };
    Err(Refused::new(ErrorCode::Unauthenticated, fault))
}
