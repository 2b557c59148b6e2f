//! One round: what happened in it is written as one record, and told when that is durable.

use std::collections::{BTreeSet, VecDeque};

use corelane_model::Transaction;
use corelane_model::limits::TRANSACTION_WAITING_MAX;

use crate::{AppendPosition, Coordinator, Effect, Fate, Participant, Phase, RequestTicket, TransactionError};

/// What changed since the last round ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    /// The record is to be written.
    pub(crate) is_changed: bool,
    /// Who is new in the transaction that goes on; of no matter if the record is written, which has them.
    pub(crate) entered: BTreeSet<Participant>,
    /// Participants are to be told.
    pub(crate) is_decided: bool,
    pub(crate) joined: Vec<RequestTicket>,
    pub(crate) initialised: Vec<(RequestTicket, Transaction)>,
    /// Every participant has just said that it has the decision.
    pub(crate) ended: Vec<(RequestTicket, Option<Transaction>)>,
    /// Ends that no participant vouches for, only the record.
    pub(crate) passed: Vec<(RequestTicket, Option<Transaction>)>,
    pub(crate) refused: Vec<(RequestTicket, TransactionError)>,
    /// What participants asked for.
    pub(crate) fates: Vec<(RequestTicket, Fate)>,
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
    pub(crate) fn append(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.appended.0 += 1;
        self.ready.push_back(Effect::Append { position: self.appended, key, value });
    }

    /// Leaves when everything that was appended so far is durable.
    fn tell(&mut self, effect: Effect) {
        self.waiting.push_back((self.appended, effect));
    }

    fn release(&mut self) {
        while self.waiting.front().is_some_and(|&(position, _)| position <= self.durable) {
            let (_, effect) = self.waiting.pop_front().expect("it was there");
            self.ready.push_back(effect);
        }
    }
}

impl Coordinator {
    /// Ends the round: appends a record if anything changed, and queues what is to be told behind it.
    pub fn finish_round(&mut self) {
        let round = std::mem::take(&mut self.round);
        self.append_round(round.is_changed, &round.entered);
        // Participants first: whoever was let in hears of it before it hears of the end.
        for ticket in round.joined {
            self.outbox.tell(Effect::Joined { ticket });
        }
        for (ticket, transaction) in round.initialised {
            self.outbox.tell(Effect::Initialised { ticket, transaction });
        }
        for (ticket, error) in round.refused {
            self.outbox.tell(Effect::Refused { ticket, error });
        }
        for (ticket, next) in round.ended {
            // The decision is durable, and here and at every participant nothing can come after it but this.
            self.outbox.ready.push_back(Effect::Ended { ticket, next });
        }
        for (ticket, next) in round.passed {
            self.outbox.tell(Effect::Ended { ticket, next });
        }
        for (ticket, fate) in round.fates {
            self.outbox.tell(Effect::Fate { ticket, fate });
        }
        if round.is_decided {
            self.tell_participants();
        }
        if round.is_changed && self.phase == Phase::Forgotten {
            self.outbox.tell(Effect::Remove);
        }
        self.outbox.release();
    }

    /// Tells the decision to everybody who may not have it.
    pub(crate) fn tell_participants(&mut self) {
        let Phase::Ending { decision, left } = &self.phase else { return };
        let transaction = self.current.expect("what is ending has a name");
        for participant in left {
            self.outbox.tell(Effect::Apply { participant: participant.clone(), transaction, decision: *decision });
        }
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

    /// Whether one more request may wait.
    pub(crate) fn check_room(&self) -> Result<(), TransactionError> {
        let round = &self.round;
        let asked = round.joined.len() + round.initialised.len() + round.refused.len() + round.fates.len();
        let ended = round.ended.len() + round.passed.len() + self.ends.len();
        let waiting = self.outbox.waiting.len() + asked + ended;
        if TRANSACTION_WAITING_MAX <= waiting || self.phase == Phase::Forgotten {
            return Err(TransactionError::Waiting { waiting });
        }
        Ok(())
    }
}
