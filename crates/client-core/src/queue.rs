//! One producer's records for one partition: gathered, under way, delivered.

mod batch;

use std::collections::VecDeque;

use corelane_model::limits::PRODUCER_BATCHES_MAX;
use corelane_model::{
    Acks, ConnectionKey, ErrorCode, MonotonicNanos, Now, Offset, ProducerEpoch, ProducerId, Retry, Sequence, TopicClass,
};
use corelane_record::{ProducerStamp, PushError};

pub(crate) use self::batch::Workshop;
use self::batch::{Batch, Gathering, Phase, SPARE_BATCH_BYTES_MAX};
pub use self::batch::{Delivery, DeliveryTime, DeliveryTimeError, NewRecord};
use crate::lanes::{Lanes, SealedBytes};
use crate::producer::Identity;
use crate::tell::Tell;
use crate::{BatchKey, DeliveryError, Placement, ProducerSettings};

/// How the queue gives out sequences.
///
/// ```text
///                    a gap, a restart of the broker, another identity
///   Resequencing ◄──────────────────────────────────────────────────── Flowing
///        │                                                                 ▲
///        └── nothing is in doubt, and a newer epoch is there: stamp anew ──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Batches leave in order, each with the next sequence.
    Flowing,
    /// Only batches in doubt leave, with the stamp that they had, to learn what became of them.
    Resequencing,
}

/// A batch to send.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) key: BatchKey,
    /// The produce stream that it takes.
    pub(crate) lane: u8,
    pub(crate) acks: Acks,
    pub(crate) bytes: &'a SealedBytes,
    pub(crate) is_repeated: bool,
    /// Nothing is left that may leave.
    pub(crate) is_last: bool,
}

/// What a refusal asks the caller to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing more.
    None,
    /// Call [`Queue::hold_until`].
    Pause,
    /// The same, and ask for fresh metadata.
    Refresh,
    /// The producer was fenced: take a new id.
    Fenced,
}

