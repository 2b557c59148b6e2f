//! One round: everything that happened in it is handed out, written and told together.

use std::collections::VecDeque;

use corelane_model::Now;
use corelane_model::limits::QUEUE_WAITING_MAX;

use crate::encoding::{Key, encode_key};
use crate::{Answer, AppendPosition, Effect, Queue, QueueError, RequestTicket};

/// What changed since the last round ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    /// The record of the settings is to be written.
    pub(crate) settings: bool,
    /// Partitions whose records are to be written, each once.
    pub(crate) dirty: Vec<u32>,
    /// Whom to answer.
    pub(crate) answers: Vec<(RequestTicket, Answer)>,
    /// Who joined and waits until the beginnings are known.
    pub(crate) joined: Vec<RequestTicket>,
    /// Partitions whose beginning is not known. It outlives the round.
    pub(crate) unstarted: usize,
    /// Nobody was told yet that the queue exists. It outlives the round.
    pub(crate) is_new: bool,
    /// Keys of records that go unread: those of a queue that cannot be read.
    pub(crate) remains: Vec<Vec<u8>>,
    /// The end of the queue was told.
    pub(crate) is_removal_told: bool,
}

/// Effects on their way out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    appended: AppendPosition,
    durable: AppendPosition,
    ready: VecDeque<Effect>,
    /// What may leave when the record at this position is durable.
    waiting: VecDeque<(AppendPosition, Effect)>,
}

impl Outbox {
    fn append(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.appended.0 += 1;
        self.ready.push_back(Effect::Append { position: self.appended, key, value });
    }

    /// Leaves with this round.
    pub(crate) fn now(&mut self, effect: Effect) {
        self.ready.push_back(effect);
    }

    /// Leaves when everything that was appended so far is durable.
    pub(crate) fn tell(&mut self, effect: Effect) {
        self.waiting.push_back((self.appended, effect));
    }

    fn release(&mut self) {
        while self.waiting.front().is_some_and(|&(position, _)| position <= self.durable) {
            let (_, effect) = self.waiting.pop_front().expect("it was there");
            self.ready.push_back(effect);
        }
    }
}

impl Queue {
    /// Lets leases end, rests be over and sessions expire whose time has come. Call it after the round's traffic was
    /// handled, so that a member whose words waited behind a stalled shard is not taken for dead.
    pub fn on_deadline(&mut self, now: Now) {
        while self.clock.next().is_some_and(|due| due.at <= now.monotonic) {
            let due = self.clock.pop().expect("it was there");
            self.slot_due(now, due);
        }
        while self.sessions.first().is_some_and(|&(at, _)| at <= now.monotonic) {
            let (_, seat) = self.sessions.pop_first().expect("it was there");
            self.session_due(now, seat);
        }
        self.retry_dead_letters(now);
    }

    /// Ends the round: hands out what is ready, asks for more, appends a record for everything that changed, and queues
    /// what is to be told behind the last of them.
    pub fn finish_round(&mut self, now: Now) {
        // Also when all credit is used up at once: partitions that were not read yet would else wait for as long as others
        // have something ready, which records that fail again and again always are.
        let is_more_wanted = !self.members.listed.is_empty();
        self.hand_out(now);
        if is_more_wanted {
            self.ask();
        }
        self.prune_clock();
        self.append_changes(now);
        self.send_dead_letters();
        self.tell_changes();
        self.outbox.release();
    }

    /// All records up to this position are on disk: what waited for them may leave.
    pub fn on_durable(&mut self, position: AppendPosition) {
        let (durable, appended) = (self.outbox.durable, self.outbox.appended);
        assert!(position <= appended, "record {} is durable but only {} were appended", position.0, appended.0);
        self.outbox.durable = durable.max(position);
        self.outbox.release();
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.ready.pop_front()
    }

    /// The position of the newest record that was appended.
    #[must_use]
    pub const fn appended(&self) -> AppendPosition {
        self.outbox.appended
    }

    /// Whether one more request may wait for the disk.
    pub(crate) fn check_room(&self) -> Result<(), QueueError> {
        let waiting = self.outbox.waiting.len() + self.round.answers.len() + self.round.joined.len();
        if QUEUE_WAITING_MAX <= waiting { Err(QueueError::Busy { waiting }) } else { Ok(()) }
    }

    fn append_changes(&mut self, now: Now) {
        let mut keys = Vec::new();
        // The settings go first: whatever prefix of a round survives, no partition is without its queue.
        if std::mem::take(&mut self.round.settings) {
            keys.push(Key::Settings);
        }
        if std::mem::take(&mut self.redrive.is_dirty) {
            keys.push(Key::Redrive);
        }
        for index in std::mem::take(&mut self.round.dirty) {
            let partition = &mut self.partitions[index as usize];
            assert!(std::mem::take(&mut partition.is_dirty), "partition {index} is listed as changed, and has");
            keys.push(Key::Partition(index));
        }
        let remains = std::mem::take(&mut self.round.remains).into_iter().map(|key| (key, None));
        let keys: Vec<_> =
            keys.into_iter().map(|key| (encode_key(&self.name, key), self.encode_value(now, key))).collect();
        for (key, value) in keys.into_iter().chain(remains) {
            self.stats.appended_records += 1;
            self.stats.appended_bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            self.outbox.append(key, value);
        }
    }

    fn tell_changes(&mut self) {
        if self.round.unstarted == 0 {
            for ticket in std::mem::take(&mut self.round.joined) {
                let is_new = std::mem::take(&mut self.round.is_new);
                self.outbox.tell(Effect::Answer { ticket, answer: Answer::Joined { is_new } });
            }
        }
        for (ticket, answer) in std::mem::take(&mut self.round.answers) {
            self.outbox.tell(Effect::Answer { ticket, answer });
        }
        if self.is_deleted && !self.round.is_removal_told {
            self.round.is_removal_told = true;
            self.outbox.tell(Effect::Remove);
        }
    }
}
