//! What a participant is told that found something of a transaction after damage, or after any other restart.

use std::collections::BTreeSet;

use corelane_model::limits::TRANSACTION_PARTICIPANTS_MAX;
use corelane_model::{Decision, Now, Transaction};

use crate::{Coordinator, Participant, Phase, RequestTicket, TransactionError};

/// What became of a transaction, as far as its transactional id knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on. The participant is among those that will be told.
    Open,
    /// That was decided, durably.
    Decided(Decision),
    /// The id does not know it: nobody will ever commit it.
    Unknown,
}

impl Coordinator {
    /// A participant has something of the transaction and does not know what became of it. Answered when what it is told is
    /// durable.
    ///
    /// One that takes part without being written down, which only damage of the home's log can bring about, is written down
    /// again, so that it is not left out of what is decided.
    ///
    /// # Errors
    /// Too many answers wait, or the id is being forgotten; the participant has to ask again.
    pub fn inquire(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        transaction: Transaction,
        participant: &Participant,
    ) -> Result<(), TransactionError> {
        self.check_room()?;
        let fate = match (&self.phase, self.last) {
            (Phase::Ending { decision, .. }, _) if self.current == Some(transaction) => Fate::Decided(*decision),
            (Phase::Empty | Phase::Open { .. }, _) if self.current == Some(transaction) => {
                self.write_down(now, participant);
                Fate::Open
            }
            (_, Some((last, decision))) if last == transaction => Fate::Decided(decision),
            _ => Fate::Unknown,
        };
        self.round.fates.push((ticket, fate));
        self.check();
        Ok(())
    }

    /// Puts a participant among those that will be told, if there is room for it. The transaction goes on, or may begin.
    fn write_down(&mut self, now: Now, participant: &Participant) {
        if let Phase::Open { participants, .. } = &mut self.phase {
            if participants.len() < TRANSACTION_PARTICIPANTS_MAX && participants.insert(participant.clone()) {
                self.round.entered.insert(participant.clone());
            }
        } else {
            let participants = BTreeSet::from([participant.clone()]);
            self.phase = Phase::Open { participants, deadline: now.monotonic.after(self.timeout) };
            self.touch(now);
        }
    }
}