#[derive(Debug)]
pub(crate) struct Queue {
    gathering: VecDeque<Gathering>,
    window: VecDeque<Batch>,
    /// The memory of a small batch that is delivered.
    spare: Vec<u8>,
    flow: Flow,
    /// Version of the producer's identity that sequences are counted under.
    adopted: u32,
    producer: ProducerId,
    epoch: ProducerEpoch,
    next_sequence: Sequence,
    durable_end: Offset,
    /// Batches in phase `Sent`, all of them on this connection.
    outstanding: u32,
    connection: Option<ConnectionKey>,
    /// The produce stream that its last batch took on this connection.
    lane: Option<u8>,
    hold: Option<MonotonicNanos>,
    refusals: u32,
    /// Why the broker last refused a batch for a while; none after it took one.
    last_refusal: Option<String>,
    is_flushing: bool,
    /// A batch was given up while a copy of it may still be taken, and with it what follows, until the epoch is raised.
    is_one_adrift: bool,
    /// Whether its producer is listed with those that wait for the partition's durable end.
    is_registered: bool,
    pub(crate) is_dirty: bool,
}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self {
            gathering: VecDeque::new(),
            window: VecDeque::new(),
            spare: Vec::new(),
            flow: Flow::Resequencing,
            adopted: 0,
            producer: ProducerId::NONE,
            epoch: ProducerEpoch(0),
            next_sequence: Sequence(0),
            durable_end: Offset::ZERO,
            outstanding: 0,
            connection: None,
            lane: None,
            hold: None,
            refusals: 0,
            last_refusal: None,
            is_flushing: false,
            is_one_adrift: false,
            is_registered: false,
            is_dirty: false,
        }
    }

    /// Whether it holds no record that is not told for good.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.window.is_empty()
    }

    /// Whether it has to be listed with those that may have something to send; it is when this returns.
    pub(crate) fn list_unsent(&mut self) -> bool {
        let has_unsent = !self.gathering.is_empty() || self.window.iter().any(|batch| batch.phase == Phase::Waiting);
        has_unsent && !std::mem::replace(&mut self.is_dirty, true)
    }

    /// Whether it has to be listed with those that wait for the partition's durable end; it is when this returns.
    pub(crate) fn register(&mut self) -> bool {
        !self.window.is_empty() && !std::mem::replace(&mut self.is_registered, true)
    }

    /// Whether an answer from this connection may be about one of its batches.
    pub(crate) fn is_on(&self, connection: ConnectionKey) -> bool {
        self.connection == Some(connection)
    }

    /// Appends a record; `next_key` counts up when that begins a batch. Returns the batch and the record's place in it.
    pub(crate) fn push(
        &mut self,
        now: Now,
        record: &NewRecord<'_>,
        delivery: Delivery,
        workshop: &mut Workshop,
        next_key: &mut u64,
    ) -> Result<(BatchKey, u32), PushError> {
        let is_alone = workshop.has_message_ids && record.has_message_id();
        if is_alone && let Some(open) = self.gathering.back_mut() {
            open.is_full = true;
        }
        if let Some(open) = self.gathering.back_mut().filter(|open| !open.is_full) {
            match open.push(now, record, delivery, workshop) {
                Err(PushError::Full) => open.is_full = true,
                result => return result.map(|index| (open.key, index)),
            }
        }
        let memory = std::mem::take(&mut self.spare);
        let mut open = Gathering::new(BatchKey(*next_key), now, record, delivery, memory, workshop)?;
        open.is_full |= is_alone;
        let key = open.key;
        *next_key += 1;
        self.gathering.push_back(open);
        Ok((key, 0))
    }

    /// Everything that is gathered now leaves without lingering.
    pub(crate) fn flush(&mut self) {
        self.is_flushing = !self.gathering.is_empty();
    }

    /// When the batch at the front has lingered long enough, if that is what it waits for.
    pub(crate) fn linger_end(&self, settings: &ProducerSettings) -> Option<MonotonicNanos> {
        let open = self.gathering.front()?;
        (!settings.linger.is_zero()).then(|| open.opened_at.after(settings.linger))
    }

    /// Whether batches may leave on `connection` at `now`, and the sequences for them are known.
    pub(crate) fn is_open(&mut self, now: MonotonicNanos, connection: ConnectionKey) -> bool {
        if 0 < self.outstanding && self.connection != Some(connection) {
            return false;
        }
        if let Some(until) = self.hold {
            if 0 < self.outstanding || now < until {
                return false;
            }
            self.hold = None;
        }
        if self.connection != Some(connection) {
            self.connection = Some(connection);
            self.lane = None;
        }
        true
    }

    /// Takes over a newer identity as soon as nothing is in doubt under the old one. Returns whether it still needs one.
    pub(crate) fn adopt(&mut self, identity: &Identity) -> bool {
        if self.flow == Flow::Flowing {
            if identity.version == self.adopted {
                return false;
            }
            self.flow = Flow::Resequencing;
        }
        let is_settled =
            |batch: &Batch| batch.phase == Phase::Done || batch.phase == Phase::Waiting && !batch.is_doubtful;
        if !self.window.iter().all(is_settled) {
            return false;
        }
        if identity.version <= self.adopted {
            return !self.is_empty();
        }
        self.adopted = identity.version;
        self.producer = identity.id;
        self.epoch = identity.epoch;
        self.next_sequence = Sequence(0);
        self.is_one_adrift = false;
        self.flow = Flow::Flowing;
        self.window.retain(|batch| batch.phase != Phase::Done);
        for at in 0..self.window.len() {
            let stamp = self.take_stamp(self.window[at].records);
            self.window[at].restamp(stamp);
        }
        false
    }

    /// The next batch that may leave, and the produce stream for it; it is under way when this returns. Call it only while
    /// [`Self::is_open`].
    pub(crate) fn next_outgoing(
        &mut self,
        now: MonotonicNanos,
        workshop: &mut Workshop,
        lanes: &mut Lanes,
    ) -> Option<Outgoing<'_>> {
        let flow = self.flow;
        let may_leave = |batch: &Batch| batch.phase == Phase::Waiting && (flow == Flow::Flowing || batch.is_doubtful);
        let (at, is_last) = match self.window.iter().position(may_leave) {
            Some(at) => (at, false),
            None => (self.seal_due(now, workshop)?, self.gathering.is_empty()),
        };
        self.outstanding += 1;
        let lane = lanes.choose(self.lane, self.outstanding <= 1);
        self.lane = Some(lane);
        let batch = &mut self.window[at];
        batch.phase = Phase::Sent;
        let is_repeated = std::mem::replace(&mut batch.was_sent, true);
        Some(Outgoing { key: batch.key, lane, acks: batch.acks, bytes: &batch.bytes, is_repeated, is_last })
    }

    /// Moves the batch at the front of those that gather into the window, if it may leave. Returns its place there.
    fn seal_due(&mut self, now: MonotonicNanos, workshop: &mut Workshop) -> Option<usize> {
        let has_room = self.flow == Flow::Flowing && self.window.len() < PRODUCER_BATCHES_MAX;
        if !has_room || !self.is_due(now, &workshop.settings) {
            return None;
        }
        let open = self.gathering.pop_front()?;
        if self.gathering.is_empty() {
            self.is_flushing = false;
        }
        let stamp = self.take_stamp(open.len());
        self.window.push_back(open.seal(stamp, workshop));
        Some(self.window.len() - 1)
    }

    fn is_due(&self, now: MonotonicNanos, settings: &ProducerSettings) -> bool {
        let Some(front) = self.gathering.front() else { return false };
        1 < self.gathering.len() || front.is_full || self.is_flushing || front.opened_at.after(settings.linger) <= now
    }

    fn take_stamp(&mut self, records: u32) -> ProducerStamp {
        let base_sequence = self.next_sequence;
        self.next_sequence = base_sequence.advance(records);
        ProducerStamp { producer_id: self.producer, producer_epoch: self.epoch, base_sequence }
    }

    /// The broker took the batch with these low bits of its key, now or earlier. Returns whether [`Self::tell_received`] is
    /// to be called for it at the end of the round.
    pub(crate) fn on_accepted(
        &mut self,
        low: u64,
        placement: Placement,
        class: TopicClass,
        tell: &mut Tell<'_>,
    ) -> bool {
        let Some(at) = self.take_answered(low) else { return false };
        self.refusals = 0;
        self.last_refusal = None;
        let batch = &mut self.window[at];
        batch.phase = Phase::Received(placement);
        batch.is_doubtful = false;
        let is_stored = placement.base_offset.advance(u64::from(batch.records)) <= self.durable_end;
        if batch.acks == Acks::Received || !class.is_durable() || is_stored {
            batch.deliver(placement, is_stored, tell);
            self.trim();
            return false;
        }
        !batch.is_received_told
    }

    /// Tells of the batch with these low bits of its key that it is received, if that is still all there is to tell.
    pub(crate) fn tell_received(&mut self, low: u64, tell: &mut Tell<'_>) {
        if let Some(batch) = self.window.iter_mut().find(|batch| batch.key.low() == low)
            && let Phase::Received(placement) = batch.phase
            && !std::mem::replace(&mut batch.is_received_told, true)
        {
            tell.received(batch.key, placement);
        }
    }

    /// The broker refused the batch with these low bits of its key.
    pub(crate) fn on_refused(&mut self, low: u64, code: ErrorCode, text: &str, tell: &mut Tell<'_>) -> Remedy {
        let Some(at) = self.take_answered(low) else { return Remedy::None };
        let is_first = self.window.iter().take(at).all(|batch| batch.phase != Phase::Waiting);
        let remedy = match code {
            ErrorCode::OutOfSequence | ErrorCode::UnknownProducer if !is_first => {
                // It follows a batch that was refused for a while and will be sent again before it.
                let is_doubtful = self.window[at].is_doubtful && self.may_come_late(at);
                self.window[at].set_waiting(is_doubtful);
                Remedy::None
            }
            ErrorCode::OutOfSequence => {
                // The owner remembers batches before this one and knows that this one is missing.
                if self.window[at].is_doubtful && self.is_one_adrift {
                    let reason = "it may come late behind one that was given up";
                    self.window[at].fail(DeliveryError::Unknown { reason }, tell);
                } else {
                    self.window[at].set_waiting(false);
                }
                self.flow = Flow::Resequencing;
                Remedy::None
            }
            ErrorCode::UnknownProducer | ErrorCode::ProducerFenced => {
                if self.window[at].is_doubtful {
                    let reason = "the partition no longer remembers the producer";
                    self.window[at].fail(DeliveryError::Unknown { reason }, tell);
                } else {
                    self.window[at].set_waiting(false);
                }
                self.flow = Flow::Resequencing;
                if code == ErrorCode::ProducerFenced { Remedy::Fenced } else { Remedy::None }
            }
            code => match code.retry() {
                Retry::Later | Retry::Refresh => {
                    // A request that timed out within the broker may have been carried out.
                    let is_doubtful = self.window[at].is_doubtful || code == ErrorCode::TimedOut;
                    self.window[at].set_waiting(is_doubtful);
                    self.last_refusal = Some(format!("{text} ({code:?})"));
                    if code.retry() == Retry::Later { Remedy::Pause } else { Remedy::Refresh }
                }
                Retry::Never | Retry::Close => {
                    let error = if self.window[at].is_doubtful {
                        self.is_one_adrift = true;
                        DeliveryError::Unknown { reason: "the broker refused to say what became of it" }
                    } else {
                        DeliveryError::Refused { code, text: text.to_owned() }
                    };
                    self.window[at].fail(error, tell);
                    // Its sequences are missing now: what follows needs others, and those need another epoch.
                    self.flow = Flow::Resequencing;
                    Remedy::None
                }
            },
        };
        self.trim();
        remedy
    }

    /// Whether a copy of a batch that left on a lost connection may still be taken, with copies of those before it. Only when
    /// none of these is sent again as it was are its sequences out of reach.
    fn may_come_late(&self, at: usize) -> bool {
        let goes_as_it_was = |batch: &Batch| batch.phase == Phase::Waiting && batch.is_doubtful;
        self.flow == Flow::Flowing || self.window.iter().take(at).any(goes_as_it_was)
    }

    /// Nothing leaves before this moment, nor before all that is under way is answered.
    pub(crate) fn hold_until(&mut self, until: MonotonicNanos) {
        self.hold = Some(self.hold.map_or(until, |hold| hold.max(until)));
    }

    /// How often in a row the broker refused for a while; counts up.
    pub(crate) fn next_refusal(&mut self) -> u32 {
        self.refusals += 1;
        self.refusals - 1
    }

    /// Everything before `end` is stored.
    pub(crate) fn on_durable(&mut self, end: Offset, tell: &mut Tell<'_>) {
        self.durable_end = self.durable_end.max(end);
        for batch in &mut self.window {
            if let Phase::Received(placement) = batch.phase
                && placement.base_offset.advance(u64::from(batch.records)) <= self.durable_end
            {
                batch.deliver(placement, true, tell);
            }
        }
        self.trim();
    }

    /// The connection is gone: what has no last word is in doubt and is sent again.
    pub(crate) fn on_disconnected(&mut self, connection: ConnectionKey) {
        if self.connection != Some(connection) {
            return;
        }
        self.connection = None;
        self.lane = None;
        self.outstanding = 0;
        for batch in &mut self.window {
            if matches!(batch.phase, Phase::Sent | Phase::Received(_)) {
                batch.set_waiting(true);
            }
        }
    }

    /// The broker started anew. All connections are gone already. A memory topic's records went with it: whether they
    /// were seen before that, nobody can tell.
    pub(crate) fn on_incarnation(&mut self, class: TopicClass, tell: &mut Tell<'_>) {
        self.flow = Flow::Resequencing;
        self.hold = None;
        if !class.is_durable() {
            for batch in &mut self.window {
                if batch.phase == Phase::Waiting && batch.is_doubtful {
                    batch.fail(
                        DeliveryError::Unknown { reason: "the broker restarted, and the topic lives in memory" },
                        tell,
                    );
                }
            }
        }
        self.trim();
    }

    /// The shard's journal failed: what is received and not stored may or may not be there after a restart.
    pub(crate) fn on_storage_stopped(&mut self, connection: ConnectionKey, tell: &mut Tell<'_>) {
        if self.connection != Some(connection) {
            return;
        }
        for batch in &mut self.window {
            if matches!(batch.phase, Phase::Received(_)) {
                batch.fail(DeliveryError::Unknown { reason: "the shard's journal failed before it was stored" }, tell);
            }
        }
        self.trim();
    }

    /// Fails what was taken before `oldest`.
    pub(crate) fn expire(&mut self, oldest: MonotonicNanos, tell: &mut Tell<'_>) {
        for batch in &mut self.window {
            if batch.opened_at <= oldest && batch.phase != Phase::Done {
                if batch.phase == Phase::Sent {
                    self.outstanding -= 1;
                }
                let refusal = self.last_refusal.clone();
                self.is_one_adrift |= batch.is_doubtful || batch.phase == Phase::Sent;
                let error = batch.unsettled(DeliveryError::TimedOut { refusal }, "the delivery time is over");
                batch.fail(error, tell);
            }
        }
        self.trim();
        while self.gathering.front().is_some_and(|open| open.opened_at <= oldest) {
            let error = DeliveryError::TimedOut { refusal: self.last_refusal.clone() };
            self.gathering.pop_front().expect("just looked at").fail(error, tell);
        }
    }

    /// Fails everything.
    pub(crate) fn fail_all(&mut self, error: &DeliveryError, tell: &mut Tell<'_>) {
        for mut batch in self.window.drain(..) {
            if batch.phase != Phase::Done {
                let error = batch.unsettled(error.clone(), "it was under way when its topic or client went away");
                batch.fail(error, tell);
            }
        }
        self.gathering.drain(..).for_each(|open| open.fail(error.clone(), tell));
        self.outstanding = 0;
        self.is_flushing = false;
    }

    fn take_answered(&mut self, low: u64) -> Option<usize> {
        let is_it = |batch: &Batch| batch.phase == Phase::Sent && batch.key.low() == low;
        let at = self.window.iter().position(is_it)?;
        self.outstanding = self.outstanding.checked_sub(1).expect("a sent batch is outstanding");
        Some(at)
    }

    fn trim(&mut self) {
        while let Some(batch) = self.window.pop_front_if(|batch| batch.phase == Phase::Done) {
            if let SealedBytes::Own(bytes) = batch.bytes
                && bytes.capacity() <= SPARE_BATCH_BYTES_MAX
            {
                self.spare = bytes;
            }
        }
        let sent = self.window.iter().filter(|batch| batch.phase == Phase::Sent).count();
        assert_eq!(self.outstanding as usize, sent, "outstanding batches are those that were sent");
        assert!(self.window.len() <= PRODUCER_BATCHES_MAX, "window of {} batches", self.window.len());
    }
}
